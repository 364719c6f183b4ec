"""Which frames of a video an encoder looks at: windows on a grid of real time, or views spread over the video.

Pure functions of the times at which frames are shown, so they can be asked before anything is decoded.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hico_core.data.sampling import frames_shown_at, view_indices

# Rounding of a timestamp must not hold a frame back by a whole step of the grid.
_ROUNDING_SECONDS = 1e-6


class Grid(NamedTuple):
    """Windows at equal distances all over a video.

    Time runs at a constant rate, so a variable frame rate of the video does not bend it. Window i covers grid points
    [i * stride, i * stride + window), that is seconds [i * stride / fps, (i * stride + window) / fps).
    """

    fps: float
    window: int
    stride: int


class Views(NamedTuple):
    """Clips as in training, spread over a video; see `view_indices`."""

    num_views: int
    num_frames: int
    stride: int
    target_fps: float


def plan_windows(seconds: Sequence[float], layout: Grid | Views, *, constant_fps: float | None) -> np.ndarray:
    """Numbers of the frames of each window: (W, T) int64. Neither first nor last frames go back from row to row.

    Args:
        seconds: when each frame is shown, from the first one; ascending.
        layout: where the windows lie.
        constant_fps: the rate, of a video where it is constant.

    """
    if isinstance(layout, Grid):
        return _windows_on_grid(seconds, layout)
    return _spread_views(seconds, layout, constant_fps=constant_fps)


def frame_period(seconds: Sequence[float]) -> float:
    """Seconds that the usual frame is shown; one frame alone counts as a second."""
    return seconds[-1] / (len(seconds) - 1) if len(seconds) > 1 else 1.0


def num_windows(num_points: int, *, window: int, stride: int) -> int:
    """Windows that cover all grid points, as far as the stride leaves none out; the last may reach beyond the end.

    10 points, window 4, stride 4:  [0123][4567][89..]  ->  3
    """
    return 1 + max(0, -(-(num_points - max(window, stride)) // stride))


def window_times(count: int, grid: Grid) -> np.ndarray:
    """Start and end of each window in seconds: (count, 2)."""
    start = np.arange(count, dtype=np.float64) * grid.stride / grid.fps
    return np.stack([start, start + grid.window / grid.fps], axis=1)


def shown_on_grid(seconds: Sequence[float], *, fps: float) -> np.ndarray:
    """For each point k / fps of the grid, the number of the frame that a player would show then: (P,) int64.

    The last frame is shown for as long as the usual one.

    frames at 0.0 0.4 2.0, 1 fps  ->  0 (at 0 s), 1 (at 1 s), 2 (at 2 s)
    """
    end = seconds[-1] + frame_period(seconds)
    # Points before the end; one that lies on it by rounding is no longer shown.
    num_points = max(int(np.ceil((end - _ROUNDING_SECONDS) * fps)), 1)
    points = np.arange(num_points, dtype=np.float64) / fps
    shown = np.searchsorted(np.asarray(seconds), points + _ROUNDING_SECONDS, side="right") - 1
    return np.maximum(shown, 0)


def _windows_on_grid(seconds: Sequence[float], grid: Grid) -> np.ndarray:
    """The last window is filled up with the last frame."""
    shown = shown_on_grid(seconds, fps=grid.fps)
    count = num_windows(len(shown), window=grid.window, stride=grid.stride)
    points = np.arange(count)[:, None] * grid.stride + np.arange(grid.window)[None, :]
    windows: np.ndarray = shown[np.minimum(points, len(shown) - 1)]
    return windows


def _spread_views(seconds: Sequence[float], views: Views, *, constant_fps: float | None) -> np.ndarray:
    """The authors' arithmetic counts frames at the average rate; where it varies, those that are shown then."""
    total = len(seconds)
    fps = constant_fps or 1 / frame_period(seconds)
    rows = [
        view_indices(
            total_frames=total,
            fps=fps,
            view=view,
            num_views=views.num_views,
            num_frames=views.num_frames,
            stride=views.stride,
            target_fps=views.target_fps,
        )
        for view in range(views.num_views)
    ]
    if constant_fps is None:
        rows = [frames_shown_at(seconds, [number / fps for number in row]) for row in rows]
    return np.array(rows, dtype=np.int64)
