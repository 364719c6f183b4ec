"""Which items make up each training step: pure functions of their arguments, before anything is read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hico_core.data.dataset import ClipRequest
from hico_core.data.sampling import batches_without_repeats, item_seed, video_order


class Position(NamedTuple):
    """A position in the training from which it can continue."""

    step: int = 0  # steps done
    epoch: int = 0  # first epoch of the current round
    batch: int = 0  # batches done of the current round

    def after_step(self) -> "Position":
        """The position one step further; after a round's last batch, it stands for the next round's first."""
        return Position(self.step + 1, self.epoch, self.batch + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOrder:
    """The order in which videos are used for training.

    Epochs are joined into rounds so that fewer videos are left over: at the end of a round, videos that do not fill a
    batch are dropped.
    """

    num_videos: int  # number of training videos
    batch_size: int  # videos per step, over all processes
    epochs: int  # total number of passes over the videos
    epochs_per_round: int  # number of passes joined into a round
    seed: int  # of the order and of all items

    def joined_epochs(self, first: int) -> int:
        """Number of epochs in the round that begins with this epoch; the last round may have fewer."""
        return min(self.epochs_per_round, self.epochs - first)

    def batches_of_round(self, first: int) -> list[list[int]]:
        """The videos of each batch of the round that begins with this epoch."""
        order = video_order(
            num_videos=self.num_videos, epoch=first, num_epochs=self.joined_epochs(first), seed=self.seed
        )
        return batches_without_repeats(order, self.batch_size)


class PlannedStep(NamedTuple):
    """One training step before its data is read."""

    position: Position  # before the step
    epoch: float  # completed passes over the videos
    max_distance_seconds: float | None
    requests: list[ClipRequest]  # of one process


def plan_steps(
    order: TrainingOrder,
    *,
    max_distance_at: Callable[[float], float | None],
    start: Position,
    rank: int = 0,
    processes: int = 1,
) -> Iterator[PlannedStep]:
    """All steps from `start` to the end of the training, with one process's share of their videos.

    Args:
        order: the order of the videos.
        max_distance_at: progress in [0, 1] -> largest distance of near clips in seconds, or None for any.
        start: position of the first step; training can begin anywhere in the plan.
        rank: of the process; the shares in order of rank form the batch, and each process draws only its own seeds.
        processes: number of processes that train together; the batch size is a multiple of it.

    """
    step = start.step
    share = range(rank * order.batch_size // processes, (rank + 1) * order.batch_size // processes)
    for first in range(start.epoch, order.epochs, order.epochs_per_round):
        batches = order.batches_of_round(first)
        for number in range(start.batch if first == start.epoch else 0, len(batches)):
            epoch = first + order.joined_epochs(first) * number / len(batches)
            distance = max_distance_at(epoch / order.epochs)
            # The seed belongs to a position in the round, not to a video, so a video that comes twice is drawn anew.
            seeds = (item_seed(seed=order.seed, epoch=first, position=number * order.batch_size + i) for i in share)
            videos, of_step = batches[number], frozenset(batches[number])
            requests = [ClipRequest(videos[i], seed, distance, of_step) for i, seed in zip(share, seeds, strict=True)]
            yield PlannedStep(Position(step, first, number), epoch, distance, requests)
            step += 1


def position_at(epoch: float, *, step: int, order: TrainingOrder) -> Position:
    """The position in a plan closest to `epoch` passes over the videos, for a run that was started with another plan.

    Args:
        epoch: completed passes over the videos.
        step: completed steps.
        order: the order of the videos from now on.

    """
    first = int(epoch) // order.epochs_per_round * order.epochs_per_round
    if first >= order.epochs:
        return Position(step, order.epochs, 0)
    num_batches = len(order.batches_of_round(first))
    return Position(step, first, round((epoch - first) / order.joined_epochs(first) * num_batches))
