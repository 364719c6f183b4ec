"""Finetuning: a pretrained encoder learns the classes of labelled videos, and is tested on others.

Videos and labels come from the index: its subset `train` is trained on, `test` tested on. The recipe is that of the
HiCo paper's authors; of linear evaluation (`tune: head`) too, except that the encoder's batch norms stay as they were
pretrained unless `statistics: drift` is asked for.
"""

import csv
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from torch import Tensor

from hico_core.config import FinetuneConfig
from hico_core.corpus.addresses import Location
from hico_core.corpus.cache import LocalCache, default_cache_folder
from hico_core.corpus.failures import FailedSource, update_failures
from hico_core.corpus.files import write_text
from hico_core.corpus.index import read_index_table
from hico_core.corpus.records import Failure, sha256_of
from hico_core.data.dataset import COLUMNS, ClipRequest, IndexedVideos
from hico_core.data.decode import require_decoder
from hico_core.data.labelled import FixedViews, RandomViews
from hico_core.data.loader import PlannedStep, Position, num_workers, plan_steps, read_batches
from hico_core.errors import HicoError, Interrupted
from hico_core.interop import load_exactly, read_backbone_state
from hico_core.model.classifier import VideoClassifier
from hico_core.model.s3dg import S3DG
from hico_core.training.checkpoint import LAST, Progress, restore_last, save_checkpoint
from hico_core.training.hardware import Precision, choose_precision, keep_freed_memory
from hico_core.training.log import RunLog
from hico_core.training.loop import DeviceName, augmented_clips, check_bad_videos, choose_device
from hico_core.training.optim import parameter_groups
from hico_core.training.run_folder import open_run
from hico_core.training.schedule import learning_rate

# Losses of single steps jump about; the summary compares means.
_LOSSES_IN_A_MEAN = 10

# Settings that change how a run is carried out or tested, not what is learned: free to differ on resuming.
_FREE_ON_RESUME = {
    *("data.workers", "data.cache_dir", "data.cache_gb", "train.max_steps", "train.checkpoint_seconds"),
    *("test.views", "test.crops", "test.crop_part"),
}


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


class Prediction(NamedTuple):
    """What the classifier says of a test video: a line of predictions.csv."""

    video_id: str
    label: int
    predicted: int | None  # None: the video cannot be decoded, which counts as wrong
    probability: float | None  # mean over the views
    in_top5: bool


class Accuracy(NamedTuple):
    """Content of results.json."""

    num_videos: int
    num_failed: int  # cannot be decoded
    top1: float  # part of all videos
    top5: float
    views: int
    crops: int
    steps: int
    encoder_sha256: str  # of the file that the run started from


class FinetuneSummary(NamedTuple):
    """How a run ended."""

    run_dir: Path
    num_steps: int
    precision: Precision
    first_loss: float | None  # mean of this call's first 10 steps; None if it had nothing left to do
    last_loss: float | None  # mean of its last 10
    test: Accuracy | None  # None where the index has no labelled videos to test on


class _Parts(NamedTuple):
    train: IndexedVideos
    test: IndexedVideos
    labels: dict[str, int]
    model: VideoClassifier
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
    encoder: Path,
    device: DeviceName = "auto",
    resume: bool = False,
    on_step: Callable[[FinetuneMetrics], None] = lambda metrics: None,
    on_bad_video: Callable[[str, str], None] = lambda video_id, reason: None,
    on_tested: Callable[[int, int], None] = lambda done, of: None,
    stop_signal: Callable[[], int | None] = lambda: None,
    clock: Callable[[], float] = time.monotonic,
) -> FinetuneSummary:
    """Train a classifier on the labelled videos of an index, then test it.

    Writes config.yaml, metrics.jsonl, checkpoints/, and, after the test, results.json and predictions.csv.

    Args:
        config: the whole configuration.
        root: the workspace with index.parquet.
        run_dir: where the run's files go.
        encoder: a checkpoint of ours or the authors' to start from; its heads are left out.
        device: where to train.
        resume: go on from the run's last checkpoint; a finished run is only tested again.
        on_step: told of each step.
        on_bad_video: told of the id and reason of each video that cannot be decoded, once.
        on_tested: told how many videos are tested, and of how many.
        stop_signal: asked before each step and each test video; a signal's number ends the run.
        clock: seconds, for the log.

    Raises:
        HicoError: the run cannot start, has too many bad videos, or its loss is not a number.
        Interrupted: a signal ended it; what was learned is in a checkpoint.

    """
    parts = _prepare(config, root=root, encoder=encoder, device=choose_device(device))
    open_run(run_dir, config, resume=resume, free=_FREE_ON_RESUME)
    progress = restore_last(run_dir / "checkpoints", model=parts.model, optimizer=parts.optimizer)
    num_steps, losses = _train(
        config,
        parts,
        progress or Progress(Position(), []),
        run_dir=run_dir,
        on_step=on_step,
        on_bad_video=on_bad_video,
        stop_signal=stop_signal,
        clock=clock,
    )
    test = None
    if len(parts.test):
        predictions = _predict(
            config, parts, root=root, on_bad_video=on_bad_video, on_tested=on_tested, stop_signal=stop_signal
        )
        test = Accuracy(
            num_videos=len(predictions),
            num_failed=sum(prediction.predicted is None for prediction in predictions),
            top1=fmean(prediction.predicted == prediction.label for prediction in predictions),
            top5=fmean(prediction.in_top5 for prediction in predictions),
            views=config.test.views,
            crops=config.test.crops,
            steps=num_steps,
            encoder_sha256=sha256_of(encoder),
        )
        _write_results(run_dir, test, predictions)
    return FinetuneSummary(
        run_dir,
        num_steps,
        parts.precision,
        fmean(losses[:_LOSSES_IN_A_MEAN]) if losses else None,
        fmean(losses[-_LOSSES_IN_A_MEAN:]) if losses else None,
        test,
    )


