"""Which items each training step is made of. Pure: all of it follows from the arguments, before anything is read."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from hico_core.data.dataset import ClipRequest
from hico_core.data.sampling import batches_without_repeats, item_seed, video_order


class Position(NamedTuple):
    """A place in the training, from which it can go on."""

    step: int = 0  # steps done
    epoch: int = 0  # first epoch of the current round
    batch: int = 0  # batches done of the current round

    def after_step(self) -> "Position":
        """The place one step on; past a round's last batch, it stands for the next round's first."""
        return Position(self.step + 1, self.epoch, self.batch + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOrder:
    """The order in which videos are trained on.

    Epochs are joined to rounds so that little is left over at the end of each: what does not fill a batch there is not
    used.
    """

    num_videos: int  # how many there are to train on
    batch_size: int  # videos in a step, of all processes
    epochs: int  # passes over the videos, in all
    epochs_per_round: int  # how many passes are joined
    seed: int  # of the order and of all items

    def joined_epochs(self, first: int) -> int:
        """How many epochs the round has that begins with this one; the last round may have fewer."""
        return min(self.epochs_per_round, self.epochs - first)

    def batches_of_round(self, first: int) -> list[list[int]]:
        """The videos of each batch of the round that begins with this epoch."""
        order = video_order(
            num_videos=self.num_videos, epoch=first, num_epochs=self.joined_epochs(first), seed=self.seed
        )
        return batches_without_repeats(order, self.batch_size)


class PlannedStep(NamedTuple):
    """One training step before anything of it is read."""

    position: Position  # before the step
    epoch: float  # passes over the videos that are done
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
        order: of the videos.
        max_distance_at: progress in [0, 1] -> largest distance of near clips in seconds, or None for any.
        start: the first step to give; training can begin anywhere in the plan.
        rank: of the process; the shares in order of rank are the batch, and each draws the seeds of its own only.
        processes: that train together; the batch size is a multiple of it.

    """
    step = start.step
    share = range(rank * order.batch_size // processes, (rank + 1) * order.batch_size // processes)
    for first in range(start.epoch, order.epochs, order.epochs_per_round):
        batches = order.batches_of_round(first)
        for number in range(start.batch if first == start.epoch else 0, len(batches)):
            epoch = first + order.joined_epochs(first) * number / len(batches)
            distance = max_distance_at(epoch / order.epochs)
            # A place in the round, not a video, has a seed: a video that comes twice in a round is drawn anew.
            seeds = (item_seed(seed=order.seed, epoch=first, position=number * order.batch_size + i) for i in share)
            requests = [ClipRequest(batches[number][i], seed, distance) for i, seed in zip(share, seeds, strict=True)]
            yield PlannedStep(Position(step, first, number), epoch, distance, requests)
            step += 1


def position_at(epoch: float, *, step: int, order: TrainingOrder) -> Position:
    """The place in a plan that `epoch` passes over the videos come nearest to, for a run that another plan began.

    Args:
        epoch: passes over the videos that are done.
        step: steps that are done.
        order: of the videos, from now on.

    """
    first = int(epoch) // order.epochs_per_round * order.epochs_per_round
    if first >= order.epochs:
        return Position(step, order.epochs, 0)
    num_batches = len(order.batches_of_round(first))
    return Position(step, first, round((epoch - first) / order.joined_epochs(first) * num_batches))
