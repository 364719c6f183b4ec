"""Fits annotated segments to a folder of features, and chooses the videos for training and testing.

Both toolkits place feature i at (i * stride + offset) / fps seconds; if windows begin with the video, the offset is
half a window. The duration of a video is written as frame / fps with a whole number of frames, because OpenTAD computes
the frame rate as frame / duration.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from hico_core.base.choices import DetectionPreset, Toolkit
from hico_core.base.errors import HicoError, UsageError, counted
from hico_core.data.clock import num_grid_points
from hico_core.transfer.extraction.manifest import ManifestRow
from hico_core.transfer.extraction.presets import PRESETS, WindowPreset
from hico_core.transfer.localisation.annotations import AMBIGUOUS, EMPTY, SHORTEST_SECONDS, Annotations, Segment
from hico_core.transfer.localisation.recipes import RECIPES

# Names of the two subsets in the file that is written, as in both toolkits' own files.
TRAIN, TEST = "training", "validation"

# Further reasons for leaving out segments.
OUTSIDE = "outside their video"
TWICE = "given twice"
_AMBIGUOUS = "called Ambiguous"

_TRAINED_ON = {"train", "training"}
_TESTED_ON = {"val", "valid", "validation", "test", "testing"}
# THUMOS' training videos are trimmed to their action, so its validation videos are used for training.
_AS_THUMOS = ({"validation", "test"}, {"validation", "testing"})

_READ_BY: dict[Toolkit, tuple[str, ...]] = {"actionformer": ("npy",), "opentad": ("npy", "npz", "pt")}

# Difference between annotated and actual duration above which it is reported.
_SAME_DURATION_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureGrid:
    """The common grid of a folder's features, in the toolkits' terms."""

    dim: int
    stride: int
    offset_frames: float  # from the start of the grid to the centre of the first window
    prefix: str
    suffix: str
    file_format: str


class Subsets(NamedTuple):
    """The annotations' names of the subsets for training and testing."""

    train: str
    test: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """The annotations written for a toolkit, and what is reported about them."""

    database: dict[str, Any]  # id -> entry, in one of the two subsets
    categories: list[str]  # in order of their numbers
    longest_rows: int
    num_train: int  # number of videos
    num_test: int
    left_out: Counter[str]  # segments, by reason
    num_cut: int  # segments that extend beyond their video
    num_overlapping: int  # segments that begin before an earlier one of their video has ended
    num_unlabelled: int  # training videos left out because they have no segment
    num_of_other_subsets: int  # number of videos
    only_tested: list[str]  # classes without a training video
    other_durations: list[str]  # ids of videos whose annotated duration is not the actual one


class Places(NamedTuple):
    """Absolute paths for the toolkit."""

    annotations: Path
    categories: Path
    features: Path
    output: Path


def feature_grid(manifest: Mapping[str, ManifestRow], folder: Path, toolkit: Toolkit) -> FeatureGrid:
    """The grid on which all features of a folder lie.

    Raises:
        HicoError: the file names have no common pattern, or the features are not evenly spaced, are maps, lie between
            frames where the toolkit counts whole ones, or are in files that it does not read.

    """
    rows = list(manifest.values())
    first = rows[0]
    if first.rows_of == "segments":
        raise HicoError("its rows are segments, not windows on a grid; extract without --segments", subject=folder)
    if len({(row.prefix, row.suffix, row.file_format) for row in rows}) > 1:
        raise HicoError("its files are not all named alike; extract with one --prefix and --format", subject=folder)
    if first.file_format not in _READ_BY[toolkit]:
        readable = " or ".join(_READ_BY[toolkit])
        raise HicoError(
            f"{toolkit} does not read .{first.file_format}; extract with --format {readable}", subject=folder
        )
    if first.tail == "shift":
        raise HicoError("its last windows are shifted off the grid; extract with --tail pad or drop", subject=folder)
    if len(first.shape) != 1:
        raise HicoError("has maps, but detectors read vectors; extract with --pool avg or max", subject=folder)
    offset_frames = first.grid.first_start + first.window / 2
    if toolkit == "opentad" and not offset_frames.is_integer():
        raise HicoError(
            "the middle of its windows lies between two frames, but opentad counts whole ones; extract with an even "
            f"--window, not {first.window}",
            subject=folder,
        )
    return FeatureGrid(
        dim=first.dim,
        stride=first.stride,
        offset_frames=offset_frames,
        prefix=first.prefix,
        suffix=first.suffix,
        file_format=first.file_format,
    )


