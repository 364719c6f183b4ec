"""What changes during training, as pure functions of the progress, and the schedules that a configuration gives."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from hico_core.config import Config, FinetuneConfig, SamplingConfig
from hico_core.data.plan import TrainingOrder


def peak_learning_rate(
    *, base_lr: float, videos_per_step: int, clips_per_video: int, authors_processes: int = 1
) -> float:
    """The linear scaling rule; `base_lr` is meant for 256 clips per step, over all processes.

    Args:
        base_lr: learning rate for 256 clips.
        videos_per_step: over all processes.
        clips_per_video: number of clips.
        authors_processes: 1, or the number of processes on one machine to get the learning rate of the authors' code,
            which multiplies the videos of a machine by it once more.

    """
    return base_lr * authors_processes * videos_per_step * clips_per_video / 256


def learning_rate(epoch: float, *, peak: float, start: float, warmup_epochs: float, total_epochs: float) -> float:
    """Learning rate at a fractional epoch: linear during the warm-up, then a cosine down to 0.

    The cosine runs over all epochs, warm-up included; the line meets it where the warm-up ends.

        start ._-^^^-._
        0     w        ^-._ total
    """

    def cosine(at: float) -> float:
        return peak * (1 + math.cos(math.pi * at / total_epochs)) / 2

    if epoch < warmup_epochs:
        return start + (cosine(warmup_epochs) - start) * epoch / warmup_epochs
    return cosine(epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSchedule:
    """The learning rate of a whole training; see `learning_rate`."""

    peak: float
    start: float
    warmup_epochs: float
    total_epochs: float

    def at(self, epoch: float) -> float:
        """The learning rate after this many passes over the videos."""
        return learning_rate(
            epoch,
            peak=self.peak,
            start=self.start,
            warmup_epochs=self.warmup_epochs,
            total_epochs=self.total_epochs,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DistanceSchedule:
    """The largest distance of the near clips over a whole training; see `sampling_distance`."""

    start_seconds: float | None  # None: no limit, from start to end
    end_seconds: float

    def at(self, progress: float) -> float | None:
        """The largest distance in seconds at a progress in [0, 1]; None: no limit."""
        if self.start_seconds is None:
            return None
        return sampling_distance(progress, start_seconds=self.start_seconds, end_seconds=self.end_seconds)


def sampling_distance(progress: float, *, start_seconds: float = 0.0, end_seconds: float = 1.0) -> float:
    """HiCo's gradual sampling: the largest distance, in seconds, between the centres of the two near clips.

    It grows linearly with the fraction of the training that is done, clamped to [0, 1].
    """
    return start_seconds + (end_seconds - start_seconds) * min(max(progress, 0.0), 1.0)


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
