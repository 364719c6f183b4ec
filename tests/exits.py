"""How processes end, for tests/training/test_distributed.py: here, so that each process loads little else."""

import os

from hico_core.training.launch import SharedExitCode, end_at_once


def refuses(shared: SharedExitCode) -> int:
    """Each process, one after the other: the first one leaves its code, and the others find it."""
    assert shared.claim(10 + int(os.environ["RANK"]))
    end_at_once(1)


def counts_up(shared: SharedExitCode) -> int:
    return int(os.environ["RANK"])
