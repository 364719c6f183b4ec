"""Pretraining, from an index to a checkpoint, in the order in which it happens."""

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hico_core.config import AugmentConfig, Config, DataConfig, LossConfig, SamplingConfig
from hico_core.corpus.addresses import Location, locate
from hico_core.corpus.ids import Source
from hico_core.corpus.index import read_index_table
from hico_core.corpus.lists import labelled_videos
from hico_core.data.augment import apply_augmentation
from hico_core.data.dataset import COLUMNS, ClipDataset, IndexedVideos
from hico_core.data.decode import require_decoder
from hico_core.data.loader import Batch, PlannedStep, Position, num_workers, plan_steps, read_batches
from hico_core.data.sampling import clip_span_seconds
from hico_core.errors import HicoError, Interrupted, UsageError
from hico_core.interop import load_exactly, read_backbone_state
from hico_core.model.heads import EMBEDDING_DIM
from hico_core.model.hico import HicoModel, Outputs
from hico_core.model.losses import HicoLoss, info_nce, topical_loss, visual_loss, weighted_sum
from hico_core.model.s3dg import S3DG
from hico_core.training.checkpoint import LAST, Progress, export_encoder, restore_last, save_checkpoint
from hico_core.training.collapse import PATIENCE, effective_rank, embedding_std, has_collapsed
from hico_core.training.distributed import (
    World,
    gather_objects,
    gather_rows,
    joined_world,
    largest,
    share_batch_norms,
    share_of,
    start_gathering,
)
from hico_core.training.hardware import FP32, Precision, choose_precision, keep_freed_memory
from hico_core.training.knn import knn_accuracy, read_features
from hico_core.training.log import RunLog, StepMetrics, require_wandb
from hico_core.training.optim import LARS, parameter_groups
from hico_core.training.run_folder import open_run
from hico_core.training.schedule import learning_rate, peak_learning_rate, sampling_distance

logger = logging.getLogger(__name__)

DeviceName = Literal["auto", "cpu", "cuda"]

# Losses of single steps jump about; a run's summary compares means.
_LOSSES_IN_A_MEAN = 10

ALONE = World()

# Settings that change how a run is carried out, not what comes out of it: free to differ on resuming.
_FREE_ON_RESUME = {
    *("data.workers", "data.cache_dir", "data.cache_gb", "train.max_steps", "train.checkpoint_epochs"),
    *("train.checkpoint_seconds", "train.compile", "train.recompute", "train.wandb_project"),
}

# Settings that change what comes out, from the moment on at which they are changed.
_CHANGEABLE_ON_RESUME = {"train.batch_size"}


class Prepared(NamedTuple):
    """The parts of a run."""

    videos: IndexedVideos
    dataset: ClipDataset
    model: HicoModel
    replica: nn.Module  # what is called: the model, averaging its gradients over all processes
    optimizer: LARS
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


