"""Which items each training step is made of, and the processes that make them."""

import logging
import multiprocessing
import os
import shutil
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import chain, islice
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hico_core.corpus.engine import available_cores
from hico_core.data.batches import PREFETCHED, SLOTS, Batch, BatchReader
from hico_core.data.dataset import ClipDataset, ClipRequest, Sample
from hico_core.data.sampling import batches_without_repeats, item_seed, video_order
from hico_core.errors import HicoError, NoRoom

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

# Through which Linux's processes hand tensors to each other.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - that is where it is


class Position(NamedTuple):
    """A place in the training, from which it can go on."""

    step: int = 0  # steps done
    epoch: int = 0  # first epoch of the current round
    batch: int = 0  # batches done of the current round

    def after_step(self) -> "Position":
        """The place one step on; past a round's last batch, it stands for the next round's first."""
        return Position(self.step + 1, self.epoch, self.batch + 1)


class PlannedStep(NamedTuple):
    """One training step before anything of it is read."""

    position: Position  # before the step
    epoch: float  # passes over the videos that are done
    max_distance_seconds: float | None
    requests: list[ClipRequest]  # of one process


def plan_steps(
    *,
    num_videos: int,
    batch_size: int,
    epochs: int,
    epochs_per_round: int,
    max_distance_at: Callable[[float], float | None],
    seed: int,
    start: Position,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[PlannedStep]:
    """All steps from `start` to the end of the training, with one process's share of their videos.

    Epochs are joined to rounds so that little is left over at the end of each: what does not fill a batch there
    is not used. Everything follows from the arguments, so training can begin anywhere in it.

    Args:
        num_videos: how many there are to train on.
        batch_size: videos in a step.
        epochs: passes over the videos, in all.
        epochs_per_round: how many passes are joined.
        max_distance_at: progress in [0, 1] -> largest distance of near clips in seconds, or None for any.
        seed: of the order and of all items.
        start: the first step to give.
        rank: of the process; the shares in order of rank are the batch, and each draws the seeds of its own only.
        processes: that train together; the batch size is a multiple of it.

    """
    step = start.step
    share = range(rank * batch_size // processes, (rank + 1) * batch_size // processes)
    for first in range(start.epoch, epochs, epochs_per_round):
        joined = min(epochs_per_round, epochs - first)
        order = video_order(num_videos=num_videos, epoch=first, num_epochs=joined, seed=seed)
        batches = batches_without_repeats(order, batch_size)
        for number in range(start.batch if first == start.epoch else 0, len(batches)):
            epoch = first + joined * number / len(batches)
            distance = max_distance_at(epoch / epochs)
            requests = [
                ClipRequest(
                    batches[number][i], item_seed(seed=seed, epoch=first, position=number * batch_size + i), distance
                )
                for i in share
            ]
            yield PlannedStep(Position(step, first, number), epoch, distance, requests)
            step += 1


def position_at(
    epoch: float, *, step: int, num_videos: int, batch_size: int, epochs: int, epochs_per_round: int, seed: int
) -> Position:
    """The place in a plan that `epoch` passes over the videos come nearest to, for a run that another plan began.

    Args:
        epoch: passes over the videos that are done.
        step: steps that are done.
        num_videos: see `plan_steps`, also for the others.
        batch_size: videos in a step.
        epochs: passes in all.
        epochs_per_round: how many passes are joined.
        seed: of the order.

    """
    first = int(epoch) // epochs_per_round * epochs_per_round
    if first >= epochs:
        return Position(step, epochs, 0)
    joined = min(epochs_per_round, epochs - first)
    order = video_order(num_videos=num_videos, epoch=first, num_epochs=joined, seed=seed)
    num_batches = len(batches_without_repeats(order, batch_size))
    return Position(step, first, round((epoch - first) / joined * num_batches))


def num_workers(wanted: int | None, *, processes: int = 1) -> int:
    """How many read for each process that computes: as many as are wanted, else the cores that are there for it."""
    return max(available_cores() // processes, 1) if wanted is None else wanted


def batch_bytes(*, clips: int, num_frames: int, short_side: int, largest_area: float) -> int:
    """About what a batch takes between a worker and the training process, with the largest crops of wide frames.

    Args:
        clips: of the batch.
        num_frames: of a clip.
        short_side: of the frames, pixels.
        largest_area: of a crop, as a part of the frame's.

    """
    pixels = short_side * short_side * 16 / 9 * largest_area
    return round(clips * num_frames * pixels * 3)


def require_shared_memory(needed: int, *, free: int, workers: int) -> None:
    """Say beforehand that batches will not fit into the memory through which workers hand them over.

    Containers have 64 MB of it unless they are told otherwise, and a worker that finds it full is killed by a signal.

    Args:
        needed: bytes of a batch.
        free: bytes of shared memory.
        workers: how many there are.

    Raises:
        HicoError: there is not enough for the batches that each worker keeps.

    """
    least = needed * SLOTS * workers
    if least > free:
        need = f"{workers} workers need" if workers > 1 else "a worker needs"
        raise HicoError(
            f"{_SHARED_MEMORY}: {free / 1e6:.0f} MB of shared memory are free, and {need} about {least / 1e6:.0f} MB "
            "for batches; give a container more (docker run --shm-size=8g), or take fewer workers "
            "with --workers N, 0 for none"
        )


def free_shared_memory() -> int | None:
    """Bytes of shared memory that are free; None where the system has no such folder."""
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None


def read_batches(
    dataset: Dataset[Sample], plans: Iterable[PlannedStep], *, workers: int, pin_memory: bool
) -> Generator[tuple[PlannedStep, Batch], None, None]:
    """Each planned step with its batch, in order, read ahead. Nothing in them depends on the number of workers.

    A batch's pixels are there until the next one is asked for.

    A worker that dies (out of memory, a decoder that crashes) is survived once: what it and the others had not
    delivered is read again by new ones.

    Args:
        dataset: makes the items.
        plans: the steps; taken a few ahead.
        workers: processes that read; 0 reads in this one. They start anew, so a script that calls this needs the usual
            `if __name__ == "__main__":`.
        pin_memory: for a GPU.

    Raises:
        HicoError: a second worker died.

    """
    remaining = iter(plans)
    ahead: deque[PlannedStep] = deque()  # handed out, not yet delivered

    def requests(first: list[PlannedStep]) -> Iterator[list[ClipRequest]]:
        for plan in chain(first, remaining):
            ahead.append(plan)
            yield plan.requests

    def loader() -> DataLoader[Batch]:
        undelivered = list(ahead)
        ahead.clear()
        return DataLoader(
            BatchReader(dataset),
            sampler=requests(undelivered),
            batch_size=None,
            collate_fn=as_it_is,
            pin_memory=pin_memory,
            prefetch_factor=PREFETCHED if workers else None,
            **worker_options(workers),
        )

    def next_ones() -> str:
        return "videos number " + ", ".join(str(r.video) for plan in islice(ahead, 1) for r in plan.requests)

    # Memory that was handed over is known again as long as somebody holds it; else each batch would be mapped anew.
    held: deque[Tensor | None] = deque(maxlen=SLOTS * max(workers, 1))
    for batch in outliving_a_death(loader, next_ones):
        if workers:
            held.append(batch.pixels if batch.shared is None else batch.shared)
        yield ahead.popleft(), batch


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
    for deaths in (0, 1):
        others = set(multiprocessing.active_children())
        try:
            yield from make_loader()
            return
        except NoRoom as error:
            raise NoRoom(_as_it_was_raised(error)) from error
        except (RuntimeError, EOFError, OSError) as error:
            if not _tells_a_death(error):
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


def _tells_a_death(error: Exception) -> bool:
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
    context.set_forkserver_preload([ClipDataset.__module__, "hico_core.data.lanes"])
    return context


def _follow_parent(worker: int) -> None:
    """Let a worker end with the training process, and only with it.

    Ctrl-C reaches all processes of a terminal; the training process answers it, and ends the workers. Where it is
    killed, nobody does: PyTorch's workers watch the process that started them, which here is the fork server.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