def preset_of(row: ManifestRow, folder: Path) -> DetectionPreset:
    """The preset dataset whose windows a folder of features has.

    Raises:
        UsageError: the windows match no dataset.

    """
    windows = WindowPreset(None if row.native_fps else row.fps, row.window, row.stride, row.prefix)
    for preset in RECIPES:
        if PRESETS[preset] == windows:
            return preset
    raise UsageError(
        f"{folder}: its windows match no dataset with settings for detectors; choose the settings with --preset "
        f"{' or '.join(RECIPES)}"
    )


def choose_subsets(
    annotations: Annotations, usable: Mapping[str, int], *, train: str | None, test: str | None
) -> Subsets:
    """Choose the subsets for training and testing: those given, or those that well-known names determine.

    Args:
        annotations: with all subsets named in the file.
        usable: subset -> number of its videos with features and segments.
        train: the given training subset, if any.
        test: the given test subset, if any.

    Raises:
        UsageError: none is given and the names do not decide, or a given subset is empty.

    """
    named = {str(video.subset).lower() for video in annotations.videos.values()}
    as_thumos = named in _AS_THUMOS
    trained_on = _TRAINED_ON if not as_thumos else {"validation"}
    train = _asked(train, usable, "--train-subset") or _only(name for name in usable if name.lower() in trained_on)
    test = _asked(test, usable, "--test-subset") or _only(
        name for name in usable if name.lower() in _TESTED_ON and name != train
    )
    if train is None or test is None:
        raise UsageError(
            f"cannot tell which subset to train on and which to test on: there {_listed(usable)}; use "
            "--train-subset and --test-subset"
        )
    if train == test:
        raise UsageError(f"--train-subset and --test-subset are both {train!r}; a detector is tested on other videos")
    return Subsets(train, test)


def _asked(name: str | None, usable: Mapping[str, int], option: str) -> str | None:
    if name is not None and name not in usable:
        raise UsageError(f"{option} {name}: no video of it has features and segments; there {_listed(usable)}")
    return name


def _only(names: Iterable[str]) -> str | None:
    found = list(names)
    return found[0] if len(found) == 1 else None


def _listed(usable: Mapping[str, int]) -> str:
    """The subsets in words: "is 'test' (3 videos)", "are 'a' (1 video), 'b' (2 videos)"."""
    names = ", ".join(f"{name!r} ({counted(number, 'video')})" for name, number in sorted(usable.items()))
    return f"are {names}" if len(usable) > 1 else f"is {names or 'none'}"


def fit_annotations(annotations: Annotations, row_of: Mapping[str, ManifestRow], subsets: Subsets) -> Fitted:
    """Limit annotations to two subsets of videos with features, and add duration, frame, fps and label_id.

    Segments are cut to their video. Left out and counted are segments outside their video, duplicates, and THUMOS'
    Ambiguous, which is not a class; also training videos without any other segment, at which ActionFormer stops. Only
    classes that occur in a video are numbered, since ActionFormer compares their number with its configuration.

    Args:
        annotations: from `read_segments`.
        row_of: annotated name -> features.
        subsets: for training and testing.

    """
    left_out = Counter(annotations.left_out)
    names = {subsets.train: TRAIN, subsets.test: TEST}
    fitted: dict[str, list[Segment]] = {}
    num_cut = 0
    segments_of = by_video(annotations.segments)
    wanted = [name for name in row_of if annotations.videos[name].subset in names]
    for name in wanted:
        fitted[name], reasons, cut = cut_to_video(
            segments_of.get(name, []), duration_seconds=row_of[name].duration_seconds
        )
        left_out += reasons
        num_cut += cut
    role_of = {name: names[str(annotations.videos[name].subset)] for name in wanted}
    kept = [name for name in wanted if role_of[name] == TEST or fitted[name]]
    labels = {role: {s.label for name in kept if role_of[name] == role for s in fitted[name]} for role in (TRAIN, TEST)}
    categories = sorted(labels[TRAIN] | labels[TEST])
    number_of = {label: number for number, label in enumerate(categories)}
    return Fitted(
        database={row_of[n].video_id: _entry(fitted[n], row_of[n], number_of, subset=role_of[n]) for n in kept},
        categories=categories,
        longest_rows=max((row_of[name].rows for name in kept), default=0),
        num_train=sum(role_of[name] == TRAIN for name in kept),
        num_test=sum(role_of[name] == TEST for name in kept),
        left_out=left_out,
        num_cut=num_cut,
        num_overlapping=sum(num_overlapping(fitted[name]) for name in kept),
        num_unlabelled=len(wanted) - len(kept),
        num_of_other_subsets=len(row_of) - len(wanted),
        only_tested=sorted(labels[TEST] - labels[TRAIN]),
        other_durations=[
            row_of[name].video_id
            for name in kept
            if _has_other_duration(annotations.videos[name].duration_seconds, row_of[name])
        ],
    )


