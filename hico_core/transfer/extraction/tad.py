"""Features and annotations as temporal action detection toolkits read them: ActionFormer and OpenTAD, unmodified.

Both put feature i at (i * stride + offset) / fps seconds, with the offset half a window where windows begin with the
video. A video is given the duration frame / fps with a whole number of frames, because OpenTAD works out some rates as
frame / duration.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import yaml

from hico_core.base.addresses import Location
from hico_core.base.choices import Toolkit
from hico_core.base.errors import HicoError, counted
from hico_core.base.storage import write_text
from hico_core.base.texts import read_text
from hico_core.corpus.sources.ids import is_plain_name
from hico_core.transfer.extraction.manifest import ManifestRow, require_features

ANNOTATIONS = "annotations.json"
MISSING = "missing_files.txt"
CATEGORIES = "category_idx.txt"
SNIPPETS: dict[Toolkit, str] = {"actionformer": "actionformer.yaml", "opentad": "opentad.py"}

_READ_BY: dict[Toolkit, tuple[str, ...]] = {"actionformer": ("npy",), "opentad": ("npy", "npz", "pt")}

# What THUMOS calls segments that are neither of a class nor of none.
_AMBIGUOUS = "Ambiguous"

# Why segments are left out.
AMBIGUOUS = "called Ambiguous"
EMPTY = "empty or ending before they start"
OUTSIDE = "outside their video or after its last feature"
NO_SEGMENT = "not [start, end] in seconds"
NO_LABEL = "without a label"

# How far an annotated duration may lie from that of the video before it is told.
_SAME_DURATION_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureGrid:
    """What the features of a folder have in common, in the toolkits' words."""

    dim: int
    stride: int
    window: int
    offset_frames: float  # from the beginning of the grid to the middle of the first window
    fps: float | None  # None: each video has its own
    prefix: str
    suffix: str
    file_format: str


class Annotations(NamedTuple):
    """What a file of annotations says, by the names that it gives to videos."""

    database: dict[str, Any]  # name -> entry, with a subset and a list of annotations
    problems: dict[str, str]  # name -> why its entry cannot be used


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """What is written for a toolkit."""

    annotations: dict[str, Any]
    categories: list[str]  # in order of their numbers
    missing: list[str]  # annotated videos without features, or all of whose segments are left out
    left_out: Counter[str]  # segments, by reason
    num_cut: int  # segments that begin before their video or end after it
    num_without_annotations: int  # videos with features that no annotation names
    other_durations: list[str]  # ids whose annotated duration is not that of the video


def feature_grid(manifest: Mapping[str, ManifestRow], folder: Location, toolkit: Toolkit) -> FeatureGrid:
    """The grid on which all features of a folder lie.

    Raises:
        HicoError: they are not all named alike, or do not lie at equal distances, are maps, or files that the toolkit
            does not read.

    """
    rows = list(manifest.values())
    first = rows[0]
    if len({(row.prefix, row.suffix, row.file_format) for row in rows}) > 1:
        raise HicoError(f"{folder}: its files are not all named alike; extract with one --prefix and --format")
    if first.file_format not in _READ_BY[toolkit]:
        readable = " or ".join(_READ_BY[toolkit])
        raise HicoError(f"{folder}: {toolkit} does not read .{first.file_format}; extract with --format {readable}")
    if first.tail == "shift":
        raise HicoError(f"{folder}: its last windows are shifted off the grid; extract with --tail pad or drop")
    if len(first.shape) != 1:
        raise HicoError(f"{folder}: has maps, and detection toolkits read vectors; extract with --pool avg or max")
    grid = first.grid
    return FeatureGrid(
        dim=first.dim,
        stride=first.stride,
        window=first.window,
        offset_frames=grid.first_start + first.window / 2,
        fps=None if first.native_fps else first.fps,
        prefix=first.prefix,
        suffix=first.suffix,
        file_format=first.file_format,
    )


def centre_seconds(grid: FeatureGrid, *, count: int, fps: float) -> list[float]:
    """Where both toolkits put the features of a video: (i * stride + offset) / fps."""
    return [(place * grid.stride + grid.offset_frames) / fps for place in range(count)]


