"""The processes that read videos beside the one that computes: how many, how they start, and what if one dies."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from hico_core.base.engine import available_cores, noted_signals
from hico_core.base.errors import HicoError, NoRoom

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# What ends a command, which then ends its workers.
_ENDING = (signal.SIGINT, signal.SIGTERM)


def num_workers(wanted: int | None, *, processes: int = 1) -> int:
    """How many read for each process that computes: as many as are wanted, else the cores that are there for it."""
    return max(available_cores() // processes, 1) if wanted is None else wanted


def outliving_a_death(
    make_loader: Callable[[], "DataLoader[Item]"], name_next: Callable[[], str]
) -> Generator[Item, None, None]:
    """What a loader gives. If a worker dies, another loader goes on, once.

    Args:
        make_loader: a loader of all that was not delivered so far.
        name_next: what is read next, in words.

    Raises:
        HicoError: a second worker died.
        NoRoom: a disk is full that copies from buckets go to.

    """
    # Once: what kills a worker twice (a video that needs too much memory, a broken decoder) would do so for ever.
    for deaths in (0, 1):
        others = set(multiprocessing.active_children())
        try:
            # A worker whose start is broken off in the middle would fail with a traceback of its own.
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
                    f"a second worker of the loader died: {reason}; try fewer with --workers 1, or -o data.decoder=pyav"
                ) from error
            logger.warning("a worker of the loader died: %s; starting the workers again", reason)
        finally:
            # They pay no heed to a polite signal (see `_follow_parent`), and one that is stuck in a read to nothing
            # else: PyTorch would wait for it for ever.
            for worker in set(multiprocessing.active_children()) - others:
                worker.kill()


def _as_it_was_raised(error: NoRoom) -> str:
    """The message alone: PyTorch puts a worker's traceback before it."""
    return str(error).rpartition(f"{NoRoom.__name__}: ")[2].strip()


def _means_a_death(error: Exception) -> bool:
    """Whether an error of the loader means that a worker is gone. PyTorch has no class of its own for this.

    Often it is noticed by a watch over the workers. But a batch that was announced lies in memory that its worker still
    has to hand over: if that one is gone, the connection to it fails. What a worker itself raised is "Caught".
    """
    if isinstance(error, RuntimeError):
        return "DataLoader worker (pid" in str(error)
    return isinstance(error, (EOFError, ConnectionError, FileNotFoundError)) and not str(error).startswith("Caught ")


def as_it_is(item: Item) -> Item:
    """For a PyTorch loader whose dataset makes whole batches; by default it would make other tensors of them."""
    return item


def worker_options(workers: int) -> dict[str, Any]:
    """What a PyTorch loader must be told about its worker processes; 0 for none."""
    return {
        "num_workers": workers,
        "worker_init_fn": _follow_parent,
        "multiprocessing_context": _worker_context() if workers else None,
    }


def _worker_context() -> BaseContext:
    """How workers start: from a fresh process that has only imported what they need.

    Plain fork copies a process without its threads. If it has decoded a video before, the copy waits for ever for
    the threads of libswscale.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hico_core.data.dataset", "hico_core.encoding.lanes"])
    _start_fork_server()
    return context


def _start_fork_server() -> None:
    """Start it, if it does not run yet, deaf to the signals that end a command.

    `timeout` and SLURM send these to the whole process group. Without the fork server, PyTorch's workers would leave
    at once. It ends when the last process that may use it has ended.
    """
    resource_tracker.ensure_running()  # whose start would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # inherited, unlike a handler
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent(worker: int) -> None:
    """Let a worker end with the training process, and only with it.

    Ctrl-C reaches all processes of a terminal; the training process answers it, and ends the workers. Where it is
    killed, nobody does: PyTorch's workers watch the process that started them, which here is the fork server.
    """
    # Not ended by these, a worker can still give the batch that the training process waits for.
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)  # at once: sys.exit would end this thread alone