def _prepare(config: FinetuneConfig, *, root: Location, encoder: Path, device: torch.device) -> _Parts:
    """Read the index and build all parts, so that whatever is wrong is said before any work is done.

    Raises:
        HicoError: no labelled videos, too few, or a label that is no class; the encoder cannot be read.

    """
    table = read_index_table(root, columns=COLUMNS)
    labelled = table.filter(pc.is_valid(table["label"]))
    train, test = (IndexedVideos(labelled, root=root, subset=subset) for subset in ("train", "test"))
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
    require_decoder(config.data.decoder)
    labels = {videos.video_id(n): _label(videos, n) for videos in (train, test) for n in range(len(videos))}
    last = max(labels, key=labels.__getitem__)
    if config.num_classes is not None and labels[last] >= config.num_classes:
        raise HicoError(f"{last} has label {labels[last]}, but num_classes is {config.num_classes}")
    torch.manual_seed(config.train.seed)
    state = read_backbone_state(encoder)
    model = VideoClassifier(
        config.num_classes or labels[last] + 1, S3DG(gating=any(".gating_" in name for name in state))
    )
    load_exactly(model.backbone, state, origin=str(encoder))
    model.to(device).to(memory_format=torch.channels_last_3d)
    if config.train.tune == "head":
        model.backbone.requires_grad_(False)
    if device.type == "cpu":
        keep_freed_memory()
    groups = parameter_groups(model, weight_decay=config.optim.weight_decay, lars_exclude_bn=False)
    return _Parts(
        train,
        test,
        labels,
        model,
        torch.optim.Adam(groups, lr=config.optim.warmup_start_lr),
        device,
        choose_precision(config.train.precision, device),
        num_workers(config.data.workers),
        LocalCache(Path(config.data.cache_dir or default_cache_folder()), size_bytes=int(config.data.cache_gb * 1e9)),
    )


def _label(videos: IndexedVideos, number: int) -> int:
    label = videos.label(number)
    assert label is not None  # only labelled videos were taken
    return label


def _train(
    config: FinetuneConfig,
    parts: _Parts,
    progress: Progress,
    *,
    run_dir: Path,
    on_step: Callable[[FinetuneMetrics], None],
    on_bad_video: Callable[[str, str], None],
    stop_signal: Callable[[], int | None],
    clock: Callable[[], float],
) -> tuple[int, list[float]]:
    """Go on from a position to the end: how many steps the run has now, and the losses of those just done."""
    position, epochs_done = progress.position, progress.epochs_done
    bad = dict.fromkeys(progress.bad_videos, "found before resuming")

    def save() -> None:
        save_checkpoint(
            run_dir / "checkpoints" / LAST,
            model=parts.model,
            optimizer=parts.optimizer,
            progress=Progress(position, list(bad), epochs_done=epochs_done),
            config=config.model_dump(mode="json"),
        )

    parts.model.train()
    if config.train.tune == "head" and config.train.statistics == "frozen":
        parts.model.backbone.eval()
    losses: list[float] = []
    log = RunLog(run_dir, keep_steps=position.step)
    batches = read_batches(
        RandomViews(parts.train, data=config.data, augment=config.augment, cache=parts.cache),
        plan_steps(
            num_videos=len(parts.train),
            batch_size=config.train.batch_size,
            epochs=config.train.epochs,
            epochs_per_round=config.data.epochs_per_round,
            max_distance_at=lambda progress: None,
            seed=config.train.seed,
            start=position,
        ),
        workers=parts.workers,
        pin_memory=parts.device.type == "cuda",
    )
    saved_at = began = clock()
    try:
        for plan, batch in batches:
            got_data = clock()
            epochs_done = plan.epoch
            signal_number = stop_signal()
            if signal_number is not None:
                save()
                raise Interrupted(
                    signal_number, f"stopped after step {position.step}; the same command with --resume goes on"
                )
            if config.train.max_steps is not None and position.step >= config.train.max_steps:
                break
            if clock() - saved_at >= config.train.checkpoint_seconds:
                save()
                saved_at = clock()
            for video_id, reason in batch.unusable:
                if video_id not in bad:
                    bad[video_id] = reason
                    on_bad_video(video_id, reason)
            check_bad_videos(bad, len(parts.train), config.data.max_bad_fraction)
            lr = learning_rate(
                plan.epoch,
                peak=config.optim.base_lr,
                start=config.optim.warmup_start_lr,
                warmup_epochs=config.optim.warmup_epochs,
                total_epochs=config.train.epochs,
            )
            labels = torch.tensor([parts.labels[video_id] for video_id in batch.video_ids]).to(parts.device)
            clips = augmented_clips(batch, data=config.data, augment=config.augment, device=parts.device)
            loss, accuracy = _step(parts, clips, labels, lr=lr)
            position = plan.position.after_step()
            losses.append(loss)
            now = clock()
            metrics = FinetuneMetrics(
                step=position.step,
                epoch=plan.epoch,
                loss=loss,
                accuracy=accuracy,
                lr=lr,
                clips_per_second=len(labels) / (now - began),
                data_seconds=got_data - began,
                step_seconds=now - began,
                bad_videos=len(bad),
            )
            log.write(metrics.step, metrics._asdict())
            on_step(metrics)
            began = now
        else:
            epochs_done = float(config.train.epochs)
    finally:
        batches.close()
        log.close()
    if losses:
        save()
    return position.step, losses