def choose_device(name: DeviceName) -> torch.device:
    """`auto` takes a GPU if there is one.

    Raises:
        UsageError: a GPU is asked for and there is none.

    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise UsageError("--device cuda: PyTorch sees no GPU here; use --device cpu, or auto")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


def prepare(
    config: Config, *, root: Location, device: torch.device, init_from: Path | None = None, world: World = ALONE
) -> Prepared:
    """Read the index and build all parts, so that whatever is wrong is said before any work is done.

    Raises:
        HicoError: no index, or too few videos for the batch.

    """
    if config.train.batch_size % world.size:
        raise UsageError(
            f"train.batch_size {config.train.batch_size} is the number of videos over all processes, so it must be a "
            f"multiple of their number, {world.size}"
        )
    span = clip_span_seconds(
        num_frames=config.data.num_frames,
        frame_stride=config.data.frame_stride,
        target_fps=config.data.target_fps,
    )
    index = read_index_table(root, columns=COLUMNS)
    videos = IndexedVideos(index, root=root, subset="train", shortest_seconds=span)
    if config.train.batch_size > len(videos):
        short = f" ({videos.num_short} shorter than one clip, {span:.2f} s, left out)" if videos.num_short else ""
        raise HicoError(
            f"{root}: train.batch_size {config.train.batch_size} is too large for {len(videos)} videos{short}; "
            f"use --batch-size {max(len(videos), 2)} or fewer, or add videos"
        )
    if config.train.batch_size < 2:
        raise UsageError("train.batch_size must be at least 2: a video is compared with others of its batch")
    require_decoder(config.data.decoder)
    require_wandb(config.train.wandb_project)
    labelled: Sequence[Source] = ()
    if config.eval.knn_list is not None:
        list_file = locate(config.eval.knn_list)
        labelled = labelled_videos(list_file, data_root=list_file.parent)
    torch.manual_seed(config.train.seed)
    topical = config.loss.name == "hico" and config.loss.topical_weight > 0
    model = HicoModel(S3DG(recompute=config.train.recompute), topical=topical)
    if init_from is not None:
        load_exactly(model.backbone, read_backbone_state(init_from), origin=str(init_from))
    # Convolutions in three dimensions are faster on channels that lie side by side.
    model.to(device).to(memory_format=torch.channels_last_3d)
    precision = choose_precision(config.train.precision, device)
    if device.type == "cpu" and not config.train.recompute:
        keep_freed_memory()
    if config.train.compile:
        model.backbone.compile()
    replica: nn.Module = model
    if world.size > 1:
        share_batch_norms(model, device.type)
        ids = [device.index] if device.type == "cuda" else None
        replica = DistributedDataParallel(model, device_ids=ids, gradient_as_bucket_view=True)
    optim = config.optim
    optimizer = LARS(
        parameter_groups(model, weight_decay=optim.weight_decay, lars_exclude_bn=optim.lars_exclude_bn),
        lr=optim.warmup_start_lr,
        momentum=optim.momentum,
        eta=optim.eta,
        nesterov=optim.nesterov,
        zero_norm=optim.lars_zero_norm,
    )
    return Prepared(
        videos,
        ClipDataset(videos, data=config.data, sampling=config.sampling, augment=config.augment),
        model,
        replica,
        optimizer,
        device,
        num_workers(config.data.workers),
        peak_learning_rate(
            base_lr=optim.base_lr,
            videos_per_step=config.train.batch_size,
            clips_per_video=config.sampling.clips_per_video,
            authors_processes=world.local_size if optim.scale_lr == "authors" else 1,
        ),
        precision,
        labelled,
    )


def max_distance(progress: float, sampling: SamplingConfig) -> float | None:
    """Largest distance of near clips at a progress in [0, 1]; None where they may lie anywhere."""
    if sampling.distance == "any":
        return None
    start = sampling.end_seconds if sampling.distance == "fixed" else sampling.start_seconds
    return sampling_distance(progress, start_seconds=start, end_seconds=sampling.end_seconds)


def compute_loss(outputs: Outputs, loss: LossConfig, *, clips_per_video: int, world: World = ALONE) -> HicoLoss:
    """The loss of one process, whose gradient is to be averaged over all; SimCLR's term counts as the visual part.

    The visual term compares the clips of all processes. Each has a gradient through its own rows only, so the term
    is multiplied by their number, which the average undoes. The rows travel while the topical term is computed.
    """
    gathered = start_gathering(outputs.embeddings, world)
    topical = (
        None
        if outputs.topic_logits is None
        else topical_loss(outputs.topic_logits, clips_per_video=clips_per_video, gamma=loss.gamma)
    )
    contrast = info_nce if loss.name == "simclr" else visual_loss
    return weighted_sum(
        contrast(gathered(), clips_per_video=clips_per_video, temperature=loss.temperature),
        topical,
        visual_weight=1.0 if loss.name == "simclr" else loss.visual_weight,
        topical_weight=loss.topical_weight,
        world_size=world.size,
    )


class StepResult(NamedTuple):
    """What one step of training gave."""

    loss: HicoLoss  # of this process
    embedding_std: float
    effective_rank: float


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    clips: Tensor,
    *,
    loss: LossConfig,
    lr: float,
    world: World = ALONE,
    precision: Precision = FP32,
) -> StepResult | None:
    """One update from this process's clips (B, K, 3, T, H, W); none, and None, if any process's loss is not finite."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    outputs: Outputs
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=precision.is_bf16):
        if loss.topical_pairs == "global":
            # The weights after the gathering see all pairs in every process, so only the rows' own gradient is scaled.
            outputs = model(clips, lambda rows: gather_rows(rows, world, gradient_scale=world.size))
        else:
            outputs = model(clips)
    losses = compute_loss(outputs, loss, clips_per_video=clips.shape[1], world=world)
    (infinite,) = largest([float(not torch.isfinite(losses.total))], world, clips.device)
    if infinite:
        return None
    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    optimizer.step()
    return StepResult(losses, embedding_std(outputs.embeddings), effective_rank(outputs.embeddings))


