"""What a training is asked to do, and who watches it. A task is plain values, which another process can be given."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from hico_core.base.addresses import Location
from hico_core.base.choices import DeviceName
from hico_core.config import Config, FinetuneConfig
from hico_core.data.plan import TrainingOrder
from hico_core.training.schedule import RateSchedule
from hico_core.training.stopping import StopRequest

Settings = TypeVar("Settings", bound=Config | FinetuneConfig)


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Settings]):
    """A training: of which videos, with which settings, into which folder.

    Attributes:
        config: of the run.
        root: the workspace with index.parquet.
        run_dir: where its files go.
        encoder: a checkpoint of ours or the authors' that a new run starts from.
        device: as `choose_device` takes it.
        resume: go on from the run's last checkpoint; without one, start.
        lower_batch: to as many videos as there are, and as memory is free for.
        allow_changed: let a resumed run have other epochs, another batch size, number of processes or index.
        command: what was typed, if anything; a new run records it.

    """

    config: Settings
    root: Location
    run_dir: Path
    encoder: Path | None = None
    device: "DeviceName" = "auto"
    resume: bool = False
    lower_batch: bool = False
    allow_changed: bool = False
    command: tuple[str, ...] = ()


def _ignore(*event: object) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who is told of a training while it goes on, and who may end it.

    Attributes:
        on_step: takes the metrics of each step, in the first process.
        on_bad_video: takes the id and reason of each video that cannot be decoded, once.
        on_tested: takes how many videos are tested by this process, and of how many.
        is_over: asked before each step; true ends the run there, in the middle of its schedule, as `train.max_steps`.
        stop: asks for the end; the run ends with a checkpoint.

    """

    on_step: Callable[[Any], None] = _ignore
    on_bad_video: Callable[[str, str], None] = _ignore
    on_tested: Callable[[int, int], None] = _ignore
    is_over: Callable[[], bool] = _never
    stop: StopRequest = field(default_factory=StopRequest)


def rates_of(config: Config | FinetuneConfig, *, peak: float) -> RateSchedule:
    """The learning rates of a configuration that rise to `peak`, or stay there where it is below the first one."""
    return RateSchedule(
        peak=peak,
        start=min(config.optim.warmup_start_lr, peak),  # the peak is scaled to the batch, the start is not
        warmup_epochs=config.optim.warmup_epochs,
        total_epochs=config.train.epochs,
    )


def order_of(config: Config | FinetuneConfig, *, num_videos: int) -> TrainingOrder:
    """The order that a configuration makes of so many videos."""
    return TrainingOrder(
        num_videos=num_videos,
        batch_size=config.train.batch_size,
        epochs=config.train.epochs,
        epochs_per_round=config.data.epochs_per_round,
        seed=config.train.seed,
    )
