"""Reads annotated segments of videos: ActivityNet's JSON, or a table with one segment per row."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from hico_core.base.errors import HicoError
from hico_core.base.texts import read_text
from hico_core.corpus.sources.finding import VIDEO_SUFFIXES
from hico_core.corpus.sources.ids import is_plain_name

COLUMNS = ("video", "start", "end", "label")  # of a table; "subset" may follow

# THUMOS' label for segments that may or may not be of a class.
AMBIGUOUS = "Ambiguous"

# Reasons for leaving out segments.
NO_SEGMENT = "without a start and an end in seconds"
NO_LABEL = "without a label"
EMPTY = "empty or ending before they start"
NO_RECORD = "not a row of video, start, end and label"

# How far a segment may extend beyond its video before the unit of its times is doubted.
_LATE_SECONDS = 1.0

# Both toolkits treat shorter segments as mistakes, and ActionFormer stops at a video that has nothing else.
SHORTEST_SECONDS = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """An action in a video, which is named as in the file."""

    video: str
    start_seconds: float
    end_seconds: float
    label: str
    subset: str | None


class AnnotatedVideo(NamedTuple):
    """A file's information on a video as a whole, if any."""

    subset: str | None
    duration_seconds: float | None


class VideoLength(NamedTuple):
    """The actual length of a video."""

    duration_seconds: float
    fps: float


class Annotations(NamedTuple):
    """The content of a file, and which of it cannot be used."""

    segments: list[Segment]  # in the order of the file; none is empty
    videos: dict[str, AnnotatedVideo]  # all usable ones, including those without segments
    left_out: Counter[str]  # segments, by reason
    problems: dict[str, str]  # name of a video -> why its entry cannot be used


class _Row(NamedTuple):
    """A segment as given in a file."""

    video: str
    times: tuple[Any, Any]  # start and end
    label: Any
    subset: str | None


def read_segments(path: Path) -> Annotations:
    """Read annotated segments.

    Args:
        path: a .json in ActivityNet's format, {"database": {video: {"subset", "annotations": [{"segment": [start, end],
            "label"}]}}}; or a table with the columns video, start, end (in seconds), label and optionally subset, as a
            .csv, or as a .jsonl with one object per line.

    Returns:
        The usable segments. Those without times, without a label or of zero length are left out and counted. Times may
        lie outside the video, since its length is not known here.

    Raises:
        HicoError: the file has another format, or nothing in it can be used.

    """
    readers = {".json": _read_activitynet, ".csv": _read_csv, ".jsonl": _read_json_lines}
    if path.suffix.lower() not in readers:
        raise HicoError(f"annotations must be in a {', '.join(readers)} file", subject=path)
    found = readers[path.suffix.lower()](read_text(path), path)
    if not found.videos:
        reasons = [f"entry {name!r} {problem}" for name, problem in found.problems.items()]
        reasons += [f"{count} of its segments are {reason}" for reason, count in found.left_out.items()]
        raise HicoError(f"contains nothing usable; {reasons[0] if reasons else 'it names no video'}", subject=path)
    return found


