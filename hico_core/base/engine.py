"""Restartable work on many videos: plan what is left to do, do it several videos at a time, record the results.

plan     finds the videos that are left to do and the outcomes of the others; writes nothing
work     items -> results, one each; in this process, threads, processes (processes.py) or on a Ray cluster
finish   completes each result in this process, in whatever order the results arrive
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

# Yields one result per item, in order; a stream, so that the work may read ahead.
Work = Callable[[Sequence[Item]], Iterable[Result]]

# Gets all of the work done and yields the results as they arrive. An exception in the work ends the run.
Runner = Callable[[Work[Item, Result], Sequence[Item]], Generator[Result, None, None]]

# How often Ray retries an item whose process or node died. Errors of the work itself are not retried.
_RETRIES = 3

# Unfinished items submitted to a Ray cluster, per CPU: enough that no CPU is idle, few enough that neither memory nor
# the cluster's queue grows with the number of items.
_PER_CPU = 2

# How long a signal may stay unhandled while no item finishes.
_MOMENT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Plan(Generic[Item]):
    """The remaining work of a command that may have been interrupted before."""

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
        plan: the remaining items, and the outcomes of the videos that need no work.
        work: called by the runner; must give the same result if it is repeated.
        runner: such as `run_on_threads`.
        finish: completes a result in this process and returns the outcome of its video.
        root: the workspace.
        command: the name under which failures are listed.
        on_event: called for each video; videos that need no work come first.

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
    """Do all the work in this process."""
    yield from work(items)


def run_on_threads(
    work: Work[Item, Result], items: Iterable[Item], *, workers: int, stop: Callable[[], None] = lambda: None
) -> Generator[Result, None, None]:
    """Do the work on each item in a thread.

    Threads suit work that other processes do, such as ffmpeg. Only a few items are submitted at a time, so memory does
    not grow with their number.

    Args:
        work: called in `workers` threads, with one item per call.
        items: consumed one by one.
        workers: number of threads.
        stop: called if the run ends early (an exception, Ctrl-C), to end the work in progress.

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
    """Do the work on each item in a process of a Ray cluster, with one CPU per item.

    An item whose process or node dies is retried on another; `work` must give the same result if it runs twice, even at
    the same time.

    Args:
        work: importable on all nodes, with its arguments bound; called with one item per call.
        items: consumed one by one.
        address: of the cluster's head; "local" to start a cluster here; or "auto" for the one that the environment
            variable RAY_ADDRESS names, else the one this machine belongs to.
        num_gpus: GPUs that an item needs besides its CPU.
        on_lost: item, reason -> the result of an item whose every attempt was lost with its process or node.

    Raises:
        UsageError: Ray is not installed.
        HicoError: there is no cluster at that address.

    """
    require_package("ray", extra="ray", wanted_by="--ray-address")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    with noted_signals() as signals:
        _join(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        signals.note()  # again, because Ray has installed its own handler of SIGTERM

        @ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=_RETRIES)
        def task(item: Item) -> Result:
            return _result_of(work, item)

        # The name in the cluster's dashboard and in lists of processes.
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
            # Ends the items still running: Ray kills a worker's whole process group.
            for reference in pending:
                ray.cancel(reference, force=True)
            ray.shutdown()


class _Signals:
    """Ctrl-C and SIGTERM, recorded as they arrive and passed to their previous handlers later."""

    def __init__(self) -> None:
        self._before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        self._noted: list[int] = []
        self._come_here = threading.current_thread() is threading.main_thread()

    def note(self) -> None:
        """Start recording signals."""
        for number in self._before if self._come_here else ():
            signal.signal(number, lambda number, frame: self._noted.append(number))

    def act(self) -> None:
        """Pass a recorded signal to its previous handler, which usually raises an exception."""
        if self._noted:
            self.restore()
            signal.raise_signal(self._noted.pop())

    def restore(self) -> None:
        """Reinstall the previous handlers."""
        for number, handler in self._before.items() if self._come_here else ():
            signal.signal(number, handler)


@contextmanager
def noted_signals() -> Iterator[_Signals]:
    """Defer Ctrl-C and SIGTERM during code that they must not interrupt, until `act` is called.

    An example is waiting for Ray: it runs outside Python, where an exception raised by a handler is lost.
    """
    signals = _Signals()
    signals.note()
    try:
        yield signals
    finally:
        signals.restore()


def _join(address: str) -> None:
    """Join a cluster, or start one.

    Raises:
        HicoError: there is no cluster at that address, or it denies access.

    """
    import ray

    try:
        _require_answer(address)
        ray.init(address=address, log_to_driver=False, include_dashboard=False if address == "local" else None)
    except (OSError, ValueError, RuntimeError) as error:
        raise HicoError(
            f"--ray-address {address}: cannot join the cluster ({short_reason(error)}); if it asks for a token, "
            "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here as on its head node"
        ) from error


def _require_answer(address: str) -> None:
    """Check that host:port accepts connections; Ray itself waits for minutes before it reports that nothing does.

    Raises:
        OSError: nothing answers.

    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.removeprefix("ray://"), int(port)), timeout=10).close()


def _finished(pending: dict[Any, Item], on_lost: Callable[[Item, str], Result]) -> Iterator[Result]:
    """Wait briefly for a pending item to finish; remove it from `pending` and yield its result."""
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
