"""Frame folders: folders of numbered pictures (img_00001.jpg, img_00002.jpg, ...), each of which is a video.

The names of a folder's pictures differ only in their numbers, which start anywhere and may have leading zeros. The
pictures do not record their frame rate; the user gives it along with the folder.
"""

import os
import re
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from hico_core.base.addresses import Location, is_local
from hico_core.base.errors import BadVideo

# Suffixes of pictures, and FFmpeg's names for their codecs.
PICTURE_CODECS = {".jpg": "mjpeg", ".jpeg": "mjpeg", ".png": "png"}
_ENDINGS = tuple(PICTURE_CODECS)

_NUMBERED = re.compile(r"(|.*[^0-9])([0-9]+)(\.[^.]+)", re.DOTALL)


def is_picture(name: str) -> bool:
    """Whether a file name is that of a picture and not hidden; in a frame folder, it may still be there by mistake."""
    return name.lower().endswith(_ENDINGS) and not name.startswith(".")


def is_numbered_picture(name: str) -> bool:
    """Whether a file's name makes its folder a frame folder."""
    return is_picture(name) and _NUMBERED.fullmatch(name) is not None


def in_order(names: Iterable[str]) -> list[str]:
    """The names of a folder's pictures, sorted by number.

    img_9.png img_10.png img_8.png  ->  img_8.png img_9.png img_10.png

    Raises:
        ValueError: they do not belong to one video, or one is missing; the message says which.

    """
    numbered = sorted(map(_parts, names))
    if not numbered:
        raise ValueError("contains no numbered pictures (.jpg, .jpeg or .png)")
    first, *_ = numbered
    other = next((name for _, name, rest in numbered if rest != first[2]), None)
    if other is not None:
        raise ValueError(f"contains pictures with two kinds of names, {first[1]} and {other}; use one kind")
    for (number, before, _), (next_number, after, _) in pairwise(numbered):
        if next_number == number:
            raise ValueError(f"contains two pictures with the same number, {before} and {after}")
        if next_number != number + 1:
            raise ValueError(
                f"lacks picture number {number + 1}: {before} is followed by {after}; add the missing ones, or "
                "renumber the pictures"
            )
    return [name for _, name, _ in numbered]


def _parts(name: str) -> tuple[int, str, tuple[str, str]]:
    """A picture's number, its name, and the parts of the name before and after the number."""
    match = _NUMBERED.fullmatch(name)
    if match is None:
        raise ValueError(f"contains the picture {name} without a number; move it elsewhere")
    before, number, after = match.groups()
    return int(number), name, (before, after)


def picture_names(folder: Path) -> list[str]:
    """The names of all pictures in a folder, unsorted; none if it is missing."""
    # Called for each clip that is read in place, on folders with tens of thousands of pictures.
    return list(filter(is_picture, os.listdir(folder))) if folder.is_dir() else []  # noqa: PTH208


def frame_names(folder: Path) -> list[str]:
    """The names of a frame folder's pictures: frame k of the video is entry k of this list.

    Raises:
        BadVideo: they do not belong to one video; see `in_order`.

    """
    try:
        return in_order(picture_names(folder))
    except ValueError as error:
        raise BadVideo(folder, str(error), stage="name") from None


def pictures_in(folder: Path) -> list[Path]:
    """The paths of a frame folder's pictures, in order.

    Raises:
        BadVideo: see `frame_names`.

    """
    return [folder / name for name in frame_names(folder)]


def files_at(place: Location) -> list[Location]:
    """The files of the video at a location: the file itself, or a frame folder's pictures."""
    if is_local(place) and place.is_dir():
        return [place / name for name in sorted(picture_names(place))]
    return [place]
