"""The ids of videos, and the names of their clips."""

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import NamedTuple

from hico_core.base.addresses import Location, through
from hico_core.base.cache import LocalCache
from hico_core.base.choices import IdRule

# An id may hold digits and underscores, so names are read from the right.
_CLIP_NAME = re.compile(r"v_(?P<id>.+)_(?P<start>\d{7,})_(?P<end>\d{7,})\.mp4", re.DOTALL)

# Unicode categories of control characters and line endings.
_NO_LINE_HOLDS = frozenset({"Cc", "Zl", "Zp"})

# Not allowed in ids and class names, which appear in UTF-8 lists with one entry per line; Cs: bytes that are not UTF-8.
_NO_NAME_HOLDS = _NO_LINE_HOLDS | {"Cs"}

# A record is named <id>.json, and file systems allow 255 bytes.
_LONGEST_ID = 255 - len(".json")

# Longest local path, and longest part of one, in bytes; systems reject longer ones.
_LONGEST_PATH, _LONGEST_PART = 4095, 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One video, with the id that identifies everything made from it."""

    video_id: str
    path: Location  # absolute; for a video that another tool cut, the pattern of its clips' names
    label: int | None = None  # class of the video, if a list gives it
    clips: tuple[Location, ...] = ()  # the clips that another tool cut, in time order
    obstacle: str | None = None  # why it cannot be used, if its name or its list already shows that
    class_name: str | None = None  # name of its label, if a list gives it
    frame_rate: float | None = None  # pictures per second of a frame folder; None: a file

    def read_through(self, cache: LocalCache) -> "Source":
        """The same video, read through a cache if it lies in a bucket."""
        return replace(self, path=through(self.path, cache), clips=tuple(through(clip, cache) for clip in self.clips))


class ClipName(NamedTuple):
    """The parts of a clip's file name; times are as planned, in milliseconds."""

    video_id: str
    start_ms: int
    end_ms: int


def video_id(path: Location, *, rule: IdRule = "stem", base: "Location | None" = None, is_folder: bool = False) -> str:
    """The id of a video: its file's stem, or its folder's name, without a leading `v_`.

    Args:
        path: the file, or the folder of its frames.
        rule: "stem": v_GGSY1Qvo990.mp4 -> GGSY1Qvo990. "relpath": preceded by the folders below `base`,
            base/d1/v_0001.mp4 -> d1-0001.
        base: the folder, list or pattern through which the file was found.
        is_folder: the path is a folder, whose name has no suffix.

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
    """Why a video with this id and path cannot be used, or None; any name that lists and tables can hold is allowed."""
    if not name:
        return "no video id can be made from its file name; rename the file"
    if any(unicodedata.category(c) in _NO_LINE_HOLDS for c in name):
        return "its file name contains a line break or another control character; rename the file"
    try:
        size, whole = len(name.encode()), path.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename the file or folder"
    if size > _LONGEST_ID:
        return (
            f"its file name is too long: an id may have at most {_LONGEST_ID} bytes, this has {size}; rename the file"
        )
    if "://" not in path and (len(whole) > _LONGEST_PATH or max(map(len, whole.split(b"/"))) > _LONGEST_PART):
        return f"its path is too long: it may have at most {_LONGEST_PATH} bytes, each part {_LONGEST_PART}"
    return None


def is_plain_name(text: str) -> bool:
    """Whether a text is not blank and can be an entry in a UTF-8 list with one entry per line."""
    return bool(text.strip()) and not any(unicodedata.category(c) in _NO_NAME_HOLDS for c in text)


def whole_number(text: str, *, most: int) -> int | None:
    """A text of digits as a number; None for any other text, and for a number above `most`."""
    digits = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    return int(text) if digits and int(text) <= most else None


def clip_name(video_id: str, *, start_ms: int, end_ms: int) -> str:
    """`v_<id>_<start>_<end>.mp4`, with times in milliseconds, padded to 7 digits."""
    return f"v_{video_id}_{start_ms:07d}_{end_ms:07d}.mp4"


def parse_clip_name(name: str) -> ClipName | None:
    """The inverse of `clip_name`; None for any other name."""
    match = _CLIP_NAME.fullmatch(name)
    return ClipName(match["id"], int(match["start"]), int(match["end"])) if match else None
