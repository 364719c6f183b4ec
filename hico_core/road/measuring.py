"""Measures how fast an encoder trains, extracts and encodes clips on this machine, on a few videos."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import torch

from hico_core.base.addresses import Location
from hico_core.base.choices import DeviceName
from hico_core.base.engine import available_cores
from hico_core.checkpoints.frozen import FrozenEncoder
from hico_core.config import Config
from hico_core.data.batches import Batch
from hico_core.data.pictures import clip_shape_for, picture_for
from hico_core.data.plan import PlannedStep, Position
from hico_core.data.videos import open_videos
from hico_core.data.workers import num_workers
from hico_core.encoders.table import entry_of
from hico_core.encoding.hardware import choose_device, telling_full_memory
from hico_core.road.planning import CoreUse, Speed, seconds_together
from hico_core.training.distributed import World
from hico_core.training.dry_run import timed
from hico_core.training.fitting import Fitted
from hico_core.training.loop import Pretraining, prepare
from hico_core.training.step import ALONE
from hico_core.transfer.extraction.dry_run import dry_run_extraction
from hico_core.transfer.extraction.extract import Files
from hico_core.transfer.extraction.jobs import FeatureJob
from hico_core.transfer.features import FeatureExtractor

# Number of videos in the first measured step, and number read to measure reading.
_SMALL_BATCH, _VIDEOS_READ = 2, 8

# The first step of a size takes up to three times as long as the next, because memory is being allocated.
_FIRST_AND_SECOND = 4

# A step that takes at most this fraction of the hours is always repeated.
_SHORT_PART = 0.03


class Clock(NamedTuple):
    """The time limit of a call, and how much of it is used."""

    began: float  # in the time of `now`
    seconds: float  # limit for the whole call
    now: Callable[[], float] = time.monotonic

    @property
    def used(self) -> float:
        """Seconds used so far."""
        return self.now() - self.began

    @property
    def left(self) -> float:
        """Seconds left; negative if the limit is exceeded."""
        return self.seconds - self.used


class Measured(NamedTuple):
    """An encoder's speed, and the number of rows of features of the videos."""

    speed: Speed
    num_rows: int
    device: str


def measure_speed(
    config: Config,
    root: Location,
    jobs: Sequence[FeatureJob],
    *,
    device: DeviceName,
    clock: Clock,
    until: float,
    on_note: Callable[[str], None],
) -> Measured:
    """Time a batch of windows and a training step of two videos; if time permits, also a step of the whole batch.

    Args:
        config: of the training, with its batch size.
        root: a workspace with an index.
        jobs: the videos whose features are to be extracted.
        device: where to compute.
        clock: of this call.
        until: seconds of the call by which to end, if the minimum can be measured by then.
        on_note: called with a description of each measurement.

    Raises:
        HicoError: there are too few videos, or a step or an encoding fails.

    """
    chosen = choose_device(device)
    cores = CoreUse(chosen.type == "cpu", available_cores(), num_workers(config.data.workers), torch.get_num_threads())
    parts = _parts(config, root, _SMALL_BATCH, chosen)
    extractor = _extractor(config, parts, device)
    name = f"{config.model.encoder} at {config.data.crop_size} pixels"
    on_note(f"measuring {name}: encoding a few windows")
    plan = dry_run_extraction(jobs, extractor=extractor, files=Files(root), num_batches=1)
    row = seconds_together(plan.encoding_seconds, plan.reading_seconds, cores._replace(readers=num_workers(None)))
    parts.learner.model.train()
    on_note(f"measuring {name}: reading clips and doing a training step of {_SMALL_BATCH} videos")
    reading = _reading_seconds(parts)
    computing = _step_seconds(parts, clock, until) / _SMALL_BATCH
    size = min(config.train.batch_size, len(parts.videos))  # a dry run measures on a few of the videos
    if size > _SMALL_BATCH and clock.used + _FIRST_AND_SECOND * size * (computing + reading) < until:
        on_note(f"measuring {name}: doing a training step of {size} videos")
        computing = _step_seconds(_parts(config, root, size, chosen), clock, until) / size
    clip_reading = reading / config.sampling.clips_per_video
    clip = clip_reading + 2 * plan.encoding_seconds  # the report compares with the untrained encoder
    speed = Speed(seconds_together(computing, reading, cores), row, clip)
    return Measured(speed, plan.num_rows, str(chosen))


def _parts(config: Config, root: Location, batch_size: int, device: torch.device) -> Pretraining:
    """A training with this batch size that reads in this process: worker processes would take time to start."""
    small = config.model_copy(
        update={
            "train": config.train.model_copy(
                update={"batch_size": batch_size, "epochs": config.data.epochs_per_round, "compile": False}
            ),
            "data": config.data.model_copy(update={"workers": 0}),
        }
    )
    videos = open_videos(root, subset="train", data=small.data)
    return prepare(Fitted(small, videos, small), device=device, init_from=None, world=World(), joined=False)


def _reading_seconds(parts: Pretraining) -> float:
    """Core seconds to read the clips of a video; the first batch only warms up."""
    batches = parts.batches(Position(), World())
    next(batches)
    began = time.process_time()
    num_videos = sum(len(batch.video_ids) for _, batch in islice(batches, _VIDEOS_READ // _SMALL_BATCH))
    batches.close()
    return (time.process_time() - began) / num_videos


def _step_seconds(parts: Pretraining, clock: Clock, until: float) -> float:
    """Seconds of a training's first step, repeated once everything is set up unless that takes too long."""
    batches = parts.batches(Position(), World())
    plan, batch = next(batches)
    batches.close()
    with telling_full_memory(len(batch.video_ids), parts.learner.device):
        first = _learn_seconds(parts, plan, batch, clock)
        is_long = first > _SHORT_PART * clock.seconds and clock.used + first > until
        return first if is_long else _learn_seconds(parts, plan, batch, clock)


def _learn_seconds(parts: Pretraining, plan: PlannedStep, batch: Batch, clock: Clock) -> float:
    _, seconds = timed(lambda: parts.learn(plan, batch, ALONE), parts.learner.device, clock.now)
    return seconds


def _extractor(config: Config, parts: Pretraining, device: DeviceName) -> FeatureExtractor:
    """An extractor with the untrained encoder, which is as fast as the trained one."""
    entry = replace(
        entry_of(config.model.encoder),
        picture=picture_for(config.data, config.augment),
        clip=clip_shape_for(config.data),
    )
    frozen = FrozenEncoder(
        name=config.model.encoder,
        table_name=None,
        origin=None,
        network=parts.learner.model.backbone.eval(),
        entry=entry,
    )
    return FeatureExtractor.from_encoder(frozen, device=device)
