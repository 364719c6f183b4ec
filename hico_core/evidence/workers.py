"""Processes that train in parallel on the cores of one machine."""

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager

import torch

# From Linux's prctl.h.
_PR_SET_PDEATHSIG = 1


@contextmanager
def worker_pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each, none of which outlives this one; the next command repeats their unfinished work."""
    pool = ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_process, initargs=(os.getpid(),)
    )
    try:
        yield pool
    finally:
        for process in list(pool._processes.values()):  # there is no public way to end a running task
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _begin_process(parent: int) -> None:
    torch.set_num_threads(1)
    logging.getLogger("hico_core").setLevel(logging.ERROR)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent ended before prctl took effect
            sys.exit(1)
