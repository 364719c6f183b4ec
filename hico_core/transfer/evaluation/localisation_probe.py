"""Predicts the class of each second of untrimmed videos from frozen features, to test whether these localise actions.

seconds       annotation at the middle of each second; depends on the segments alone
features      of the window whose centre is nearest
predictions   of a linear probe in folds by video or group, as in `hico compare`
rows          measures for each folder of features, and for two baselines
"""

# V videos, N seconds over all of them, C classes, F feature width.

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hico_core.base.addresses import Location, absolute, name_from
from hico_core.base.errors import HicoError, UsageError, counted
from hico_core.base.storage import write_text
from hico_core.corpus.sources.finding import read_list_lines
from hico_core.transfer.evaluation.folds import choosing_parts, folds_by_group, remarks_on_groups
from hico_core.transfer.evaluation.intervals import Estimate, ratio_interval
from hico_core.transfer.evaluation.localisation import BACKGROUND, average_precision, edit_score, segment_hits
from hico_core.transfer.evaluation.probe import LabelledRows, linear_probe_of_scaled, scaled_alike
from hico_core.transfer.extraction.manifest import ManifestRow, features_of, require_features
from hico_core.transfer.localisation.annotations import Segment, VideoLength, ids_of, read_segments, require_seconds
from hico_core.transfer.localisation.fitting import by_video, cut_to_video, num_overlapping

OVERLAPS = (0.1, 0.25, 0.5)

# Names of rows that use no features.
MOST_FREQUENT, CHANCE = "most frequent class", "chance"

_BACKGROUND_NAME = "(background)"
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnnotatedSeconds:
    """The seconds of all annotated videos, video by video."""

    videos: list[str]  # ids
    groups: list[str]  # of each video
    lengths_V: np.ndarray  # seconds of each video
    labels_N: np.ndarray  # int64: class of each second, as an index into `classes`
    classes: list[str]  # names of the classes, the background's first

    def of_each_video(self, values_N: np.ndarray) -> list[np.ndarray]:
        """Divide values of all seconds by video."""
        return np.split(values_N, np.cumsum(self.lengths_V)[:-1])

    @property
    def groups_of_seconds(self) -> np.ndarray:
        """Group of each second: (N,)."""
        groups_N: np.ndarray = np.repeat(np.array(self.groups), self.lengths_V)
        return groups_N


class ReadSeconds(NamedTuple):
    """The annotated seconds, and what a reader of the results should know about them."""

    seconds: AnnotatedSeconds
    remarks: list[str]


def read_seconds(
    file: Path, manifest: Mapping[str, ManifestRow], *, groups: Mapping[str, str] | None = None
) -> ReadSeconds:
    """Read the class at the middle of each second of each annotated video that has features.

    If segments overlap, the shorter one counts, as detection toolkits learn it.

    Args:
        file: of segments, see `read_segments`.
        manifest: of features; it gives the length of each video.
        groups: video id -> group of related videos; None: each video is its own group.

    Raises:
        UsageError: there are no segments of these videos, or a video has no group.
        HicoError: the file is not one of segments, or its times are not in seconds.

    """
    found = read_segments(file)
    row_of = {row.video_id: row for row in manifest.values()}
    ids, segments_of = ids_of(found.videos, row_of), by_video(found.segments)
    if not segments_of.keys() & ids.keys():
        raise UsageError(
            f"{file}: has no segments of the {counted(len(row_of), 'video')} with features; its first video is "
            f"{next(iter(found.videos))!r}, the first with features is {min(row_of)!r}"
        )
    lengths = {name: VideoLength(row_of[i].duration_seconds, row_of[i].source_fps) for name, i in ids.items()}
    require_seconds(found.segments, lengths, origin=file)
    kept_of: dict[str, list[Segment]] = {video_id: [] for video_id in sorted(set(ids.values()))}
    left_out = Counter(found.left_out)
    for name, video_id in ids.items():
        segments, reasons, _ = cut_to_video(segments_of.get(name, []), duration_seconds=lengths[name].duration_seconds)
        kept_of[video_id] += segments
        left_out += reasons
    without_group = [video_id for video_id in kept_of if groups is not None and video_id not in groups]
    if without_group:
        raise UsageError(
            f"--groups: has no group for {counted(len(without_group), 'video')}, such as {without_group[0]!r}"
        )
    seconds = _seconds_of(kept_of, row_of, groups or {video_id: video_id for video_id in kept_of})
    missing = sorted(segments_of.keys() - ids.keys())
    num_unknown = len(row_of.keys() - kept_of.keys())
    remarks = [f"entry {name!r} {problem}; left out" for name, problem in found.problems.items()]
    return ReadSeconds(seconds, remarks + _remarks(kept_of, left_out, missing, num_unknown=num_unknown))


