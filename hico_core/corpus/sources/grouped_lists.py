"""Lists of labelled clips that may also assign clips to groups: `path<TAB>label[<TAB>group]` per line.

A list whose name ends in .csv has commas instead of tabs, and may begin with a header `path,label,group`.
"""

import csv
from typing import NamedTuple

from hico_core.base.addresses import Location, absolute, is_local, is_there, locate
from hico_core.base.errors import UsageError
from hico_core.corpus.sources.finding import read_list_lines
from hico_core.corpus.sources.ids import is_plain_name


class GroupedClip(NamedTuple):
    """A labelled clip, and its group: clips that share a scene, a person, a camera."""

    path: Location
    label: str
    group: str


class GroupedList(NamedTuple):
    """The contents of a list."""

    clips: list[GroupedClip]  # in order of their paths, each once
    has_groups: bool  # if not, each clip is a group of its own
    bad: list[str]  # for each unusable line, its number and the reason


class _Line(NamedTuple):
    """A line split into parts; a malformed line may have an empty name."""

    number: int
    text: str
    name: str
    rest: list[str]  # label, group


def read_grouped_list(list_file: Location, *, data_root: Location) -> GroupedList:
    """The clips of a list.

    In a list without groups, a blank may separate path and label. A missing local file makes its line bad; files in a
    bucket are not checked.

    Args:
        list_file: the list.
        data_root: the folder to which relative paths refer.

    Raises:
        UsageError: the list cannot be read, or none of its lines can be used.

    """
    has_commas = list_file.suffix.lower() == ".csv"
    lines = [
        _Line(number, text, *(_cells(text) if has_commas else _parts(text)))
        for number, text in read_list_lines(list_file)
    ]
    if has_commas and [lines[0].name, *lines[0].rest[:1]] == ["path", "label"]:
        del lines[0]
    has_groups = any(len(line.rest) == 2 for line in lines)
    clips: dict[str, GroupedClip] = {}
    bad = []
    for line in lines:
        try:
            clip = _clip(line, data_root, has_groups=has_groups)
            known = clips.setdefault(str(clip.path), clip)
            if known != clip:
                raise UsageError(f"{clip.path} has another label or group in an earlier line")
        except UsageError as error:
            bad.append(f"{list_file}, line {line.number}: {error}")
    if not clips:
        raise UsageError(bad[0] if bad else f"{list_file}: has no clips below its header")
    return GroupedList([clip for _, clip in sorted(clips.items())], has_groups, bad)


def _parts(text: str) -> tuple[str, list[str]]:
    if "\t" not in text:
        name, _, label = text.rpartition(" ")
        return name.strip(), [label]
    name, *rest = (part.strip() for part in text.split("\t"))
    return name, rest


def _cells(text: str) -> tuple[str, list[str]]:
    name, *rest = (cell.strip() for cell in next(csv.reader([text])))
    return name, rest


def _clip(line: _Line, data_root: Location, *, has_groups: bool) -> GroupedClip:
    """The clip named by a line.

    Raises:
        UsageError: the line is malformed, or the file is missing.

    """
    if not line.name or len(line.rest) != 1 + has_groups or not all(map(is_plain_name, line.rest)):
        group = "<TAB>group" if has_groups else "[<TAB>group]"
        commas = "; a list with commas must be a .csv" if "," in line.text and "\t" not in line.text else ""
        raise UsageError(f"{line.text!r} is not path<TAB>label{group}{commas}")
    path = absolute(locate(line.name) if "://" in line.name else data_root / line.name)
    if is_local(path) and not is_there(path):
        raise UsageError(f"{path}: no such file; set --data-root to the base folder of the paths")
    return GroupedClip(path, line.rest[0], line.rest[1] if has_groups else str(path))
