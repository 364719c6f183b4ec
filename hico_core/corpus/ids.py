"""Names: the id of a video, the names of its clips, and the videos that a command is given."""

import glob
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Literal, NamedTuple

from hico_core.corpus.addresses import Location, locate, require_reachable
from hico_core.errors import HicoError, UsageError

# What a folder is searched for. A file that is named itself is taken whatever its ending.
VIDEO_SUFFIXES = frozenset(
    ".3gp .asf .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .vob .webm .wmv".split()
)
_LIST_SUFFIXES = frozenset({".txt", ".lst"})

# An id may hold digits and underscores, so names are read from the right.
_CLIP_NAME = re.compile(r"v_(?P<id>.+)_(?P<start>\d{7,})_(?P<end>\d{7,})\.mp4", re.DOTALL)

# What no id may hold, by Unicode category: control characters and line ends, since ids stand in lists of one a line.
_NO_LINE_HOLDS = frozenset({"Cc", "Zl", "Zp"})

# A record is named <id>.json, and file systems allow 255 bytes.
_LONGEST_ID = 255 - len(".json")

IdRule = Literal["stem", "relpath"]


class Source(NamedTuple):
    """One video and the id by which everything made from it is known."""

    video_id: str
    path: Location  # absolute; of a video that another tool cut, the pattern of its clips' names
    label: int | None = None  # class of the video, where a list says it
    clips: tuple[Location, ...] = ()  # that another tool cut, in time order
    obstacle: str | None = None  # why nothing can be made of it, where its name tells already


class ClipName(NamedTuple):
    """What a clip's file name says. Times are the plan's, in milliseconds."""

    video_id: str
    start_ms: int
    end_ms: int


def video_id(path: Location, *, rule: IdRule = "stem", base: "Location | None" = None) -> str:
    """The id of a video: its file's stem without one leading `v_`.

    Args:
        path: the file.
        rule: "stem": v_GGSY1Qvo990.mp4 -> GGSY1Qvo990. "relpath": with the folders below `base` before it,
            base/d1/v_0001.mp4 -> d1-0001.
        base: the folder, list or pattern that the file was found by.

    """
    stem = path.stem.removeprefix("v_")
    if rule == "stem" or base is None:
        return stem
    text, below = str(path.parent), str(base).rstrip("/")
    if text != below and not text.startswith(below + "/"):
        return stem
    folders = text[len(below) :].strip("/").split("/")
    return "-".join([*(folder for folder in folders if folder), stem])


def name_obstacle(name: str, path: str) -> str | None:
    """Why a video of this id and path cannot be taken, or None. Whatever a list and a table can hold is allowed."""
    if not name:
        return "no video id can be made from its file name; rename the file"
    if any(unicodedata.category(c) in _NO_LINE_HOLDS for c in name):
        return "its file name holds a line break or another control character; rename the file"
    try:
        size = len(name.encode())
        path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename the file or folder"
    if size > _LONGEST_ID:
        return f"its file name is too long: an id may have {_LONGEST_ID} bytes, this has {size}; rename the file"
    return None


def clip_name(video_id: str, *, start_ms: int, end_ms: int) -> str:
    """`v_<id>_<start>_<end>.mp4`, in milliseconds of at least 7 digits."""
    return f"v_{video_id}_{start_ms:07d}_{end_ms:07d}.mp4"


def parse_clip_name(name: str) -> ClipName | None:
    """The inverse of `clip_name`; None for any other name."""
    match = _CLIP_NAME.fullmatch(name)
    return ClipName(match["id"], int(match["start"]), int(match["end"])) if match else None


class _Found(NamedTuple):
    """A file and what it was found by."""

    path: Location
    base: Location


def _is_video_name(name: str) -> bool:
    return Path(name).suffix.lower() in VIDEO_SUFFIXES


def _without_magic(pattern: str) -> str:
    """The folders of a pattern before its first wildcard: data/*/x.mp4 -> data."""
    return "/".join(takewhile(lambda part: not glob.has_magic(part), pattern.split("/")))


