"""Frame folders: folders of numbered pictures (img_00001.jpg, img_00002.jpg, ...), each of which is a video.

The pictures of a folder have names that differ in their number alone, with leading zeros or without, from any number
on. Their rate is not in them: whoever names the folder says it.
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path, PurePath
from typing import NamedTuple

from hico_core.base.addresses import Location, is_local
from hico_core.base.errors import BadVideo

# Endings of pictures, and FFmpeg's names of what is in them.
PICTURE_CODECS = {".jpg": "mjpeg", ".jpeg": "mjpeg", ".png": "png"}

_NUMBERED = re.compile(r"(?P<before>|.*[^0-9])(?P<number>[0-9]+)(?P<after>\.[^.]+)", re.DOTALL)


class _Numbered(NamedTuple):
    """A picture's name and its parts."""

    number: int
    name: str
    rest: tuple[str, str]  # what stands before and after the number


def is_picture(name: str) -> bool:
    """Whether a visible file is one of a frame folder's pictures, or lies between them by mistake."""
    return not name.startswith(".") and PurePath(name).suffix.lower() in PICTURE_CODECS


def is_numbered_picture(name: str) -> bool:
    """Whether a file's name makes its folder a frame folder."""
    return is_picture(name) and _NUMBERED.fullmatch(name) is not None


def in_order(names: Iterable[str]) -> list[str]:
    """The names of a folder's pictures by their numbers.

    img_9.png img_10.png img_8.png  ->  img_8.png img_9.png img_10.png

    Raises:
        ValueError: they are not those of one video, or one is missing; says which.

    """
    numbered = sorted(_parts(name) for name in names)
    if not numbered:
        raise ValueError("holds no numbered pictures (.jpg, .jpeg or .png)")
    first = numbered[0]
    other = next((picture for picture in numbered if picture.rest != first.rest), None)
    if other is not None:
        raise ValueError(f"holds pictures with names of two kinds, {first.name} and {other.name}; a video has one kind")
    for before, after in pairwise(numbered):
        if before.number == after.number:
            raise ValueError(f"holds two pictures of one number, {before.name} and {after.name}")
        if before.number + 1 < after.number:
            raise ValueError(
                f"lacks picture number {before.number + 1}: {before.name} is followed by {after.name}; add what is "
                "missing, or number the pictures without a gap"
            )
    return [picture.name for picture in numbered]


def _parts(name: str) -> _Numbered:
    match = _NUMBERED.fullmatch(name)
    if match is None:
        raise ValueError(f"holds {name}, which has no number, among its pictures; move it elsewhere")
    return _Numbered(int(match["number"]), name, (match["before"], match["after"]))


def picture_names(folder: Path) -> list[str]:
    """The names of all pictures that lie in a folder, in no order; none where it is missing."""
    return [path.name for path in folder.iterdir() if is_picture(path.name)] if folder.is_dir() else []


def pictures_in(folder: Path) -> list[Path]:
    """A frame folder's pictures: frame k of the video is number k of these.

    Raises:
        BadVideo: they are not those of one video, see `in_order`.

    """
    try:
        return [folder / name for name in in_order(picture_names(folder))]
    except ValueError as error:
        raise BadVideo(folder, str(error), stage="name") from None


def files_at(place: Location) -> list[Location]:
    """The files of a video at a place: that file, or a frame folder's pictures."""
    if is_local(place) and place.is_dir():
        return [place / name for name in sorted(picture_names(place))]
    return [place]
