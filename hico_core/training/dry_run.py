"""What a run would be, measured on a step of one process, with nothing written."""

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import Dataset

from hico_core.base.addresses import Location
from hico_core.base.choices import DeviceName
from hico_core.config import Config
from hico_core.data.batches import Batch
from hico_core.data.dataset import Sample
from hico_core.data.plan import PlannedStep, Position
from hico_core.encoding.cost import measure_cost
from hico_core.encoding.hardware import Precision, choose_device, peak_memory_bytes, telling_full_memory
from hico_core.model.hico import HicoModel
from hico_core.training.distributed import World
from hico_core.training.learner import Learner
from hico_core.training.loop import Pretraining, prepare
from hico_core.training.step import ALONE

# Enough to tell how fast clips are read, and a matter of seconds.
_VIDEOS_READ = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
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


class FirstStep(NamedTuple):
    """What was measured of a training's first step, in one process."""

    num_clips: int
    loss: float
    speed: Speed


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


def measure_first_step(
    batches: Generator[tuple[PlannedStep, Batch], None, None],
    dataset: Dataset[Sample],
    learn: Callable[[PlannedStep, Batch], float],
    *,
    workers: int,
    device: torch.device,
) -> FirstStep:
    """Read a training's first step, and do it twice: see `measure_speed`.

    Args:
        batches: of the training; closed after the first one.
        dataset: what they are read from.
        learn: does a step's update, and gives its loss.
        workers: processes that read; 0: the one that computes does.
        device: where it computes.

    Raises:
        HicoError: the step fails, or does not fit into memory.

    """
    plan, batch = next(batches)
    batches.close()
    read_seconds = _read_seconds(dataset, plan)
    num_clips = len(batch.draws)
    with telling_full_memory(len(batch.video_ids), device):
        loss, speed = measure_speed(
            lambda: learn(plan, batch), num_clips=num_clips, read_seconds=read_seconds, workers=workers, device=device
        )
    return FirstStep(num_clips, loss, speed)


def dry_run(
    config: Config,
    *,
    root: Location,
    device: DeviceName = "auto",
    init_from: Path | None = None,
    processes: int = 1,
) -> DryRun:
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
    world = World(size=processes, local_size=processes)
    parts = prepare(config, root=root, device=choose_device(device), init_from=init_from, world=world, joined=False)
    first = measure_first_step(
        parts.batches(Position(), world),
        parts.dataset,
        lambda plan, batch: float(parts.learn(plan, batch, ALONE).loss.total),
        workers=parts.workers,
        device=parts.learner.device,
    )
    return _described(config, parts, first, processes=processes)


def _described(config: Config, parts: Pretraining, first: FirstStep, *, processes: int) -> DryRun:
    """What follows from the first step for the whole run."""
    learner, train = parts.learner, config.train
    everything = sum(p.numel() for p in learner.model.parameters())
    cost = measure_cost(learner.model.backbone, num_frames=config.data.num_frames, size=config.data.crop_size)
    steps_per_epoch = len(parts.videos) / train.batch_size
    num_clips = len(parts.videos) * config.sampling.clips_per_video * train.epochs
    checkpoint_bytes = _checkpoint_bytes(learner)
    return DryRun(
        num_videos=len(parts.videos),
        num_short_videos=parts.videos.num_short,
        steps_per_epoch=steps_per_epoch,
        num_steps=int(steps_per_epoch * train.epochs),
        encoder_parameters=cost.parameters,
        head_parameters=everything - cost.parameters,
        gflops_per_clip=cost.gflops_per_clip,
        activation_mb_per_clip=cost.activation_mb_per_clip,
        processes=processes,
        # Of augmented clips in single precision.
        batch_bytes=first.num_clips * 3 * config.data.num_frames * config.data.crop_size**2 * 4,
        checkpoint_bytes=checkpoint_bytes,
        checkpoints_bytes=checkpoint_bytes * (math.ceil(train.epochs / train.checkpoint_epochs) + 2),
        peak_lr=parts.rates.peak,
        workers=parts.workers,
        device=str(learner.device),
        precision=learner.precision,
        loss=first.loss,
        **first.speed._asdict(),
        hours=first.speed.hours(num_clips, processes=processes),
        peak_memory_bytes=peak_memory_bytes(learner.device),
    )


def _read_seconds(dataset: Dataset[Sample], plan: PlannedStep) -> float:
    """What a clip takes to be read, decoded and cut, in this process; the first video only opens what is needed."""
    first, *rest = [plan.requests[number % len(plan.requests)] for number in range(1 + _VIDEOS_READ)]
    dataset[first]
    began = time.process_time()
    num_clips = sum(len(dataset[request].crops) for request in rest)
    return (time.process_time() - began) / max(num_clips, 1)


def _checkpoint_bytes(learner: Learner[HicoModel]) -> int:
    """Weights, statistics and what the optimiser remembers."""
    remembered = [value for state in learner.optimizer.state.values() for value in state.values()]
    return sum(tensor.nbytes for tensor in [*learner.model.state_dict().values(), *remembered])
