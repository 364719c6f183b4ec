"""The pictures of a frame folder: decode one, compare their sizes, or pack all of them into one video file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import av
from av import VideoFrame
from av.container import InputContainer
from PIL import Image

from hico_core.base.errors import BadVideo, short_reason
from hico_core.corpus.clips.probe import rate_of

# Read the file itself, even if its name could be taken for a pattern.
_ONE_PICTURE = {"pattern_type": "none", "protocol_whitelist": "file"}


def read_picture(path: Path) -> VideoFrame:
    """Decode a picture into the same frame that a video made of such pictures would give.

    Raises:
        BadVideo: it cannot be decoded.

    """
    with _opened(path) as container:
        try:
            return next(container.decode(video=0))
        except (StopIteration, av.FFmpegError) as error:
            raise BadVideo(path.parent, f"{path.name} cannot be decoded ({short_reason(error)})") from None


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    try:
        container = av.open(str(path), format="image2", options=_ONE_PICTURE)
    except (av.FFmpegError, OSError) as error:
        raise BadVideo(path.parent, f"{path.name} cannot be opened ({short_reason(error)})") from error
    with container:
        yield container


def require_pictures_of_one_size(pictures: Sequence[Path]) -> None:
    """Check the size in each picture's header, without decoding any.

    Raises:
        BadVideo: a file is not a picture, or its size differs from the first; the message names it.

    """
    sizes = [_size_of(path) for path in pictures]
    for path, size in zip(pictures, sizes, strict=True):
        if size != sizes[0]:
            (width, height), (first_width, first_height) = size, sizes[0]
            raise BadVideo(
                path.parent,
                f"has pictures of two sizes: {pictures[0].name} is {first_width}x{first_height}, {path.name} is "
                f"{width}x{height}; resize them to one size",
            )


def _size_of(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as picture:
            return picture.size
    except (OSError, Image.DecompressionBombError) as error:
        raise BadVideo(path.parent, f"{path.name} is empty, damaged or not a picture") from error


def write_as_video(pictures: Sequence[Path], video: Path, *, frame_rate: float) -> None:
    """Pack a frame folder's pictures unchanged, byte for byte, into one NUT file, which keeps times exactly.

    Args:
        pictures: in order.
        video: the file to write.
        frame_rate: pictures per second.

    Raises:
        BadVideo: the first file is not a picture.

    """
    time_base = 1 / rate_of(frame_rate)
    with _opened(pictures[0]) as first, av.open(str(video), "w", format="nut") as container:
        stream = container.add_stream_from_template(first.streams.video[0])
        stream.time_base = time_base  # the template's is that of a single picture, which does not suit other rates
        for number, path in enumerate(pictures):
            packet = av.Packet(path.read_bytes())
            packet.stream, packet.time_base = stream, time_base
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
