"""Assign the frames of a video to clips: pure functions of the frames' times."""

from collections.abc import Sequence
from itertools import count, pairwise, takewhile
from math import floor
from typing import NamedTuple

from hico_core.corpus.clips.probe import video_duration

# A time on a border belongs to the later clip even if it falls short of the border in floating point. Real frames lie
# further apart than this fraction of a clip (5 ns of 5 s) in any time base in use.
BORDER_TOLERANCE = 1e-9


class Segment(NamedTuple):
    """The interval [start, end) of a clip as planned, rounded to milliseconds, from the video's first frame."""

    start_ms: int
    end_ms: int


class PlannedClip(NamedTuple):
    """A segment and the frames of the source, in presentation order, that fall into it."""

    segment: Segment
    first_frame: int
    num_frames: int


def _border_ms(number: int, segment_seconds: float) -> int:
    """Where a segment begins; each border is rounded by itself, so that they do not drift from those of the frames."""
    return round(number * segment_seconds * 1000)


def number_of(segment: Segment, *, segment_seconds: float) -> int:
    """The number of a segment, from 0; it begins at exactly this many times the length of a segment."""
    return round(segment.start_ms / 1000 / segment_seconds)


def is_whole(segment: Segment, *, segment_seconds: float) -> bool:
    """Whether a segment has the full length, unlike the last one of most videos."""
    return segment.end_ms >= _border_ms(number_of(segment, segment_seconds=segment_seconds) + 1, segment_seconds)


def plan_segments(*, duration_seconds: float, segment_seconds: float = 5.0) -> list[Segment]:
    """Cut [0, duration) into consecutive segments; only the last may be shorter.

    duration 12, segment 5  ->  |0    5|5    10|10 12|

    Raises:
        ValueError: a length is not positive.

    """
    if duration_seconds <= 0 or segment_seconds <= 0:
        raise ValueError(f"lengths must be positive: {duration_seconds = }, {segment_seconds = }")
    end_ms = max(round(duration_seconds * 1000), 1)
    borders = takewhile(lambda border: border < end_ms, (_border_ms(k, segment_seconds) for k in count()))
    return [Segment(*pair) for pair in pairwise([*borders, end_ms])]


def plan_clips(frame_seconds: Sequence[float], *, segment_seconds: float = 5.0) -> list[PlannedClip]:
    """Assign frames to clips; a segment without frames (a gap in the source) has no clip.

    Args:
        frame_seconds: time of each frame in seconds from the first one, ascending.
        segment_seconds: length of a segment.

    """
    segments = plan_segments(duration_seconds=video_duration(frame_seconds), segment_seconds=segment_seconds)
    numbers = [floor(seconds / segment_seconds + BORDER_TOLERANCE) for seconds in frame_seconds]
    # The duration is rounded to milliseconds, so the last frame may begin after the last planned segment.
    while len(segments) <= numbers[-1]:
        start_ms = _border_ms(len(segments), segment_seconds)
        segments.append(Segment(start_ms, start_ms + 1))
    clips: list[PlannedClip] = []
    for frame, number in enumerate(numbers):
        if frame == 0 or number != numbers[frame - 1]:
            clips.append(PlannedClip(segments[number], frame, 1))
        else:
            clips[-1] = clips[-1]._replace(num_frames=clips[-1].num_frames + 1)
    return clips


def moments_within(moments: Sequence[float], clip: PlannedClip, *, segment_seconds: float) -> list[float]:
    """The moments, in seconds from the first frame, that fall into a clip, by the same rule as frames."""
    number = number_of(clip.segment, segment_seconds=segment_seconds)
    return [moment for moment in moments if floor(moment / segment_seconds + BORDER_TOLERANCE) == number]
