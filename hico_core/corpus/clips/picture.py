"""Show frames as `ffmpeg -i FILE` does, however a video enters the workspace.

A container may show only a part of the coded picture (mp4: clean aperture; Matroska: PixelCrop), and may turn or mirror
it (display matrix). FFmpeg, the program, does both, in this order, with filters that it puts before all others;
FFmpeg, the library, leaves them to its callers. This module builds those filters. The colour range and matrix are each
frame's own. Pixels are never stretched to be square.
"""

import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from math import atan2, degrees, hypot
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import av
from av import VideoFrame
from av.container import InputContainer
from av.filter import Graph
from av.sidedata.sidedata import Type
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from hico_core.base.errors import BadVideo, short_reason

if TYPE_CHECKING:
    import numpy as np  # slow to load, and `hico split` does not need it

# Formats that swscale, if both sides are even, converts to RGB in one step with exactly the pixels of ffmpeg's `scale`
# filter. For other formats, that filter respects the location of the chroma samples, and swscale alone does not.
_SAME_BY_ITSELF = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "gbrp", "rgb24", "bgr24"}

# Turns without mirroring.
PLAIN_TURNS: tuple[list[str], ...] = ([], ["transpose=clock"], ["transpose=cclock"], ["hflip", "vflip"])

# The versions of ffmpeg, the program, since which it crops and mirrors by itself.
CROPS_SINCE = (7, 1)
MIRRORS_SINCE = (5, 1)

# PyAV has a single log level for the whole process.
_DUMPING = Lock()


class Margins(NamedTuple):
    """Number of hidden pixels at each side of the coded picture."""

    top: int
    bottom: int
    left: int
    right: int


def margins_in(dump: str, *, stream: int) -> Margins | None:
    """The margins of a stream, parsed from FFmpeg's description of a file; None: the whole picture is shown."""
    parts = re.split(r"^  Stream #0:(\d+)", dump, flags=re.MULTILINE)
    of_stream = dict(zip(parts[1::2], parts[2::2], strict=True)).get(str(stream), "")
    found = re.search(r"^ +frame cropping: (\d+)/(\d+)/(\d+)/(\d+)", of_stream, re.MULTILINE | re.IGNORECASE)
    left, right, top, bottom = map(int, found.groups()) if found else (0, 0, 0, 0)
    return Margins(top, bottom, left, right) if left or right or top or bottom else None


def margins_of(container: InputContainer, stream: VideoStream) -> Margins | None:
    """The margins that a container hides; None: the whole picture is shown."""
    if not {"mov", "matroska"} & set(container.format.name.split(",")):
        return None
    # PyAV offers no other way to read them from libavformat.
    with _DUMPING:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            dump = container.dumps_format()  # type: ignore[attr-defined]  # the stubs lack it
        finally:
            av.logging.set_level(level)
    return margins_in(dump, stream=stream.index)


def crop_filter(margins: Margins) -> str:
    """FFmpeg's filter that crops the margins; it keeps to whole chroma samples."""
    top, bottom, left, right = margins
    return f"crop=w=iw-{left}-{right}:h=ih-{top}-{bottom}:x={left}:y={top}"


def size_without(margins: Margins | None, width: int, height: int, pixels: VideoFormat | None) -> tuple[int, int]:
    """(width, height) that `crop_filter` leaves."""
    if margins is None:
        return width, height
    wide, high = (pixels.chroma_width(1 << 8), pixels.chroma_height(1 << 8)) if pixels else (1 << 8, 1 << 8)
    samples_across, samples_down = (1 << 8) // wide, (1 << 8) // high
    width, height = width - margins.left - margins.right, height - margins.top - margins.bottom
    return width // samples_across * samples_across, height // samples_down * samples_down


def turn_filters(matrix: Sequence[int]) -> list[str]:
    """FFmpeg's filters that turn and mirror a picture as a display matrix specifies.

    Args:
        matrix: a b u, c d v, x y w: a pixel at (p, q) is shown at (ap + cq, bp + dq).

    Raises:
        ValueError: the angle is not a multiple of 90 degrees.

    """
    a, b, _, c, d = matrix[:5]
    across, down = hypot(a, c), hypot(b, d)
    if not across or not down:
        return []
    angle = round(degrees(atan2(b / down, a / across))) % 360
    if angle == 90:
        return ["transpose=" + ("cclock_flip" if c > 0 else "clock")]
    if angle == 270:
        return ["transpose=" + ("clock_flip" if c < 0 else "cclock")]
    if angle == 180:
        return [*(["hflip"] if a < 0 else []), *(["vflip"] if d < 0 else [])]
    if angle not in {359, 0, 1}:
        raise ValueError(f"is shown rotated by {angle} degrees; hico supports right angles only, so re-encode it")
    return ["vflip"] if d < 0 else []


