"""Pretraining, from an index to a checkpoint, in the order in which it happens."""

import inspect
import logging
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hico_core.config import Config, SamplingConfig, preset
from hico_core.corpus.addresses import DEFAULT_ROOT, Location, local_part, locate
from hico_core.corpus.ids import Source
from hico_core.corpus.index import left_out_of_pretraining
from hico_core.corpus.lists import labelled_videos
from hico_core.data.augment import crop_area_range
from hico_core.data.batches import Batch
from hico_core.data.dataset import ClipDataset
from hico_core.data.loader import read_batches
from hico_core.data.other_decoders import require_decoder
from hico_core.data.plan import PlannedStep, Position, TrainingOrder, plan_steps
from hico_core.data.shared_memory import batch_bytes, free_shared_memory, require_shared_memory
from hico_core.data.videos import IndexedVideos
from hico_core.data.workers import num_workers
from hico_core.errors import HicoError
from hico_core.interop.checkpoints import backbone_of, load_exactly, read_checkpoint
from hico_core.model.encoders import embedding_dim, hico_model
from hico_core.model.hico import HicoModel
from hico_core.training.checkpoint import Content
from hico_core.training.collapse import CollapseWatch
from hico_core.training.distributed import World, gather_to_first
from hico_core.training.export import ENCODER, exports
from hico_core.training.fitting import training_videos, with_batch_of_run
from hico_core.training.hardware import DeviceName, Precision, keep_freed_memory, use_precision
from hico_core.training.knn import knn_accuracy, read_features
from hico_core.training.log import StepMetrics, require_wandb
from hico_core.training.optim import build_optimizer
from hico_core.training.run import FREE_ON_RESUME, Learner, Run, Step, entered_run, go_on_from
from hico_core.training.schedule import learning_rate, peak_learning_rate, sampling_distance
from hico_core.training.shared_norm import share_batch_norms
from hico_core.training.step import ALONE, augmented_clips, describe_batch, train_step, whole_loss
from hico_core.training.stopping import StopRequest

logger = logging.getLogger(__name__)

_FREE_ON_RESUME = FREE_ON_RESUME | {
    *("train.checkpoint_epochs", "train.compile", "train.recompute", "train.wandb_project"),
}


class Prepared(NamedTuple):
    """The parts of a run."""

    videos: IndexedVideos
    dataset: ClipDataset
    model: HicoModel
    replica: nn.Module  # what is called: the model, averaging its gradients over all processes
    optimizer: torch.optim.Optimizer
    device: torch.device
    workers: int
    peak_lr: float
    precision: Precision
    labelled: Sequence[Source]  # for nearest neighbours; may be none


class RunSummary(NamedTuple):
    """How a run ended."""

    run_dir: Path
    encoder: Path
    num_steps: int
    precision: Precision
    first_loss: float | None  # mean of this call's first 10 steps; None if it had nothing left to do
    last_loss: float | None  # mean of its last 10
    knn_accuracy: float | None  # at the end, if asked for
    collapsed: bool  # the embeddings of the last steps are nearly alike


def prepare(
    config: Config, *, root: Location, device: torch.device, init_from: Path | None = None, world: World = ALONE
) -> Prepared:
    """Read the index and build all parts, so that whatever is wrong is said before any work is done.

    Raises:
        HicoError: no index, or too few videos for the batch.

    """
    require_decoder(config.data.decoder)
    require_wandb(config.train.wandb_project)
    videos = training_videos(config, root=root, processes=world.size)
    labelled: Sequence[Source] = ()
    if config.eval.knn_list is not None:
        list_file = locate(config.eval.knn_list)
        listed = labelled_videos(list_file, data_root=list_file.parent)
        labelled = [video for video in listed if not video.obstacle]
        for video in listed if world.rank == 0 else ():
            if video.obstacle:
                logger.warning("left out of the nearest neighbours: %s: %s", video.path, video.obstacle)
    model, replica = _build_model(config, device=device, init_from=init_from, world=world)
    workers = num_workers(config.data.workers, processes=world.local_size)
    _require_room_for_batches(config, videos, workers=workers, world=world)
    optim = config.optim
    peak_lr = peak_learning_rate(
        base_lr=optim.base_lr,
        videos_per_step=config.train.batch_size,
        clips_per_video=config.sampling.clips_per_video,
        authors_processes=world.local_size if optim.scale_lr == "authors" else 1,
    )
    return Prepared(
        videos,
        ClipDataset(videos, data=config.data, sampling=config.sampling, augment=config.augment),
        model,
        replica,
        build_optimizer(model, optim),
        device,
        workers,
        peak_lr,
        use_precision(config.train.precision, device),
        labelled,
    )


