"""The order of a training's steps: everything follows from a few numbers, so training can begin anywhere in it."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

from hico_core.config import Config, FinetuneConfig
from hico_core.data.loader import PlannedStep, Position, plan_steps, position_at
from hico_core.training.distributed import World


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOrder:
    """From what the order of the steps follows; see `plan_steps`."""

    num_videos: int
    batch_size: int  # videos of a step, over all processes
    epochs: int  # passes over the videos, in all
    epochs_per_round: int  # that are joined
    seed: int

    def steps(
        self, start: Position, world: World, max_distance_at: Callable[[float], float | None] = lambda progress: None
    ) -> Iterator[PlannedStep]:
        """All steps from `start` to the end of the training, with this process's share of their videos.

        Args:
            start: the first step to give.
            world: this process among all.
            max_distance_at: progress in [0, 1] -> largest distance of near clips in seconds, or None for any.

        """
        return plan_steps(
            **asdict(self), max_distance_at=max_distance_at, start=start, rank=world.rank, processes=world.size
        )

    def position_after(self, epochs_done: float, *, step: int) -> Position:
        """The place that comes nearest to so many passes, for a run that another order began."""
        return position_at(epochs_done, step=step, **asdict(self))


def order_of(config: Config | FinetuneConfig, *, num_videos: int) -> StepOrder:
    """The order that a configuration makes of so many videos."""
    return StepOrder(
        num_videos=num_videos,
        batch_size=config.train.batch_size,
        epochs=config.train.epochs,
        epochs_per_round=config.data.epochs_per_round,
        seed=config.train.seed,
    )
