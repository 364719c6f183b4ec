"""Finetuning: a pretrained encoder learns the classes of labelled videos, and is tested on others.

Videos and labels come from the index: its subset `train` is trained on, `test` tested on; where there are some in
`val`, they choose the checkpoint that is tested. The recipe is that of the HiCo paper's authors; of linear evaluation
(`tune: head`) too, except that the encoder's batch norms stay as they were pretrained unless `statistics: drift` is
asked for.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import chain
from math import isfinite
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hico_core.config import FinetuneConfig
from hico_core.corpus.addresses import Location, absolute, name_from
from hico_core.corpus.cache import LocalCache
from hico_core.corpus.failures import FailedSource, update_failures
from hico_core.corpus.index import read_index_table
from hico_core.corpus.records import Failure
from hico_core.data.batches import Batch
from hico_core.data.labelled import RandomViews
from hico_core.data.loader import read_batches
from hico_core.data.other_decoders import require_decoder
from hico_core.data.plan import PlannedStep, Position, TrainingOrder, plan_steps
from hico_core.data.videos import COLUMNS, IndexedVideos
from hico_core.data.workers import num_workers
from hico_core.errors import HicoError, UsageError
from hico_core.interop.checkpoints import backbone_of, load_exactly, read_checkpoint
from hico_core.model.classifier import VideoClassifier
from hico_core.model.encoders import encoder_for
from hico_core.training.checkpoint import BEST, LAST, Content, EncoderOrigin, content_of
from hico_core.training.cost import measure_cost
from hico_core.training.distributed import (
    World,
    from_first,
    gather_objects,
    gather_to_first,
    largest,
    mean_over_processes,
)
from hico_core.training.hardware import (
    FP32,
    DeviceName,
    Precision,
    choose_device,
    keep_freed_memory,
    peak_memory_bytes,
    telling_full_memory,
    use_precision,
)
from hico_core.training.loop import replica_of
from hico_core.training.optim import parameter_groups
from hico_core.training.rehearse import measure_speed, read_seconds_of
from hico_core.training.run import FREE_ON_RESUME, Learner, Run, Step, entered_run, go_on_from
from hico_core.training.schedule import learning_rate
from hico_core.training.step import ALONE, augmented_clips
from hico_core.training.stopping import StopRequest
from hico_core.transfer.labelled import LabelledVideo, labelled_among
from hico_core.transfer.testing import Accuracy, Prediction, parts_that_are_right, predictions_of, write_results

# How the videos of a finished run are tested changes nothing that was learned.
_FREE_ON_RESUME = FREE_ON_RESUME | {"test.views", "test.crops", "test.crop_part"}


class FinetuneMetrics(NamedTuple):
    """One line of metrics.jsonl."""

    step: int  # from 1
    epoch: float  # passes over the videos done before the step
    loss: float
    accuracy: float  # part of the step's clips whose class has the highest score
    lr: float
    clips_per_second: float
    data_seconds: float  # spent waiting for the step's clips
    step_seconds: float  # of the whole step, waiting included
    bad_videos: int  # different videos that could not be decoded, so far
    val_accuracy: float | None = None  # with the weights before the step; None where it was not measured


class FinetuneSummary(NamedTuple):
    """How a run ended."""

    run_dir: Path
    num_steps: int
    precision: Precision
    first_loss: float | None  # mean of this call's first 10 steps; None if it had nothing left to do
    last_loss: float | None  # mean of its last 10
    test: Accuracy | None  # None where the index has no labelled videos to test on


class _Videos(NamedTuple):
    """The labelled videos of an index."""

    train: IndexedVideos
    val: IndexedVideos
    test: IndexedVideos
    labels: dict[str, int]
    num_classes: int


class _Parts(NamedTuple):
    videos: _Videos
    model: VideoClassifier
    replica: nn.Module  # what is called in training: the model, averaging its gradients over all processes
    optimizer: torch.optim.Optimizer
    device: torch.device
    precision: Precision
    workers: int
    cache: LocalCache


def finetune(
    config: FinetuneConfig,
    *,
    root: Location,
    run_dir: Path,
    encoder: Path | None,
    device: DeviceName = "auto",
    resume: bool = False,
    allow_changed: bool = False,
    on_step: Callable[[FinetuneMetrics], None] = lambda metrics: None,
    on_bad_video: Callable[[str, str], None] = lambda video_id, reason: None,
    on_tested: Callable[[int, int], None] = lambda done, of: None,
    stop: StopRequest | None = None,
) -> FinetuneSummary:
    """Train a classifier on the labelled videos of an index, then test it, in as many processes as were started.

    Args:
        config: of the run.
        root: the workspace with index.parquet.
        run_dir: where its files go: config.yaml, metrics.jsonl, checkpoints/, results.json and predictions.csv.
        encoder: a checkpoint of ours or the authors' that a new run starts from; a run that goes on needs none.
        device: as `choose_device` takes it.
        resume: go on from the run's last checkpoint; a finished run is only tested again.
        allow_changed: let a resumed run have other epochs, another batch size, number of processes or index.
        on_step: told of each step, in the first process.
        on_bad_video: told of the id and reason of each video that cannot be decoded, once.
        on_tested: told how many videos are tested by this process, and of how many.
        stop: asks for the end; the run ends with a checkpoint.

    Raises:
        HicoError: the run cannot start, has too many bad videos, or its loss is not a number.
        Interrupted: a signal ended it; what was learned is in a checkpoint.

    """
    stop = stop or StopRequest()
    with entered_run(run_dir, config, device, resume=resume, allow_changed=allow_changed, free=_FREE_ON_RESUME) as (
        world,
        own_device,
        checkpoint,
    ):
        parts, origin = _prepare(config, root, encoder, checkpoint, own_device, world)
        run = _run_of(parts, config, checkpoint, origin, world, stop, run_dir, allow_changed=allow_changed)
        with closing(run):
            for step in run.steps(_batches(run.progress.position, config, parts, world)):
                for video_id, reason in step.newly_bad:
                    on_bad_video(video_id, reason)
                metrics = _do_step(step, run, config, parts, world)
                run.write(step, metrics.loss, metrics._asdict())
                if world.is_first:
                    on_step(metrics)
            tested = _load_best(run, config, parts, world) if len(parts.videos.val) else LAST
        predictions: list[Prediction] = []
        num_mine = len(_share(parts.videos.test, world))
        for prediction in _predictions(parts.videos.test, config, parts, world, stop):
            predictions.append(prediction)
            if prediction.bad:
                on_bad_video(prediction.video_id, str(prediction.bad))
            on_tested(len(predictions), num_mine)
        test = _report(predictions, run, config, parts, root=root, tested=tested, world=world)
        return FinetuneSummary(run_dir, run.steps_done, parts.precision, run.first_loss, run.last_loss, test)


def _run_of(
    parts: _Parts,
    config: FinetuneConfig,
    checkpoint: Content | None,
    origin: EncoderOrigin | None,
    world: World,
    stop: StopRequest,
    run_dir: Path,
    *,
    allow_changed: bool,
) -> Run:
    """The run of these parts, where it stands; it remembers the encoder that it began from."""
    learner = Learner(parts.model, parts.optimizer, parts.device)
    index = parts.videos.train.identity()
    progress = go_on_from(
        checkpoint, learner, config=config, index=index, world=world, run_dir=run_dir, allow_changed=allow_changed
    )
    progress = progress.model_copy(update={"encoder": progress.encoder or origin})
    return Run(run_dir, learner, progress, config=config, world=world, stop=stop)


def _prepare(
    config: FinetuneConfig,
    root: Location,
    encoder: Path | None,
    checkpoint: Content | None,
    device: torch.device,
    world: World,
) -> tuple[_Parts, EncoderOrigin | None]:
    """Read the index and build all parts, so that whatever is wrong is said before any work is done.

    Raises:
        HicoError: no labelled videos, too few, or a label that is no class; the encoder cannot be read.

    """
    require_decoder(config.data.decoder)
    videos = _labelled_videos(config, root, processes=world.size)
    torch.manual_seed(config.train.seed)
    origin = None
    if checkpoint is not None:  # the encoder that the run began from is in it, wherever its file is now
        state = backbone_of(dict(checkpoint), origin="the run's last checkpoint")
    elif encoder is None:
        raise UsageError("no encoder to start from, and no checkpoint of the run; name one with --checkpoint")
    else:
        state, origin = from_first(_start_from(encoder, root) if world.is_first else ({}, None), world)
    backbone = encoder_for(state)
    model = VideoClassifier(videos.num_classes, backbone, backbone.feature_dim)
    load_exactly(model.backbone, state, origin=str(encoder))
    model.to(device).to(memory_format=torch.channels_last_3d)
    if config.train.tune == "head":
        model.backbone.requires_grad_(False)
    if device.type == "cpu":
        keep_freed_memory()
    replica = replica_of(model, device, world)
    replica.train()
    if config.train.tune == "head" and config.train.statistics == "frozen":
        model.backbone.eval()
    groups = parameter_groups(model, weight_decay=config.optim.weight_decay, lars_exclude_bn=False)
    parts = _Parts(
        videos,
        model,
        replica,
        torch.optim.Adam(groups, lr=config.optim.warmup_start_lr),
        device,
        use_precision(config.train.precision, device),
        num_workers(config.data.workers, processes=world.local_size),
        LocalCache(config.data.cache_dir, size_bytes=int(config.data.cache_gb * 1e9)),
    )
    return parts, origin


def _start_from(encoder: Path, root: Location) -> tuple[dict[str, Tensor], EncoderOrigin]:
    """The weights of an encoder's file, and which file that was."""
    file = read_checkpoint(encoder)
    origin = EncoderOrigin(path=name_from(root, absolute(encoder)), sha256=file.sha256)
    return backbone_of(file.content, origin=str(encoder)), origin