def _describe(batch: Batch) -> str:
    """The clips of a batch, for an error message."""
    return "; ".join(
        f"{video_id} at " + ", ".join(f"{start:.2f}-{end:.2f} s" for start, end in windows)
        for video_id, windows in zip(batch.video_ids, batch.windows, strict=True)
    )


def augmented_clips(batch: Batch, *, data: DataConfig, augment: AugmentConfig, device: torch.device) -> Tensor:
    """What the model gets of a batch, augmented on its device: (N, 3, T, H, W), video-major.

    Raises:
        HicoError: there are no clips, since neither a video nor its substitutes can be decoded.

    """
    if batch.crops is None:
        raise HicoError(
            f"{len(batch.unusable)} videos of one batch cannot be decoded; the last one: {batch.unusable[-1].reason}"
        )
    return apply_augmentation(
        batch.crops.to(device, non_blocking=True),
        batch.draws,
        size=data.crop_size,
        mean=augment.mean,
        std=augment.std,
    )


def _clips_of(batch: Batch, config: Config, device: torch.device) -> Tensor:
    """The same, video by video: (B, K, 3, T, H, W)."""
    clips = augmented_clips(batch, data=config.data, augment=config.augment, device=device)
    return clips.unflatten(0, (len(batch.video_ids), -1))


def check_bad_videos(bad: dict[str, str], num_videos: int, allowed: float) -> None:
    """End the run when too many videos cannot be decoded.

    Raises:
        HicoError: names the last one.

    """
    if len(bad) > allowed * num_videos:
        video_id, reason = list(bad.items())[-1]
        raise HicoError(
            f"{len(bad)} of {num_videos} videos cannot be decoded, more than data.max_bad_fraction={allowed}; "
            f"the last one is {video_id} ({reason}); split it again, or allow more"
        )


def _batches(
    config: Config, parts: Prepared, start: Position, world: World = ALONE
) -> Generator[tuple[PlannedStep, Batch], None, None]:
    """Each planned step with this process's clips of it, read ahead by the loader's workers."""
    plans = plan_steps(
        num_videos=len(parts.videos),
        batch_size=config.train.batch_size,
        epochs=config.train.epochs,
        epochs_per_round=config.data.epochs_per_round,
        max_distance_at=lambda progress: max_distance(progress, config.sampling),
        seed=config.train.seed,
        start=start,
    )
    ours = (plan._replace(requests=share_of(plan.requests, world)) for plan in plans)
    return read_batches(parts.dataset, ours, workers=parts.workers, pin_memory=parts.device.type == "cuda")


def _learning_rate_at(epoch: float, config: Config, peak: float) -> float:
    return learning_rate(
        epoch,
        peak=peak,
        start=config.optim.warmup_start_lr,
        warmup_epochs=config.optim.warmup_epochs,
        total_epochs=config.train.epochs,
    )


