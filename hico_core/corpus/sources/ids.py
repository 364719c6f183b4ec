"""Names: the id of a video, and the names of its clips."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from hico_core.base.addresses import Location, through
from hico_core.base.cache import LocalCache
from hico_core.base.choices import IdRule
from hico_core.base.errors import HicoError

# An id may hold digits and underscores, so names are read from the right.
_CLIP_NAME = re.compile(r"v_(?P<id>.+)_(?P<start>\d{7,})_(?P<end>\d{7,})\.mp4", re.DOTALL)

# By Unicode category: control characters and line ends.
_NO_LINE_HOLDS = frozenset({"Cc", "Zl", "Zp"})

# What no id or name of a class may hold, since they stand in lists of one a line; bytes that are no UTF-8 either.
_NO_NAME_HOLDS = _NO_LINE_HOLDS | {"Cs"}

# A record is named <id>.json, and file systems allow 255 bytes.
_LONGEST_ID = 255 - len(".json")

# Of a local path, in bytes, and of each of its parts; systems refuse to look at longer ones.
_LONGEST_PATH, _LONGEST_PART = 4095, 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One video and the id by which everything made from it is known."""

    video_id: str
    path: Location  # absolute; of a video that another tool cut, the pattern of its clips' names
    label: int | None = None  # class of the video, where a list says it
    clips: tuple[Location, ...] = ()  # that another tool cut, in time order
    obstacle: str | None = None  # why nothing can be made of it, where its name or its list tells already
    class_name: str | None = None  # what its label is called, where a list says it
    frame_rate: float | None = None  # of a frame folder, pictures per second; None: a file

    def read_through(self, cache: LocalCache) -> "Source":
        """The same video, read through a cache where it lies in a bucket."""
        return replace(self, path=through(self.path, cache), clips=tuple(through(clip, cache) for clip in self.clips))


class ClipName(NamedTuple):
    """What a clip's file name says. Times are the plan's, in milliseconds."""

    video_id: str
    start_ms: int
    end_ms: int


def video_id(path: Location, *, rule: IdRule = "stem", base: "Location | None" = None, is_folder: bool = False) -> str:
    """The id of a video: its file's stem, or its folder's name, without one leading `v_`.

    Args:
        path: the file, or the folder of its frames.
        rule: "stem": v_GGSY1Qvo990.mp4 -> GGSY1Qvo990. "relpath": with the folders below `base` before it,
            base/d1/v_0001.mp4 -> d1-0001.
        base: the folder, list or pattern that the file was found by.
        is_folder: it is a folder, whose name has no ending.

    """
    stem = (path.name if is_folder else path.stem).removeprefix("v_")
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
        size, whole = len(name.encode()), path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename the file or folder"
    if size > _LONGEST_ID:
        return f"its file name is too long: an id may have {_LONGEST_ID} bytes, this has {size}; rename the file"
    if "://" not in path and (len(whole) > _LONGEST_PATH or max(map(len, whole.split(b"/"))) > _LONGEST_PART):
        return f"its path is too long: it may have {_LONGEST_PATH} bytes, and each part of it {_LONGEST_PART}"
    return None


def is_plain_name(text: str) -> bool:
    """Whether a text can stand in a list of one a line, in UTF-8, and says something."""
    return bool(text.strip()) and not any(unicodedata.category(c) in _NO_NAME_HOLDS for c in text)


def whole_number(text: str, *, most: int) -> int | None:
    """A text of digits as a number; None for any other, and for one above `most`."""
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    return int(text) if digits and int(text) <= most else None


def clip_name(video_id: str, *, start_ms: int, end_ms: int) -> str:
    """`v_<id>_<start>_<end>.mp4`, in milliseconds of at least 7 digits."""
    return f"v_{video_id}_{start_ms:07d}_{end_ms:07d}.mp4"


def parse_clip_name(name: str) -> ClipName | None:
    """The inverse of `clip_name`; None for any other name."""
    match = _CLIP_NAME.fullmatch(name)
    return ClipName(match["id"], int(match["start"]), int(match["end"])) if match else None


def unique_sources(sources: Iterable[Source]) -> list[Source]:
    """The sources in order of their ids, each once; what speaks against a name is noted, and two labels of one video.

    Raises:
        HicoError: two files have the same id; the message names both.

    """
    by_id: dict[str, Source] = {}
    for source in sources:
        known = by_id.setdefault(source.video_id, source)
        if known.path != source.path:
            raise HicoError(
                f"{known.path} and {source.path} have the same id, {source.video_id!r}: rename one of them, or let "
                "folders be part of the ids with --id relpath"
            )
        if source.obstacle and not known.obstacle:
            by_id[source.video_id] = source
        elif known.label != source.label and not known.obstacle:
            both = " and ".join(repr(one.class_name or one.label) for one in (known, source))
            by_id[source.video_id] = replace(known, obstacle=f"is in the list with two labels, {both}")
    return [
        replace(source, obstacle=source.obstacle or name_obstacle(name, str(source.path)))
        for name, source in sorted(by_id.items())
    ]