def _labelled_videos(config: FinetuneConfig, root: Location, *, processes: int) -> _Videos:
    table = read_index_table(root, columns=COLUMNS)
    labelled: pa.Table = table.filter(pc.is_valid(table["label"]))
    train, val, test = (IndexedVideos(labelled, root=root, subset=subset) for subset in ("train", "val", "test"))
    if len(train) == 0:
        raise HicoError(
            f"{root}: its index has no labelled videos to train on; add them with "
            "`hico index --list FILE`, a list of `<path> <label>`"
        )
    if config.train.batch_size > len(train):
        raise HicoError(
            f"{root}: train.batch_size {config.train.batch_size} is too large for {len(train)} labelled videos; "
            f"use --batch-size {len(train)} or fewer"
        )
    if config.train.batch_size % processes:
        raise UsageError(
            f"train.batch_size {config.train.batch_size} is the number of videos over all processes, so it must be a "
            f"multiple of their number, {processes}"
        )
    labels = {videos.video_id(n): _label(videos, n) for videos in (train, val, test) for n in range(len(videos))}
    last = max(labels, key=labels.__getitem__)
    if config.num_classes is not None and labels[last] >= config.num_classes:
        raise HicoError(f"{last} has label {labels[last]}, but num_classes is {config.num_classes}")
    return _Videos(train, val, test, labels, config.num_classes or labels[last] + 1)