def turn_of(frame: VideoFrame) -> list[str]:
    """FFmpeg's filters that turn a frame as its container or stream specifies."""
    try:
        side_data = frame.side_data
    except ValueError:
        # The frame carries side data (EXIF, views) that PyAV cannot name, so PyAV gives none of it.
        nameless = range(len(Type), len(Type) + 16)
        side_data = filtered(frame, [f"sidedata=mode=delete:type={kind}" for kind in nameless]).side_data
    matrix = side_data.get("DISPLAYMATRIX")
    # The stubs do not say that side data is a buffer.
    return [] if matrix is None else turn_filters(struct.unpack("9i", matrix))  # type: ignore[arg-type]


def require_known_turn(frame: VideoFrame, *, path: Path | str) -> None:
    """Check on the first frame that hico can turn a video's pictures as required.

    Raises:
        BadVideo: the angle is not a multiple of 90 degrees.

    """
    try:
        turn_of(frame)
    except ValueError as error:
        raise BadVideo(path, str(error)) from error


def colour_filter(frame: VideoFrame) -> str:
    """FFmpeg's filter that brings all frames to this one's colour range and matrix; an unnamed matrix is BT.601."""
    matrix = {1: "bt709", 4: "fcc", 7: "smpte240m", 9: "bt2020"}.get(int(frame.colorspace), "bt601")
    return f"scale=out_color_matrix={matrix}:out_range={'pc' if int(frame.color_range) == 2 else 'tv'}"


def filtered(frame: VideoFrame, filters: Sequence[str]) -> VideoFrame:
    """Apply FFmpeg's filters to a frame."""
    if not filters:
        return frame
    graph = Graph()
    graph.threads = 1
    links = [graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)]
    links += [graph.add(*text.split("=", 1)) for text in filters]
    graph.link_nodes(*links, graph.add("buffersink")).configure()
    graph.push(frame)
    made = graph.pull()
    assert isinstance(made, VideoFrame)
    return made


def without_margins(frame: VideoFrame, margins: Margins | None) -> VideoFrame:
    """The visible part of a frame, not turned yet."""
    return filtered(frame, [crop_filter(margins)]) if margins else frame


def shown_size(frame: VideoFrame) -> tuple[int, int]:
    """(width, height) of a frame without margins after turning."""
    turned = any(step.startswith("transpose") for step in turn_of(frame))
    return (frame.height, frame.width) if turned else (frame.width, frame.height)


def require_one_size(frames: Iterable[VideoFrame], *, path: Path | str) -> Iterator[VideoFrame]:
    """Yield the frames as long as they are all shown in one size.

    Raises:
        BadVideo: the size changes; the message says when, in seconds from the first frame.

    """
    first: tuple[tuple[int, int], float] | None = None
    for frame in frames:
        if first is None:
            require_known_turn(frame, path=path)
        size, seconds = shown_size(frame), frame.time or 0.0
        first = first or (size, seconds)
        if size != first[0]:
            (width, height), (new_width, new_height) = first[0], size
            raise BadVideo(
                path,
                f"changes its frame size, from {width}x{height} to {new_width}x{new_height} "
                f"at {seconds - first[1]:.2f} s; cut it there, or re-encode it in one size",
            )
        yield frame


def scaled_size(height: int, width: int, *, short_side: int) -> tuple[int, int]:
    """(height, width) with the shorter one equal to `short_side` and the other in proportion."""
    if height <= width:
        return short_side, round(width * short_side / height)
    return round(height * short_side / width), short_side


def rgb(frame: VideoFrame, short_side: int | None) -> "np.ndarray":
    """A frame without margins as it is shown: (H, W, 3) uint8; any scaling happens in the conversion from YUV."""
    turn = turn_of(frame)
    if short_side is None:
        # In one graph, so that the conversion takes place where ffmpeg would put it.
        if turn or frame.format.name not in _SAME_BY_ITSELF or frame.width % 2 or frame.height % 2:
            frame = filtered(frame, [*turn, "format=pix_fmts=rgb24"])
        return frame.to_ndarray(format="rgb24", interpolation="BICUBIC", threads=1)
    height, width = scaled_size(frame.height, frame.width, short_side=short_side)
    small = frame.reformat(width, height, format="rgb24", interpolation="BICUBIC", threads=1)
    return filtered(small, turn).to_ndarray()


def rgb_of(frame: VideoFrame, short_side: int | None, *, path: Path | str) -> "np.ndarray":
    """The same for a frame of a video that may be anybody's.

    Raises:
        BadVideo: FFmpeg has no conversion from its pixel format.

    """
    try:
        return rgb(frame, short_side)
    except av.FFmpegError as error:
        format_name = frame.format.name
        reason = f"its pixels ({format_name}) cannot be converted to RGB ({short_reason(error)}); re-encode it"
        raise BadVideo(path, reason) from error
