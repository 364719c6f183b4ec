"""Lists of labelled videos as common benchmarks distribute them: UCF101, HMDB51, Kinetics, and `<path> <label>`.

Classes are numbered from 0; in lists without numbers, they are numbered in the order of their sorted names.
"""

import csv
import glob
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hico_core.base.addresses import Location, is_there, locate
from hico_core.base.choices import IdRule, Subset
from hico_core.base.errors import UsageError
from hico_core.corpus.sources.finding import bad_row, read_list_lines
from hico_core.corpus.sources.ids import Source, is_plain_name, whole_number
from hico_core.corpus.sources.lists import labelled_videos, listed_video, listed_videos

_UCF_LIST = re.compile(r"(train|test)list\d+\.txt")
_UCF_CLASSES = "classInd.txt"

_HMDB_LIST = re.compile(r"(?P<name>.+)_test_split\d+\.txt")
_HMDB_NUMBERS: dict[str, Subset | None] = {"0": None, "1": "train", "2": "test"}

_LAST_SECOND = 10**9

_KINETICS_COLUMNS = frozenset({"label", "youtube_id", "time_start", "time_end"})


class Split(NamedTuple):
    """Labelled videos, each with its class name if the list gives one, and label -> name for all classes."""

    videos: list[Source]  # in order of their ids; those with an obstacle cannot be used
    classes: dict[int, str]


def read_split(given: str, *, data_root: Location, subset: Subset, id_rule: IdRule = "stem") -> Split:
    """The labelled videos of a list; whether the files exist is not checked.

    A malformed line, or a video with two labels, becomes a source with an obstacle.

    Formats: one `<path> <label>` or `<path> <class name>` per line, as in the lists for Kinetics and of the HiCo
    authors. UCF101: trainlist01.txt or testlist01.txt, with classInd.txt beside it. HMDB51: a pattern such as
    `splits/*_test_split1.txt`. Kinetics: a .csv file with the columns label, youtube_id, time_start and time_end.

    Args:
        given: the list, or the pattern of HMDB51's lists.
        data_root: the folder to which paths are relative.
        subset: the part of HMDB51's lists to read; they hold both training and test videos.
        id_rule: how ids are made; see `video_id`.

    Raises:
        UsageError: the list cannot be read, or all lines are malformed.
        HicoError: two videos have the same id.

    """
    if is_pattern(given):
        return _hmdb(given, data_root=data_root, subset=subset, id_rule=id_rule)
    path = locate(given)
    if path.suffix == ".csv":
        return _kinetics(path, data_root=data_root, id_rule=id_rule)
    if _UCF_LIST.fullmatch(path.name) and (path.parent / _UCF_CLASSES).exists():
        return _ucf(path, data_root=data_root, id_rule=id_rule)
    videos = labelled_videos(path, data_root=data_root, id_rule=id_rule)
    return Split(videos, {v.label: v.class_name for v in videos if v.label is not None and v.class_name is not None})


def numbered_as(split: Split, known: Mapping[int, str]) -> Split:
    """The same videos, relabelled by the known class names; a class that is not among them gets a new label.

    Each list numbers only the classes that it names, so a class may have another number in the test list.

    Args:
        split: the videos of a list; labels without class names stay as they are.
        known: label -> class name.

    """
    number_of = {name: label for label, name in known.items()}
    taken, next_free = set(known), max(known, default=-1) + 1
    for label, name in sorted(split.classes.items()):
        if name not in number_of:
            number_of[name] = next_free if label in taken else label
            taken.add(number_of[name])
            next_free = max(next_free, number_of[name] + 1)
    videos = [v if v.class_name is None else replace(v, label=number_of[v.class_name]) for v in split.videos]
    return Split(videos, {label: name for name, label in number_of.items()})


def is_pattern(given: str) -> bool:
    """Whether the argument is a pattern for several lists, one file per class; a file's name may look like one."""
    return "://" not in given and glob.has_magic(given) and not Path(given).is_file()


