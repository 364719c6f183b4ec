"""What a run would be, measured on a step of one process, with nothing written."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from hico_core.config import Config
from hico_core.corpus.addresses import Location
from hico_core.data.dataset import Sample
from hico_core.data.plan import PlannedStep, Position
from hico_core.data.workers import num_workers
from hico_core.errors import HicoError
from hico_core.training.cost import measure_cost
from hico_core.training.distributed import World
from hico_core.training.fitting import training_videos
from hico_core.training.hardware import DeviceName, Precision, choose_device, peak_memory_bytes, telling_full_memory
from hico_core.training.loop import (
    Prepared,
    batches_from,
    clips_of,
    learning_rate_at,
    prepare,
)
from hico_core.training.schedule import peak_learning_rate
from hico_core.training.step import describe_batch, train_step

# Enough to tell how fast clips are read, and a matter of seconds.
_VIDEOS_READ = 4


class Rehearsal(NamedTuple):
    """What a run would be, measured on its first step."""

    num_videos: int
    num_short_videos: int  # left out
    steps_per_epoch: float
    num_steps: int  # about; a few more are left out where epochs meet
    encoder_parameters: int
    head_parameters: int
    gflops_per_clip: float  # of the encoder, forward; a step takes about three times that
    activation_mb_per_clip: float  # which the gradients need, in single precision
    processes: int
    batch_bytes: int  # of one process, as all that follow
    checkpoint_bytes: int
    checkpoints_bytes: int  # of all that are kept at the end: one every train.checkpoint_epochs, and the last two
    peak_lr: float
    workers: int
    device: str
    precision: Precision
    loss: float
    step_seconds: float  # without waiting for clips and without the exchange with other processes
    step_clips_per_second: float  # of one process, at that speed
    reader_clips_per_second: float  # what its reading processes give it, if each has a core of its own
    hours: float  # of all steps, at the lower one of these two
    peak_memory_bytes: int


class Speed(NamedTuple):
    """How fast one process takes clips."""

    step_seconds: float  # without waiting for clips and without the exchange with other processes
    step_clips_per_second: float  # at that speed
    reader_clips_per_second: float  # what its reading processes give it, if each has a core of its own

    def hours(self, num_clips: int, *, processes: int) -> float:
        """Of so many clips, at the lower one of the two speeds."""
        return num_clips / (min(self.step_clips_per_second, self.reader_clips_per_second) * processes) / 3600


def measure_speed(
    step: Callable[[], float], *, num_clips: int, read_seconds: float, workers: int, device: torch.device
) -> tuple[float, Speed]:
    """Do a step twice: the loss of the first one, and how long the second one takes, which finds all set up.

    Args:
        step: gives its loss.
        num_clips: that it takes.
        read_seconds: of a clip, in one process.
        workers: processes that read; 0: the one that computes does.
        device: where it computes.

    """
    loss = step()
    began = time.monotonic()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    step_seconds = time.monotonic() - began
    reading = 0.0 if workers else read_seconds * num_clips  # in turn with the step
    return loss, Speed(step_seconds, num_clips / (step_seconds + reading), max(workers, 1) / read_seconds)


def rehearse(
    config: Config,
    *,
    root: Location,
    device: DeviceName = "auto",
    init_from: Path | None = None,
    processes: int = 1,
) -> Rehearsal:
    """Do the first process's share of the first step of a run twice, write nothing, and measure the second time.

    Args:
        config: of the run.
        root: the workspace with index.parquet.
        device: where to train.
        init_from: see `pretrain`.
        processes: how many would train together on this machine.

    Raises:
        HicoError: the run cannot start, or its first step fails.

    """
    training_videos(config, root=root, processes=processes)
    parts = prepare(config, root=root, device=choose_device(device), init_from=init_from)
    batches = batches_from(Position(), config, parts, World(size=processes))
    plan, batch = next(batches)
    batches.close()
    read_seconds = read_seconds_of(parts.dataset, plan)
    workers = num_workers(config.data.workers, processes=processes)  # which share the machine's cores
    lr = learning_rate_at(plan.epoch, config, parts.peak_lr)

    def step() -> float:
        clips = clips_of(batch, config, parts.device)
        result = train_step(parts.model, parts.optimizer, clips, loss=config.loss, lr=lr, precision=parts.precision)
        if result is None:
            raise HicoError(f"the loss of the first step is not a finite number; the clips: {describe_batch(batch)}")
        return float(result.loss.total)

    with telling_full_memory(config.train.batch_size // processes, parts.device):
        loss, speed = measure_speed(
            step, num_clips=len(batch.draws), read_seconds=read_seconds, workers=workers, device=parts.device
        )
    everything = sum(p.numel() for p in parts.model.parameters())
    cost = measure_cost(parts.model.backbone, num_frames=config.data.num_frames, size=config.data.crop_size)
    steps_per_epoch = len(parts.videos) / config.train.batch_size
    num_clips = len(parts.videos) * config.sampling.clips_per_video * config.train.epochs
    checkpoint_bytes = _checkpoint_bytes(parts)
    return Rehearsal(
        num_videos=len(parts.videos),
        num_short_videos=parts.videos.num_short,
        steps_per_epoch=steps_per_epoch,
        num_steps=int(steps_per_epoch * config.train.epochs),
        encoder_parameters=cost.parameters,
        head_parameters=everything - cost.parameters,
        gflops_per_clip=cost.gflops_per_clip,
        activation_mb_per_clip=cost.activation_mb_per_clip,
        processes=processes,
        batch_bytes=_batch_bytes(config, len(batch.draws)),
        checkpoint_bytes=checkpoint_bytes,
        checkpoints_bytes=checkpoint_bytes * (math.ceil(config.train.epochs / config.train.checkpoint_epochs) + 2),
        peak_lr=peak_learning_rate(
            base_lr=config.optim.base_lr,
            videos_per_step=config.train.batch_size,
            clips_per_video=config.sampling.clips_per_video,
            authors_processes=processes if config.optim.scale_lr == "authors" else 1,
        ),
        workers=workers,
        device=str(parts.device),
        precision=parts.precision,
        loss=loss,
        step_seconds=speed.step_seconds,
        step_clips_per_second=speed.step_clips_per_second,
        reader_clips_per_second=speed.reader_clips_per_second,
        hours=speed.hours(num_clips, processes=processes),
        peak_memory_bytes=peak_memory_bytes(parts.device),
    )


def read_seconds_of(dataset: Dataset[Sample], plan: PlannedStep) -> float:
    """What a clip takes to be read, decoded and cut, in this process; the first video only opens what is needed."""
    first, *rest = [plan.requests[number % len(plan.requests)] for number in range(1 + _VIDEOS_READ)]
    dataset[first]
    began = time.process_time()
    num_clips = sum(len(dataset[request].crops) for request in rest)
    return (time.process_time() - began) / max(num_clips, 1)


def _batch_bytes(config: Config, num_clips: int) -> int:
    """Of augmented clips in single precision."""
    data = config.data
    return num_clips * 3 * data.num_frames * data.crop_size**2 * 4


def _checkpoint_bytes(parts: Prepared) -> int:
    """Weights, statistics and what the optimiser remembers."""
    remembered = [value for state in parts.optimizer.state.values() for value in state.values()]
    return sum(tensor.nbytes for tensor in [*parts.model.state_dict().values(), *remembered])