def by_video(segments: Iterable[Segment]) -> dict[str, list[Segment]]:
    """The segments of each video that has any."""
    found: defaultdict[str, list[Segment]] = defaultdict(list)
    for segment in segments:
        found[segment.video].append(segment)
    return dict(found)


def cut_to_video(segments: Sequence[Segment], *, duration_seconds: float) -> tuple[list[Segment], Counter[str], int]:
    """Cut segments to their video; also returns the number left out for each reason, and the number that were cut."""
    kept: dict[Segment, None] = {}
    left_out: Counter[str] = Counter()
    num_cut = 0
    for segment in segments:
        start, end = max(segment.start_seconds, 0.0), min(segment.end_seconds, duration_seconds)
        is_cut = (start, end) != (segment.start_seconds, segment.end_seconds)
        fitted = replace(segment, start_seconds=start, end_seconds=end) if is_cut else segment
        if segment.label == AMBIGUOUS:
            left_out[_AMBIGUOUS] += 1
        elif start >= duration_seconds or end <= 0:
            left_out[OUTSIDE] += 1
        elif end - start < SHORTEST_SECONDS:
            left_out[EMPTY] += 1
        elif fitted in kept:
            left_out[TWICE] += 1
        else:
            kept[fitted] = None
            num_cut += is_cut
    return list(kept), left_out, num_cut


def num_overlapping(segments: Iterable[Segment]) -> int:
    """Number of segments that begin before an earlier one of the same video has ended."""
    number, latest_end = 0, -math.inf
    for segment in sorted(segments, key=lambda s: s.start_seconds):
        number += segment.start_seconds < latest_end
        latest_end = max(latest_end, segment.end_seconds)
    return number


def _entry(
    segments: Sequence[Segment], row: ManifestRow, number_of: Mapping[str, int], *, subset: str
) -> dict[str, Any]:
    # Counted like the features: OpenTAD's sliding windows have a row for each stride that begins before `frame`.
    frame = num_grid_points(row.duration_seconds, fps=row.fps)
    return {
        "subset": subset,
        "duration": frame / row.fps,
        "frame": frame,
        "fps": row.fps,
        "annotations": [
            {"segment": [s.start_seconds, s.end_seconds], "label": s.label, "label_id": number_of[s.label]}
            for s in segments
        ],
    }


def _has_other_duration(annotated_seconds: float | None, row: ManifestRow) -> bool:
    """Whether the annotated length differs from the actual one, as for another cut of the video."""
    return annotated_seconds is not None and abs(annotated_seconds - row.duration_seconds) > _SAME_DURATION_SECONDS


def _named(classes: Sequence[str]) -> str:
    """A list of classes that are only tested, and the subject of what follows from that."""
    names = ", ".join(map(repr, classes))
    if len(classes) == 1:
        return f"the class {names}; its average precision"
    return f"the classes {names}; the average precision of each"


def describe_changes(fitted: Fitted) -> list[str]:
    """What was left out or cut, and what a detector cannot learn: one line each, possibly none."""
    left_out = fitted.left_out
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    lines = {
        f"left out {counted(left_out.total(), 'segment')}: {reasons}": left_out,
        f"cut {counted(fitted.num_cut, 'segment')} to the length of the video": fitted.num_cut,
        f"left out {counted(fitted.num_unlabelled, 'training video')} without a segment": fitted.num_unlabelled,
        f"left out {counted(fitted.num_of_other_subsets, 'video')} of other subsets": fitted.num_of_other_subsets,
        f"{counted(fitted.num_overlapping, 'segment')} overlapping others: all are kept, and where two overlap, "
        "the shorter one is learnt": fitted.num_overlapping,
        f"no training video has {_named(fitted.only_tested)} is 0 and is included in the mean": fitted.only_tested,
        f"{counted(len(fitted.other_durations), 'video')} over a second longer or shorter than annotated, such as "
        f"{next(iter(fitted.other_durations), None)}; check that the videos match": fitted.other_durations,
    }
    return [line for line, there_is in lines.items() if there_is]