def _ucf(path: Location, *, data_root: Location, id_rule: IdRule) -> Split:
    """UCF101: `Class/v_Class_g01_c01.avi` per line, followed by a number in training lists; the folder is the class."""
    classes = [line.split(maxsplit=1)[-1] for _, line in read_list_lines(path.parent / _UCF_CLASSES)]
    label_of = {name: label for label, name in enumerate(classes)}
    sources = []
    for number, line in read_list_lines(path):
        name = line.split()[0]
        class_name = name.split("/")[0]
        label = label_of.get(class_name)
        if label is None:
            sources.append(bad_row(path, number, f"{line!r} does not begin with a class of {_UCF_CLASSES}"))
        else:
            video = data_root / name
            sources.append(listed_video(video, label, class_name, data_root=data_root, id_rule=id_rule))
    return Split(listed_videos(sources), dict(enumerate(classes)))


def _hmdb(pattern: str, *, data_root: Location, subset: Subset, id_rule: IdRule) -> Split:
    """HMDB51: one file per class, `<name>.avi <0, 1 or 2>` per line (unused, train, test); videos in class folders."""
    found = [(path, _HMDB_LIST.fullmatch(path.name)) for path in map(Path, sorted(glob.glob(pattern)))]  # noqa: PTH207 - absolute patterns too
    files = {match["name"]: path for path, match in found if match}
    if not files:
        raise UsageError(f"{pattern}: matches no list of HMDB51, such as brush_hair_test_split1.txt")
    classes = sorted(files)
    sources = []
    for label, name in enumerate(classes):
        for number, line in read_list_lines(files[name]):
            video, _, part = line.rpartition(" ")
            if part not in _HMDB_NUMBERS or not video:
                sources.append(bad_row(files[name], number, f"{line!r} is not <name> <0, 1 or 2>"))
            elif _HMDB_NUMBERS[part] == subset:
                path = data_root / name / video.strip()
                sources.append(listed_video(path, label, name, data_root=data_root, id_rule=id_rule))
    return Split(listed_videos(sources), dict(enumerate(classes)))


def _kinetics(path: Location, *, data_root: Location, id_rule: IdRule) -> Split:
    """Kinetics: one row per video, whose file is `<youtube_id>_<start>_<end>.mp4`, in one folder or one per class."""
    (_, head), *lines = read_list_lines(path)
    columns = _fields(head) or []
    if not _KINETICS_COLUMNS <= set(columns):
        wanted = ", ".join(sorted(_KINETICS_COLUMNS))
        raise UsageError(f"{path}: needs the columns {wanted}, as in Kinetics' lists")
    if not lines:
        raise UsageError(f"{path}: has no rows below its header")
    rows = [(number, dict(zip(columns, _fields(line) or [], strict=False))) for number, line in lines]
    labels = {row.get("label", "") for _, row in rows}
    classes = sorted(label for label in labels if is_plain_name(label))
    label_of = {name: label for label, name in enumerate(classes)}
    folder_of: dict[str, str] = {}  # so that a video with two labels remains one video
    by_class = any(is_there(data_root / name) for name in classes)

    def source_of(number: int, row: Mapping[str, str]) -> Source:
        problem = _problem_with(row)
        if problem:
            return bad_row(path, number, problem)
        name = f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4"
        label = row["label"]
        folder = data_root / folder_of.setdefault(name, label) if by_class else data_root
        return listed_video(folder / name, label_of[label], label, data_root=data_root, id_rule=id_rule)

    return Split(listed_videos(source_of(*row) for row in rows), dict(enumerate(classes)))


def _fields(line: str) -> list[str] | None:
    """The cells of a single line; None if a quote is not closed, which in a whole table would swallow later lines."""
    try:
        return [field.strip() for field in next(csv.reader([line], strict=True, skipinitialspace=True))]
    except csv.Error:
        return None


def _problem_with(row: Mapping[str, str]) -> str | None:
    """Why a row of Kinetics' table is invalid, or None."""
    missing = [column for column in sorted(_KINETICS_COLUMNS) if not row.get(column)]
    if missing:
        return f"has no {' and no '.join(missing)}"
    if not is_plain_name(row["label"]):
        return f"its label {row['label']!r} is not plain text in UTF-8"
    for column in ("time_start", "time_end"):
        if whole_number(row[column], most=_LAST_SECOND) is None:
            return f"its {column} {row[column]!r} is not a whole number of seconds"
    return None
