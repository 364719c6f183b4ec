"""Clip times, frame numbers and orders are the authors', and keep their promises on their own."""

import random
from itertools import pairwise
from typing import Any

import pytest
from goldens import load_json
from hypothesis import given, settings
from hypothesis import strategies as st

from hico_core.data.sampling import (
    batches_without_repeats,
    centres_within_shots,
    clip_windows,
    frame_indices,
    item_seed,
    random_view_indices,
    video_order,
    view_indices,
)
from hico_core.training.schedule import sampling_distance

GOLDEN = load_json("sampling.json")
SPAN = 16 * 4 / 30


def golden_distance(case: dict[str, Any]) -> float | None:
    gradual, (start, end) = case["graudal"]
    fixed, seconds = case["vcl"]
    if gradual:
        return sampling_distance(case["epoch_rate"], start_seconds=start, end_seconds=end)
    return seconds if fixed else None


@pytest.mark.parametrize("case", GOLDEN["hico_clips"], ids=lambda c: f"{c['mode']}-{c['duration']}-{c['seed']}")
def test_clip_windows(case: dict[str, Any]) -> None:
    rng = random.Random(case["seed"])
    windows = clip_windows(
        duration_seconds=case["duration"],
        span_seconds=case["num_frames"] * case["sampling_rate"] / case["target_fps"],
        num_clips=case["num_clips"],
        max_distance_seconds=golden_distance(case),
        topical=case["tcl"],
        rng=rng,
    )
    for window, expected in zip(windows, case["clips"], strict=True):
        assert window == pytest.approx(expected, abs=1e-12)
    assert rng.random() == case["rng_next"], "another number of draws"


@given(
    duration=st.floats(2 * SPAN, 1e4),
    distance=st.floats(0, 5),
    num_clips=st.integers(2, 5),
    seed=st.integers(0, 2**32),
)
def test_clips_keep_their_distances(duration: float, distance: float, num_clips: int, seed: int) -> None:
    windows = clip_windows(
        duration_seconds=duration,
        span_seconds=SPAN,
        num_clips=num_clips,
        max_distance_seconds=distance,
        topical=True,
        rng=random.Random(seed),
    )
    centres = [(start + end) / 2 for start, end in windows]
    assert len(centres) == num_clips
    assert all(SPAN - 1e-9 <= c <= duration - SPAN + 1e-9 for c in centres)
    near = centres[:-1]  # the last one is topical
    assert all(abs(a - b) <= distance + 1e-9 for a, b in pairwise(near))


CUTS = st.lists(st.floats(0.01, 59.99), max_size=12, unique=True).map(sorted)


def clips_among(cuts: list[float], *, distance: float | None, seed: int, num_clips: int = 3) -> tuple[Any, float]:
    """Clips of a video of a minute, and the generator's next number."""
    rng = random.Random(seed)
    windows = clip_windows(
        duration_seconds=60.0,
        span_seconds=SPAN,
        num_clips=num_clips,
        max_distance_seconds=distance,
        topical=True,
        rng=rng,
        cuts=cuts,
    )
    return windows, rng.random()


def has_room(centre: float, cuts: list[float]) -> bool:
    """The slow twin of `centres_within_shots`, for one centre of a video of a minute."""
    inside = SPAN <= centre <= 60 - SPAN
    return inside and not any(centre - SPAN / 2 < cut < centre + SPAN / 2 for cut in cuts)


@settings(max_examples=50, deadline=None)
@given(cuts=CUTS)
def test_where_a_clip_is_within_one_shot(cuts: list[float]) -> None:
    ranges = centres_within_shots(cuts, span_seconds=SPAN, duration_seconds=60.0)
    for step in range(600):
        centre = step / 10 + 0.0123
        assert any(low <= centre <= high for low, high in ranges) == has_room(centre, cuts)


@given(cuts=CUTS, distance=st.floats(0, 5), seed=st.integers(0, 2**32), num_clips=st.integers(2, 5))
def test_near_clips_are_within_one_shot(cuts: list[float], distance: float, seed: int, num_clips: int) -> None:
    (*near, _), after = clips_among(cuts, distance=distance, seed=seed, num_clips=num_clips)
    without, after_without = clips_among([], distance=distance, seed=seed, num_clips=num_clips)
    assert after == after_without, "another number of draws"
    if not centres_within_shots(cuts, span_seconds=SPAN, duration_seconds=60.0):
        assert near == without[:-1]
        return
    begin, end = min(start for start, _ in near), max(end for _, end in near)
    assert not any(begin + 1e-9 < cut < end - 1e-9 for cut in cuts)
    assert all(abs(a[0] - b[0]) <= distance + 1e-9 for a, b in pairwise(near))


@given(cuts=CUTS, seed=st.integers(0, 2**32))
def test_far_clips_do_not_mind_cuts(cuts: list[float], seed: int) -> None:
    assert clips_among(cuts, distance=None, seed=seed) == clips_among([], distance=None, seed=seed)
    with_cuts, _ = clips_among(cuts, distance=1.0, seed=seed)
    without, _ = clips_among([], distance=1.0, seed=seed)
    assert with_cuts[-1] == without[-1]  # the topical one


@settings(max_examples=50, deadline=None)
@given(cuts=CUTS, seed=st.integers(0, 2**32))
def test_a_first_clip_is_as_likely_anywhere_where_it_has_room(cuts: list[float], seed: int) -> None:
    """The number that is drawn is the part of all such places that lies before the clip."""
    step = 0.02
    places = [number * step for number in range(3000) if has_room(number * step, cuts)]
    ((start, end), *_), _ = clips_among(cuts, distance=1.0, seed=seed)
    centre, drawn = (start + end) / 2, random.Random(seed).random()
    if places and has_room(centre, cuts):
        before = sum(place < centre for place in places)
        assert before * step == pytest.approx(drawn * len(places) * step, abs=step * (len(cuts) + 3))


