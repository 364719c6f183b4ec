"""Tests a finetuned classifier on videos: accuracies, confusions, every prediction, and the origin of the results."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from hico_core.base.choices import DeviceName
from hico_core.base.errors import HicoError
from hico_core.base.storage import write_text, written_beside
from hico_core.base.version import __version__
from hico_core.checkpoints.content import BEST, LAST, Content, content_of
from hico_core.checkpoints.reading import CheckpointFile, load_exactly, read_checkpoint, untrained_encoder_of
from hico_core.config import FinetuneConfig, compose_config
from hico_core.data.workers import num_workers
from hico_core.encoding.encoder import with_channels_last
from hico_core.encoding.hardware import choose_device, choose_precision, use_precision
from hico_core.model.classifier import CLASSIFIER, VideoClassifier
from hico_core.training.distributed import from_first, joined_world, own_device
from hico_core.training.stopping import StopRequest
from hico_core.transfer.evaluation.confusion import draw_confusion
from hico_core.transfer.evaluation.labelled import LabelledVideo
from hico_core.transfer.evaluation.predictions import (
    Prediction,
    gathered,
    parts_that_are_right,
    predictions_of,
    shown_in_tests,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The content of results.json."""

    num_videos: int
    num_failed: int  # videos that cannot be decoded, which count as wrong
    num_classes: int
    top1: float  # fraction of all videos
    top5: float | None  # None with five classes or fewer
    mean_class_accuracy: float  # over the classes that have test videos
    views: int
    crops: int
    checkpoint: str
    checkpoint_sha256: str
    steps: int
    encoder: str  # the file that the run started from
    encoder_sha256: str
    videos_sha256: str  # of ids and labels
    config: dict[str, Any]
    hico_version: str
    torch_version: str
    precision: str


def checkpoint_of(run: Path) -> Path:
    """The checkpoint of a finetuning run to test: its best, else its last; or the file itself if one is given.

    Raises:
        HicoError: there is no checkpoint.

    """
    if run.is_file():
        return run
    for name in (BEST, LAST):
        if (run / "checkpoints" / name).exists():
            return run / "checkpoints" / name
    raise HicoError(
        f"{run}: has no checkpoints/{BEST} or {LAST}; name a run of `hico finetune`, or a checkpoint of one"
    )


def folder_of_results(checkpoint: Path) -> Path:
    """The folder for the results of a checkpoint: its run's folder, else the one that it lies in."""
    beside = checkpoint.parent
    return (beside.parent if beside.name == "checkpoints" else beside) / "evaluation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Testing:
    """How videos are tested."""

    views: int | None = None  # clips per video; None: as the run's configuration says
    crops: int | None = None  # squares of each frame, 1 or 3; None: as in the run's configuration
    device: DeviceName = "auto"
    workers: int | None = None  # reading processes per process


def evaluate(
    checkpoint: Path,
    videos: Sequence[LabelledVideo],
    *,
    output: Path,
    classes: Mapping[int, str] = MappingProxyType({}),
    testing: Testing = Testing(),
    on_tested: Callable[[int, int], None] = lambda done, of: None,
    stop: StopRequest | None = None,
) -> Evaluation:
    """Test a finetuned classifier, in all processes that were started; the first one writes the results.

    Writes into `output`: results.json, predictions.parquet, classes.csv and confusion.png, each whole or not at all.

    Args:
        checkpoint: of a finetuning run.
        videos: the test videos.
        output: a folder.
        classes: label -> name; a class without a name is called by its number.
        testing: views, crops and workers.
        on_tested: called with the number of videos that this process has tested, and the total.
        stop: a request to end.

    Raises:
        HicoError: the checkpoint is not from finetuning, there are no test videos, or a label is not one of its
            classes.
        Interrupted: a signal requested the end; nothing was written.

    """
    chosen = choose_device(testing.device)
    with joined_world(chosen) as world:
        # One process reads it for all: a training may replace the file meanwhile.
        file = from_first(read_checkpoint(checkpoint) if world.is_first else None, world)
        assert file is not None
        content = content_of(file)
        config = _config_of(content, checkpoint, testing)
        model = _classifier(file)
        names = [classes.get(label, str(label)) for label in range(model.out.out_features)]
        _require_testable(videos, classes, model.out.out_features, checkpoint)
        place = own_device(chosen, world)
        own = [video.read_through(config.data.cache) for video in videos[world.rank :: world.size]]
        found = predictions_of(
            model.to(place),
            own,
            shown_in_tests(config.test, config.data, config.augment),
            precision=use_precision(config.train.precision, place),
            workers=num_workers(testing.workers, processes=world.local_size),
            stop=stop or StopRequest(),
            on_tested=on_tested,
        )
        together = gathered(list(found), world)
        evaluation = None
        if world.is_first:
            evaluation = _evaluation(together, file, content, config, place, len(names))
            _write(output, evaluation, together, names)
        evaluation = from_first(evaluation, world)
        assert evaluation is not None
        return evaluation


