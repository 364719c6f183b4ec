"""How fast this machine reads training clips, and how fast its GPU consumes them."""

import time
from dataclasses import dataclass
from itertools import islice

import torch

from hico_core.base.addresses import Location
from hico_core.base.errors import HicoError
from hico_core.config import AugmentConfig, Config, DataConfig, SamplingConfig
from hico_core.data.dataset import ClipDataset
from hico_core.data.loader import read_batches
from hico_core.data.plan import Position, TrainingOrder, plan_steps
from hico_core.data.videos import open_videos
from hico_core.encoding.hardware import use_precision
from hico_core.model.hico import HicoModel
from hico_core.training.learner import Learner
from hico_core.training.optim import build_optimizer
from hico_core.training.step import train_step


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderSpeed:
    """How fast clips can be read on this machine."""

    num_clips: int  # number of clips read for this
    seconds_per_clip: float  # core seconds to read, decode and crop a clip
    clips_per_second: float  # of all workers together
    workers: int
    gpu_clips_per_second: float | None  # consumed by a training step; None without a GPU


def measure_loader(root: Location, *, workers: int, num_batches: int = 40) -> LoaderSpeed:
    """Read training clips with the settings of a recipe, first in one process, then with workers.

    Args:
        root: the workspace with index.parquet.
        workers: number of reading processes.
        num_batches: of one video each, per measurement.

    Raises:
        HicoError: there is no index, or its clips cannot be read.

    """
    data = DataConfig()
    videos = open_videos(root, subset="train", data=data)
    if not len(videos):
        raise HicoError(f"{root}: has no training video of at least {data.span_seconds:.2f} s")
    dataset = ClipDataset(videos, data=data, sampling=SamplingConfig(), augment=AugmentConfig())

    def read(processes: int) -> tuple[int, float, float]:
        plans = plan_steps(
            TrainingOrder(num_videos=len(videos), batch_size=1, epochs=10**6, epochs_per_round=10, seed=0),
            max_distance_at=lambda progress: progress,
            start=Position(),
        )
        batches = read_batches(dataset, plans, workers=processes, pin_memory=False)
        next(batches)  # starting the workers does not count
        num_clips, cpu, wall = 0, time.process_time(), time.perf_counter()
        for _, batch in islice(batches, num_batches):
            if batch.pixels is None:
                raise HicoError(f"{root}: clips cannot be read; the last one: {batch.unusable[-1].reason}")
            num_clips += len(batch.draws)
        batches.close()
        return num_clips, time.process_time() - cpu, time.perf_counter() - wall

    num_clips, cpu_seconds, _ = read(0)
    together, _, seconds = read(workers)
    return LoaderSpeed(
        num_clips=num_clips,
        seconds_per_clip=cpu_seconds / num_clips,
        clips_per_second=together / seconds,
        workers=workers,
        gpu_clips_per_second=_gpu_speed(),
    )


def _gpu_speed() -> float | None:
    """Clips per second that a whole training step of the paper's model takes on the GPU, as in `hico pretrain`."""
    if not torch.cuda.is_available():
        return None
    config, gpu = Config(), torch.device("cuda")
    model = HicoModel().to(gpu).to(memory_format=torch.channels_last_3d).train()
    learner = Learner.of(model, build_optimizer(model, config.optim), precision=use_precision("auto", gpu))
    clips = torch.randn(32, 3, 3, 16, 112, 112, device=gpu)
    start = 0.0
    for step in range(8):
        if step == 3:
            torch.cuda.synchronize()
            start = time.perf_counter()
        train_step(learner, clips, loss=config.loss, lr=1e-3)
    torch.cuda.synchronize()
    return 5 * 96 / (time.perf_counter() - start)