def _label(videos: IndexedVideos, number: int) -> int:
    label = videos.label(number)
    assert label is not None  # only labelled videos were taken
    return label


def _batches(
    position: Position, config: FinetuneConfig, parts: _Parts, world: World
) -> Generator[tuple[PlannedStep, Batch], None, None]:
    """Each planned step with this process's clips of it."""
    plans = plan_steps(
        TrainingOrder(
            num_videos=len(parts.videos.train),
            batch_size=config.train.batch_size,
            epochs=config.train.epochs,
            epochs_per_round=config.data.epochs_per_round,
            seed=config.train.seed,
        ),
        max_distance_at=lambda progress: None,
        start=position,
        rank=world.rank,
        processes=world.size,
    )
    return read_batches(
        _random_views(config, parts),
        plans,
        workers=parts.workers,
        pin_memory=parts.device.type == "cuda",
    )


def _random_views(config: FinetuneConfig, parts: _Parts) -> RandomViews:
    return RandomViews(parts.videos.train, data=config.data, augment=config.augment, cache=parts.cache)


def _do_step(step: Step, run: Run, config: FinetuneConfig, parts: _Parts, world: World) -> FinetuneMetrics:
    """One update, and what is measured of it.

    Raises:
        HicoError: its clips cannot be read, or its loss is not a number.

    """
    val_accuracy = None
    if len(parts.videos.val) and step.ends_epoch(config.train.eval_epochs):
        val_accuracy = _val_accuracy(config, parts, world)
        run.note_best(val_accuracy)
    lr = _learning_rate_at(step.plan.epoch, config)
    loss, accuracy = _learn(step.batch, lr, config, parts, world)
    times = run.times(world.size * len(step.batch.video_ids))
    return FinetuneMetrics(
        step=step.number,
        epoch=step.plan.epoch,
        loss=loss,
        accuracy=accuracy,
        lr=lr,
        clips_per_second=times.clips_per_second,
        data_seconds=times.data_seconds,
        step_seconds=times.step_seconds,
        bad_videos=len(run.bad_videos),
        val_accuracy=val_accuracy,
    )


