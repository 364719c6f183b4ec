"""What a video file is, read through PyAV: without decoding, and without ffprobe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from hico_core.errors import BadVideo

# A playlist or a stream description may name other files and hosts; only the file itself is read.
_OPEN_OPTIONS = {"protocol_whitelist": "file"}

# A frame this far from its place on a constant grid, in frame periods, is shown as a neighbouring frame.
_GRID_TOLERANCE = 0.5


class Keyframe(NamedTuple):
    """Where decoding can begin."""

    position: int  # in presentation order, from 0
    seek_tick: int  # its decoding time, by which containers seek


class VideoInfo(NamedTuple):
    """A file's first video stream as its container describes it."""

    width: int  # as coded, before rotation
    height: int
    codec: str
    time_base: Fraction  # seconds per tick of the timestamps
    timestamps: list[int]  # of all packets, in presentation order
    keyframes: list[Keyframe]


class FrameRate(NamedTuple):
    """How regular a video's frames come."""

    fps: float  # average
    variable: bool  # a constant grid of `fps` would show a wrong frame somewhere


@contextmanager
def open_video(path: Path | str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a local file and its first real video stream (cover pictures are passed over).

    Raises:
        BadVideo: the file is missing, empty, no media file, or has no video.

    """
    try:
        container = av.open(str(path), options=_OPEN_OPTIONS)
    except FileNotFoundError:
        raise BadVideo(path, "no such file") from None
    except (av.FFmpegError, OSError) as error:
        raise BadVideo(path, f"cannot be opened as a video ({short_reason(error)})") from error
    with container:
        streams = [
            s
            for s in container.streams.video
            if not s.disposition & av.stream.Disposition.attached_pic and s.codec_context is not None
        ]
        if not streams:
            raise BadVideo(path, "has no video stream that can be decoded")
        yield container, streams[0]


def short_reason(error: Exception) -> str:
    """The error in a few words, without the path that PyAV repeats."""
    return str(getattr(error, "strerror", None) or error).splitlines()[0]


def read_packets(container: InputContainer, stream: VideoStream, *, path: Path | str) -> VideoInfo:
    """Go through all packets of an open video, decoding none.

    Raises:
        BadVideo: the file cannot be read to its end or has no frames.

    """
    packets: list[tuple[int, int, bool]] = []
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            # Streams such as MPEG-4 in AVI carry only decoding times; without reordering they are the same.
            moment = packet.pts if packet.pts is not None else packet.dts
            if moment is not None:
                packets.append((moment, packet.dts if packet.dts is not None else moment, packet.is_keyframe))
    except av.FFmpegError as error:
        raise BadVideo(path, f"is damaged ({short_reason(error)})") from error
    if not packets or stream.time_base is None:
        raise BadVideo(path, "has a video stream without frames")
    packets.sort()
    return VideoInfo(
        width=stream.width,
        height=stream.height,
        codec=stream.codec_context.name,
        time_base=stream.time_base,
        timestamps=[moment for moment, _, _ in packets],
        keyframes=[Keyframe(i, tick) for i, (_, tick, is_keyframe) in enumerate(packets) if is_keyframe],
    )


def probe(path: Path | str) -> VideoInfo:
    """Open a file and read all its packets, decoding none.

    Raises:
        BadVideo: the file cannot be read to its end or has no video.

    """
    with open_video(path) as (container, stream):
        return read_packets(container, stream, path=path)


def frame_rate(frame_seconds: Sequence[float]) -> FrameRate:
    """Average rate of frames at these times (ascending, in seconds), and whether it is constant.

    A container's rounding of times (Matroska: milliseconds) does not make a rate variable; a dropped frame does.
    A single frame counts as one frame a second.
    """
    if len(frame_seconds) < 2:
        return FrameRate(1.0, variable=False)
    first, last = frame_seconds[0], frame_seconds[-1]
    fps = (len(frame_seconds) - 1) / (last - first)
    variable = any(abs((t - first) * fps - i) > _GRID_TOLERANCE for i, t in enumerate(frame_seconds))
    return FrameRate(fps, variable)


def video_duration(frame_seconds: Sequence[float]) -> float:
    """Seconds from the first frame to the end of the last, which is taken to last as long as the usual frame."""
    if len(frame_seconds) < 2:
        return 1.0
    usual = median(b - a for a, b in pairwise(frame_seconds))
    return frame_seconds[-1] - frame_seconds[0] + usual


def largest_keyframe_interval(info: VideoInfo) -> int:
    """The most frames from one keyframe to the next (or to the end): what a seek may have to decode."""
    num_frames = len(info.timestamps)
    borders = [*(keyframe.position for keyframe in info.keyframes), num_frames]
    return max((b - a for a, b in pairwise(borders)), default=num_frames)