def read_annotations(path: Path) -> Annotations:
    """A file as ActivityNet's: {"database": {id: {"subset": ..., "annotations": [{"segment", "label"}]}}}.

    Raises:
        HicoError: it is something else, or no entry of a video can be used.

    """
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HicoError(f"{path}: is not a JSON file of annotations ({error})") from error
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict) or not database:
        raise HicoError(f'{path}: has no "database" of videos, as ActivityNet\'s annotations have')
    problems = {name: problem for name, entry in database.items() if (problem := _problem_with(name, entry))}
    if len(problems) == len(database):
        name, problem = next(iter(problems.items()))
        raise HicoError(f"{path}: the entry of {name!r} {problem}")
    return Annotations({name: entry for name, entry in database.items() if name not in problems}, problems)


def _problem_with(name: str, entry: object) -> str | None:
    if not is_plain_name(name):
        return "has a name that is not plain text"
    if not isinstance(entry, dict) or not isinstance(entry.get("subset"), str):
        return "names no subset"
    if not isinstance(entry.get("annotations", []), list):
        return "has annotations that are no list"
    return None


class _Fitted(NamedTuple):
    """The annotations of a video that are left, and what became of the others."""

    annotations: list[dict[str, Any]]
    left_out: Counter[str]
    num_cut: int


def _fitted(annotations: Sequence[Any], row: ManifestRow, *, duration_seconds: float) -> _Fitted:
    """Cut segments to their video, and leave out those of which nothing is left or that a toolkit cannot take."""
    kept: list[dict[str, Any]] = []
    left_out: Counter[str] = Counter()
    num_cut = 0
    for annotation in annotations:
        label, segment = (annotation.get(key) if isinstance(annotation, dict) else None for key in ("label", "segment"))
        if not isinstance(label, str) or not is_plain_name(label):
            left_out[NO_LABEL] += 1
        elif label == _AMBIGUOUS:
            left_out[AMBIGUOUS] += 1
        elif not _is_segment(segment):
            left_out[NO_SEGMENT] += 1
        elif not segment[0] < segment[1]:
            left_out[EMPTY] += 1
        elif segment[1] <= 0 or segment[0] >= duration_seconds or _lies_behind(segment[0], row):
            left_out[OUTSIDE] += 1
        else:
            cut = [max(segment[0], 0), min(segment[1], duration_seconds)]
            num_cut += cut != segment
            kept.append({**annotation, "segment": cut})
    return _Fitted(kept, left_out, num_cut)


def _is_segment(segment: object) -> TypeGuard[list[float]]:
    return (
        isinstance(segment, list)
        and len(segment) == 2
        and all(isinstance(t, int | float) and not isinstance(t, bool) and -math.inf < t < math.inf for t in segment)
    )


def fit_annotations(database: Mapping[str, Any], manifest: Mapping[str, ManifestRow], *, origin: str) -> Export:
    """Limit annotations to videos that have features, and fill in duration, frame, fps and label_id.

    A name that no video has stands for the one without its leading `v_`, unless that is annotated itself. Segments are
    cut to their video. Left out and counted are those that are empty, that begin after the last feature, that nobody
    could read, and THUMOS' Ambiguous, which is no class; a video that has no other is left out, since ActionFormer
    could not be trained on it. Classes are numbered as far as some video has them, since ActionFormer compares their
    number with its configuration.

    Args:
        database: from `read_annotations`.
        manifest: of the features.
        origin: of the annotations, for messages.

    Raises:
        HicoError: no annotated video has features, or no segment of any can be used.

    """
    by_id = {row.video_id: row for row in manifest.values()}
    row_of = _rows_of(database, by_id)
    if not row_of:
        raise HicoError(
            f"{origin}: none of its {len(database)} videos has features here; it begins with {next(iter(database))!r}, "
            f"the features with {min(by_id)!r}"
        )
    fitted: dict[str, Any] = {}
    missing = [name for name in database if name not in row_of]
    other_durations: list[str] = []
    left_out: Counter[str] = Counter()
    num_cut = 0
    for name, row in row_of.items():
        entry = database[name]
        frame = max(round(row.duration_seconds * row.fps), 1)
        found = _fitted(entry.get("annotations", []), row, duration_seconds=frame / row.fps)
        left_out += found.left_out
        num_cut += found.num_cut
        if entry.get("annotations") and not found.annotations:
            missing.append(name)
            continue
        if _has_other_duration(entry, row):
            other_durations.append(row.video_id)
        described = {"duration": frame / row.fps, "frame": frame, "fps": row.fps}
        fitted[row.video_id] = {**entry, **described, "annotations": found.annotations}
    categories = _number_categories(fitted)
    if not categories:
        raise HicoError(
            f"{origin}: the videos with features have no segment to use ({_in_words(left_out) or 'none at all'})"
        )
    return Export(
        annotations=fitted,
        categories=categories,
        missing=sorted(missing),
        left_out=left_out,
        num_cut=num_cut,
        num_without_annotations=len(by_id.keys() - fitted.keys()),
        other_durations=other_durations,
    )