def _step(parts: _Parts, clips: Tensor, labels: Tensor, *, lr: float) -> tuple[float, float]:
    """One update: its loss and accuracy.

    Raises:
        HicoError: the loss is not a finite number; nothing is updated then.

    """
    for group in parts.optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=parts.precision.is_bf16):
        scores = parts.model(clips)
    loss = F.cross_entropy(scores, labels)
    if not torch.isfinite(loss):
        raise HicoError(f"the loss is not a finite number, lr {lr:.4g}; try a lower optim.base_lr")
    parts.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parts.optimizer.step()
    return float(loss.detach()), float((scores.argmax(dim=1) == labels).double().mean())


def _predict(
    config: FinetuneConfig,
    parts: _Parts,
    *,
    root: Location,
    on_bad_video: Callable[[str, str], None],
    on_tested: Callable[[int, int], None],
    stop_signal: Callable[[], int | None],
) -> list[Prediction]:
    """Test each video by itself; those that cannot be decoded become lines of failures.jsonl."""
    videos = parts.test
    views = FixedViews(
        videos,
        data=config.data,
        num_views=config.test.views,
        num_crops=config.test.crops,
        crop_part=config.test.crop_part,
        cache=parts.cache,
    )
    plans = (PlannedStep(Position(n), 0.0, None, [ClipRequest(n, 0, None)]) for n in range(len(videos)))
    batches = read_batches(views, plans, workers=parts.workers, pin_memory=parts.device.type == "cuda")
    parts.model.eval()
    predictions: list[Prediction] = []
    failed: list[FailedSource] = []
    try:
        for number, (_, batch) in enumerate(batches):
            signal_number = stop_signal()
            if signal_number is not None:
                raise Interrupted(signal_number, "stopped while testing; the same command with --resume tests again")
            video_id = videos.video_id(number)
            label = parts.labels[video_id]
            if batch.crops is None:
                reason = batch.unusable[0].reason
                on_bad_video(video_id, reason)
                failed.append(FailedSource(videos.source(number), Failure(stage="decode", error=reason)))
                predictions.append(Prediction(video_id, label, None, None, in_top5=False))
            else:
                clips = augmented_clips(batch, data=config.data, augment=config.augment, device=parts.device)
                scores = view_scores(parts.model, clips, precision=parts.precision)
                predictions.append(predict(video_id, label, scores))
            on_tested(number + 1, len(videos))
    finally:
        batches.close()
    fine = {videos.source(number) for number in range(len(videos))} - {failure.source for failure in failed}
    update_failures(root, command="finetune", fine=fine, failed=failed)
    return predictions


@torch.inference_mode()
def view_scores(model: VideoClassifier, clips: Tensor, *, precision: Precision) -> Tensor:
    """Probabilities of the classes for each view of a video: (V, 3, T, H, W) -> (V, C) on the CPU."""
    with torch.autocast(clips.device.type, torch.bfloat16, enabled=precision.is_bf16):
        scores = model(clips)
    return scores.softmax(dim=1).cpu()


def predict(video_id: str, label: int, view_scores_VC: Tensor) -> Prediction:
    """The class with the largest sum of probabilities over the views."""
    mean_C = view_scores_VC.mean(dim=0)
    top = mean_C.topk(min(5, len(mean_C))).indices.tolist()
    return Prediction(video_id, label, top[0], float(mean_C[top[0]]), in_top5=label in top)


def _write_results(run_dir: Path, test: Accuracy, predictions: list[Prediction]) -> None:
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(Prediction._fields)
    writer.writerows(predictions)
    write_text(run_dir / "predictions.csv", table.getvalue())
    write_text(run_dir / "results.json", json.dumps(test._asdict(), indent=2) + "\n")
