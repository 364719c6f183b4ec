"""A block that may use a single core, as in a container or a job of a cluster, whose machine has more."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def one_core() -> Iterator[None]:
    if sys.platform != "linux":
        pytest.skip("only Linux can confine a process to some cores")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
