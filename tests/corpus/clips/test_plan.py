"""Each frame of a video falls into exactly one clip, by its time alone."""

import random
from itertools import accumulate

import pytest

from hico_core.corpus.clips.plan import PlannedClip, Segment, is_whole, moments_within, plan_clips, plan_segments


@pytest.mark.parametrize(
    ("duration", "segment", "expected"),
    [
        (10.0, 5.0, [(0, 5000), (5000, 10000)]),  # no empty tail
        (12.0, 5.0, [(0, 5000), (5000, 10000), (10000, 12000)]),
        (3.0, 5.0, [(0, 3000)]),  # shorter than one segment
        (92.12, 5.0, [(k * 5000, min(k * 5000 + 5000, 92120)) for k in range(19)]),
        (0.0001, 5.0, [(0, 1)]),  # never an empty segment
        (4.0, 1.5, [(0, 1500), (1500, 3000), (3000, 4000)]),
        (0.15, 0.0335, [(0, 34), (34, 67), (67, 100), (100, 134), (134, 150)]),  # no drift
    ],
)
def test_plan_segments(duration: float, segment: float, expected: list[tuple[int, int]]) -> None:
    assert plan_segments(duration_seconds=duration, segment_seconds=segment) == expected


@pytest.mark.parametrize("duration", [0.0, -1.0])
def test_lengths_must_be_positive(duration: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        plan_segments(duration_seconds=duration)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0, 2.0, 4.0, 6.0], [(0, 3, (0, 5000)), (3, 1, (5000, 8000))]),
        ([0.0, 4.9, 5.0], [(0, 2, (0, 5000)), (2, 1, (5000, 7500))]),  # a border belongs to the later clip
        ([0.0, 1.0, 12.0], [(0, 2, (0, 5000)), (2, 1, (10000, 15000))]),  # nothing falls into a hole
        ([k * 1001 / 30000 for k in range(151)], [(0, 150, (0, 5000)), (150, 1, (5000, 5038))]),
        ([0.0], [(0, 1, (0, 1000))]),  # one frame counts as a second
        # The last frame begins within the last millisecond, after the last segment that the duration gives.
        ([0.0, 0.0002, 0.0004, 5.0], [(0, 3, (0, 5000)), (3, 1, (5000, 5001))]),
    ],
)
def test_plan_clips(times: list[float], expected: list[tuple[int, int, tuple[int, int]]]) -> None:
    assert plan_clips(times) == [PlannedClip(Segment(*s), first, count) for first, count, s in expected]


def test_borders_that_floating_point_falls_short_of() -> None:
    assert 0.6 / 0.2 < 3
    clips = plan_clips([0.0, 0.2, 0.4, 0.6], segment_seconds=0.2)
    assert [(clip.first_frame, clip.segment.start_ms) for clip in clips] == [(0, 0), (1, 200), (2, 400), (3, 600)]


@pytest.mark.parametrize("seed", range(20))
def test_clips_are_the_whole_video_in_order(seed: int) -> None:
    """Whatever the frames' times: holes, bursts, rates that are no numbers of milliseconds."""
    rng = random.Random(seed)
    gaps = rng.choices([1 / 30, 1001 / 24000, 0.0004, 7.3], [30, 30, 30, 1], k=rng.randrange(400))
    times = list(accumulate(gaps, initial=0.0))
    length, rounding = rng.choice([(0.5, 0), (2.0, 0), (5.0, 0), (0.0335, 0.0005), (1.00049, 0.0005)])
    clips = plan_clips(times, segment_seconds=length)
    assert [clip.first_frame for clip in clips] == [0, *accumulate(clip.num_frames for clip in clips[:-1])]
    assert sum(clip.num_frames for clip in clips) == len(times)
    assert len({clip.segment.start_ms for clip in clips}) == len(clips)
    for clip in clips:
        for moment in times[clip.first_frame : clip.first_frame + clip.num_frames]:
            start = clip.segment.start_ms / 1000
            assert start - 1e-6 - rounding <= moment < start + length + 1e-6 + rounding
        own = times[clip.first_frame : clip.first_frame + clip.num_frames]
        assert moments_within(times, clip, segment_seconds=length) == own


def test_the_last_clip_may_be_short() -> None:
    """Rounding a border makes no clip short: 1.0006 s are 1001 or 1000 ms."""
    clips = plan_clips([k * 0.5003 for k in range(7)], segment_seconds=1.0006)
    assert [clip.segment for clip in clips] == [(0, 1001), (1001, 2001), (2001, 3002), (3002, 3502)]
    assert [is_whole(clip.segment, segment_seconds=1.0006) for clip in clips] == [True, True, True, False]