def _require_room_for_batches(config: Config, videos: IndexedVideos, *, workers: int, world: World) -> None:
    """See `require_shared_memory`; all processes of a machine share its memory."""
    free = free_shared_memory()
    if workers and free is not None:
        needed = batch_bytes(
            clips=config.train.batch_size // world.size * config.sampling.clips_per_video,
            num_frames=config.data.num_frames,
            short_side=min(config.data.short_side or videos.largest_short_side, videos.largest_short_side),
            largest_area=crop_area_range(config.augment.crop_jitter)[1],
        )
        require_shared_memory(needed, free=free // world.local_size, workers=workers)


def _build_model(
    config: Config, *, device: torch.device, init_from: Path | None, world: World
) -> tuple[HicoModel, nn.Module]:
    """The model and what is called in training, the same in all processes."""
    torch.manual_seed(config.train.seed)
    topical = config.loss.name == "hico" and config.loss.topical_weight > 0
    model = hico_model(config.model.encoder, topical=topical, recompute=config.train.recompute)
    if init_from is not None and world.is_first:  # the others get its weights when the replica is made
        state = backbone_of(read_checkpoint(init_from).content, origin=str(init_from))
        load_exactly(model.backbone, state, origin=str(init_from))
    # Convolutions in three dimensions are faster on channels that lie side by side.
    model.to(device).to(memory_format=torch.channels_last_3d)
    if device.type == "cpu" and not config.train.recompute:
        keep_freed_memory()
    if config.train.compile:
        model.backbone.compile()
    replica = replica_of(model, device, world)
    return model, replica.train()


def replica_of(model: nn.Module, device: torch.device, world: World) -> nn.Module:
    """What is called in training: the model itself, or, with several processes, one that keeps them alike."""
    if world.size == 1:
        return model
    share_batch_norms(model)
    # Of the sides of length 1 of a pointwise convolution, it does not matter how far apart their elements lie.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    ids = [device.index] if device.type == "cuda" else None
    # Batch norms have the same statistics in all processes, since each computes those of all rows: there is nothing to
    # send before each step. PyTorch has given the option that says so another name.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {"gradient_as_bucket_view": True, name: False}
    return DistributedDataParallel(model, device_ids=ids, **options)


def max_distance(progress: float, sampling: SamplingConfig) -> float | None:
    """Largest distance of near clips at a progress in [0, 1]; None where they may lie anywhere."""
    if sampling.distance == "any":
        return None
    start = sampling.end_seconds if sampling.distance == "fixed" else sampling.start_seconds
    return sampling_distance(progress, start_seconds=start, end_seconds=sampling.end_seconds)


def batches_from(
    position: Position, config: Config, parts: Prepared, world: World = ALONE
) -> Generator[tuple[PlannedStep, Batch], None, None]:
    """Each planned step with this process's clips of it, read ahead by the loader's workers."""
    plans = plan_steps(
        TrainingOrder(
            num_videos=len(parts.videos),
            batch_size=config.train.batch_size,
            epochs=config.train.epochs,
            epochs_per_round=config.data.epochs_per_round,
            seed=config.train.seed,
        ),
        max_distance_at=lambda progress: max_distance(progress, config.sampling),
        start=position,
        rank=world.rank,
        processes=world.size,
    )
    return read_batches(parts.dataset, plans, workers=parts.workers, pin_memory=parts.device.type == "cuda")


def clips_of(batch: Batch, config: Config, device: torch.device) -> Tensor:
    """The augmented clips of a batch, video by video: (B, K, 3, T, H, W)."""
    clips = augmented_clips(batch, data=config.data, augment=config.augment, device=device)
    return clips.unflatten(0, (len(batch.video_ids), -1))


def learning_rate_at(epoch: float, config: Config, peak: float) -> float:
    """The rate after so many passes over the videos."""
    return learning_rate(
        epoch,
        peak=peak,
        start=config.optim.warmup_start_lr,
        warmup_epochs=config.optim.warmup_epochs,
        total_epochs=config.train.epochs,
    )


def pretrain(
    config: Config | None = None,
    *,
    root: "Location | str" = DEFAULT_ROOT,
    run_dir: Path | None = None,
    device: DeviceName = "auto",
    resume: bool = False,
    allow_changed: bool = False,
    init_from: Path | None = None,
    on_step: Callable[[StepMetrics], None] = lambda metrics: None,
    on_bad_video: Callable[[str, str], None] = lambda video_id, reason: None,
    stop: StopRequest | None = None,
) -> RunSummary:
    """Train a HiCo model on the videos of an index, in as many processes as were started together.

    Args:
        config: of the run, such as `hico_core.config.preset("k400-hico-l")`; None: hacs-hico-s, with fewer videos in a
            step if there are fewer, or not the memory for more.
        root: the workspace with index.parquet.
        run_dir: where its files go; None: runs/DATASET-RECIPE in the workspace.
        device: as `choose_device` takes it.
        resume: go on from the run's last checkpoint; without one, start.
        allow_changed: let a resumed run have other epochs, another batch size, number of processes or index.
        init_from: a checkpoint whose encoder a new run starts from.
        on_step: told of each step, in the first process.
        on_bad_video: told of the id and reason of each video that another one stood in for, once.
        stop: asks for the end; the run ends with a checkpoint.

    Raises:
        HicoError: the run cannot start, has too many bad videos, or its loss is not a number.
        Interrupted: a signal ended it; a checkpoint is written.

    """
    root = locate(root)
    default = preset("hacs-hico-s")
    run_dir = run_dir or local_part(root) / "runs" / f"{(config or default).dataset}-{(config or default).recipe}"
    if config is None:
        config = with_batch_of_run(default, root=root, run_dir=run_dir, resume=resume, device=device).config
    with entered_run(run_dir, config, device, resume=resume, allow_changed=allow_changed, free=_FREE_ON_RESUME) as (
        world,
        own_device,
        checkpoint,
    ):
        parts = prepare(config, root=root, device=own_device, init_from=init_from, world=world)
        run = _run_of(parts, config, checkpoint, world, stop or StopRequest(), run_dir, allow_changed=allow_changed)
        if world.is_first:
            _report_beginning(parts, config, init_from=init_from, goes_on=checkpoint is not None)
        collapse = CollapseWatch(width=embedding_dim(config.model.encoder))
        with closing(run):
            for step in run.steps(batches_from(run.progress.position, config, parts, world)):
                for video_id, reason in step.newly_bad:
                    on_bad_video(video_id, reason)
                metrics = _do_step(step, run, config, parts, world)
                collapse.look(metrics.embedding_std, metrics.effective_rank)
                run.write(step, metrics.loss, metrics._asdict())
                if world.is_first:
                    on_step(metrics)
        knn = _knn_accuracy(parts, config, world)
        encoder = run_dir / ENCODER
        return RunSummary(
            run_dir,
            encoder,
            run.steps_done,
            parts.precision,
            run.first_loss,
            run.last_loss,
            knn,
            collapse.at_end(),
        )


def _report_beginning(parts: Prepared, config: Config, *, init_from: Path | None, goes_on: bool) -> None:
    """Log what the videos and the encoder of a run are where that is not what one may take for granted."""
    left_out = left_out_of_pretraining(parts.videos.num_short, clip_seconds=config.data.span_seconds)
    if left_out:
        logger.warning(left_out)
    if init_from is not None and goes_on:
        logger.warning("%s is not loaded: the run goes on from its last checkpoint", init_from)
    elif init_from is not None:
        logger.warning("starting from the encoder of %s; heads and optimiser start anew", init_from)


def _run_of(
    parts: Prepared,
    config: Config,
    checkpoint: Content | None,
    world: World,
    stop: StopRequest,
    run_dir: Path,
    *,
    allow_changed: bool,
) -> Run:
    """The run of these parts, where it stands; its encoder is exported with each checkpoint."""
    learner = Learner(parts.model, parts.optimizer, parts.device)
    index = parts.videos.identity()
    progress = go_on_from(
        checkpoint, learner, config=config, index=index, world=world, run_dir=run_dir, allow_changed=allow_changed
    )
    return Run(
        run_dir,
        learner,
        progress,
        config=config,
        world=world,
        stop=stop,
        keep_every=config.train.checkpoint_epochs,
        wandb_project=config.train.wandb_project,
        exports=lambda progress, loss: exports(parts.model.backbone, run_dir / ENCODER, config, progress, loss=loss),
    )


def _do_step(step: Step, run: Run, config: Config, parts: Prepared, world: World) -> StepMetrics:
    """One update, and what is measured of it.

    Raises:
        HicoError: its clips cannot be read, or its loss is not a number.

    """
    knn_due = step.last_epoch is None or step.ends_epoch(config.eval.knn_epochs)
    knn = _knn_accuracy(parts, config, world) if knn_due else None
    clips = clips_of(step.batch, config, parts.device)
    lr = learning_rate_at(step.plan.epoch, config, parts.peak_lr)
    result = train_step(
        parts.replica,
        parts.optimizer,
        clips,
        loss=config.loss,
        lr=lr,
        world=world,
        precision=parts.precision,
    )
    if result is None:
        raise HicoError(
            f"the loss is not a finite number at step {step.number}, lr {lr:.4g}; "
            f"the clips: {describe_batch(step.batch)}"
        )
    times = run.times(world.size * clips.shape[0] * clips.shape[1])
    return StepMetrics(
        step=step.number,
        epoch=step.plan.epoch,
        loss=whole_loss(result.loss, config.loss),
        visual=float(result.loss.visual),
        topical=None if result.loss.topical is None else float(result.loss.topical),
        lr=lr,
        distance=step.plan.max_distance_seconds,
        clips_per_second=times.clips_per_second,
        data_seconds=times.data_seconds,
        step_seconds=times.step_seconds,
        bad_videos=len(run.bad_videos),
        embedding_std=result.embedding_std,
        effective_rank=result.effective_rank,
        knn_accuracy=knn,
    )


def _knn_accuracy(parts: Prepared, config: Config, world: World) -> float | None:
    """Accuracy of nearest neighbours on the labelled list, each process reading its part.

    None without a list, and in all processes but the first, which alone compares.
    """
    if not parts.labelled:
        return None
    found = read_features(
        parts.model.backbone,
        parts.labelled[world.rank :: world.size],
        config,
        cache=parts.dataset.cache,
        precision=parts.precision,
        workers=parts.workers,
    )
    together = [part for part in gather_to_first(found, world) if part.labels]
    if not world.is_first:
        return None
    features = torch.cat([part.features for part in together]) if together else torch.empty(0, 0)
    labels = torch.tensor([label for part in together for label in part.labels])
    return knn_accuracy(features, labels, k=config.eval.knn_neighbours)