def _files_of_bucket(given: str) -> Iterator[_Found]:
    """The same as `_files_of` for an address in a bucket: one listing, no request a file."""
    place = locate(given)
    require_reachable(place)
    assert not isinstance(place, Path)
    base: Location = place
    if glob.has_magic(given):
        found = [name for name, info in place.fs.glob(place.path, detail=True).items() if info["type"] == "file"]
        base = locate(_without_magic(given))
    else:
        listed = place.fs.ls(place.path, detail=True)
        found = [info["name"] for info in listed if info["type"] == "file" and info["size"]]
        if found != [place.path.rstrip("/")]:
            found = [name for name in found if _is_video_name(name)]
    if not found:
        raise UsageError(f"{given}: no video files there")
    protocol = given.split("://")[0]
    yield from (_Found(locate(f"{protocol}://{name}"), base) for name in sorted(found))


def read_list_lines(list_file: Location) -> list[tuple[int, str]]:
    """The lines of a list that are not empty, with their numbers from 1.

    Bytes that are not UTF-8 stay what they are, as in names of files: such a name is looked for on the disk, and each
    that cannot be used fails by itself.

    Raises:
        UsageError: the list cannot be read, or has none.

    """
    try:
        text = list_file.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise UsageError(f"{list_file}: cannot be read as a list ({error.strerror})") from error
    numbered = [(number, line.strip(" \t\r")) for number, line in enumerate(text.split("\n"), start=1)]
    if not any(line for _, line in numbered):
        raise UsageError(f"{list_file}: is empty")
    return [(number, line) for number, line in numbered if line]


def _files_of(given: str) -> Iterator[_Found]:
    """The video files that one argument of a command stands for."""
    if "://" in given:
        yield from _files_of_bucket(given)
        return
    path = Path(given)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if _is_video_name(p.name) and p.is_file())
        if not found:
            raise UsageError(f"{given}: no video files in this folder (subfolders: use {given}/**/*.mp4)")
        yield from (_Found(p, path) for p in found)
    elif path.is_file() and path.suffix.lower() in _LIST_SUFFIXES:
        for _, line in read_list_lines(path):
            yield _Found(locate(line) if "://" in line else path.parent / line, path.parent)
    elif path.is_file():
        yield _Found(path, path.parent)
    else:
        found = sorted(Path(p) for p in glob.glob(given, recursive=True) if Path(p).is_file())  # noqa: PTH207 - absolute patterns too
        if not found:
            raise UsageError(f"{given}: no such file or folder, and no file matches it as a pattern")
        base = Path(_without_magic(given))
        yield from (_Found(p, base) for p in found)


def absolute(path: Location) -> Location:
    """A local path from the root of the disk, its folders without links; the file itself may be one."""
    return path.parent.resolve() / path.name if isinstance(path, Path) else path


def find_sources(inputs: Iterable[str], *, id_rule: IdRule = "stem") -> list[Source]:
    """Resolve files, folders, patterns and list files (.txt: a path a line) to videos, in order of their ids.

    Addresses in buckets (s3://, oss://) stand for one video, for all right below them, or are patterns.

    A folder stands for the videos right inside it. A file that is given twice counts once. Files of a list
    are not looked for here: one that is missing fails by itself, later.

    Args:
        inputs: what a command is given.
        id_rule: how ids are made, see `video_id`.

    Raises:
        UsageError: an input stands for nothing.
        HicoError: two files have one id; the message names both.

    """
    found = (one for given in inputs for one in _files_of(given))
    return unique_sources(
        Source(video_id(path, rule=id_rule, base=absolute(base / "x").parent), path)
        for path, base in ((absolute(one.path), one.base) for one in found)
    )


def unique_sources(sources: Iterable[Source]) -> list[Source]:
    """The sources in order of their ids, each once; what speaks against a name is noted.

    Raises:
        HicoError: two files have one id; the message names both.

    """
    by_id: dict[str, Source] = {}
    for source in sources:
        known = by_id.setdefault(source.video_id, source)
        if known.path != source.path:
            raise HicoError(
                f"{known.path} and {source.path} have one id, {source.video_id!r}: rename one of them, or let "
                "folders be part of the ids with --id relpath"
            )
        if known.label != source.label:
            raise HicoError(f"{source.path}: stands in the list with label {known.label} and with {source.label}")
    return [source._replace(obstacle=name_obstacle(name, str(source.path))) for name, source in sorted(by_id.items())]
