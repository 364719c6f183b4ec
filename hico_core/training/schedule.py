"""Values that change during training, as pure functions of the progress."""

import math
from dataclasses import dataclass


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