def _learning_rate_at(epoch: float, config: FinetuneConfig) -> float:
    return learning_rate(
        epoch,
        peak=config.optim.base_lr,
        start=config.optim.warmup_start_lr,
        warmup_epochs=config.optim.warmup_epochs,
        total_epochs=config.train.epochs,
    )


def _learn(batch: Batch, lr: float, config: FinetuneConfig, parts: _Parts, world: World) -> tuple[float, float]:
    """See `classification_step`; of a batch as it was read."""
    labels = torch.tensor([parts.videos.labels[video_id] for video_id in batch.video_ids]).to(parts.device)
    clips = augmented_clips(batch, data=config.data, augment=config.augment, device=parts.device)
    return classification_step(
        parts.replica, parts.optimizer, clips, labels, lr=lr, world=world, precision=parts.precision
    )


def classification_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    clips: Tensor,
    labels: Tensor,
    *,
    lr: float,
    world: World = ALONE,
    precision: Precision = FP32,
) -> tuple[float, float]:
    """One update from this process's clips (N, 3, T, H, W): loss and accuracy over all, which have equally many.

    Raises:
        HicoError: the loss of one is not a finite number; nothing is updated then.

    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=precision.is_bf16):
        scores = model(clips)
    loss = F.cross_entropy(scores, labels)
    right = (scores.argmax(dim=1) == labels).double().mean()
    # The only moment at which a GPU is waited for; what comes after is handed out while it computes.
    told, accuracy = torch.stack([loss.detach().double(), right]).cpu().tolist()
    (infinite,) = largest([float(not isfinite(told))], world)
    if infinite:
        raise HicoError(f"the loss is not a finite number, lr {lr:.4g}; try a lower optim.base_lr")
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    mean_loss, mean_accuracy = mean_over_processes([told, accuracy], world)
    return mean_loss, mean_accuracy


def _share(videos: IndexedVideos, world: World) -> list[LabelledVideo]:
    """The videos that this process looks at."""
    return labelled_among(videos)[world.rank :: world.size]


def _val_accuracy(config: FinetuneConfig, parts: _Parts, world: World) -> float:
    """Part of the videos for validation that are known, each process looking at its share of them."""
    found = _predictions(parts.videos.val, config, parts, world, StopRequest())
    right = [prediction.predicted == prediction.label for prediction in found]
    return fmean(chain.from_iterable(gather_objects(right, world)))


def _load_best(run: Run, config: FinetuneConfig, parts: _Parts, world: World) -> str:
    """Compare the last weights with the best before them, and put the best in place; the checkpoint's name."""
    run.note_best(_val_accuracy(config, parts, world))
    run.finish_writing()
    best = run.run_dir / "checkpoints" / BEST
    weights = from_first(content_of(read_checkpoint(best)).model if world.is_first else {}, world)
    load_exactly(parts.model, weights, origin=str(best))
    return BEST


