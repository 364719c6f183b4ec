"""Facts about a video file, read through PyAV: without ffprobe, and without decoding if possible."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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

from hico_core.base.errors import BadVideo, short_reason
from hico_core.corpus.clips.ffmpeg import INPUT_OPTIONS
from hico_core.corpus.clips.picture import (
    margins_of,
    require_known_turn,
    require_one_size,
    rgb_of,
    shown_size,
    size_without,
    without_margins,
)

# How far a frame may lie from its place on a constant grid, in frame periods. The distance between any two frames then
# differs by less than half a period from what their numbers say, so rounding finds one number from the other.
_GRID_TOLERANCE = 0.24

# Rounding times to milliseconds, as containers do, changes the distance between two times by at most this.
_STAMP_ROUNDING_SECONDS = 1e-3

# Formats in which each packet is one shown frame and a seek lands on the requested keyframe.
_SEEKABLE = {("mp4", "h264"), ("mp4", "hevc")}


# Relative tolerance of rounded NTSC rates: 23.98 is this close to 24000/1001, the worst case, while no whole number is
# this close to 1000/1001 of another.
_RATE_ROUNDING = 2e-4


class Packet(NamedTuple):
    """A compressed frame."""

    pts: int  # when it is shown, in ticks
    dts: int  # when it is decoded
    is_keyframe: bool


class Keyframe(NamedTuple):
    """A frame at which decoding can begin."""

    position: int  # in presentation order, from 0
    seek_tick: int  # its decoding time, by which containers seek


def seconds_from_first(ticks: Sequence[int], time_base: Fraction) -> list[float]:
    """Times in seconds from the first one, each the float nearest to the exact value."""
    first, numerator, denominator = ticks[0], time_base.numerator, time_base.denominator
    return [(tick - first) * numerator / denominator for tick in ticks]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """A file's first video stream as its container describes it."""

    width: int  # without the margins that the container hides, before turning
    height: int
    codec: str
    time_base: Fraction  # seconds per tick of the timestamps
    timestamps: list[int]  # of all packets, in presentation order
    keyframes: list[Keyframe]
    start_tick: int | None  # of the stream, as the container says
    file_start_tick: int  # the earliest of all streams, in ticks of this one: where ffmpeg's clock begins

    @property
    def frame_seconds(self) -> list[float]:
        """Times of all packets, in seconds from the first one."""
        return seconds_from_first(self.timestamps, self.time_base)


class HeaderFacts(NamedTuple):
    """Length and frame rate as a file's header states them, which may be slightly wrong."""

    seconds: float
    fps: float


class FrameRate(NamedTuple):
    """The frame rate of a video, and whether it is constant."""

    fps: float  # average
    variable: bool  # a constant grid at `fps` would show a wrong frame somewhere
    period_seconds: float  # how long a typical frame is shown; assumed for the last one


