"""The same work for many videos, restartable: what is dealt with is planned first, the rest is done several at a time.

plan     which videos are to do, and what is known of the others: nothing is written
work     items -> results, one for each; here, in threads, in processes (processes.py), or on a Ray cluster
finish   what is left to do with a result, by this process, in whatever order they come
"""

import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hico_core.base.addresses import Location
from hico_core.base.errors import HicoError, require_package, short_reason
from hico_core.base.failures import update_failures
from hico_core.base.tally import Summary, Tally, VideoEvent, VideoOutcome

Item = TypeVar("Item")
Result = TypeVar("Result")

# Makes one result for each item, in order: a stream, so that it may read ahead.
Work = Callable[[Sequence[Item]], Iterable[Result]]

# Has the work done, all of it, and yields the results as they come. An exception in the work ends the run.
Runner = Callable[[Work[Item, Result], Sequence[Item]], Generator[Result, None, None]]

# How often Ray tries an item again whose process or node died. Errors of the work itself are not retried.
_RETRIES = 3

# Items that wait on a Ray cluster beside those that run, per CPU: enough that no CPU waits, few enough that neither
# memory nor the cluster's queue grows with the number of items.
_PER_CPU = 2

# How long a signal may wait while nothing is done.
_MOMENT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Plan(Generic[Item]):
    """What a command that may have been stopped before is to do now."""

    todo: Sequence[Item]
    dealt_with: Sequence[VideoOutcome]


def run_restartable(
    plan: Plan[Item],
    work: Work[Item, Result],
    runner: Runner[Item, Result],
    *,
    finish: Callable[[Result], VideoOutcome],
    root: Location,
    command: str,
    on_event: Callable[[VideoEvent], None],
) -> Summary:
    """Carry out a plan; bring `<root>/failures.jsonl` up to date, however the run ends.

    Args:
        plan: what is to do, and what is dealt with.
        work: done by the runner; done twice, it must give the same result.
        runner: such as `run_on_threads`.
        finish: what is left to do with a result, here; says what became of its video.
        root: the workspace.
        command: by whose name failures are listed.
        on_event: called for each video, those that are dealt with first.

    Raises:
        HicoError: from `work`, `runner` or `finish`.

    """
    tally = Tally(len(plan.dealt_with) + len(plan.todo))
    try:
        for known in plan.dealt_with:
            on_event(tally.add(known))
        with closing(runner(work, plan.todo)) as results:
            for result in results:
                on_event(tally.add(finish(result)))
    finally:
        update_failures(root, command=command, fine=tally.fine, failed=tally.failed)
    return tally.summary()


def available_cores() -> int:
    """The cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_here(work: Work[Item, Result], items: Sequence[Item]) -> Generator[Result, None, None]:
    """Do all the work in this process, which needs no help."""
    yield from work(items)


def run_on_threads(
    work: Work[Item, Result], items: Iterable[Item], *, workers: int, stop: Callable[[], None] = lambda: None
) -> Generator[Result, None, None]:
    """Do the work on each item in a thread.

    Threads are right where the work is done by other processes, such as ffmpeg. Only a few items are handed
    out at a time, so memory does not grow with their number.

    Args:
        work: called in `workers` threads, with one item each time.
        items: taken one by one.
        workers: how many threads.
        stop: called when the run ends early (an exception, Ctrl-C) so that work that has begun comes to an end.

    """
    executor = ThreadPoolExecutor(workers, thread_name_prefix="hico")
    pending: set[Future[Result]] = set()
    finished = False
    try:
        for item in items:
            pending.add(executor.submit(_result_of, work, item))
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


def _result_of(work: Work[Item, Result], item: Item) -> Result:
    (result,) = work([item])
    return result


def run_on_ray(
    work: Work[Item, Result],
    items: Iterable[Item],
    *,
    address: str,
    num_gpus: int = 0,
    on_lost: Callable[[Item, str], Result],
) -> Generator[Result, None, None]:
    """Do the work on each item in some process of a Ray cluster, one CPU each.

    An item whose process or node dies is tried again on another; `work` must give the same result when it is
    done twice, also at the same time.

    Args:
        work: importable on all nodes, with the arguments bound to it; called with one item each time.
        items: taken one by one.
        address: of the cluster's head, "local" to start one here, or "auto" for the one that the environment's
            RAY_ADDRESS names, else the one this machine belongs to.
        num_gpus: that an item needs beside its CPU.
        on_lost: makes the result of an item whose every attempt was cut off, from it and the reason.

    Raises:
        UsageError: Ray is not installed.
        HicoError: there is no cluster at that address.

    """
    require_package("ray", extra="ray", wanted_by="--ray-address")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    with noted_signals() as signals:
        _join(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        signals.note()  # again, since Ray has taken SIGTERM for itself

        @ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=_RETRIES)
        def task(item: Item) -> Result:
            return _result_of(work, item)

        # What the cluster calls it, in its dashboard and in lists of processes.
        named = task.options(name=getattr(work, "func", work).__name__)
        pending: dict[Any, Item] = {}
        try:
            for item in items:
                pending[named.remote(item)] = item
                while len(pending) >= _PER_CPU * max(ray.cluster_resources().get("CPU", 1), 1):
                    signals.act()
                    yield from _finished(pending, on_lost)
            while pending:
                signals.act()
                yield from _finished(pending, on_lost)
        finally:
            # Ends what still runs: Ray kills a worker's whole process group.
            for reference in pending:
                ray.cancel(reference, force=True)
            ray.shutdown()


class _Signals:
    """Ctrl-C and SIGTERM, noted as they come and acted upon later, as was to be done before."""

    def __init__(self) -> None:
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._noted: list[int] = []
        self._come_here = threading.current_thread() is threading.main_thread()

    def note(self) -> None:
        """From here on."""
        for number in self._before if self._come_here else ():
            signal.signal(number, lambda number, frame: self._noted.append(number))

    def act(self) -> None:
        """Let what has come have its usual effect, which is most often an exception."""
        if self._noted:
            self.restore()
            signal.raise_signal(self._noted.pop())

    def restore(self) -> None:
        """As it was before."""
        for number, handler in self._before.items() if self._come_here else ():
            signal.signal(number, handler)


@contextmanager
def noted_signals() -> Iterator[_Signals]:
    """Keep Ctrl-C and SIGTERM away from what they must not break off, until they are acted upon.

    Such as Ray's waiting, which is no Python: what a handler raises there is lost.
    """
    signals = _Signals()
    signals.note()
    try:
        yield signals
    finally:
        signals.restore()


def _join(address: str) -> None:
    """Become part of a cluster, or start one.

    Raises:
        HicoError: there is none at that address, or it does not let us in.

    """
    import ray

    try:
        _require_answer(address)
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except (OSError, ValueError, RuntimeError) as error:
        raise HicoError(
            f"--ray-address {address}: cannot join the cluster ({short_reason(error)}); if it asks for a token, "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here as on its head"
        ) from error


def _require_answer(address: str) -> None:
    """Knock at host:port; Ray itself waits for minutes before it says that nobody is there.

    Raises:
        OSError: nobody answers.

    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=10).close()


def _finished(pending: dict[Any, Item], on_lost: Callable[[Item, str], Result]) -> Iterator[Result]:
    """Wait a moment for a pending item to be done; take it out and yield its result."""
    import ray

    done, _ = ray.wait(list(pending), num_returns=1, timeout=_MOMENT_SECONDS)
    for reference in done:
        item = pending.pop(reference)
        try:
            result: Result = ray.get(reference)
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
            result = on_lost(item, short_reason(error))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        yield result