def _predictions(
    videos: IndexedVideos, config: FinetuneConfig, parts: _Parts, world: World, stop: StopRequest
) -> Iterator[Prediction]:
    """What the classifier says of each video of this process's share."""
    return predictions_of(
        parts.model,
        _share(videos, world),
        config,
        precision=parts.precision,
        cache=parts.cache,
        workers=parts.workers,
        stop=stop,
    )


def _report(
    predictions: list[Prediction],
    run: Run,
    config: FinetuneConfig,
    parts: _Parts,
    *,
    root: Location,
    tested: str,
    world: World,
) -> Accuracy | None:
    """Put the predictions of all processes together in the first one, which writes and tells all what comes out."""
    together = sorted(chain.from_iterable(gather_to_first(predictions, world)))
    accuracy = _accuracy_of(together, run, config, tested=tested) if together else None
    if accuracy is not None:
        _write_report(accuracy, together, run.run_dir, parts.videos.test, root=root)
    return from_first(accuracy, world)


def _accuracy_of(predictions: list[Prediction], run: Run, config: FinetuneConfig, *, tested: str) -> Accuracy:
    top1, top5 = parts_that_are_right(predictions)
    origin = run.progress.encoder
    return Accuracy(
        num_videos=len(predictions),
        num_failed=sum(prediction.predicted is None for prediction in predictions),
        top1=top1,
        top5=top5,
        views=config.test.views,
        crops=config.test.crops,
        steps=run.progress.position.step,
        checkpoint=tested,
        val_accuracy=run.progress.best_accuracy,
        encoder=origin.path if origin else "",
        encoder_sha256=origin.sha256 if origin else "",
    )


def _write_report(
    accuracy: Accuracy, predictions: list[Prediction], run_dir: Path, test: IndexedVideos, *, root: Location
) -> None:
    """Write results.json, predictions.csv and the failures."""
    write_results(run_dir, accuracy, predictions)
    source_of = {test.video_id(number): test.source(number) for number in range(len(test))}
    failed = [
        FailedSource(source, Failure(stage="decode", error=bad.said_of(source)))
        for source, bad in ((source_of[prediction.video_id], prediction.bad) for prediction in predictions)
        if bad
    ]
    fine = set(source_of.values()) - {failure.source for failure in failed}
    update_failures(root, command="finetune", fine=fine, failed=failed)


class FinetuneRehearsal(NamedTuple):
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


def rehearse_finetuning(
    config: FinetuneConfig, *, root: Location, encoder: Path, device: DeviceName = "auto", processes: int = 1
) -> FinetuneRehearsal:
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
    _labelled_videos(config, root, processes=processes)
    parts, _ = _prepare(config, root, encoder, None, choose_device(device), ALONE)
    batches = _batches(Position(), config, parts, World(size=processes))
    plan, batch = next(batches)
    batches.close()
    workers = num_workers(config.data.workers, processes=processes)
    with telling_full_memory(config.train.batch_size // processes, parts.device):
        loss, speed = measure_speed(
            lambda: _learn(batch, _learning_rate_at(0.0, config), config, parts, ALONE)[0],
            num_clips=len(batch.video_ids),
            read_seconds=read_seconds_of(_random_views(config, parts), plan),
            workers=workers,
            device=parts.device,
        )
    num_clips = len(parts.videos.train) * config.train.epochs
    cost = measure_cost(parts.model.backbone, num_frames=config.data.num_frames, size=config.data.crop_size)
    num_views = len(parts.videos.test) * config.test.views * config.test.crops
    return FinetuneRehearsal(
        num_videos=len(parts.videos.train),
        num_test_videos=len(parts.videos.test),
        num_classes=parts.videos.num_classes,
        num_steps=num_clips // config.train.batch_size,
        processes=processes,
        workers=workers,
        device=str(parts.device),
        precision=parts.precision,
        loss=loss,
        step_seconds=speed.step_seconds,
        step_clips_per_second=speed.step_clips_per_second,
        reader_clips_per_second=speed.reader_clips_per_second,
        hours=speed.hours(num_clips, processes=processes),
        test_hours=num_views / cost.clips_per_second / processes / 3600,
        peak_memory_bytes=peak_memory_bytes(parts.device),
    )