def kept_epoch(before: float, now: float, *, every: int) -> int | None:
    """The epoch whose end was passed between two steps, if it is one to keep a checkpoint of.

    before 9.8, now 10.1, every 10  ->  10
    """
    last = int(now) // every * every
    return last if last > before else None


def _go_on_from(run_dir: Path, parts: Prepared, world: World, *, allow_changed: bool) -> Progress:
    """Load the run's last checkpoint that can be read; without one, begin.

    Raises:
        UsageError: it was written by another number of processes, and `allow_changed` is not given.
        HicoError: no checkpoint of the run can be read.

    """
    progress = restore_last(run_dir / "checkpoints", model=parts.model, optimizer=parts.optimizer)
    if progress is None:
        return Progress(Position(), [], world.size)
    if progress.world_size != world.size:
        changed = f"{run_dir}: this run had {progress.world_size} processes and has {world.size} now"
        if not allow_changed:
            raise UsageError(f"{changed}; give it as many as before, or --allow-changed")
        logger.warning("%s: pairs of the topical term and batch order differ from here on", changed)
    return progress


def pretrain(
    config: Config,
    *,
    root: Location,
    run_dir: Path,
    device: DeviceName = "auto",
    resume: bool = False,
    allow_changed: bool = False,
    init_from: Path | None = None,
    on_step: Callable[[StepMetrics], None] = lambda metrics: None,
    on_bad_video: Callable[[str, str], None] = lambda video_id, reason: None,
    stop_signal: Callable[[], int | None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> RunSummary:
    """Train a HiCo model on the videos of an index, in as many processes as torchrun started.

    Args:
        config: the whole configuration.
        root: the workspace with index.parquet.
        run_dir: where the run's files go.
        device: where to train.
        resume: go on from the run's last checkpoint; without one, start.
        allow_changed: let a resumed run have another batch size or number of processes.
        init_from: a checkpoint whose encoder a new run starts from.
        on_step: told of each step.
        on_bad_video: told of the id and reason of each video that another one stood in for, once.
        stop_signal: asked before each step; a signal's number ends the run with a checkpoint.
        clock: seconds, for the log.

    Raises:
        HicoError: the run cannot start, has too many bad videos, or its loss is not a number.
        Interrupted: a signal ended it; a checkpoint is written.

    """
    chosen = choose_device(device)
    with joined_world(chosen.type) as world:
        if chosen.type == "cuda":
            chosen = torch.device("cuda", world.local_rank)
        parts = prepare(config, root=root, device=chosen, init_from=init_from, world=world)
        changeable = _CHANGEABLE_ON_RESUME if allow_changed else set()
        _together(lambda: open_run(run_dir, config, resume=resume, free=_FREE_ON_RESUME, changeable=changeable), world)
        progress = _go_on_from(run_dir, parts, world, allow_changed=allow_changed)
        return _train(
            config,
            parts,
            world,
            progress,
            run_dir=run_dir,
            on_step=on_step,
            on_bad_video=on_bad_video,
            stop_signal=stop_signal,
            clock=clock,
        )


def _together(work: Callable[[], None], world: World) -> None:
    """Do something in the first process while the others wait; what goes wrong there is raised in all.

    Raises:
        UsageError: whatever the work raised.

    """
    failure: str | None = None
    if world.is_first:
        try:
            work()
        except UsageError as error:
            failure = str(error)
    failure = gather_objects(failure, world)[0]
    if failure is not None:
        raise UsageError(failure)


def _train(
    config: Config,
    parts: Prepared,
    world: World,
    progress: Progress,
    *,
    run_dir: Path,
    on_step: Callable[[StepMetrics], None],
    on_bad_video: Callable[[str, str], None],
    stop_signal: Callable[[], int | None],
    clock: Callable[[], float],
) -> RunSummary:
    """Go on from a position to the end. Only the first process writes and reports."""
    position, epochs_done = progress.position, progress.epochs_done
    bad = dict.fromkeys(progress.bad_videos, "found before resuming")
    encoder = run_dir / "export" / "encoder.safetensors"

    def save(*names: str) -> None:
        if not world.is_first:
            return
        for name in names:
            save_checkpoint(
                run_dir / "checkpoints" / name,
                model=parts.model,
                optimizer=parts.optimizer,
                progress=Progress(position, list(bad), world.size, epochs_done),
                config=config.model_dump(mode="json"),
            )
        export_encoder(encoder, parts.model.backbone)

    losses: list[float] = []
    stds: deque[float] = deque(maxlen=PATIENCE)
    collapse_told = False
    knn: float | None = None
    log = None
    if world.is_first:
        log = RunLog(run_dir, keep_steps=position.step, wandb_project=config.train.wandb_project)
    parts.replica.train()
    saved_at = began = clock()
    epoch: float | None = None  # of the step before
    finished = True
    batches = _batches(config, parts, position, world)
    try:
        for plan, batch in batches:
            got_data = clock()
            epochs_done = plan.epoch
            # What the processes may see differently, they decide together.
            since_saved, signal_number, num_unusable = largest(
                [clock() - saved_at, float(stop_signal() or 0), float(len(batch.unusable))], world, parts.device
            )
            if epoch is not None:
                ended = int(plan.epoch) > int(epoch)
                kept = kept_epoch(epoch, plan.epoch, every=config.train.checkpoint_epochs) if ended else None
                if kept or since_saved >= config.train.checkpoint_seconds:
                    save(*([f"epoch_{kept:04d}.pt"] if kept else []), LAST)
                    saved_at = clock()
            knn_due = epoch is None or kept_epoch(epoch, plan.epoch, every=config.eval.knn_epochs)
            epoch = plan.epoch
            if signal_number:
                save(LAST)
                raise Interrupted(
                    int(signal_number), f"stopped after step {position.step}; the same command with --resume goes on"
                )
            if config.train.max_steps is not None and position.step >= config.train.max_steps:
                finished = False
                break

            unusable = gather_objects(batch.unusable, world) if num_unusable else []
            for video_id, reason in chain.from_iterable(unusable):
                if video_id not in bad:
                    bad[video_id] = reason
                    on_bad_video(video_id, reason)
            check_bad_videos(bad, len(parts.videos), config.data.max_bad_fraction)
            knn = _knn_accuracy(parts, config, world) if knn_due else None
            clips = _clips_of(batch, config, parts.device)

            lr = _learning_rate_at(plan.epoch, config, parts.peak_lr)
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
                    f"the loss is not a finite number at step {position.step + 1}, lr {lr:.4g}; "
                    f"the clips: {_describe(batch)}"
                )
            position = plan.position.after_step()

            now = clock()
            losses.append(_whole_loss(result.loss, config.loss))
            metrics = StepMetrics(
                step=position.step,
                epoch=plan.epoch,
                loss=losses[-1],
                visual=float(result.loss.visual),
                topical=None if result.loss.topical is None else float(result.loss.topical),
                lr=lr,
                distance=plan.max_distance_seconds,
                clips_per_second=world.size * clips.shape[0] * clips.shape[1] / (now - began),
                data_seconds=got_data - began,
                step_seconds=now - began,
                bad_videos=len(bad),
                embedding_std=result.embedding_std,
                effective_rank=result.effective_rank,
                knn_accuracy=knn,
            )
            stds.append(result.embedding_std)
            if not collapse_told and has_collapsed(list(stds), width=EMBEDDING_DIM):
                collapse_told = True
                logger.warning(
                    "the embeddings of the last %d steps are nearly alike (std %.4f, effective rank %.1f): training "
                    "has collapsed; try a lower optim.base_lr or a longer optim.warmup_epochs",
                    PATIENCE,
                    result.embedding_std,
                    result.effective_rank,
                )
            if log is not None:
                log.write(metrics.step, metrics._asdict())
                on_step(metrics)
            began = now
    finally:
        batches.close()
        if log is not None:
            log.close()
    if finished:
        epochs_done = float(config.train.epochs)
    save(*([f"epoch_{config.train.epochs:04d}.pt"] if finished else []), LAST)
    knn = _knn_accuracy(parts, config, world)
    return RunSummary(
        run_dir,
        encoder,
        position.step,
        parts.precision,
        fmean(losses[:_LOSSES_IN_A_MEAN]) if losses else None,
        fmean(losses[-_LOSSES_IN_A_MEAN:]) if losses else None,
        knn,
    )


def _knn_accuracy(parts: Prepared, config: Config, world: World) -> float | None:
    """Accuracy of nearest neighbours on the labelled list, each process reading its part; None without a list."""
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
    together = [part for part in gather_objects(found, world) if part.labels]
    features = torch.cat([part.features for part in together]) if together else torch.empty(0, 0)
    labels = torch.tensor([label for part in together for label in part.labels])
    return knn_accuracy(features, labels, k=config.eval.knn_neighbours)


def _whole_loss(parts: HicoLoss, loss: LossConfig) -> float:
    """The weighted sum of the parts: what the log shows, without the factor that several processes need."""
    if loss.name == "simclr":
        return float(parts.visual)
    topical = 0.0 if parts.topical is None else float(parts.topical)
    return loss.visual_weight * float(parts.visual) + loss.topical_weight * topical


class Rehearsal(NamedTuple):
    """What a run would be, measured on its first step."""

    num_videos: int
    num_short_videos: int  # left out
    steps_per_epoch: float
    num_steps: int  # about; a few more are left out where epochs meet
    encoder_parameters: int
    head_parameters: int
    batch_bytes: int
    checkpoint_bytes: int
    peak_lr: float
    workers: int
    device: str
    precision: Precision
    loss: float
    step_seconds: float


def rehearse(
    config: Config,
    *,
    root: Location,
    device: DeviceName = "auto",
    init_from: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Rehearsal:
    """Do the first step of a run, write nothing, and measure.

    Raises:
        HicoError: the run cannot start, or its first step fails.

    """
    parts = prepare(config, root=root, device=choose_device(device), init_from=init_from)
    parts.model.train()
    batches = _batches(config, parts, Position())
    plan, batch = next(batches)
    batches.close()
    began = clock()
    clips = _clips_of(batch, config, parts.device)
    lr = _learning_rate_at(plan.epoch, config, parts.peak_lr)
    result = train_step(parts.model, parts.optimizer, clips, loss=config.loss, lr=lr, precision=parts.precision)
    if result is None:
        raise HicoError(f"the loss of the first step is not a finite number; the clips: {_describe(batch)}")
    encoder = sum(p.numel() for p in parts.model.backbone.parameters())
    everything = sum(p.numel() for p in parts.model.parameters())
    stored = [
        *parts.model.state_dict().values(),
        *(s["momentum_buffer"] for s in parts.optimizer.state.values()),
    ]
    steps_per_epoch = len(parts.videos) / config.train.batch_size
    return Rehearsal(
        num_videos=len(parts.videos),
        num_short_videos=parts.videos.num_short,
        steps_per_epoch=steps_per_epoch,
        num_steps=int(steps_per_epoch * config.train.epochs),
        encoder_parameters=encoder,
        head_parameters=everything - encoder,
        batch_bytes=clips.nbytes,
        checkpoint_bytes=sum(tensor.nbytes for tensor in stored),
        peak_lr=parts.peak_lr,
        workers=parts.workers,
        device=str(parts.device),
        precision=parts.precision,
        loss=float(result.loss.total.detach()),
        step_seconds=clock() - began,
    )