def _seconds_of(
    kept_of: Mapping[str, Sequence[Segment]], row_of: Mapping[str, ManifestRow], groups: Mapping[str, str]
) -> AnnotatedSeconds:
    names = sorted({segment.label for segments in kept_of.values() for segment in segments})
    number_of = {name: number for number, name in enumerate(names, start=BACKGROUND + 1)}
    labels = [
        labels_of_seconds(segments, number_of, duration_seconds=row_of[video_id].duration_seconds)
        for video_id, segments in kept_of.items()
    ]
    return AnnotatedSeconds(
        videos=list(kept_of),
        groups=[groups[video_id] for video_id in kept_of],
        lengths_V=np.array([len(of_video) for of_video in labels]),
        labels_N=np.concatenate(labels),
        classes=[_BACKGROUND_NAME, *names],
    )


def labels_of_seconds(
    segments: Sequence[Segment], number_of: Mapping[str, int], *, duration_seconds: float
) -> np.ndarray:
    """The class at the middle of each second of a video: (T,) int64. If segments overlap, the shortest counts.

    Segments from 0.6 to 2.5 and from 2.2 to 2.8 in 4.3 s: middles 0.5 1.5 2.5 3.5  ->  background, first, second,
    background

    Args:
        segments: of the video.
        number_of: class -> number.
        duration_seconds: of the video, which always has at least one second.

    """
    labels_T = np.full(max(ceil(duration_seconds - 0.5), 1), BACKGROUND)
    for segment in sorted(segments, key=lambda s: s.start_seconds - s.end_seconds):
        labels_T[max(ceil(segment.start_seconds - 0.5), 0) : ceil(segment.end_seconds - 0.5)] = number_of[segment.label]
    return labels_T


def _remarks(
    kept_of: Mapping[str, Sequence[Segment]], left_out: Counter[str], missing: Sequence[str], *, num_unknown: int
) -> list[str]:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    kept = [segment for segments in kept_of.values() for segment in segments]
    num_unseen = sum(ceil(segment.start_seconds - 0.5) >= ceil(segment.end_seconds - 0.5) for segment in kept)
    overlapping = sum(num_overlapping(segments) for segments in kept_of.values())
    lines = {
        f"left out {counted(left_out.total(), 'segment')}: {reasons}": left_out,
        f"left out the segments of {counted(len(missing), 'video')} without features, such as "
        f"{next(iter(missing), None)!r}": missing,
        f"left out {counted(num_unknown, 'video')} with features but not in the file of segments": num_unknown,
        f"{counted(overlapping, 'segment')} overlapping others: a second that lies in two counts as the shorter "
        "one": overlapping,
        f"{counted(num_unseen, 'segment')} too short to contain the middle of a second": num_unseen,
    }
    return [line for line, there_is in lines.items() if there_is]


def read_groups(file: Location) -> dict[str, str]:
    """Read a list of `video<TAB>group`: id of a video -> its group.

    Raises:
        UsageError: a line has another form, a video has two groups, or no group has two videos.

    """
    groups: dict[str, str] = {}
    for number, line in read_list_lines(file):
        video, _, group = (part.strip() for part in line.partition("\t"))
        if not video or not group or groups.setdefault(video, group) != group:
            raise UsageError(f"{file}, line {number}: {line!r} is not video<TAB>group, one line per video")
    if len(set(groups.values())) == len(groups):
        raise UsageError(f"{file}: no group has two videos; leave out --groups to test each video separately")
    return groups


