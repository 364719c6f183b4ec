"""The size and cost of a run, measured on one step of one process; nothing is written."""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch.utils.data import Dataset

from hico_core.base.choices import DeviceName
from hico_core.data.batches import Batch
from hico_core.data.dataset import Sample
from hico_core.data.plan import PlannedStep, Position
from hico_core.encoding.cost import measure_cost
from hico_core.encoding.hardware import Precision, choose_device, peak_memory_bytes, telling_full_memory
from hico_core.model.hico import HicoModel
from hico_core.training.distributed import World
from hico_core.training.fitting import Fitted
from hico_core.training.learner import Learner, Model
from hico_core.training.loop import prepare
from hico_core.training.step import ALONE

Result = TypeVar("Result")

# Enough to measure how fast clips are read, within seconds.
_VIDEOS_READ = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The cost of a training, measured on its first step in one process."""

    processes: int
    workers: int
    device: str
    precision: Precision
    loss: float
    step_seconds: float  # of computing alone: neither waiting for clips nor exchange with other processes
    step_clips_per_second: float  # of one process, at that step time
    reader_clips_per_second: float  # from its reading processes, if each has a core of its own
    hours: float  # of all steps, at the lower of these two speeds
    peak_memory_bytes: int


def measure_training(
    batches: Generator[tuple[PlannedStep, Batch], None, None],
    dataset: Dataset[Sample],
    learn: Callable[[PlannedStep, Batch], float],
    *,
    learner: Learner[Model],
    workers: int,
    num_clips: int,
    processes: int,
) -> Measured:
    """Read a training's first step, do it twice, and time the second pass, when everything is set up.

    Args:
        batches: of the training; closed after the first batch.
        dataset: from which the batches are read.
        learn: does a step's update and returns its loss.
        learner: what the step updates.
        workers: number of reading processes; 0: the training process reads.
        num_clips: of the whole training.
        processes: number of processes that train together.

    Raises:
        HicoError: the step fails, or does not fit into memory.

    """
    plan, batch = next(batches)
    batches.close()
    read_seconds, device = _read_seconds(dataset, plan), learner.device
    with telling_full_memory(len(batch.video_ids), device):
        loss, _ = timed(lambda: learn(plan, batch), device)
        _, step_seconds = timed(lambda: learn(plan, batch), device)
    reading = 0.0 if workers else read_seconds * len(batch.draws)  # reading and the step take turns
    step_speed, reader_speed = len(batch.draws) / (step_seconds + reading), max(workers, 1) / read_seconds
    return Measured(
        processes=processes,
        workers=workers,
        device=str(device),
        precision=learner.precision,
        loss=loss,
        step_seconds=step_seconds,
        step_clips_per_second=step_speed,
        reader_clips_per_second=reader_speed,
        hours=num_clips / (min(step_speed, reader_speed) * processes) / 3600,
        peak_memory_bytes=peak_memory_bytes(device),
    )


def timed(
    work: Callable[[], Result], device: torch.device, now: Callable[[], float] = time.monotonic
) -> tuple[Result, float]:
    """Work's result, and the seconds until a GPU was done with it, without what was launched there before.

    Args:
        work: computes on the device.
        device: where it computes.
        now: returns the time in seconds.

    """
    _wait_for(device)
    began = now()
    result = work()
    _wait_for(device)
    return result, now() - began


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """The size and cost of a run, measured on its first step."""

    num_videos: int
    num_short_videos: int  # videos left out as too short
    steps_per_epoch: float
    num_steps: int  # approximate; a few more are left out at the ends of epochs
    encoder_parameters: int
    head_parameters: int
    gflops_per_clip: float  # of the encoder's forward pass; a step takes about three times that
    activation_mb_per_clip: float  # kept for the gradients, in single precision
    batch_bytes: int  # of one process, as all fields below
    checkpoint_bytes: int
    checkpoints_bytes: int  # of all checkpoints left at the end: one every train.checkpoint_epochs, and the last two
    peak_lr: float
    measured: Measured


def dry_run(
    fitted: Fitted, *, device: DeviceName = "auto", init_from: Path | None = None, processes: int = 1
) -> DryRun:
    """Do the first process's share of a run's first step twice, time the second pass, and write nothing.

    Args:
        fitted: the run's configuration and videos.
        device: where to train.
        init_from: see `pretrain`.
        processes: number of processes that would train together on this machine.

    Raises:
        HicoError: the run cannot start, or its first step fails.

    """
    config, videos = fitted.config, fitted.videos
    train, data, clips_per_video = config.train, config.data, config.sampling.clips_per_video
    world = World(size=processes, local_size=processes)
    parts = prepare(fitted, device=choose_device(device), init_from=init_from, world=world, joined=False)
    measured = measure_training(
        parts.batches(Position(), world),
        parts.dataset,
        lambda plan, batch: float(parts.learn(plan, batch, ALONE).loss.total),
        learner=parts.learner,
        workers=parts.workers,
        num_clips=len(videos) * clips_per_video * train.epochs,
        processes=processes,
    )
    everything = sum(p.numel() for p in parts.learner.model.parameters())
    cost = measure_cost(parts.learner.model.backbone, num_frames=data.num_frames, size=data.crop_size)
    steps_per_epoch = len(videos) / train.batch_size
    checkpoint_bytes = _checkpoint_bytes(parts.learner)
    return DryRun(
        num_videos=len(videos),
        num_short_videos=videos.num_short,
        steps_per_epoch=steps_per_epoch,
        num_steps=int(steps_per_epoch * train.epochs),
        encoder_parameters=cost.parameters,
        head_parameters=everything - cost.parameters,
        gflops_per_clip=cost.gflops_per_clip,
        activation_mb_per_clip=cost.activation_mb_per_clip,
        # Augmented clips in single precision.
        batch_bytes=train.batch_size // processes * clips_per_video * 3 * data.num_frames * data.crop_size**2 * 4,
        checkpoint_bytes=checkpoint_bytes,
        checkpoints_bytes=checkpoint_bytes * (math.ceil(train.epochs / train.checkpoint_epochs) + 2),
        peak_lr=parts.schedule.rates.peak,
        measured=measured,
    )


def _read_seconds(dataset: Dataset[Sample], plan: PlannedStep) -> float:
    """Time for this process to read, decode and crop a clip; the first video only warms up."""
    first, *rest = [plan.requests[number % len(plan.requests)] for number in range(1 + _VIDEOS_READ)]
    dataset[first]
    began = time.process_time()
    num_clips = sum(len(dataset[request].crops) for request in rest)
    return (time.process_time() - began) / max(num_clips, 1)


def _checkpoint_bytes(learner: Learner[HicoModel]) -> int:
    """Bytes of weights, buffers and optimiser state."""
    remembered = [value for state in learner.optimizer.state.values() for value in state.values()]
    return sum(tensor.nbytes for tensor in [*learner.model.state_dict().values(), *remembered])