@contextmanager
def open_video(path: Path | str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a local file and its first real video stream (cover pictures are skipped).

    Raises:
        BadVideo: the file is missing, empty, not a media file, or has no video.

    """
    if Path(path).is_dir():
        raise BadVideo(path, "is a folder; if it contains numbered pictures, use --frame-rate N")
    if Path(path).exists() and not Path(path).is_file():  # reading from a pipe would wait for ever
        raise BadVideo(path, "is not a regular file")
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
        # Otherwise FFmpeg may leave pixels cropped at the left in the picture, to keep rows aligned for the processor.
        streams[0].codec_context.flags |= Flags.unaligned
        yield container, streams[0]


def is_seekable(container: InputContainer, stream: VideoStream) -> bool:
    """Whether packets are frames one to one and a seek finds its keyframe, so that parts can be decoded separately."""
    return any((kind, stream.codec_context.name) in _SEEKABLE for kind in container.format.name.split(","))


def units_of(packet: bytes) -> Iterator[memoryview]:
    """The H.264 or HEVC units in a packet of an mp4 file, in which each unit is preceded by its length in 4 bytes."""
    whole, position = memoryview(packet), 0
    while position + 4 < len(whole):
        end = position + 4 + int.from_bytes(whole[position : position + 4], "big")
        if end > position + 4:
            yield whole[position + 4 : end]
        position = end


def has_new_descriptions(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the keyframes of a seekable video describe their pictures differently, e.g. after joining two sizes.

    A description is a sequence parameter set, which holds the picture size (ITU-T H.264, 7.3.2.1; H.265, 7.3.2.2).
    """

    def is_description(unit: memoryview) -> bool:
        return unit[0] & 31 == 7 if stream.codec_context.name == "h264" else unit[0] >> 1 & 63 == 33

    keyframes = (bytes(packet) for packet in container.demux(stream) if packet.is_keyframe and packet.size)
    return len({tuple(bytes(u) for u in units_of(packet) if is_description(u)) for packet in keyframes}) > 1


def packets_in_order(container: InputContainer, stream: VideoStream, *, path: Path | str) -> list[Packet]:
    """All packets of an open video in decoding order, without decoding any.

    Raises:
        BadVideo: the file cannot be read to its end or has no frames.

    """
    packets: list[Packet] = []
    num_without_time = 0
    try:
        for packet in container.demux(stream):
            if packet.size == 0 or packet.is_discard:
                continue
            # Streams such as MPEG-4 in AVI carry only decoding times; without reordering, both times are equal.
            moment = packet.pts if packet.pts is not None else packet.dts
            if moment is None:
                num_without_time += 1
            else:
                packets.append(Packet(moment, packet.dts if packet.dts is not None else moment, packet.is_keyframe))
    except av.FFmpegError as error:
        raise BadVideo(path, f"is damaged ({short_reason(error)})") from error
    if not packets and num_without_time:
        reason = "has frames without times, like a raw stream of H.264 or HEVC"
        raise BadVideo(path, f"{reason}; re-encode it into a container, as with `ffmpeg -i FILE NEW.mp4`")
    if not packets:
        raise BadVideo(path, "has a video stream without frames")
    if len(packets) > 1 and len({packet.pts for packet in packets}) == 1:
        raise BadVideo(path, "has the same time for all frames")
    return packets


def read_packets(container: InputContainer, stream: VideoStream, *, path: Path | str) -> VideoInfo:
    """Facts about an open video from its packets, without decoding any.

    Raises:
        BadVideo: the file cannot be read to its end or has no frames.

    """
    packets = sorted(packets_in_order(container, stream, path=path))
    if stream.time_base is None:
        raise BadVideo(path, "has a video stream without a time base")
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
    """Open a file and read all its packets, without decoding any.

    Raises:
        BadVideo: the file cannot be read to its end or has no video.

    """
    with open_video(path) as (container, stream):
        return read_packets(container, stream, path=path)


def frame_times(path: Path | str) -> list[float]:
    """The time at which each frame of a file is shown, in seconds from the first one.

    Raises:
        BadVideo: the file cannot be read to its end, has no frame that can be decoded, its clock goes back, or its
            pictures change size.

    """
    with open_video(path) as (container, stream):
        # One process per core reads videos; threads inside a decoder cost more CPU than they save.
        stream.thread_type = "NONE"
        return times_of_opened(container, stream, path=path)


def times_of_opened(container: InputContainer, stream: VideoStream, *, path: Path | str) -> list[float]:
    """The same as `frame_times` for a video that is open at its beginning.

    If packets are frames one to one, nothing is decoded; otherwise the times are known only after decoding everything.

    Raises:
        BadVideo: see `frame_times`.

    """
    if is_seekable(container, stream):
        return read_packets(container, stream, path=path).frame_seconds
    ticks: list[int] = []
    try:
        for frame in require_one_size(container.decode(stream), path=path):
            if frame.pts is None:
                raise BadVideo(path, "has a frame without a time")
            ticks.append(frame.pts)
    except av.FFmpegError as error:
        raise BadVideo(path, f"cannot be decoded ({short_reason(error)})") from error
    if not ticks or stream.time_base is None:
        raise BadVideo(path, "has no frame that can be decoded")
    if "avi" in container.format.name.split(","):
        # AVI stores decoding times, not presentation times; the decoded frames come in presentation order.
        ticks.sort()
    seconds = seconds_from_first(ticks, stream.time_base)
    if len(seconds) > 1 and not any(seconds):
        raise BadVideo(path, "has the same time for all frames")
    for number, (earlier, later) in enumerate(pairwise(seconds), start=1):
        if later < earlier:
            raise BadVideo(
                path,
                f"its clock goes back from {earlier:.3f} s to {later:.3f} s at frame {number} (joined recordings?); "
                "try `hico split`, or re-encode it",
            )
    return seconds


def shown_size_of(path: Path | str) -> tuple[int, int]:
    """(width, height) in which a file's first frame is shown; decodes that frame.

    Raises:
        BadVideo: it cannot be decoded, or not be converted to RGB.

    """
    with open_video(path) as (container, stream):
        try:
            first = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise BadVideo(path, f"cannot be decoded ({short_reason(error)})") from error
        if first is None:
            raise BadVideo(path, "has no frame that can be decoded")
        require_known_turn(first, path=path)
        shown = without_margins(first, margins_of(container, stream))
        rgb_of(shown, None, path=path)
        return shown_size(shown)


def header_facts(path: Path | str) -> HeaderFacts:
    """Length and average frame rate of a video from its header, at no more cost than opening the file.

    Raises:
        BadVideo: the file cannot be opened, or its header does not state them.

    """
    with open_video(path) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        if container.duration is None or not rate:
            raise BadVideo(path, "has no known duration")
        return HeaderFacts(container.duration / av.time_base, float(rate))


def frame_rate(frame_seconds: Sequence[float]) -> FrameRate:
    """Average frame rate for frames at these times (ascending, in seconds), and whether it is constant.

    A container's rounding of times (Matroska: milliseconds) does not make a rate variable; a dropped frame does.
    A single frame counts as one frame per second. If the rate varies, the typical period is the median, because a gap
    lengthens the mean.
    """
    if len(frame_seconds) < 2:
        return FrameRate(1.0, variable=False, period_seconds=1.0)
    first = frame_seconds[0]
    fps = _usual_rate(len(frame_seconds) - 1, frame_seconds[-1] - first)
    if all(abs((t - first) * fps - i) <= _GRID_TOLERANCE for i, t in enumerate(frame_seconds)):
        return FrameRate(fps, variable=False, period_seconds=1 / fps)
    return FrameRate(fps, variable=True, period_seconds=median(b - a for a, b in pairwise(frame_seconds)))


def _usual_rate(num_periods: int, seconds: float) -> float:
    """Frames per second: a whole number, half of one, or 1000/1001 of one (NTSC) if it differs only by rounding.

    The last of 300 frames at 30 fps in Matroska is at 9.967 s instead of 9.9667, which reads as 29.999 fps. Taken
    literally, each frame would seem to come later than it does, and a frame's exact time would show the one before it.
    """
    average = num_periods / seconds
    for usual in (round(average), round(average * 2) / 2, round(average * 1.001) * 1000 / 1001):
        if usual and abs(num_periods / usual - seconds) <= _STAMP_ROUNDING_SECONDS:
            return float(usual)
    return average


def rate_of(fps: float) -> Fraction:
    """25.0 -> 25, 29.97 -> 30000/1001: a rate written with two decimals stands for the exact NTSC rate."""
    ntsc = Fraction(round(fps * 1.001) * 1000, 1001)
    return ntsc if abs(ntsc / Fraction(fps) - 1) < _RATE_ROUNDING else Fraction(fps).limit_denominator(1001)


def video_duration(frame_seconds: Sequence[float]) -> float:
    """Seconds from the first frame to the end of the last, which is assumed to last as long as a typical frame."""
    return frame_seconds[-1] - frame_seconds[0] + frame_rate(frame_seconds).period_seconds


def largest_keyframe_interval(info: VideoInfo) -> int:
    """The largest number of frames from one keyframe to the next (or to the end), which a seek may have to decode."""
    num_frames = len(info.timestamps)
    borders = [*(keyframe.position for keyframe in info.keyframes), num_frames]
    return max((b - a for a, b in pairwise(borders)), default=num_frames)
