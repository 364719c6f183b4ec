"""Windows lie on a grid of real time, and show what a player would show there."""

import random

import numpy as np
import pytest

from hico_core.base.choices import Align, Tail
from hico_core.data.clock import clock_of_times
from hico_core.data.sampling import view_indices
from hico_core.encoding.windows import (
    Grid,
    Spans,
    Views,
    plan_windows,
    window_starts,
    window_times,
    windows_in_spans,
)


@pytest.mark.parametrize(
    ("points", "window", "stride", "align", "tail", "starts"),
    [
        (10, 4, 4, "start", "pad", [0, 4, 8]),
        (8, 4, 4, "start", "pad", [0, 4]),
        (3, 4, 4, "start", "pad", [0]),  # shorter than a window
        (5, 4, 2, "start", "pad", [0, 2]),
        (6, 4, 2, "start", "pad", [0, 2]),
        (10, 4, 6, "start", "pad", [0, 6]),  # points between windows belong to none
        (12, 4, 6, "start", "pad", [0, 6]),
        (13, 4, 6, "start", "pad", [0, 6, 12]),
        (10, 4, 4, "start", "drop", [0, 4]),
        (8, 4, 4, "start", "drop", [0, 4]),
        (3, 4, 4, "start", "drop", [0]),  # never none at all
        (7, 4, 2, "start", "drop", [0, 2]),
        (10, 4, 4, "start", "shift", [0, 4, 6]),
        (8, 4, 4, "start", "shift", [0, 4]),
        (3, 4, 4, "start", "shift", [0]),
        (13, 4, 6, "start", "shift", [0, 6, 9]),
        (8, 8, 4, "center", "pad", [-2, 2]),  # around 2 and 6
        (9, 8, 4, "center", "pad", [-2, 2, 6]),
        (8, 4, 4, "center", "pad", [0, 4]),
        (7, 2, 5, "center", "pad", [1, 6]),  # around 2 (of 0 to 5) and 7
    ],
)
def test_windows_cover_the_grid(
    points: int, window: int, stride: int, align: Align, tail: Tail, starts: list[int]
) -> None:
    seconds = [k / 10 for k in range(points)]
    grid = Grid(fps=10.0, window=window, stride=stride, align=align, tail=tail)
    windows = plan_windows(clock_of_times(seconds), grid)
    assert window_starts(points, grid).tolist() == starts
    times = window_times(grid, duration_seconds=points / 10, source_fps=10.0)
    assert len(windows) == len(times) == len(starts)
    for got, time, start in zip(windows.tolist(), times, starts, strict=True):
        assert got == [min(max(start + k, 0), points - 1) for k in range(window)]
        assert time == pytest.approx([start / 10, (start + window) / 10])


def test_every_frame_has_its_place_whatever_the_numbers() -> None:
    """The slow twin: windows are laid one by one until the end is reached."""
    rng = random.Random(0)
    for _ in range(300):
        points, window, stride = rng.randint(1, 60), rng.randint(8, 20), rng.randint(1, 25)
        laid = [0]
        while laid[-1] + max(window, stride) < points:
            laid.append(laid[-1] + stride)
        full = [start for start in laid if start + window <= points] or [0]
        shifted = [*laid[:-1], min(laid[-1], max(points - window, 0))]
        for tail, expected in (("pad", laid), ("drop", full), ("shift", shifted)):
            grid = Grid(fps=1.0, window=window, stride=stride, tail=tail)  # type: ignore[arg-type]
            assert window_starts(points, grid).tolist() == expected


def test_window_centres_are_where_detection_toolkits_put_them() -> None:
    times = window_times(Grid(fps=15.0, window=16, stride=4), duration_seconds=32 / 15, source_fps=30.0)
    assert times.mean(axis=1) == pytest.approx([(i * 4 + 16 / 2) / 15 for i in range(5)])


def test_a_grid_of_the_videos_own_rate() -> None:
    seconds = [k / 25 for k in range(40)]
    native = plan_windows(clock_of_times(seconds), Grid(fps=None, window=8, stride=8))
    assert native.tolist() == [list(range(start, start + 8)) for start in range(0, 40, 8)]
    times = window_times(Grid(fps=None, window=8, stride=8), duration_seconds=1.6, source_fps=25.0)
    assert times[:, 0] == pytest.approx(np.arange(5) * 8 / 25)