def features_of_seconds(folder: Path, manifest: Mapping[str, ManifestRow], seconds: AnnotatedSeconds) -> np.ndarray:
    """Features of the window whose centre is nearest to the middle of each second: (N, F).

    Args:
        folder: of features.
        manifest: of the folder.
        seconds: of videos that the folder must have.

    Raises:
        HicoError: a video has no features here, rows are segments, or a file does not match the manifest.

    """
    row_of = {row.video_id: row for row in manifest.values()}
    missing = [video_id for video_id in seconds.videos if video_id not in row_of]
    if missing:
        raise HicoError(f"has no features of {counted(len(missing), 'video')}, such as {missing[0]!r}", subject=folder)
    if any(row.rows_of == "segments" for row in row_of.values()):
        raise HicoError(
            "its rows are segments, not windows over whole videos; extract without --segments", subject=folder
        )
    found = []
    for video_id, length in zip(seconds.videos, seconds.lengths_V, strict=True):
        row = row_of[video_id]
        centres = np.array(row.centre_seconds)
        nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, np.arange(length) + 0.5)
        found.append(np.asarray(features_of(folder, row), dtype=np.float32).reshape(row.rows, -1)[nearest])
    return np.concatenate(found)


class Predictions(NamedTuple):
    """The predictions for each second."""

    labels_N: np.ndarray  # int64
    scores_NC: np.ndarray  # of each class; higher is more likely


def predict_seconds(features_NF: np.ndarray, seconds: AnnotatedSeconds, tested_in: np.ndarray) -> Predictions:
    """Predictions of a linear probe for each second, trained on the seconds of the other folds.

    Args:
        features_NF: of each second.
        seconds: their classes and groups.
        tested_in: (N,) the fold of each second.

    Raises:
        HicoError: a fold has only one class to train on, or features are not finite.

    """
    rows = LabelledRows(features_NF, seconds.labels_N, np.arange(len(features_NF)), seconds.groups_of_seconds)
    scores_NC = np.zeros((len(features_NF), len(seconds.classes)))
    for fold in np.unique(tested_in):
        train, test = rows.only(tested_in != fold), rows.only(tested_in == fold)
        assert train.groups is not None
        held_out = choosing_parts(train.labels, train.groups)[:1]  # one part has enough seconds
        probe = linear_probe_of_scaled(*scaled_alike(train, test), held_out=held_out, seed=_SEED)
        scores_NC[tested_in == fold, : probe.probabilities.shape[1]] = probe.probabilities
    return Predictions(scores_NC.argmax(axis=1), scores_NC)


