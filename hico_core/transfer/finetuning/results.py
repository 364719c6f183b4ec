"""The test of a finetuned classifier: all processes' predictions, combined and written by the first process."""

from collections.abc import Sequence
from pathlib import Path

from hico_core.base.addresses import Location
from hico_core.base.errors import Interrupted
from hico_core.base.failures import FailedSource, Failure, update_failures
from hico_core.checkpoints.content import BEST, Progress, content_of
from hico_core.checkpoints.reading import load_exactly, read_checkpoint
from hico_core.config import FinetuneTestConfig
from hico_core.data.videos import IndexedVideos
from hico_core.training.distributed import World, from_first
from hico_core.training.task import Watch
from hico_core.transfer.evaluation.predictions import Accuracy, Prediction, parts_that_are_right, write_results
from hico_core.transfer.finetuning.parts import Finetuning, share_of


def load_best(run_dir: Path, parts: Finetuning, world: World) -> str:
    """Load the weights of a run's best checkpoint; return its name."""
    best = run_dir / "checkpoints" / BEST
    weights = from_first(content_of(read_checkpoint(best)).model if world.is_first else {}, world)
    load_exactly(parts.learner.model, weights, origin=str(best))
    return BEST


def predict_tests(parts: Finetuning, world: World, watch: Watch, *, same_command: str) -> list[Prediction]:
    """The classifier's predictions for this process's share of the test videos.

    Args:
        parts: of the run, which is trained.
        world: this process among all.
        watch: receives reports.
        same_command: what tests again, in words; see `Task.same_command`.

    Raises:
        Interrupted: a signal requested the end.

    """
    predictions: list[Prediction] = []
    num_mine = len(share_of(parts.videos.test, world))
    try:
        for prediction in parts.predictions(parts.videos.test, world, watch.stop):
            predictions.append(prediction)
            if prediction.bad:
                watch.on_bad_video(prediction.video_id, str(prediction.bad))
            watch.on_tested(len(predictions), num_mine)
    except Interrupted as interrupted:
        advice = f"stopped while testing, after all training; {same_command} tests again"
        raise Interrupted(interrupted.exit_code - 128, advice) from interrupted
    return predictions


def accuracy_of(
    predictions: Sequence[Prediction],
    progress: Progress,
    test: FinetuneTestConfig,
    *,
    checkpoint: str,
    num_classes: int,
) -> Accuracy:
    """Compute the accuracy of a checkpoint from its predictions.

    Args:
        predictions: of all test videos.
        progress: of the run.
        test: settings of the test.
        checkpoint: name of the tested checkpoint.
        num_classes: number of classes to choose from.

    """
    top1, top5 = parts_that_are_right(predictions, num_classes)
    origin = progress.encoder
    return Accuracy(
        num_videos=len(predictions),
        num_failed=sum(prediction.predicted is None for prediction in predictions),
        num_classes=num_classes,
        top1=top1,
        top5=top5,
        views=test.views,
        crops=test.crops,
        steps=progress.position.step,
        checkpoint=checkpoint,
        val_accuracy=progress.best_accuracy,
        encoder=origin.path if origin else "",
        encoder_sha256=origin.sha256 if origin else "",
    )


def write_report(
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
