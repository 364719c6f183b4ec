"""Lists of labelled videos, as the usual benchmarks distribute them: UCF101, HMDB51, Kinetics, and `<path> <label>`.

Classes are numbered from 0. In lists without numbers, they are numbered in order of their names.
"""

import csv
import glob
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from hico_core.corpus.addresses import Location, absolute, locate
from hico_core.corpus.finding import read_list_lines
from hico_core.corpus.ids import IdRule, Source, unique_sources, video_id
from hico_core.corpus.lists import labelled_videos
from hico_core.corpus.records import Subset
from hico_core.errors import UsageError

_UCF_LIST = re.compile(r"(train|test)list\d+\.txt")
_UCF_CLASSES = "classInd.txt"

_HMDB_LIST = re.compile(r"(?P<name>.+)_test_split\d+\.txt")
_HMDB_NUMBERS: dict[str, Subset | None] = {"0": None, "1": "train", "2": "test"}

_KINETICS_COLUMNS = frozenset({"label", "youtube_id", "time_start", "time_end"})


class Split(NamedTuple):
    """Labelled videos, each with the name of its class where the list says it, and label -> name of all its classes."""

    videos: list[Source]  # in order of their ids
    classes: dict[int, str]


def read_split(given: str, *, data_root: Location, subset: Subset, id_rule: IdRule = "stem") -> Split:
    """The labelled videos of a list. They are not looked for here.

    `<path> <label>` or `<path> <class name>` a line, as Kinetics' and the HiCo authors' lists. UCF101:
    trainlist01.txt or testlist01.txt, with classInd.txt beside it. HMDB51: a pattern such as
    `splits/*_test_split1.txt`. Kinetics: a .csv file with the columns label, youtube_id, time_start and time_end.

    Args:
        given: the list, or the pattern of HMDB51's.
        data_root: where paths begin.
        subset: which part of HMDB51's lists is meant; they hold both.
        id_rule: how ids are made, see `video_id`.

    Raises:
        UsageError: the list cannot be read, or a line is something else.
        HicoError: two videos have one id, or one video has two labels.

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
    """The same videos, with the labels that their classes have elsewhere; a class without one there gets a new one.

    Lists number the classes that they name, so a class may have another number in the list for testing.

    Args:
        split: of a list; where it has no names for its labels, they stay as they are.
        known: label -> name.

    """
    number_of = {name: label for label, name in known.items()}
    taken, next_free = set(known), max(known, default=-1) + 1
    for label, name in sorted(split.classes.items()):
        if name not in number_of:
            number_of[name] = next_free if label in taken else label
            taken.add(number_of[name])
            next_free = max(next_free, number_of[name] + 1)
    videos = [v if v.class_name is None else v._replace(label=number_of[v.class_name]) for v in split.videos]
    return Split(videos, {label: name for name, label in number_of.items()})


def is_pattern(given: str) -> bool:
    """Whether it stands for several lists, a file a class."""
    return "://" not in given and glob.has_magic(given)


def _source(path: Location, label: int, class_name: str, *, data_root: Location, id_rule: IdRule) -> Source:
    path, base = absolute(path), absolute(data_root / "x").parent
    return Source(video_id(path, rule=id_rule, base=base), path, label, class_name=class_name)


def _ucf(path: Location, *, data_root: Location, id_rule: IdRule) -> Split:
    """`Class/v_Class_g01_c01.avi`, in lists for training with a number after it; the folder names the class."""
    classes = [line.split(maxsplit=1)[-1] for _, line in read_list_lines(path.parent / _UCF_CLASSES)]
    label_of = {name: label for label, name in enumerate(classes)}
    sources = []
    for number, line in read_list_lines(path):
        name = line.split()[0]
        class_name = name.split("/")[0]
        label = label_of.get(class_name)
        if label is None:
            raise UsageError(f"{path}, line {number}: {line!r} does not begin with a class of {_UCF_CLASSES}")
        sources.append(_source(data_root / name, label, class_name, data_root=data_root, id_rule=id_rule))
    return Split(unique_sources(sources), dict(enumerate(classes)))


def _hmdb(pattern: str, *, data_root: Location, subset: Subset, id_rule: IdRule) -> Split:
    """A file a class, `<name>.avi <0, 1 or 2>` a line: not used, to train on, to test on; videos lie by class."""
    found = [(path, _HMDB_LIST.fullmatch(path.name)) for path in map(Path, sorted(glob.glob(pattern)))]  # noqa: PTH207 - absolute patterns too
    files = {match["name"]: path for path, match in found if match}
    if not files:
        raise UsageError(f"{pattern}: matches no list such as brush_hair_test_split1.txt, as HMDB51 has them")
    classes = sorted(files)
    sources = []
    for label, name in enumerate(classes):
        for number, line in read_list_lines(files[name]):
            video, _, part = line.rpartition(" ")
            if part not in _HMDB_NUMBERS or not video:
                raise UsageError(f"{files[name]}, line {number}: {line!r} is not <name> <0, 1 or 2>")
            if _HMDB_NUMBERS[part] == subset:
                path = data_root / name / video.strip()
                sources.append(_source(path, label, name, data_root=data_root, id_rule=id_rule))
    return Split(unique_sources(sources), dict(enumerate(classes)))


def _kinetics(path: Location, *, data_root: Location, id_rule: IdRule) -> Split:
    """A row a video; its file is `<youtube_id>_<start>_<end>.mp4`, in one folder, or in one a class."""
    text = "\n".join(line for _, line in read_list_lines(path))
    rows = list(csv.DictReader(io.StringIO(text)))
    if not rows or not rows[0].keys() >= _KINETICS_COLUMNS:
        raise UsageError(f"{path}: has not the columns {', '.join(sorted(_KINETICS_COLUMNS))}, as Kinetics' lists have")
    classes = sorted({row["label"] for row in rows})
    label_of = {name: label for label, name in enumerate(classes)}
    try:
        names = [f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4" for row in rows]
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: a time is not a whole number of seconds ({error})") from error
    by_class = (data_root / rows[0]["label"] / names[0]).exists()
    folders = [data_root / row["label"] if by_class else data_root for row in rows]
    sources = [
        _source(folder / name, label_of[row["label"]], row["label"], data_root=data_root, id_rule=id_rule)
        for row, folder, name in zip(rows, folders, names, strict=True)
    ]
    return Split(unique_sources(sources), dict(enumerate(classes)))
