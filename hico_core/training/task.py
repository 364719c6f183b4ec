"""What a training is to do, and who observes it; a task is plain values, which can be sent to another process."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from hico_core.base.addresses import Location
from hico_core.base.choices import DeviceName
from hico_core.config import Config, FinetuneConfig, SamplingConfig
from hico_core.data.plan import TrainingOrder
from hico_core.training.schedule import DistanceSchedule, RateSchedule, peak_learning_rate
from hico_core.training.stopping import StopRequest

Settings = TypeVar("Settings", bound=Config | FinetuneConfig)


@dataclass(frozen=True, kw_only=True)
class Task(Generic[Settings]):
    """A training: which videos, which settings and which folder.

    Attributes:
        config: of the run.
        root: the workspace with index.parquet.
        run_dir: folder for its files.
        encoder: a checkpoint of ours or the authors' that a new run starts from.
        device: see `choose_device`.
        resume: continue from the run's last checkpoint, or start if there is none.
        lower_batch: lower the batch size to the number of videos and to what fits into the free memory.
        allow_changed: let a resumed run have other epochs, batch size, number of processes or index.
        command: as typed, if any; a new run records it.

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

    @property
    def same_command(self) -> str:
        """What continues the task on the command line once it has begun, in words."""
        return "the same command" if self.resume else "the same command with --resume"


def _ignore(*event: object) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Callbacks that receive a training's progress, and ways to end it.

    Attributes:
        on_step: called with the metrics of each step, in the first process.
        on_bad_video: called once with the id and reason of each video that cannot be decoded.
        on_tested: called with the number of videos that this process has tested, and the total.
        is_over: called before each step; true ends the run there, in the middle of its schedule, like
            `train.max_steps`.
        stop: a request to end; the run ends with a checkpoint.

    """

    on_step: Callable[[Any], None] = _ignore
    on_bad_video: Callable[[str, str], None] = _ignore
    on_tested: Callable[[int, int], None] = _ignore
    is_over: Callable[[], bool] = _never
    stop: StopRequest = field(default_factory=StopRequest)


def rates_of(config: Config | FinetuneConfig, *, peak: float) -> RateSchedule:
    """The learning rates of a configuration: they rise to `peak`, or stay there if it is below the first one."""
    return RateSchedule(
        peak=peak,
        start=min(config.optim.warmup_start_lr, peak),  # the peak is scaled to the batch size, the start is not
        warmup_epochs=config.optim.warmup_epochs,
        total_epochs=config.train.epochs,
    )


def order_of(config: Config | FinetuneConfig, *, num_videos: int) -> TrainingOrder:
    """The training order that a configuration gives for this many videos."""
    return TrainingOrder(
        num_videos=num_videos,
        batch_size=config.train.batch_size,
        epochs=config.train.epochs,
        epochs_per_round=config.data.epochs_per_round,
        seed=config.train.seed,
    )


def distances_of(sampling: SamplingConfig) -> DistanceSchedule:
    """How far apart the near clips of a configuration may lie."""
    starts = {"any": None, "fixed": sampling.end_seconds, "gradual": sampling.start_seconds}
    return DistanceSchedule(start_seconds=starts[sampling.distance], end_seconds=sampling.end_seconds)


def peak_rate(config: Config, *, processes: int = 1) -> float:
    """The highest learning rate of a pretraining with this number of processes on one machine."""
    return peak_learning_rate(
        base_lr=config.optim.base_lr,
        videos_per_step=config.train.batch_size,
        clips_per_video=config.sampling.clips_per_video,
        authors_processes=processes if config.optim.scale_lr == "authors" else 1,
    )


class Schedule(NamedTuple):
    """What changes during a pretraining: the videos of each step, the learning rate, and how near near clips are."""

    order: TrainingOrder
    rates: RateSchedule
    distances: DistanceSchedule


def schedule_of(config: Config, *, num_videos: int, processes: int) -> Schedule:
    """The schedule of a pretraining on this many videos, with this number of processes on each machine."""
    return Schedule(
        order_of(config, num_videos=num_videos),
        rates_of(config, peak=peak_rate(config, processes=processes)),
        distances_of(config.sampling),
    )
