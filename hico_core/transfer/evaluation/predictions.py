"""Predictions of a classifier for test videos, and the files that hold them."""

import csv
import io
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from torch import Tensor, nn

from hico_core.base.errors import BadVideo, Interrupted
from hico_core.base.storage import write_text
from hico_core.config import AugmentConfig, DataConfig, FinetuneTestConfig
from hico_core.data.pictures import Picture
from hico_core.encoding.encoder import encode_videos
from hico_core.encoding.hardware import Precision
from hico_core.encoding.lanes import Reading
from hico_core.encoding.windows import Views
from hico_core.training.distributed import World, gather_to_first
from hico_core.training.stopping import StopRequest
from hico_core.transfer.evaluation.intervals import in_context, percent
from hico_core.transfer.evaluation.labelled import LabelledVideo

# The 5 of top-5 accuracy.
_TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A classifier's prediction for a test video: a line of predictions.csv, except for the last two fields."""

    video_id: str
    label: int
    predicted: int | None  # None: the video cannot be decoded, which counts as wrong
    probability: float | None  # mean over the views
    in_top5: bool
    bad: BadVideo | None = None  # why it cannot be decoded
    # For each class, the mean over views; in single precision, an eighth of the memory of Python numbers for 700
    # classes.
    probabilities: "array[float]" = field(default_factory=lambda: array("f"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """The content of results.json."""

    num_videos: int
    num_failed: int  # videos that cannot be decoded
    num_classes: int
    top1: float  # fraction of all videos
    top5: float | None  # None if all or nearly all classes would count: with five or fewer
    views: int
    crops: int
    steps: int
    checkpoint: str  # the tested checkpoint
    val_accuracy: float | None  # its accuracy on the videos that chose it
    encoder: str  # the file that the run started from
    encoder_sha256: str


class Shown(NamedTuple):
    """How a classifier sees each video."""

    views: Views
    picture: Picture


def shown_in_tests(test: FinetuneTestConfig, data: DataConfig, augment: AugmentConfig) -> Shown:
    """The views and crops that a configuration sets."""
    return Shown(
        Views(test.views, data.num_frames, data.frame_stride, data.target_fps),
        Picture(
            short_side=data.short_side,
            crop_part=test.crop_part,
            num_crops=test.crops,
            size=data.crop_size,
            mean=augment.channel_means,
            std=augment.channel_stds,
        ),
    )


def predictions_of(
    model: nn.Module,
    videos: Sequence[LabelledVideo],
    shown: Shown,
    *,
    precision: Precision,
    workers: int,
    stop: StopRequest,
    on_tested: Callable[[int, int], None] = lambda done, of: None,
) -> Iterator[Prediction]:
    """A classifier's prediction for each video, in order.

    Args:
        model: clips (N, 3, T, S, S) -> scores (N, C).
        videos: the test videos.
        shown: views and crops of each video.
        precision: of the arithmetic.
        workers: number of reading processes.
        stop: a request to end.
        on_tested: called with the number of tested videos and the total.

    Raises:
        Interrupted: a signal requested the end.

    """
    reading = Reading(layout=shown.views, picture=shown.picture)
    whole = [video.video for video in videos]
    encoded = encode_videos(model, whole, reading, precision=precision, workers=workers)
    for number, ((video_id, label, _), found) in enumerate(zip(videos, encoded, strict=True), start=1):
        if found.rows is None:
            yield Prediction(
                video_id=video_id, label=label, predicted=None, probability=None, in_top5=False, bad=found.bad
            )
        else:
            yield predict(video_id, label, found.rows.softmax(dim=1))
        on_tested(number, len(videos))
        if stop.signal_number is not None:
            raise Interrupted(stop.signal_number, "stopped while testing; the same command starts again")


def predict(video_id: str, label: int, view_scores_VC: Tensor) -> Prediction:
    """The class with the largest sum of probabilities over the views."""
    mean_C = view_scores_VC.mean(dim=0)
    top = mean_C.topk(min(_TOP, len(mean_C))).indices.tolist()
    return Prediction(
        video_id=video_id,
        label=label,
        predicted=top[0],
        probability=float(mean_C[top[0]]),
        in_top5=label in top,
        probabilities=array("f", mean_C.tolist()),
    )


def gathered(predictions: Sequence[Prediction], world: World) -> list[Prediction]:
    """All processes' predictions in the first process; an empty list in the others."""
    return sorted(chain.from_iterable(gather_to_first(predictions, world)), key=lambda one: one.video_id)


def parts_that_are_right(predictions: Sequence[Prediction], num_classes: int) -> tuple[float, float | None]:
    """Top-1 and top-5 accuracy: fraction of videos whose class ranks first, or among the first five."""
    return (
        fmean(prediction.predicted == prediction.label for prediction in predictions),
        fmean(prediction.in_top5 for prediction in predictions) if num_classes > _TOP else None,
    )


def describe_accuracy(top1: float, top5: float | None, *, num_videos: int, num_classes: int) -> str:
    """Top-1 and, if meaningful, top-5 accuracy, with their context."""
    first = f"top-1 {in_context(top1, num_videos, chance=1 / num_classes)}"
    return first if top5 is None else f"{first}, top-5 {percent(top5)} (chance {percent(_TOP / num_classes)})"


def write_results(run_dir: Path, test: Accuracy, predictions: list[Prediction]) -> None:
    """Write results.json and predictions.csv into a run's folder, each whole or not at all."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    columns = ("video_id", "label", "predicted", "probability", "in_top5")
    writer.writerow(columns)
    writer.writerows([getattr(prediction, column) for column in columns] for prediction in predictions)
    write_text(run_dir / "predictions.csv", table.getvalue())
    write_text(run_dir / "results.json", json.dumps(asdict(test), indent=2) + "\n")