def guesses(seconds: AnnotatedSeconds, tested_in: np.ndarray) -> dict[str, Predictions]:
    """Predictions without features: the most frequent class in the other folds, and a random class.

    Args:
        seconds: their classes.
        tested_in: (N,) the fold of each second.

    """
    counts_KC = np.zeros((tested_in.max() + 1, len(seconds.classes)), dtype=np.int64)
    np.add.at(counts_KC, (tested_in, seconds.labels_N), 1)
    most_frequent_K = (counts_KC.sum(axis=0) - counts_KC).argmax(axis=1)
    rng = np.random.default_rng(_SEED)
    shape = (len(tested_in), len(seconds.classes))
    return {
        MOST_FREQUENT: Predictions(most_frequent_K[tested_in], np.zeros(shape)),
        CHANCE: Predictions(rng.choice(np.unique(seconds.labels_N), len(tested_in)), rng.random(shape)),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalisationRow:
    """Measures of one folder of features or of a baseline, as fractions of 1; intervals are 95 %."""

    features: str
    frame_accuracy: Estimate
    edit: Estimate  # mean over videos
    f1: dict[str, Estimate]  # by overlap in percent
    mean_average_precision: float  # over classes, without the background
    average_precision: dict[str, float]  # of each class


def measured(name: str, predicted: Predictions, seconds: AnnotatedSeconds) -> LocalisationRow:
    """Compute all measures of the predictions for all seconds."""
    pairs = list(zip(seconds.of_each_video(predicted.labels_N), seconds.of_each_video(seconds.labels_N), strict=True))

    def estimate(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
        return ratio_interval(np.array(numerators), np.array(denominators), seconds.groups, seed=_SEED)

    f1 = {}
    for overlap in OVERLAPS:
        hits = [segment_hits(one, true, overlap) for one, true in pairs]
        sums = [found.num_predicted + found.num_true for found in hits]
        f1[f"{100 * overlap:.0f}"] = estimate([2 * found.num_hit for found in hits], sums)
    precision = {
        label: average_precision(predicted.scores_NC[:, number], seconds.labels_N == number)
        for number, label in enumerate(seconds.classes)
        if number != BACKGROUND and (seconds.labels_N == number).any()
    }
    return LocalisationRow(
        features=name,
        frame_accuracy=estimate([(one == true).sum() for one, true in pairs], [len(true) for _, true in pairs]),
        edit=estimate([edit_score(one, true) for one, true in pairs], [1.0] * len(pairs)),
        f1=f1,
        mean_average_precision=float(np.mean(list(precision.values()))),
        average_precision=precision,
    )


class Localisation(NamedTuple):
    """The result of the probe."""

    rows: list[LocalisationRow]  # of each folder, then of the baselines
    remarks: list[str]


def probe_seconds(
    folders: Mapping[str, Path],
    seconds: AnnotatedSeconds,
    *,
    num_folds: int,
    on_done: Callable[[str], None] = lambda what: None,
) -> Localisation:
    """Predict the class of each second from each folder of features, in folds by group.

    Args:
        folders: row name -> folder of features.
        seconds: from `read_seconds`.
        num_folds: number of folds; each is tested once.
        on_done: called with each finished folder.

    Raises:
        UsageError: there are fewer groups than folds, or no class is both trained on and tested.
        HicoError: see `features_of_seconds` and `predict_seconds`.

    """
    groups_N = seconds.groups_of_seconds
    tested_in = folds_by_group(seconds.labels_N, groups_N, num_folds)
    names = [seconds.classes[label] for label in seconds.labels_N]
    remarks = remarks_on_groups(names, groups_N.tolist(), tested_in, unit="second")
    features = {
        name: features_of_seconds(folder, require_features(folder), seconds) for name, folder in folders.items()
    }
    rows = []
    for name, features_NF in features.items():
        rows.append(measured(name, predict_seconds(features_NF, seconds, tested_in), seconds))
        on_done(f"{name}: frame accuracy {rows[-1].frame_accuracy.value:.1%}")
    rows += [measured(name, predicted, seconds) for name, predicted in guesses(seconds, tested_in).items()]
    return Localisation(rows, remarks)


def write_localisation(
    target: Path, found: Localisation, seconds: AnnotatedSeconds, *, segments: Path, features: Path, root: Location
) -> dict[str, object]:
    """Write the file of a probe, with paths relative to the workspace; return its content."""
    encoder = next(iter(require_features(features).values())).encoder_text
    counts = np.bincount(seconds.labels_N, minlength=len(seconds.classes)).tolist()
    fields: dict[str, object] = {
        "segments": name_from(root, absolute(segments)),
        "features": name_from(root, absolute(features)),
        "encoder": name_from(root, encoder),
        "num_videos": len(seconds.videos),
        "num_groups": len(set(seconds.groups)),
        "seconds_of_classes": dict(zip(seconds.classes, counts, strict=True)),
        "rows": [
            {
                **asdict(row),
                "frame_accuracy": row.frame_accuracy._asdict(),
                "edit": row.edit._asdict(),
                "f1": {overlap: value._asdict() for overlap, value in row.f1.items()},
            }
            for row in found.rows
        ],
    }
    write_text(target, json.dumps(fields, indent=2) + "\n")
    return fields
