"""Which frames of a video an encoder looks at: windows on a grid of real time, or views spread over the video.

Pure functions of the times at which frames are shown, so they can be asked before anything is decoded.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from hico_core.data.sampling import frames_shown_at, view_indices

# Rounding of a timestamp must not hold a frame back by a whole step of the grid.
_ROUNDING_SECONDS = 1e-6


Align = Literal["start", "center"]
Tail = Literal["pad", "drop", "shift"]


class Grid(NamedTuple):
    """Windows at equal distances all over a video.

    Time runs at a constant rate, so a variable frame rate of the video does not bend it. Window i covers grid points
    [first_start + i * stride, first_start + i * stride + window), and seconds are grid points divided by the rate.

    align: "start": the first window begins with the video. "center": window i lies around the middle of the i-th
        stride, so that there is one for each, and what it lacks at the ends is the first or last frame again.
    tail: what becomes of frames at the end that do not fill a window. "pad": their window is filled up with the last
        frame. "drop": they have none. "shift": their window is moved back until it ends with the video, off the grid.
        A video that is shorter than a window has one that is filled up, always.
    """

    fps: float | None  # None: the video's own average rate
    window: int  # grid points
    stride: int
    align: Align = "start"
    tail: Tail = "pad"

    @property
    def first_start(self) -> int:
        """Grid point at which the first window begins; negative where centred windows overlap."""
        return (self.stride - self.window) // 2 if self.align == "center" else 0

    def rate(self, source_fps: float) -> float:
        """Grid points a second, for a video of this average rate."""
        return source_fps if self.fps is None else self.fps


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


def window_starts(num_points: int, grid: Grid) -> np.ndarray:
    """The grid points at which windows begin: (W,) int64, ascending, W at least 1.

    10 points, window 4, stride 4:  [0123][4567][89..]  ->  pad 0 4 8, drop 0 4, shift 0 4 6
    """
    window, stride = grid.window, grid.stride
    if grid.align == "center":
        count = -(-num_points // stride)
    elif grid.tail == "drop":
        count = 1 + max(0, (num_points - window) // stride)
    else:  # all points, as far as the stride leaves none out
        count = 1 + max(0, -(-(num_points - max(window, stride)) // stride))
    starts = grid.first_start + np.arange(count, dtype=np.int64) * stride
    if grid.align == "start" and grid.tail == "shift":
        starts[-1] = min(starts[-1], max(num_points - window, 0))
    return starts


def window_times(grid: Grid, *, duration_seconds: float, source_fps: float) -> np.ndarray:
    """Start and end of each window of a video, in seconds from its first frame: (W, 2) float64."""
    rate = grid.rate(source_fps)
    starts = window_starts(num_grid_points(duration_seconds, fps=rate), grid)
    return np.stack([starts, starts + grid.window], axis=1) / rate


def num_grid_points(duration_seconds: float, *, fps: float) -> int:
    """Points k / fps that lie before the end; one that lies on it by rounding is no longer shown."""
    return max(int(np.ceil((duration_seconds - _ROUNDING_SECONDS) * fps)), 1)


def shown_on_grid(seconds: Sequence[float], *, fps: float) -> np.ndarray:
    """For each point k / fps of the grid, the number of the frame that a player would show then: (P,) int64.

    The last frame is shown for as long as the usual one.

    frames at 0.0 0.4 2.0, 1 fps  ->  0 (at 0 s), 1 (at 1 s), 2 (at 2 s)
    """
    end = seconds[-1] + frame_period(seconds)
    points = np.arange(num_grid_points(end, fps=fps), dtype=np.float64) / fps
    shown = np.searchsorted(np.asarray(seconds), points + _ROUNDING_SECONDS, side="right") - 1
    return np.maximum(shown, 0)


def shown_at(seconds: Sequence[float], moment: float) -> int:
    """The number of the frame that a player would show at a moment; before the first one and after the last, those."""
    return max(int(np.searchsorted(np.asarray(seconds), moment + _ROUNDING_SECONDS, side="right")) - 1, 0)


def _windows_on_grid(seconds: Sequence[float], grid: Grid) -> np.ndarray:
    """Points before the first frame and after the last show that frame."""
    shown = shown_on_grid(seconds, fps=grid.rate(1 / frame_period(seconds)))
    points = window_starts(len(shown), grid)[:, None] + np.arange(grid.window)[None, :]
    windows: np.ndarray = shown[points.clip(0, len(shown) - 1)]
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
