"""Doing the same work for many items, several at a time."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_on_threads(
    work: Callable[[Item], Result], items: Iterable[Item], *, workers: int, stop: Callable[[], None]
) -> Iterator[Result]:
    """Call `work` on each item and yield the results as they come.

    Threads are right where the work is done by other processes, such as ffmpeg. Only a few items are handed
    out at a time, so memory does not grow with their number.

    Args:
        work: called in `workers` threads; an exception in it ends the whole run.
        items: taken one by one.
        workers: how many threads.
        stop: called when the run ends early (an exception, Ctrl-C) so that work that has begun comes to an end.

    """
    executor = ThreadPoolExecutor(workers, thread_name_prefix="hico")
    pending: set[Future[Result]] = set()
    finished = False
    try:
        for item in items:
            pending.add(executor.submit(work, item))
            if len(pending) >= 2 * workers:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        while pending:
            done, pending = wait(pending, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
        finished = True
    finally:
        if not finished:
            stop()
        executor.shutdown(wait=True, cancel_futures=True)