def _rows_of(database: Mapping[str, Any], by_id: Mapping[str, ManifestRow]) -> dict[str, ManifestRow]:
    """The features of each annotated name that has any, by its id or, where that is not annotated too, without v_."""
    found: dict[str, ManifestRow] = {}
    for name in database:
        short = name.removeprefix("v_")
        row = by_id.get(name) or (by_id.get(short) if short not in database else None)
        if row is not None:
            found[name] = row
    return found


def _has_other_duration(entry: Mapping[str, Any], row: ManifestRow) -> bool:
    """Whether a video was annotated with another length than it has, as another cut of it would be."""
    annotated = entry.get("duration")
    return isinstance(annotated, int | float) and not (abs(annotated - row.duration_seconds) <= _SAME_DURATION_SECONDS)


def _number_categories(fitted: Mapping[str, Any]) -> list[str]:
    """Give each annotation its label_id; the labels, in order of their numbers."""
    categories = sorted({a["label"] for entry in fitted.values() for a in entry["annotations"]})
    number_of = {label: number for number, label in enumerate(categories)}
    for entry in fitted.values():
        entry["annotations"] = [{**a, "label_id": number_of[a["label"]]} for a in entry["annotations"]]
    return categories


def describe_changes(export: Export, *, missing_file: Path) -> str:
    """What was left out and cut, in one line; nothing where there is nothing to say."""
    left_out, cut = export.left_out, export.num_cut
    parts = [
        f"left out {counted(left_out.total(), 'segment')}: {_in_words(left_out)}" if left_out else "",
        f"cut {counted(cut, 'segment')} to the length of the video" if cut else "",
        f"{counted(len(export.missing), 'annotated video')} without features or without a segment that is left: "
        f"{missing_file}"
        if export.missing
        else "",
    ]
    return "; ".join(filter(None, parts))


def _in_words(left_out: Mapping[str, int]) -> str:
    """How many segments were left out for each reason: "3 called Ambiguous, 1 without a label"."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))


def _lies_behind(start_seconds: float, row: ManifestRow) -> bool:
    """Whether a segment begins after a video's last feature, counted in features as ActionFormer does."""
    offset = row.grid.first_start + row.window / 2
    return (start_seconds * row.fps - offset) / row.stride >= row.rows


def subsets_of(export: Export) -> list[str]:
    """The names of the subsets that have annotated videos, training first."""
    found = {entry["subset"] for entry in export.annotations.values() if entry["annotations"]}
    return sorted(found, key=lambda name: ("train" not in name.lower(), name))


def actionformer_config(grid: FeatureGrid, export: Export, *, folder: Path, features: Path) -> dict[str, Any]:
    """What an ActionFormer configuration must say for these features; the model's part stays that of its own file."""
    subsets = [subset.lower() for subset in subsets_of(export)]  # as it compares them
    return {
        "dataset_name": "anet",
        "train_split": subsets[:1],
        "val_split": subsets[1:] or subsets[:1],
        "dataset": {
            "json_file": str(folder / ANNOTATIONS),
            "feat_folder": str(features),
            "file_prefix": grid.prefix or None,
            "file_ext": f"{grid.suffix}.{grid.file_format}",
            "num_classes": len(export.categories),
            "input_dim": grid.dim,
            "feat_stride": grid.stride,
            # It puts a feature num_frames / 2 behind the beginning of its stride.
            "num_frames": _whole(2 * grid.offset_frames),
            **({} if grid.fps is None else {"default_fps": _whole(grid.fps)}),
            "downsample_rate": 1,
            "force_upsampling": False,
        },
    }


