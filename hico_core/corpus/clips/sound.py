"""The sound of a video that is split with `--audio keep`: put on the picture's clock, and checked in each clip."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from hico_core.base.errors import BadVideo, short_reason
from hico_core.corpus.clips.probe import VideoInfo, open_video
from hico_core.corpus.workspace.records import ClipRecord

# If packet times go back by more than this, another clock has begun.
_SAME_CLOCK_SECONDS = 1.0

# In samples: clips are cut between packets of sound, and an AAC encoder begins one packet early.
_TOLERANCE_SAMPLES = 2 * 1024
_TOLERANCE_SECONDS = 0.02  # for the time bases of containers


class Sound(NamedTuple):
    """When a source's sound begins and ends, in seconds from the first frame."""

    starts: float  # negative: before the first frame
    ends: float | None  # None: unknown, because its packets have several clocks


def sound_of(source: Path, info: VideoInfo) -> Sound | None:
    """The times of the first audio stream; None: the source has none.

    Raises:
        BadVideo: the file cannot be read to its end.

    """
    with open_video(source) as (container, _):
        stream = next(iter(container.streams.audio), None)
        try:
            heard = _packet_seconds(container, stream) if stream else []
        except av.FFmpegError as error:
            raise BadVideo(source, f"is damaged ({short_reason(error)})") from error
    if not heard:
        return None
    zero = float(info.timestamps[0] * info.time_base)
    one_clock = all(later[0] > earlier[0] - _SAME_CLOCK_SECONDS for earlier, later in pairwise(heard))
    return Sound(heard[0][0] - zero, max(end for _, end in heard) - zero if one_clock else None)


def sound_arguments(*, first_frame: Fraction, picture_seconds: float) -> dict[str, Any]:
    """ffmpeg's options that put the sound on the picture's clock, whose zero is the first frame.

    Sound before the first frame or after the last is left out; a late start and gaps become silence.

    Args:
        first_frame: time of the first frame by ffmpeg's clock, in seconds.
        picture_seconds: seconds from the first frame to the end of the last.

    """
    filters = [
        f"asetpts=PTS-({first_frame.numerator}/{first_frame.denominator})/TB",
        "aresample=async=1:first_pts=0",
        f"atrim=end={picture_seconds:f}",
    ]
    return {"af": ",".join(filters), "c:a": "aac"}


def check_sound(file: Path, clip: ClipRecord, sound: Sound) -> None:
    """Compare the start and length of a clip's sound with the source's.

    Raises:
        BadVideo: the start or the length differs.

    """
    with open_video(file) as (container, picture):
        zero = float((picture.start_time or 0) * picture.time_base) if picture.time_base else 0.0
        stream = next(iter(container.streams.audio), None)
        heard = _packet_seconds(container, stream) if stream else []
        rate = stream.rate if stream else 44_100
    seconds = clip.end_seconds - clip.start_seconds
    tolerance = _TOLERANCE_SAMPLES / rate + _TOLERANCE_SECONDS
    starts, ends = (heard[0][0] - zero, heard[-1][1] - zero) if heard else (0.0, 0.0)
    if abs(starts) > tolerance:
        raise BadVideo(file, f"has sound that starts at {starts:.3f} s instead of at its beginning")
    if sound.ends is not None:
        expected = min(max(sound.ends - clip.start_seconds, 0.0), seconds)
        if abs(ends - expected) > tolerance:
            raise BadVideo(file, f"has {ends:.3f} s of sound instead of {expected:.3f} s")
    elif ends > seconds + tolerance:
        raise BadVideo(file, f"has {ends:.3f} s of sound and {seconds:.3f} s of pictures")


def _packet_seconds(container: InputContainer, stream: AudioStream) -> list[tuple[float, float]]:
    """Beginning and end of each packet of an open file's stream."""
    return [
        (float(packet.pts * packet.time_base), float((packet.pts + (packet.duration or 0)) * packet.time_base))
        for packet in container.demux(stream)
        if packet.pts is not None and packet.size and packet.time_base is not None
    ]