def test_views_of_a_constant_rate_are_the_authors() -> None:
    views = Views(5, 8, 4, 30.0)
    seconds = [k / 25 for k in range(300)]
    rows = plan_windows(clock_of_times(seconds), views)
    for view, row in enumerate(rows.tolist()):
        assert row == view_indices(
            total_frames=300, fps=25.0, view=view, num_views=5, num_frames=8, stride=4, target_fps=30.0
        )


def test_views_of_a_variable_rate_show_what_a_player_would() -> None:
    seconds = [k / 30 for k in range(360) if not 90 <= k < 150]  # nothing from 3 to 5 s
    fps = (len(seconds) - 1) / seconds[-1]
    (row,) = plan_windows(clock_of_times(seconds), Views(1, 8, 20, 30.0)).tolist()
    counted = view_indices(
        total_frames=len(seconds), fps=fps, view=0, num_views=1, num_frames=8, stride=20, target_fps=30.0
    )
    for frame, number in zip(row, counted, strict=True):
        assert seconds[frame] <= number / fps < ([*seconds, np.inf])[frame + 1]


@pytest.mark.parametrize(
    "layout",
    [
        *(
            Grid(fps=15.0, window=16, stride=4),
            Grid(fps=60.0, window=8, stride=30),
            Grid(fps=None, window=16, stride=4, align="center"),
            Grid(fps=15.0, window=16, stride=5, align="start", tail="shift"),
        ),
        *(Views(10, 16, 4, 30.0), Views(3, 8, 1, 30.0)),
    ],
)
def test_frames_never_go_back(layout: Grid | Views) -> None:
    """So that a video can be read once, from its beginning to its end."""
    seconds = [k / 29.97 + (k > 100) * 7 for k in range(200)]
    windows = plan_windows(clock_of_times(seconds), layout)
    assert (np.diff(windows, axis=1) >= 0).all()
    assert (np.diff(windows[:, 0]) >= 0).all() and (np.diff(windows[:, -1]) >= 0).all()


@pytest.mark.parametrize(
    ("span", "num_windows", "points"),
    [
        ((0.0, 1.0), None, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 9, 9]]),  # not beyond the span, though the video goes on
        ((0.5, 1.3), None, [[5, 6, 7, 8], [9, 10, 11, 12]]),
        ((0.5, 0.7), None, [[5, 6, 6, 6]]),
        ((1.8, 9.0), None, [[18, 19, 19, 19]]),  # the video has 2 s
        ((0.0, 1.0), 1, [[3, 4, 5, 6]]),
        ((0.0, 1.0), 2, [[2, 3, 4, 5], [4, 5, 6, 7]]),
        ((1.0, 2.0), 3, [[11, 12, 13, 14], [13, 14, 15, 16], [15, 16, 17, 18]]),
        ((1.0, 1.2), 2, [[10, 11, 11, 11]] * 2),
    ],
)
def test_a_span_is_looked_at_as_if_it_had_been_cut_out(
    span: tuple[float, float], num_windows: int | None, points: list[list[int]]
) -> None:
    grid = Grid(fps=10.0, window=4, stride=4)
    found = windows_in_spans(Spans((span,), num_windows), grid, duration_seconds=2.0, source_fps=30.0)
    np.testing.assert_allclose(found.moments_WT, np.array(points) / 10)
    assert found.span_W.tolist() == [0] * len(points)


def test_spans_that_overlap_are_read_in_one_go() -> None:
    rng = random.Random(0)
    for _ in range(50):
        starts = [rng.uniform(0, 9) for _ in range(8)]
        spans = Spans(tuple((start, start + rng.uniform(0.01, 4)) for start in starts), rng.choice([None, 1, 3]))
        grid = Grid(fps=10.0, window=rng.randint(1, 9), stride=rng.randint(1, 9), align=rng.choice(["start", "center"]))
        found = windows_in_spans(spans, grid, duration_seconds=10.0, source_fps=30.0)
        assert (np.diff(found.moments_WT, axis=1) >= 0).all() and (np.diff(found.moments_WT[:, 0]) >= 0).all()
        for number, span in enumerate(spans.seconds):
            alone = windows_in_spans(Spans((span,), spans.num_windows), grid, duration_seconds=10.0, source_fps=30.0)
            np.testing.assert_array_equal(found.moments_WT[found.span_W == number], alone.moments_WT)
