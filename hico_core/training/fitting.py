"""The videos that a run trains on, and how many of them go into a step."""

from pathlib import Path
from typing import NamedTuple

import torch

from hico_core.base.addresses import Location
from hico_core.base.choices import DeviceName
from hico_core.base.errors import HicoError, UsageError, counted
from hico_core.config import Config, load_config
from hico_core.config.sections import DataConfig
from hico_core.corpus.index import left_out_of_pretraining, read_index_table
from hico_core.data.videos import COLUMNS, IndexedVideos
from hico_core.encoding.cost import activation_bytes
from hico_core.encoding.hardware import choose_device, free_memory_bytes
from hico_core.model.encoders import hico_model
from hico_core.training.run_folder import has_steps
from hico_core.training.schedule import peak_learning_rate

# What a process takes that trains on a CPU, fitted to steps of s3dg and s3dg-tiny (docs/benchmarks-cpu.md): in all, and for
# each clip so many times the outputs of the encoder's layers and the clip itself.
_FIXED_BYTES = 1.3e9
_ACTIVATIONS_HELD, _CLIPS_HELD = 1.5, 3.3

# Of the memory that is free; the rest is for workers, for other programs, and because that is only about right.
_PART_TAKEN = 0.75


def training_videos(root: Location, data: DataConfig, *, batch_size: int, processes: int) -> IndexedVideos:
    """The videos of the subset train that are long enough for a clip.

    Raises:
        HicoError: there is no index, or there are too few of them for the batch.
        UsageError: the batch cannot be shared among so many processes.

    """
    if batch_size % processes:
        raise UsageError(
            f"--batch-size {batch_size} is the number of videos over all processes, so it must be a multiple of their "
            f"number, {processes}"
        )
    if batch_size < 2:
        raise UsageError("--batch-size must be at least 2: a video is compared with others of its batch")
    videos = _long_enough(root, data)
    left_out = left_out_of_pretraining(videos.num_short, clip_seconds=data.span_seconds)
    short = f" ({left_out})" if left_out else ""
    largest = len(videos) // processes * processes
    if largest < 2:
        in_processes = f" in {processes} processes" if processes > 1 else ""
        raise HicoError(
            f"{root}: has {counted(len(videos), 'training video')}{short}, too few to compare with each other"
            f"{in_processes}; add videos with `hico split`, and run `hico index` again"
        )
    if batch_size > largest:
        raise HicoError(
            f"{root}: a batch of {batch_size} is too large for {len(videos)} videos{short}; "
            f"use --batch-size {largest} or fewer, or add videos"
        )
    return videos


def _long_enough(root: Location, data: DataConfig) -> IndexedVideos:
    """The training videos that last for a clip."""
    index = read_index_table(root, columns=COLUMNS)
    return IndexedVideos(index, root=root, subset="train", shortest_seconds=data.span_seconds, cache=data.cache)


class FittingBatch(NamedTuple):
    """A configuration whose batch fits, and why it is not the one that was asked for."""

    config: Config
    reason: str = ""  # empty where it is


def with_batch_of_run(
    config: Config, *, root: Location, run_dir: Path, resume: bool, device: DeviceName, processes: int = 1
) -> FittingBatch:
    """The configuration of a recipe with the batch of the run that is gone on with; for a new one, with one that fits.

    Args:
        config: of the recipe.
        root: the workspace with index.parquet.
        run_dir: the run's folder.
        resume: go on with a run that is there. One that did no step, say because it did not fit, is none.
        device: where to train; on a GPU, only the videos are counted.
        processes: that train together. What memory each of several finds free is not asked, since they would not come
            to the same number.

    Raises:
        HicoError: there is no index.

    """
    if resume and has_steps(run_dir):
        return FittingBatch(_with_batch_size(config, load_config(run_dir / "config.yaml").train.batch_size))
    alone = processes == 1 and choose_device(device).type == "cpu" and not config.train.recompute
    return with_fitting_batch(config, root=root, processes=processes, free_bytes=free_memory_bytes() if alone else None)


def with_fitting_batch(config: Config, *, root: Location, processes: int, free_bytes: int | None) -> FittingBatch:
    """Lower a batch to the videos and the memory that there are.

    Args:
        config: of a run.
        root: the workspace with index.parquet.
        processes: that train together, each of which takes its share.
        free_bytes: of memory, for one process that trains on a CPU; None: as much as it wants.

    Raises:
        HicoError: there is no index.

    """
    asked = config.train.batch_size
    videos = _long_enough(root, config.data)
    of_videos = len(videos) // processes * processes
    size = min(asked, of_videos)
    if size < 2:  # too few to train on, which is said by whoever wants to
        return FittingBatch(config)
    reason = "are more than there are"
    if free_bytes is not None:
        of_memory = max(int((free_bytes * _PART_TAKEN - _FIXED_BYTES) / video_bytes(config)), 2)
        if size > of_memory:
            size, reason = of_memory, f"take too much of the {free_bytes / 1e9:.0f} GB of memory that are free"
    return FittingBatch(_with_batch_size(config, size), reason if size < asked else "")


def describe_fitting(recipe: Config, fitted: FittingBatch) -> str:
    """In words: which batch a run has instead of the recipe's, and why; empty where it is the recipe's."""
    if not fitted.reason:
        return ""
    before, now = recipe.train.batch_size, fitted.config.train.batch_size
    rates = [
        peak_learning_rate(
            base_lr=recipe.optim.base_lr, videos_per_step=size, clips_per_video=recipe.sampling.clips_per_video
        )
        for size in (before, now)
    ]
    return (
        f"the recipe's {before} videos a step {fitted.reason}: {now} a step, and with them a peak rate of "
        f"{rates[1]:.4g} instead of {rates[0]:.4g} (--batch-size asks for another number)"
    )


def _with_batch_size(config: Config, size: int) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"batch_size": size})})


def step_bytes(config: Config, videos: int) -> float:
    """About what a process takes that trains on a CPU in single precision, with so many videos a step."""
    return _FIXED_BYTES + videos * video_bytes(config)


def video_bytes(config: Config) -> float:
    """About what each video of a step adds to that: the outputs of its clips' layers, which an encoder shows."""
    data = config.data
    clip = torch.zeros(1, 3, data.num_frames, data.crop_size, data.crop_size)
    with torch.inference_mode():
        activations = activation_bytes(hico_model(config.model.encoder, topical=False).backbone, clip)
    return config.sampling.clips_per_video * (_ACTIVATIONS_HELD * activations + _CLIPS_HELD * clip.nbytes)
