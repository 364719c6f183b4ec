"""What a video file is, read through PyAV: without decoding, and without ffprobe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from math import floor
from pathlib import Path
from statistics import median
from typing import NamedTuple

import av
from av.codec.context import Flags
from av.container import InputContainer
from av.video.stream import VideoStream

from hico_core.corpus.ffmpeg import INPUT_OPTIONS
from hico_core.corpus.picture import margins_of, shown_size, size_without, without_margins
from hico_core.errors import BadVideo

# How far a frame may lie from its place on a constant grid, in frame periods. Two frames of a video then lie less
# than half a period nearer or farther than their numbers say, so that rounding finds the number of each from any other.
_GRID_TOLERANCE = 0.24


# Where each packet is one shown frame and a seek lands on the keyframe that was asked for.
_SEEKABLE = {("mp4", "h264"), ("mp4", "hevc")}


class Packet(NamedTuple):
    """A compressed frame."""

    pts: int  # when it is shown, in ticks
    dts: int  # when it is decoded
    is_keyframe: bool


class Keyframe(NamedTuple):
    """Where decoding can begin."""

    position: int  # in presentation order, from 0
    seek_tick: int  # its decoding time, by which containers seek


def seconds_from_first(ticks: Sequence[int], time_base: Fraction) -> list[float]:
    """Times in seconds, from the first one's, each the nearest float to the exact one."""
    first, numerator, denominator = ticks[0], time_base.numerator, time_base.denominator
    return [(tick - first) * numerator / denominator for tick in ticks]


class VideoInfo(NamedTuple):
    """A file's first video stream as its container describes it."""

    width: int  # without margins that the container hides, not turned yet
    height: int
    codec: str
    time_base: Fraction  # seconds per tick of the timestamps
    timestamps: list[int]  # of all packets, in presentation order
    keyframes: list[Keyframe]
    start_tick: int | None  # of the stream, as the container says
    file_start_tick: int  # the earliest of all streams, in ticks of this one: where ffmpeg's clock begins

    @property
    def frame_seconds(self) -> list[float]:
        """Times of all packets, from the first one's."""
        return seconds_from_first(self.timestamps, self.time_base)


class HeaderFacts(NamedTuple):
    """What a file's header claims, which may be wrong by a little."""

    seconds: float
    fps: float


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
    if Path(path).exists() and not Path(path).is_file():  # reading from a pipe would wait for ever
        raise BadVideo(path, "is no regular file")
    try:
        container = av.open(str(path), options=INPUT_OPTIONS)
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
        # Else what an encoder cut off at the left comes back where that suits the processor's registers.
        streams[0].codec_context.flags |= Flags.unaligned
        yield container, streams[0]


def short_reason(error: Exception) -> str:
    """The error in a few words, without the path that PyAV repeats."""
    return str(getattr(error, "strerror", None) or error).splitlines()[0]


def is_seekable(container: InputContainer, stream: VideoStream) -> bool:
    """Whether packets are frames one to one, and a seek finds its keyframe, so that parts can be decoded alone."""
    return any((kind, stream.codec_context.name) in _SEEKABLE for kind in container.format.name.split(","))


def is_countable(info: "VideoInfo") -> bool:
    """Whether the container names the time of the first frame as its start, from which a constant rate is counted."""
    return info.start_tick == info.timestamps[0]


def packets_in_order(container: InputContainer, stream: VideoStream, *, path: Path | str) -> list[Packet]:
    """All packets of an open video in decoding order, decoding none.

    Raises:
        BadVideo: the file cannot be read to its end or has no frames.

    """
    packets: list[Packet] = []
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            # Streams such as MPEG-4 in AVI carry only decoding times; without reordering they are the same.
            moment = packet.pts if packet.pts is not None else packet.dts
            if moment is not None:
                packets.append(Packet(moment, packet.dts if packet.dts is not None else moment, packet.is_keyframe))
    except av.FFmpegError as error:
        raise BadVideo(path, f"is damaged ({short_reason(error)})") from error
    if not packets:
        raise BadVideo(path, "has a video stream without frames")
    if len(packets) > 1 and len({packet.pts for packet in packets}) == 1:
        raise BadVideo(path, "has all its frames at one time")
    return packets


def read_packets(container: InputContainer, stream: VideoStream, *, path: Path | str) -> VideoInfo:
    """What an open video's packets say of it, decoding none.

    Raises:
        BadVideo: the file cannot be read to its end or has no frames.

    """
    packets = sorted(packets_in_order(container, stream, path=path))
    if stream.time_base is None:
        raise BadVideo(path, "has a video stream without a clock")
    width, height = size_without(margins_of(container, stream), stream.width, stream.height, stream.format)
    file_start = Fraction(container.start_time or 0, av.time_base)
    return VideoInfo(
        width=width,
        height=height,
        codec=stream.codec_context.name,
        time_base=stream.time_base,
        timestamps=[packet.pts for packet in packets],
        keyframes=[Keyframe(i, packet.dts) for i, packet in enumerate(packets) if packet.is_keyframe],
        start_tick=stream.start_time,
        file_start_tick=floor(file_start / stream.time_base + Fraction(1, 2)),
    )


def probe(path: Path | str) -> VideoInfo:
    """Open a file and read all its packets, decoding none.

    Raises:
        BadVideo: the file cannot be read to its end or has no video.

    """
    with open_video(path) as (container, stream):
        return read_packets(container, stream, path=path)


def shown_size_of(path: Path | str) -> tuple[int, int]:
    """(width, height) in which a file's first frame is shown, from decoding that one.

    Raises:
        BadVideo: it cannot be decoded.

    """
    with open_video(path) as (container, stream):
        try:
            first = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise BadVideo(path, f"cannot be decoded ({short_reason(error)})") from error
        if first is None:
            raise BadVideo(path, "has no frame that decodes")
        return shown_size(without_margins(first, margins_of(container, stream)))


def header_facts(path: Path | str) -> HeaderFacts:
    """Length and average rate of a video as its header has them, at no more cost than opening it.

    Raises:
        BadVideo: the file cannot be opened, or does not say.

    """
    with open_video(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        if container.duration is None or not rate:
            raise BadVideo(path, "does not say how long it is")
        return HeaderFacts(container.duration / av.time_base, float(rate))


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
