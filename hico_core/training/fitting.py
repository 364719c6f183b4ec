"""The videos that a run trains on, and the batch size that fits them and the memory."""

from typing import NamedTuple

import torch

from hico_core.base.choices import DeviceName
from hico_core.base.errors import HicoError, UsageError, counted
from hico_core.config import Config
from hico_core.data.videos import IndexedVideos, open_videos
from hico_core.encoders.trained import build_encoder, feature_dim, with_heads
from hico_core.encoding.cost import activation_bytes
from hico_core.encoding.hardware import choose_device, free_memory_bytes
from hico_core.training.run_folder import config_of
from hico_core.training.schedule import peak_rate
from hico_core.training.task import Task

# Memory of a process that trains on a CPU, fitted to steps of several networks (docs/benchmarks-cpu.md): a constant;
# bytes per parameter (weight, gradient, momentum and LARS's buffers); and per clip, this multiple of the size of the
# encoder's layer outputs and of the clip itself.
_PROCESS_BYTES, _PARAMETER_BYTES = 0.75e9, 35
_ACTIVATIONS_HELD, _CLIPS_HELD = 1.4, 11

# Fraction of the free memory to use; the rest is for workers, for other programs, and because the estimate is rough.
_PART_TAKEN = 0.75


class Fitted(NamedTuple):
    """A training with a batch size that fits, and the reason if that is not the recipe's."""

    config: Config
    videos: IndexedVideos  # of the subset train, those long enough for a clip
    recipe: Config
    reason: str = ""  # empty if the batch size is the recipe's

    @property
    def note(self) -> str:
        """The run's batch size and why it differs from the recipe's, in words; empty if it does not differ."""
        before, now = self.recipe.train.batch_size, self.config.train.batch_size
        other = "override with" if "memory" in self.reason else "for a smaller one:"  # of memory, this is an estimate
        return self.reason and (
            f"{self.reason}: batch size {now} instead of {before}, peak learning rate {peak_rate(self.config):.4g} "
            f"instead of {peak_rate(self.recipe):.4g}; {other} --batch-size"
        )


def fit_batch(task: Task[Config], *, processes: int = 1) -> Fitted:
    """Open the videos of a training, and choose its batch size if the task leaves that open.

    A run that continues keeps its batch size, unless no step was done, for example because the batch did not fit.
    Memory is considered only for a single process on a CPU: several processes would arrive at different sizes.

    Args:
        task: the training to do.
        processes: number of processes that train together, each on its share of the batch.

    Raises:
        HicoError: there is no index, or it has no cuts although the configuration asks to respect them.

    """
    config, videos = task.config, _training_videos(task)
    if not task.lower_batch:
        return Fitted(config, videos, config)
    before = config_of(task.run_dir, Config) if task.resume else None
    if before is not None:
        return Fitted(_with_batch_size(config, before.train.batch_size), videos, config)
    size, reason = batch_here(config, num_videos=len(videos), device=task.device, processes=processes)
    return Fitted(_with_batch_size(config, size), videos, config, reason)


def batch_here(config: Config, *, num_videos: int, device: DeviceName, processes: int = 1) -> tuple[int, str]:
    """Like `fitting_size`, with the memory that is free now.

    Args:
        config: of a run.
        num_videos: number of videos to train on.
        device: where to train.
        processes: number of processes that train together.

    """
    alone = processes == 1 and choose_device(device).type == "cpu" and not config.train.recompute
    free_bytes = free_memory_bytes() if alone else None
    return fitting_size(config, num_videos=num_videos, processes=processes, free_bytes=free_bytes)


def fitting_size(config: Config, *, num_videos: int, processes: int, free_bytes: int | None) -> tuple[int, str]:
    """The largest batch size that fits, at most the configuration's, and the reason if it is smaller.

    Args:
        config: of a run.
        num_videos: number of videos to train on.
        processes: number of processes that train together, each on its share of the batch.
        free_bytes: memory for a single process that trains on a CPU; None: no limit.

    """
    asked = config.train.batch_size
    size = min(asked, num_videos // processes * processes)
    if size < 2:  # too few to train on, which the caller reports
        return asked, ""
    reason = f"only {counted(num_videos, 'video')}"
    if free_bytes is not None:
        memory = step_memory(config)
        of_memory = max(int((free_bytes * _PART_TAKEN - memory.fixed_bytes) / memory.video_bytes), 2)
        if size > of_memory:
            size, reason = of_memory, f"only {free_bytes / 1e9:.0f} GB of memory free"
    return size, reason if size < asked else ""


def _with_batch_size(config: Config, size: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"batch_size": size})})


def _training_videos(task: Task[Config]) -> IndexedVideos:
    data = task.config.data
    videos = open_videos(task.root, subset="train", data=data)
    if data.cuts == "respect" and not videos.knows_cuts:
        raise HicoError(
            f"{task.root}: data.cuts=respect, but the index does not know the cuts of all videos; split them again "
            "with `hico split --force`, index those read in place with `hico index --untrimmed DIR --cuts`, or leave "
            "out that setting"
        )
    return videos


def require_enough(videos: IndexedVideos, *, batch_size: int, processes: int) -> None:
    """Check that the batch can be split evenly among the processes and that there are enough videos for it.

    Raises:
        HicoError: there are too few videos.
        UsageError: the batch cannot be split evenly, or has only one video.

    """
    if batch_size % processes:
        raise UsageError(
            f"--batch-size {batch_size} is the number of videos over all processes, so it must be a multiple of their "
            f"number, {processes}"
        )
    if batch_size < 2:
        raise UsageError("--batch-size must be at least 2: each video is compared with the others in its batch")
    short = f" ({videos.left_out})" if videos.left_out else ""
    largest = len(videos) // processes * processes
    if largest < 2:
        in_processes = f" in {processes} processes" if processes > 1 else ""
        raise HicoError(
            f"{videos.root}: has {counted(len(videos), 'training video')}{short}, too few to compare with each other"
            f"{in_processes}; add videos with `hico split`, and run `hico index` again"
        )
    if batch_size > largest:
        raise HicoError(
            f"{videos.root}: a batch of {batch_size} is too large for {len(videos)} videos{short}; "
            f"make it {largest} or smaller, or add videos"
        )


class StepMemory(NamedTuple):
    """Approximate memory of a step on a CPU in single precision."""

    fixed_bytes: float  # whatever the number of videos
    video_bytes: float  # per video: its clips, and the layer outputs for them


def step_memory(config: Config) -> StepMemory:
    """The memory of a training's steps, found by passing a clip through its encoder.

    Raises:
        HicoError: the encoder does not accept such a clip.

    """
    data, encoder = config.data, build_encoder(config.model).eval()
    width = feature_dim(encoder, name=config.model.encoder, num_frames=data.num_frames, size=data.crop_size)
    num_parameters = sum(parameter.numel() for parameter in with_heads(encoder, width).parameters())
    clip = torch.zeros(1, 3, data.num_frames, data.crop_size, data.crop_size)
    with torch.inference_mode():
        activations = activation_bytes(encoder, clip)
    return StepMemory(
        _PROCESS_BYTES + _PARAMETER_BYTES * num_parameters,
        config.sampling.clips_per_video * (_ACTIVATIONS_HELD * activations + _CLIPS_HELD * clip.nbytes),
    )
