"""What a finetuning would be, measured on a step of one process, with nothing written."""

from dataclasses import dataclass
from pathlib import Path

from hico_core.base.addresses import Location
from hico_core.base.choices import DeviceName
from hico_core.config import FinetuneConfig
from hico_core.data.plan import Position
from hico_core.encoding.cost import measure_cost
from hico_core.encoding.hardware import Precision, choose_device, peak_memory_bytes
from hico_core.training.distributed import World
from hico_core.training.dry_run import measure_first_step
from hico_core.training.step import ALONE
from hico_core.transfer.finetuning.parts import Start, prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneDryRun:
    """What a finetuning would be, measured on its first step."""

    num_videos: int  # to train on
    num_test_videos: int
    num_classes: int
    num_steps: int  # about; a few more are left out where epochs meet
    processes: int
    workers: int
    device: str
    precision: Precision
    loss: float
    step_seconds: float  # without waiting for clips and without the exchange with other processes
    step_clips_per_second: float  # of one process, at that speed
    reader_clips_per_second: float  # what its reading processes give it, if each has a core of its own
    hours: float  # of all steps, at the lower one of these two
    test_hours: float  # of all views of the videos to test on, once, reading left out
    peak_memory_bytes: int


def dry_run_finetuning(
    config: FinetuneConfig, *, root: Location, encoder: Path, device: DeviceName = "auto", processes: int = 1
) -> FinetuneDryRun:
    """Do the first process's share of the first step twice, write nothing, and measure the second time.

    Args:
        config: of the run.
        root: the workspace whose index has labelled videos.
        encoder: a checkpoint of ours or the authors'.
        device: where to train.
        processes: how many would train together on this machine.

    Raises:
        HicoError: the run cannot start, or its first step fails.

    """
    world = World(size=processes, local_size=processes)
    parts = prepare(
        config, root=root, start=Start(encoder, None), device=choose_device(device), world=world, joined=False
    )
    learner = parts.learner
    first = measure_first_step(
        parts.batches(Position(), world),
        parts.dataset,
        lambda plan, batch: parts.learn(plan, batch, ALONE)[0],
        workers=parts.workers,
        device=learner.device,
    )
    num_clips = len(parts.videos.train) * config.train.epochs
    cost = measure_cost(learner.model.backbone, num_frames=config.data.num_frames, size=config.data.crop_size)
    num_views = len(parts.videos.test) * config.test.views * config.test.crops
    return FinetuneDryRun(
        num_videos=len(parts.videos.train),
        num_test_videos=len(parts.videos.test),
        num_classes=parts.videos.num_classes,
        num_steps=num_clips // config.train.batch_size,
        processes=processes,
        workers=parts.workers,
        device=str(learner.device),
        precision=learner.precision,
        loss=first.loss,
        **first.speed._asdict(),
        hours=first.speed.hours(num_clips, processes=processes),
        test_hours=num_views / cost.clips_per_second / processes / 3600,
        peak_memory_bytes=peak_memory_bytes(learner.device),
    )