def test_sampling_leaves_the_global_generator_alone() -> None:
    before = random.getstate()
    clip_windows(
        duration_seconds=20,
        span_seconds=SPAN,
        num_clips=3,
        max_distance_seconds=1.0,
        topical=True,
        rng=random.Random(1),
    )
    assert random.getstate() == before


@pytest.mark.parametrize("case", GOLDEN["time_stamp_frames"], ids=lambda c: f"{c['fps']}-{c['range']}")
def test_frame_indices(case: dict[str, Any]) -> None:
    start, end = case["range"]
    frames = frame_indices(
        start_seconds=start,
        end_seconds=end,
        fps=case["fps"],
        total_frames=case["vid_length"],
        num_frames=case["num_frames"],
    )
    assert frames == case["index"]


VIEWS = [
    case
    for case in GOLDEN["interval_based"]
    # An exact step is used by no recipe.
    if case["python_random_seed"] is None and not case["minus_interval"]
]
RANDOM_VIEWS = [case for case in GOLDEN["interval_based"] if case["clip_idx"] == -1]


@pytest.mark.parametrize("case", VIEWS, ids=lambda c: f"{c['vid_length']}-{c['clip_idx']}of{c['num_clips']}")
def test_view_indices(case: dict[str, Any]) -> None:
    frames = view_indices(
        total_frames=case["vid_length"],
        fps=case["fps"],
        view=case["clip_idx"],
        num_views=case["num_clips"],
        num_frames=case["num_frames"],
        stride=case["interval"],
        target_fps=case["target_fps"],
    )
    assert frames == case["index"]


@pytest.mark.parametrize("case", RANDOM_VIEWS, ids=lambda c: str(c["python_random_seed"]))
def test_random_view_indices(case: dict[str, Any]) -> None:
    frames = random_view_indices(
        total_frames=case["vid_length"],
        fps=case["fps"],
        num_frames=case["num_frames"],
        stride=case["interval"],
        target_fps=case["target_fps"],
        rng=random.Random(case["python_random_seed"]),
    )
    assert frames == case["index"]


@pytest.mark.parametrize("fps", [0.01, 0.1, 0.46, 0.47, 0.5, 5.0])
def test_frames_of_views_never_go_back(fps: float) -> None:
    """Also in time lapses, where a clip (64/30 s) is shorter than a frame."""
    shape: dict[str, Any] = {"total_frames": 50, "fps": fps, "num_frames": 16, "stride": 4, "target_fps": 30}
    views = [view_indices(view=view, num_views=10, **shape) for view in range(10)]
    views += [random_view_indices(rng=random.Random(seed), **shape) for seed in range(50)]
    for frames in views:
        assert frames == sorted(frames) and 0 <= frames[0] <= frames[-1] < 50
        assert len(set(frames)) == 1 or fps * 64 / 30 > 1


@pytest.mark.parametrize(
    ("fps", "window", "expected"),
    [
        (0.1, (12.0, 14.1), [1] * 4),  # one frame is shown all the time
        (0.1, (0.0, 2.1), [0] * 4),
        (0.1, (9.0, 12.0), [0, 1, 1, 1]),  # the second one comes at 10 s
        (0.4, (1.0, 3.1), [0, 0, 0, 1]),
        (0.1, (57.9, 60.0), [5] * 4),  # the last one stays to the end
    ],
)
def test_a_window_shorter_than_a_frame_has_those_shown_then(
    fps: float, window: tuple[float, float], expected: list[int]
) -> None:
    start, end = window
    assert frame_indices(start_seconds=start, end_seconds=end, fps=fps, total_frames=6, num_frames=4) == expected


FOLDS = [case for case in GOLDEN["multifold_sampler"] if case["shuffle"]]


@pytest.mark.parametrize("case", FOLDS, ids=lambda c: f"{c['dataset_len']}x{c['folds']}r{c['rank']}")
def test_video_order(case: dict[str, Any]) -> None:
    """The authors give every process an equal share by repeating the first videos at the end; we do not repeat."""
    order = video_order(num_videos=case["dataset_len"], epoch=case["epoch"], num_epochs=case["folds"], seed=0)
    share = order[case["rank"] :: case["replicas"]]
    assert share == case["indices"][: len(share)]
    assert case["len"] - len(share) <= 1


@given(
    num_videos=st.integers(2, 40),
    epochs=st.integers(1, 12),
    batch_size=st.integers(2, 40),
    seed=st.integers(0, 999),
)
def test_batches_have_no_video_twice(num_videos: int, epochs: int, batch_size: int, seed: int) -> None:
    batch_size = min(batch_size, num_videos)
    order = video_order(num_videos=num_videos, epoch=0, num_epochs=epochs, seed=seed)
    batches = batches_without_repeats(order, batch_size)
    assert all(len(set(batch)) == batch_size for batch in batches)
    used = [video for batch in batches for video in batch]
    assert all(used.count(video) <= epochs for video in set(used))
    assert batches, "one full batch at least"
    if num_videos % batch_size == 0:
        assert len(used) == len(order)


def test_a_repeated_video_waits_for_the_next_batch() -> None:
    assert batches_without_repeats([1, 2, 3, 3, 1, 2], 2) == [[1, 2], [3, 1], [3, 2]]


def test_item_seeds_differ() -> None:
    seeds = {item_seed(seed=s, epoch=e, position=p) for s in range(3) for e in range(4) for p in range(50)}
    assert len(seeds) == 600
    assert item_seed(seed=1, epoch=2, position=3) == item_seed(seed=1, epoch=2, position=3)
