"""Which items each training step is made of, and the processes that make them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from hico_core.data.dataset import ClipDataset, ClipRequest, Sample, UnusableVideo
from hico_core.data.sampling import batches_without_repeats, item_seed, video_order


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
    requests: list[ClipRequest]


class Batch(NamedTuple):
    """The clips of one step."""

    clips: Tensor | None  # (B, K, 3, T, H, W) float32; None if one of the samples has none
    video_ids: list[str]
    windows: list[list[tuple[float, float]]]  # of each video's clips, in seconds
    unusable: list[UnusableVideo]


def plan_steps(
    *,
    num_videos: int,
    batch_size: int,
    epochs: int,
    epochs_per_round: int,
    max_distance_at: Callable[[float], float | None],
    seed: int,
    start: Position,
) -> Iterator[PlannedStep]:
    """All steps from `start` to the end of the training.

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
    """
    step = start.step
    for first in range(start.epoch, epochs, epochs_per_round):
        joined = min(epochs_per_round, epochs - first)
        order = video_order(num_videos=num_videos, epoch=first, num_epochs=joined, seed=seed)
        batches = batches_without_repeats(order, batch_size)
        for number in range(start.batch if first == start.epoch else 0, len(batches)):
            epoch = first + joined * number / len(batches)
            distance = max_distance_at(epoch / epochs)
            requests = [
                ClipRequest(video, item_seed(seed=seed, epoch=first, position=number * batch_size + i), distance)
                for i, video in enumerate(batches[number])
            ]
            yield PlannedStep(Position(step, first, number), epoch, distance, requests)
            step += 1


def collate(samples: list[Sample]) -> Batch:
    """Put the items of a step together."""
    clips = [sample.clips for sample in samples if sample.clips is not None]
    return Batch(
        torch.stack(clips) if len(clips) == len(samples) else None,
        [sample.video_id for sample in samples],
        [sample.windows for sample in samples],
        [bad for sample in samples for bad in sample.unusable],
    )


def make_loader(
    dataset: ClipDataset,
    requests: list[list[ClipRequest]] | Iterator[list[ClipRequest]],
    *,
    workers: int,
    pin_memory: bool,
) -> DataLoader[Batch]:
    """Read the batches in order. Order and content do not depend on the number of workers.

    Args:
        dataset: makes the items.
        requests: of each batch; taken a few batches ahead.
        workers: processes that read; 0 reads in this one. They start anew, so a script that calls this needs the usual
            `if __name__ == "__main__":`.
        pin_memory: for a GPU.

    """
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # collate turns samples into batches, which the stubs do not know
        batch_sampler=requests,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        worker_init_fn=_follow_parent,
        multiprocessing_context=_worker_context() if workers else None,
    )


def _worker_context() -> BaseContext:
    """How workers start: from a fresh process that has only imported what they need.

    Plain fork copies a process without its threads. If it has decoded a video before, the copy waits for ever for
    the threads of libswscale.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([ClipDataset.__module__])
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
