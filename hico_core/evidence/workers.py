"""Processes that train side by side on the cores of one machine."""

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

# Linux's prctl.h.
_PR_SET_PDEATHSIG = 1


@contextmanager
def worker_pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each, of which none outlives us: what they were at is done again by the next command."""
    pool = ProcessPoolExecutor(
        processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_process, initargs=(os.getpid(),)
    )
    try:
        yield pool
    finally:
        for process in list(pool._processes.values()):  # there is no public way to end a task that has begun
            process.terminate()
        pool.shutdown(cancel_futures=True)


def _begin_process(parent: int) -> None:
    torch.set_num_threads(1)
    logging.getLogger("hico_core").setLevel(logging.ERROR)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before that was said
            sys.exit(1)