def _config_of(content: Content, checkpoint: Path, testing: Testing) -> FinetuneConfig:
    if CLASSIFIER not in content.model:
        raise HicoError(
            f"{checkpoint}: is a pretraining checkpoint without classes; finetune it first with `hico finetune`"
        )
    asked = {"views": testing.views, "crops": testing.crops}
    overrides = [f"test.{key}={value}" for key, value in asked.items() if value is not None]
    return compose_config(FinetuneConfig, content.config, origin=str(checkpoint), overrides=overrides)


def _classifier(file: CheckpointFile) -> VideoClassifier:
    weights = content_of(file).model
    num_classes, feature_dim = weights[CLASSIFIER].shape
    model = VideoClassifier(num_classes, untrained_encoder_of(file), feature_dim)
    load_exactly(model, weights, origin=str(file.path))
    with_channels_last(model)
    return model.eval()


def _require_testable(
    videos: Sequence[LabelledVideo], classes: Mapping[int, str], num_classes: int, checkpoint: Path
) -> None:
    if not videos:
        raise HicoError("no labelled videos to test on; add some with `hico index --list FILE --subset test`")
    if len(classes) > num_classes:
        raise HicoError(f"the list has {len(classes)} classes, but {checkpoint} has {num_classes}")
    last = max(videos, key=lambda video: video.label)
    if last.label >= num_classes:
        raise HicoError(f"{last.video_id} has label {last.label}, but {checkpoint} has {num_classes} classes, from 0")


def _evaluation(
    predictions: Sequence[Prediction],
    file: CheckpointFile,
    content: Content,
    config: FinetuneConfig,
    device: torch.device,
    num_classes: int,
) -> Evaluation:
    top1, top5 = parts_that_are_right(predictions, num_classes)
    confusion = confusion_matrix(predictions, num_classes)
    counts = confusion.sum(axis=1)
    right = confusion.diagonal()[counts > 0] / counts[counts > 0]
    origin = content.progress.encoder
    listed = "".join(f"{prediction.video_id}\0{prediction.label}\n" for prediction in predictions)
    return Evaluation(
        num_videos=len(predictions),
        num_failed=sum(prediction.predicted is None for prediction in predictions),
        num_classes=num_classes,
        top1=top1,
        top5=top5,
        mean_class_accuracy=float(right.mean()),
        views=config.test.views,
        crops=config.test.crops,
        checkpoint=str(file.path),
        checkpoint_sha256=file.sha256,
        steps=content.progress.position.step,
        encoder=origin.path if origin else "",
        encoder_sha256=origin.sha256 if origin else "",
        videos_sha256=hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest(),
        config=config.model_dump(mode="json"),
        hico_version=__version__,
        torch_version=torch.__version__,
        precision=choose_precision(config.train.precision, device, training=True).name,
    )


def confusion_matrix(predictions: Sequence[Prediction], num_classes: int) -> np.ndarray:
    """Counts by class (row) and predicted class (column); one more column counts videos that cannot be decoded."""
    matrix = np.zeros((num_classes, num_classes + 1), dtype=np.int64)
    for prediction in predictions:
        matrix[prediction.label, num_classes if prediction.predicted is None else prediction.predicted] += 1
    return matrix


def _write(output: Path, evaluation: Evaluation, predictions: Sequence[Prediction], classes: Sequence[str]) -> None:
    confusion = confusion_matrix(predictions, len(classes))
    lines = ["class,name,videos,right,accuracy\n"]
    for number, name in enumerate(classes):
        count, right = int(confusion[number].sum()), int(confusion[number, number])
        quoted = name.replace('"', '""')
        lines.append(f'{number},"{quoted}",{count},{right},{right / count if count else ""}\n')
    write_text(output / "classes.csv", "".join(lines))
    columns = {
        name: [getattr(prediction, name) for prediction in predictions]
        for name in ("video_id", "label", "predicted", "probability", "in_top5")
    }
    columns["reason"] = [str(prediction.bad or "") for prediction in predictions]
    scores = pa.array([np.asarray(prediction.probabilities) for prediction in predictions], pa.list_(pa.float32()))
    with written_beside(output / "predictions.parquet") as beside:
        pq.write_table(pa.table({**columns, "probabilities": scores}), beside, compression="zstd")
    with written_beside(output / "confusion.png") as beside:
        draw_confusion(confusion[:, :-1], classes, beside)
    write_text(output / "results.json", json.dumps(asdict(evaluation), indent=2) + "\n")
