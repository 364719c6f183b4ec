"""Finetuning from a labelled index to an accuracy, in the order in which things happen.

Videos and labels come from the index: its subset `train` is for training, `test` for testing; if `val` has videos, they
choose the checkpoint that is tested. The recipe is that of the HiCo paper's authors, also for linear evaluation
(`tune: head`), except that the encoder's batch norms keep their pretrained statistics unless `statistics: drift` is
set.
"""

from dataclasses import dataclass
from pathlib import Path

from hico_core.checkpoints.content import LAST
from hico_core.config import FinetuneConfig
from hico_core.data.batches import Batch
from hico_core.data.plan import PlannedStep
from hico_core.encoding.hardware import Precision
from hico_core.model.classifier import VideoClassifier
from hico_core.training.distributed import World, from_first
from hico_core.training.run import FREE_ON_RESUME, Leaves, Training, entered_run, opened_training
from hico_core.training.task import Task, Watch
from hico_core.transfer.evaluation.predictions import Accuracy, gathered
from hico_core.transfer.finetuning.parts import Finetuning, Start, prepare
from hico_core.transfer.finetuning.results import accuracy_of, load_best, predict_tests, write_report

# How the videos of a finished run are tested does not affect what was learned.
_FREE_ON_RESUME = FREE_ON_RESUME | {"test.views", "test.crops", "test.crop_part"}


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneMetrics:
    """A line of metrics.jsonl."""

    step: int  # counted from 1
    epoch: float  # passes over the videos before this step
    loss: float
    accuracy: float  # fraction of the step's clips whose class has the highest score
    lr: float
    clips_per_second: float
    data_seconds: float  # spent waiting for the step's clips
    step_seconds: float  # of the whole step, waiting included
    bad_videos: int  # number of different videos that could not be decoded so far
    skipped_steps: int  # before this one, because gradients overflowed float16
    val_accuracy: float | None = None  # with the weights before the step; None if not measured


@dataclass(frozen=True, slots=True, kw_only=True)
class FinetuneSummary:
    """How a run ended."""

    run_dir: Path
    num_steps: int
    precision: Precision
    first_loss: float | None  # mean of this call's first 10 steps; None if it had nothing left to do
    last_loss: float | None  # mean of this call's last 10 steps
    test: Accuracy | None  # None if the index has no labelled test videos


def finetune(task: Task[FinetuneConfig], watch: Watch) -> FinetuneSummary:
    """Train a classifier on the labelled videos of an index, then test it, in all processes that were started.

    Args:
        task: the run; its folder gets config.yaml, metrics.jsonl, checkpoints/, results.json and predictions.csv. A run
            that continues needs no encoder; a finished one is only tested again.
        watch: receives reports on the training.

    Raises:
        HicoError: the run cannot start, has too many bad videos, or its loss is not a number.
        Interrupted: a signal ended the run; a checkpoint holds what was learned.

    """
    config, run_dir = task.config, task.run_dir
    with entered_run(task, free=_FREE_ON_RESUME) as entered:
        world, start = entered.world, Start(task.encoder, entered.checkpoint)
        parts = prepare(config, root=task.root, start=start, device=entered.device, world=world)
        index, leaves = parts.videos.train.identity(), Leaves(encoder=parts.encoder)
        with opened_training(task, entered, parts.learner, index=index, watch=watch, leaves=leaves) as training:
            for plan, batch in training.arriving(parts.batches(training.progress.position, world)):
                training.save_if_due(plan)
                if training.must_stop(plan):
                    break
                training.check_videos(batch)
                metrics = _step(plan, batch, parts, training, world)
                training.done(plan, metrics)
            training.end()
            tested = LAST
            if len(parts.videos.val):
                training.note_best(training.measure(lambda stop: parts.val_accuracy(world, stop)))
                training.finish_writing()
                tested = load_best(run_dir, parts, world)
        predictions = gathered(predict_tests(parts, world, watch, same_command=task.same_command), world)
        accuracy = None
        if predictions:
            accuracy = accuracy_of(
                predictions,
                training.progress,
                config.test,
                checkpoint=tested,
                num_classes=parts.videos.num_classes,
            )
            write_report(accuracy, predictions, run_dir, parts.videos.test, root=task.root)
        return FinetuneSummary(
            run_dir=run_dir,
            num_steps=training.steps_done,
            precision=parts.learner.precision,
            first_loss=training.first_loss,
            last_loss=training.last_loss,
            test=from_first(accuracy, world),
        )


def _step(
    plan: PlannedStep,
    batch: Batch,
    parts: Finetuning,
    training: Training[FinetuneConfig, VideoClassifier],
    world: World,
) -> FinetuneMetrics:
    """One update, and its measurements.

    Raises:
        HicoError: its clips cannot be read, or its loss is not a number.
        Interrupted: a signal ended the run during the measurement of the weights; a checkpoint was written.

    """
    val_accuracy = None
    if len(parts.videos.val) and training.ends_epoch(plan, every=parts.config.train.eval_epochs):
        val_accuracy = training.measure(lambda stop: parts.val_accuracy(world, stop))
        training.note_best(val_accuracy)
    loss, accuracy = parts.learn(plan, batch, world)
    return FinetuneMetrics(
        step=plan.position.step + 1,
        epoch=plan.epoch,
        loss=loss,
        accuracy=accuracy,
        lr=parts.rates.at(plan.epoch),
        **training.times(world.size * len(batch.video_ids))._asdict(),
        bad_videos=len(training.bad_videos),
        skipped_steps=parts.learner.scaling.skipped_steps,
        val_accuracy=val_accuracy,
    )
