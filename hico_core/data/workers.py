"""Worker processes that read videos for a training process: their number, their start, and recovery if one dies."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from hico_core.base.engine import available_cores, noted_signals
from hico_core.base.errors import HicoError, NoRoom

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# Signals that end a command, which then ends its workers.
_ENDING = (signal.SIGINT, signal.SIGTERM)


def num_workers(wanted: int | None, *, processes: int = 1) -> int:
    """Number of workers per training process: as requested, else the process's share of the cores."""
    return max(available_cores() // processes, 1) if wanted is None else wanted


def outliving_a_death(
    make_loader: Callable[[], "DataLoader[Item]"], name_next: Callable[[], str]
) -> Generator[Item, None, None]:
    """Yield what a loader yields; the first time a worker dies, another loader takes over.

    Args:
        make_loader: makes a loader for everything that has not been delivered yet.
        name_next: describes what is read next, in words.

    Raises:
        HicoError: a second worker died.
        NoRoom: shared memory is full, or the disk that holds copies from buckets.

    """
    # Only once: whatever kills a worker twice (a video that needs too much memory, a broken decoder) would do so again.
    for deaths in (0, 1):
        others = set(multiprocessing.active_children())
        try:
            # A worker interrupted during its start would fail with a traceback of its own.
            with noted_signals() as signals:
                loader = iter(make_loader())
                signals.act()
            yield from loader
            return
        except NoRoom as error:
            raise NoRoom(_as_it_was_raised(error)) from error
        except (RuntimeError, EOFError, OSError) as error:
            if not _means_a_death(error):
                raise
            first_line = next(iter(str(error).splitlines()), type(error).__name__)
            reason = f"{first_line} (next would be {name_next()})"
            if deaths:
                raise HicoError(
                    f"a second worker of the loader died: {reason}; try --workers 1 or, in training, "
                    "-o data.workers=1 or -o data.decoder=pyav"
                ) from error
            logger.warning("a worker of the loader died: %s; starting the workers again", reason)
        finally:
            # They ignore SIGINT and SIGTERM (see `_follow_parent`), and one that is stuck in a read would not end by
            # itself: PyTorch would wait for it for ever.
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()


def _as_it_was_raised(error: NoRoom) -> str:
    """The message without the worker's traceback, which PyTorch puts before it."""
    return str(error).rpartition(f"{NoRoom.__name__}: ")[2].strip()


def _means_a_death(error: Exception) -> bool:
    """Whether an error of the loader means that a worker is gone; PyTorch has no exception class for this.

    Usually PyTorch's watch over the workers notices. But an announced batch lies in memory that its worker still has to
    pass on, and if the worker is gone, the connection to it fails. Errors that a worker itself raised begin with
    "Caught".
    """
    if isinstance(error, RuntimeError):
        return "DataLoader worker (pid" in str(error)
    return isinstance(error, (EOFError, ConnectionError, FileNotFoundError)) and not str(error).startswith("Caught ")


def as_it_is(item: Item) -> Item:
    """The `collate_fn` for a PyTorch loader whose dataset makes whole batches, which the default one would convert."""
    return item


def worker_options(workers: int) -> dict[str, Any]:
    """Arguments of a PyTorch loader about its worker processes; 0: no workers."""
    return {
        "num_workers": workers,
        "worker_init_fn": _follow_parent,
        "multiprocessing_context": _worker_context() if workers else None,
    }


def _worker_context() -> BaseContext:
    """The way in which workers start: from a fresh process that has only imported the modules that they need.

    A plain fork copies a process without its threads. If the process has decoded a video before, the copy waits for
    ever for the threads of libswscale.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hico_core.data.dataset", "hico_core.encoding.lanes"])
    _start_fork_server()
    return context


def _start_fork_server() -> None:
    """Start the fork server, if it is not running yet, with the signals that end a command blocked.

    `timeout` and SLURM send these signals to the whole process group. If the fork server ended, PyTorch's workers would
    exit at once. It ends when the last process that may use it has ended.
    """
    resource_tracker.ensure_running()  # first, because starting it would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # inherited, unlike a handler
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent(worker: int) -> None:
    """Make a worker end with the training process, and only then.

    Ctrl-C reaches all processes of a terminal; the training process handles it and ends the workers. If it is killed,
    nothing ends them: PyTorch's workers watch the process that started them, which here is the fork server.
    """
    # A worker that ignores these signals can still deliver the batch for which the training process waits.
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    sys.excepthook = _report_unless_receiver_is_gone
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _report_unless_receiver_is_gone(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Print an error of the thread that passes batches on, but not that their receiver, which was stopped, has gone."""
    if not issubclass(kind, EOFError | ConnectionError):
        sys.__excepthook__(kind, error, trace)


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)  # the whole process: sys.exit would end only this thread