def opentad_config(grid: FeatureGrid, export: Export, *, folder: Path, features: Path) -> str:
    """What an OpenTAD configuration must say for these features, to be put after its `_base_`."""
    subsets = subsets_of(export)
    fps = -1 if grid.fps is None else _whole(grid.fps)
    common = [
        "ann_file=annotation_path,",
        "class_map=class_map,",
        "data_path=data_path,",
        "block_list=block_list,",
        f"feature_stride={grid.stride},",
        "sample_stride=1,",
        f"offset_frames={_whole(grid.offset_frames)},",
        f"fps={fps},  # -1: frame / duration of each video",
    ]
    lines = [
        f"annotation_path = {str(folder / ANNOTATIONS)!r}",
        f"class_map = {str(folder / CATEGORIES)!r}",
        f"data_path = {str(features)!r}",
        f"block_list = {str(folder / MISSING)!r}",
        "",
        "# In place of the first step of each pipeline:",
        f"load_feats = dict(type='LoadFeats', feat_format={grid.file_format!r}, prefix={grid.prefix!r}, "
        f"suffix={grid.suffix!r})",
        f"num_classes = {len(export.categories)}",
        f"in_channels = {grid.dim}  # of the model's projection",
        "",
        "dataset = dict(",
    ]
    for part, subset in (("train", subsets[0]), ("val", subsets[-1]), ("test", subsets[-1])):
        lines += [f"    {part}=dict(", *(f"        {line}" for line in [*common, f"subset_name={subset!r},"]), "    ),"]
    return "\n".join([*lines, ")", ""])


def _whole(number: float) -> int | float:
    return int(number) if float(number).is_integer() else number


def write_export(toolkit: Toolkit, export: Export, grid: FeatureGrid, *, folder: Path, features: Path) -> list[Path]:
    """Write annotations, lists and the configuration; each is there whole or not at all. Returns what was written."""
    folder = folder.absolute()
    where = {"folder": folder, "features": features.absolute()}
    if toolkit == "actionformer":
        snippet = yaml.safe_dump(actionformer_config(grid, export, **where), sort_keys=False)
    else:
        snippet = opentad_config(grid, export, **where)
    texts = {
        ANNOTATIONS: json.dumps({"database": export.annotations}, indent=1),
        MISSING: _lines(export.missing),
        CATEGORIES: _lines(export.categories),
        SNIPPETS[toolkit]: snippet,
    }
    for name in (*export.missing, *export.categories):
        if len(name.splitlines()) != 1 or name != name.strip():
            raise HicoError(f"{name!r}: a name that a list of one a line cannot hold; rename it in the annotations")
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _lines(names: Sequence[str]) -> str:
    return "".join(f"{name}\n" for name in names)


class Exported(NamedTuple):
    """What was written for a toolkit, and what could not be."""

    export: Export
    problems: dict[str, str]  # name of a video -> why its entry cannot be used
    files: list[Path]  # the configuration last
    changes: str  # what was left out and cut, in words; empty where nothing was


def export_features(annotations: Path, features: Path, *, toolkit: Toolkit, folder: Path) -> Exported:
    """Write what a toolkit needs to train on a folder of features.

    Args:
        annotations: a file as ActivityNet's.
        features: the folder of features.
        toolkit: that is to read them.
        folder: to be written.

    Raises:
        HicoError: the features do not lie on one grid, the annotations cannot be read, or none fits any features.

    """
    manifest = require_features(features)
    grid = feature_grid(manifest, features, toolkit)
    database, problems = read_annotations(annotations)
    export = fit_annotations(database, manifest, origin=str(annotations))
    files = write_export(toolkit, export, grid, folder=folder, features=features)
    return Exported(export, problems, files, describe_changes(export, missing_file=folder.absolute() / MISSING))
