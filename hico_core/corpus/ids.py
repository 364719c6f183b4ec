"""Names: the id of a video, the names of its clips, and the videos that a command is given."""

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from hico_core.corpus.storage import Location, locate, require_reachable
from hico_core.errors import HicoError, UsageError

# What a folder is searched for. A file that is named itself is taken whatever its ending.
VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
_LIST_SUFFIXES = frozenset({".txt", ".lst"})

# An id may hold anything but a line break, digits and underscores included, so names are read from the right.
_CLIP_NAME = re.compile(r"v_(?P<id>.+)_(?P<start>\d{7,})_(?P<end>\d{7,})\.mp4")


class Source(NamedTuple):
    """One video and the id by which everything made from it is known."""

    video_id: str
    path: Location  # absolute
    label: int | None = None  # class of the video, where a list says it


class ClipName(NamedTuple):
    """What a clip's file name says. Times are the plan's, in milliseconds."""

    video_id: str
    start_ms: int
    end_ms: int


def video_id(path: Location) -> str:
    """The file's stem without one leading `v_`: v_GGSY1Qvo990.mp4 -> GGSY1Qvo990.

    Raises:
        UsageError: nothing is left, or the name cannot stand in a text file.

    """
    stem = path.stem.removeprefix("v_")
    if not stem or not stem.isprintable():
        raise UsageError(f"{str(path)!r}: no video id can be made from this file name; rename the file")
    return stem


def clip_name(video_id: str, *, start_ms: int, end_ms: int) -> str:
    """`v_<id>_<start>_<end>.mp4`, in milliseconds of at least 7 digits."""
    return f"v_{video_id}_{start_ms:07d}_{end_ms:07d}.mp4"


def parse_clip_name(name: str) -> ClipName | None:
    """The inverse of `clip_name`; None for any other name."""
    match = _CLIP_NAME.fullmatch(name)
    return ClipName(match["id"], int(match["start"]), int(match["end"])) if match else None


def _is_video_name(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def _files_of_bucket(given: str) -> list[Location]:
    """The same as `_files_of` for an address in a bucket: one listing, no request a file."""
    place = locate(given)
    require_reachable(place)
    assert not isinstance(place, Path)
    if glob.has_magic(given):
        found = [name for name, info in place.fs.glob(place.path, detail=True).items() if info["type"] == "file"]
    else:
        listed = place.fs.ls(place.path, detail=True)
        found = [info["name"] for info in listed if info["type"] == "file" and info["size"]]
        if found != [place.path.rstrip("/")]:
            found = [name for name in found if _is_video_name(name)]
    if not found:
        raise UsageError(f"{given}: no video files there")
    protocol = given.split("://")[0]
    return [locate(f"{protocol}://{name}") for name in sorted(found)]


def _files_of(given: str) -> Sequence[Location]:
    """The video files that one argument of a command stands for."""
    if "://" in given:
        return _files_of_bucket(given)
    path = Path(given)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_video_name(p.name) and p.is_file())
        if not found:
            raise UsageError(f"{given}: no video files in this folder (subfolders: use {given}/**/*.mp4)")
        return found
    if path.is_file():
        if path.suffix.lower() not in _LIST_SUFFIXES:
            return [path]
        lines = [line.strip() for line in path.read_text().splitlines()]
        return [locate(line) if "://" in line else path.parent / line for line in lines if line]
    found = sorted(Path(p) for p in glob.glob(given, recursive=True) if Path(p).is_file())  # noqa: PTH207 - absolute patterns too
    if not found:
        raise UsageError(f"{given}: no such file or folder, and no file matches it as a pattern")
    return found


def find_sources(inputs: Iterable[str]) -> list[Source]:
    """Resolve files, folders, patterns and list files (.txt: a path a line) to videos, in order of their ids.

    Addresses in buckets (s3://, oss://) stand for one video, for all right below them, or are patterns.

    A folder stands for the videos right inside it. A file that is given twice counts once. Files of a list
    are not looked for here: one that is missing fails by itself, later.

    Raises:
        UsageError: an input stands for nothing.
        HicoError: two files have one id; the message names both.

    """
    by_id: dict[str, Location] = {}
    for given in inputs:
        for path in _files_of(given):
            absolute = path.parent.resolve() / path.name if isinstance(path, Path) else path
            known = by_id.setdefault(video_id(absolute), absolute)
            if known != absolute:
                raise HicoError(f"{known} and {absolute} have one id, {video_id(absolute)!r}: rename one of them")
    return [Source(name, by_id[name]) for name in sorted(by_id)]
