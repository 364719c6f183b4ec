"""What a classifier says of test videos, and the files in which it is said."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from torch import Tensor

from hico_core.corpus.files import write_text


class Prediction(NamedTuple):
    """What the classifier says of a test video: a line of predictions.csv."""

    video_id: str
    label: int
    predicted: int | None  # None: the video cannot be decoded, which counts as wrong
    probability: float | None  # mean over the views
    in_top5: bool
    reason: str = ""  # why it cannot be decoded


class Accuracy(NamedTuple):
    """Content of results.json."""

    num_videos: int
    num_failed: int  # cannot be decoded
    top1: float  # part of all videos
    top5: float
    views: int
    crops: int
    steps: int
    checkpoint: str  # the one that was tested
    val_accuracy: float | None  # of that one, on the videos that chose it
    encoder: str  # the file that the run started from
    encoder_sha256: str


def predict(video_id: str, label: int, view_scores_VC: Tensor) -> Prediction:
    """The class with the largest sum of probabilities over the views."""
    mean_C = view_scores_VC.mean(dim=0)
    top = mean_C.topk(min(5, len(mean_C))).indices.tolist()
    return Prediction(video_id, label, top[0], float(mean_C[top[0]]), in_top5=label in top)


def parts_that_are_right(predictions: Sequence[Prediction]) -> tuple[float, float]:
    """Top-1 and top-5 accuracy: the part of the videos whose class is first, or among the first five."""
    return (
        fmean(prediction.predicted == prediction.label for prediction in predictions),
        fmean(prediction.in_top5 for prediction in predictions),
    )


def write_results(run_dir: Path, test: Accuracy, predictions: list[Prediction]) -> None:
    """Write results.json and predictions.csv into a run's folder, each whole or not at all."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(Prediction._fields[:-1])
    writer.writerows(prediction[:-1] for prediction in predictions)
    write_text(run_dir / "predictions.csv", table.getvalue())
    write_text(run_dir / "results.json", json.dumps(test._asdict(), indent=2) + "\n")