def ids_of(names: Collection[str], ids: Collection[str]) -> dict[str, str]:
    """Map annotated names to video ids, for the names that match a video.

    A name that is not an id may be a file name, which stands for the file's id, or have a leading `v_` that the id
    lacks. Then it does not match a video that is also annotated under its own name. If two names stand for one video,
    only the first matches.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        path = PurePosixPath(name)
        stem = path.stem if path.suffix.lower() in VIDEO_SUFFIXES else name
        for video_id in (name, stem, stem.removeprefix("v_")):
            if video_id in ids and video_id not in taken and (video_id == name or video_id not in names):
                found[name] = video_id
                taken.add(video_id)
                break
    return found


def require_seconds(segments: Iterable[Segment], length_of: Mapping[str, VideoLength], *, origin: object) -> None:
    """Check that times are in seconds: in another unit, most segments would end after their video.

    Args:
        segments: segments to check, if the length of their video is known.
        length_of: name of a video -> its length.
        origin: where the segments come from, for messages.

    Raises:
        HicoError: they are not in seconds; names the likely unit.

    """
    known = [(s.end_seconds, *length_of[s.video]) for s in segments if s.video in length_of]
    ends_N, durations_N, fps_N = np.array(known).reshape(-1, 3).T

    def share_inside(ends_seconds_N: np.ndarray) -> float:
        return float((ends_seconds_N <= durations_N + _LATE_SECONDS).mean()) if known else 1.0

    if share_inside(ends_N) >= 0.5:
        return
    # Frame numbers come first: divided by 1000, they too end before their video.
    units = {"frame numbers; divide them by the frame rate": fps_N, "milliseconds; divide them by 1000": 1000.0}
    for unit, divisor in units.items():
        if share_inside(ends_N / divisor) >= 0.95:
            raise HicoError(f"times must be seconds, and these look like {unit}", subject=origin)
    raise HicoError(
        "most segments end after their video; check that the videos match, and that times are in seconds",
        subject=origin,
    )


def _read_activitynet(text: str, path: Path) -> Annotations:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise HicoError(f"is not a JSON file of annotations ({error})", subject=path) from error
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict) or not database:
        raise HicoError('has no "database" of videos, as ActivityNet\'s annotations have', subject=path)
    problems = {name: problem for name, entry in database.items() if (problem := _problem_with(name, entry))}
    usable = {name: entry for name, entry in database.items() if name not in problems}
    videos = {name: AnnotatedVideo(e["subset"], _seconds(e.get("duration"))) for name, e in usable.items()}
    segments, left_out = _segments(
        _row_of_entry(name, entry["subset"], annotation)
        for name, entry in usable.items()
        for annotation in entry.get("annotations", [])
    )
    return Annotations(segments, videos, left_out, problems)


def _problem_with(name: str, entry: object) -> str | None:
    if not is_plain_name(name):
        return "has a name that is not plain text"
    if not isinstance(entry, dict) or not isinstance(entry.get("subset"), str):
        return "names no subset"
    if not isinstance(entry.get("annotations", []), list):
        return "has annotations that are not a list"
    return None


def _row_of_entry(name: str, subset: str, annotation: object) -> _Row | None:
    if not isinstance(annotation, dict):
        return None
    segment = annotation.get("segment")
    times = (segment[0], segment[1]) if isinstance(segment, list) and len(segment) == 2 else (None, None)
    return _Row(name, times, annotation.get("label"), subset)


def _read_csv(text: str, path: Path) -> Annotations:
    lines = csv.reader(io.StringIO(text), strict=True)
    try:
        header = [name.strip().lower() for name in next(lines, [])]
        _require_columns(header, path)
        return _tabled(_rows_of_csv(lines, header))
    except csv.Error as error:
        raise HicoError(f"{path}, line {lines.line_num}: is not comma-separated ({error})") from error


def _rows_of_csv(lines: Iterable[list[str]], header: list[str]) -> Iterator[_Row | None]:
    video, start, end, label = (header.index(name) for name in COLUMNS)
    subset = header.index("subset") if "subset" in header else None
    for cells in lines:
        if len(cells) == len(header):
            times = (_number(cells[start]), _number(cells[end]))
            named = None if subset is None else cells[subset].strip() or None
            yield _Row(cells[video].strip(), times, cells[label].strip(), named)
        elif cells:  # not an empty line
            yield None


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read_json_lines(text: str, path: Path) -> Annotations:
    records = [_object(line) for line in text.split("\n") if line.strip()]
    _require_columns(list(next(filter(None, records), {})), path)
    return _tabled(map(_row_of_record, records))


def _object(line: str) -> dict[str, Any]:
    """Parse a line as an object; an empty one if it is something else."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _row_of_record(record: dict[str, Any]) -> _Row | None:
    video, subset = record.get("video"), record.get("subset") or None
    if not isinstance(video, str) or not isinstance(subset, str | None):
        return None
    return _Row(video, (record.get("start"), record.get("end")), record.get("label"), subset)


def _require_columns(names: Collection[str], path: Path) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise HicoError(
            f"has no column {missing[0]!r} but {', '.join(map(repr, names)) or 'none at all'}; it needs "
            f"{', '.join(COLUMNS)} and, for subsets, subset",
            subject=path,
        )


def _tabled(rows: Iterable[_Row | None]) -> Annotations:
    """Combine the rows of a table; videos in two subsets, or whose names are not plain text, become problems."""
    listed = list(rows)
    subset_of: dict[str, str | None] = {}
    problems: dict[str, str] = {}
    for row in filter(None, listed):
        known = subset_of.setdefault(row.video, row.subset)
        if known != row.subset:
            problems[row.video] = f"is in two subsets, {known} and {row.subset}"
    problems |= {name: "has a name that is not plain text" for name in subset_of if not is_plain_name(name)}
    segments, left_out = _segments(row for row in listed if row is None or row.video not in problems)
    videos = {name: AnnotatedVideo(subset, None) for name, subset in subset_of.items() if name not in problems}
    return Annotations(segments, videos, left_out, problems)


_is_plain = cache(is_plain_name)  # cached, since many segments share few labels


def _segments(rows: Iterable[_Row | None]) -> tuple[list[Segment], Counter[str]]:
    """The segments that can be used, and how many cannot, by reason."""
    segments: list[Segment] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        if row is None:
            left_out[NO_RECORD] += 1
            continue
        start, end = map(_seconds, row.times)
        if not isinstance(row.label, str) or not _is_plain(row.label):
            left_out[NO_LABEL] += 1
        elif start is None or end is None:
            left_out[NO_SEGMENT] += 1
        elif end - start < SHORTEST_SECONDS:
            left_out[EMPTY] += 1
        else:
            segments.append(
                Segment(video=row.video, start_seconds=start, end_seconds=end, label=row.label, subset=row.subset)
            )
    return segments, left_out


def _seconds(value: object) -> float | None:
    """The value as a finite number, or None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond the range of floats
        return None
