"""The size and cost of a finetuning, measured on one step of one process; nothing is written."""

from dataclasses import dataclass
from pathlib import Path

from hico_core.base.addresses import Location
from hico_core.base.choices import DeviceName
from hico_core.config import FinetuneConfig
from hico_core.data.plan import Position
from hico_core.encoding.cost import measure_cost
from hico_core.encoding.hardware import choose_device
from hico_core.training.distributed import World
from hico_core.training.dry_run import Measured, measure_training
from hico_core.training.step import ALONE
from hico_core.transfer.finetuning.parts import Start, prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneDryRun:
    """The size and cost of a finetuning, measured on its first step."""

    num_videos: int  # number of training videos
    num_test_videos: int
    num_classes: int
    num_steps: int  # approximate; a few more are left out at the ends of epochs
    test_hours: float  # for one pass over all views of the test videos, without reading
    measured: Measured


def dry_run_finetuning(
    config: FinetuneConfig, *, root: Location, encoder: Path, device: DeviceName = "auto", processes: int = 1
) -> FinetuneDryRun:
    """Do the first process's share of the first step twice, time the second pass, and write nothing.

    Args:
        config: of the run.
        root: the workspace; its index has labelled videos.
        encoder: a checkpoint of ours or the authors'.
        device: where to train.
        processes: number of processes that would train together on this machine.

    Raises:
        HicoError: the run cannot start, or its first step fails.

    """
    world = World(size=processes, local_size=processes)
    parts = prepare(
        config, root=root, start=Start(encoder, None), device=choose_device(device), world=world, joined=False
    )
    num_clips = len(parts.videos.train) * config.train.epochs
    measured = measure_training(
        parts.batches(Position(), world),
        parts.dataset,
        lambda plan, batch: parts.learn(plan, batch, ALONE)[0],
        learner=parts.learner,
        workers=parts.workers,
        num_clips=num_clips,
        processes=processes,
    )
    cost = measure_cost(parts.learner.model.backbone, num_frames=config.data.num_frames, size=config.data.crop_size)
    num_views = len(parts.videos.test) * config.test.views * config.test.crops
    return FinetuneDryRun(
        num_videos=len(parts.videos.train),
        num_test_videos=len(parts.videos.test),
        num_classes=parts.videos.num_classes,
        num_steps=num_clips // config.train.batch_size,
        test_hours=num_views / cost.clips_per_second / processes / 3600,
        measured=measured,
    )
