"""Choose the frames that an encoder sees: windows on a grid of real time, over a whole video or parts of it, or views.

Pure functions of a video's clock, so they can be called before anything is decoded.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hico_core.base.choices import Align, Tail
from hico_core.data.clock import Clock, num_grid_points
from hico_core.data.sampling import view_indices


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Windows at equal distances over a whole video.

    The grid has a constant rate in time, even if the frame rate of the video varies. Window i covers grid points
    [first_start + i * stride, first_start + i * stride + window); seconds are grid points divided by the rate.

    align: "start": the first window begins with the video. "center": window i is centred on the middle of the i-th
        stride, so that each stride has one, padded at the ends with the first or last frame.
    tail: what happens to frames at the end that do not fill a window. "pad": their window is padded with the last
        frame. "drop": they have no window. "shift": their window is moved back to end with the video, off the grid.
        A video shorter than a window always has one padded window.
    """

    fps: float | None  # None: the video's own average rate
    window: int  # grid points
    stride: int
    align: Align = "start"
    tail: Tail = "pad"

    @property
    def first_start(self) -> int:
        """Grid point at which the first window begins; negative if centred windows overlap."""
        return (self.stride - self.window) // 2 if self.align == "center" else 0

    def rate(self, source_fps: float) -> float:
        """Grid points per second, for a video with this average frame rate."""
        return source_fps if self.fps is None else self.fps


class Views(NamedTuple):
    """Clips as in training, spread over a video; see `view_indices`."""

    num_views: int
    num_frames: int
    stride: int
    target_fps: float


class Spans(NamedTuple):
    """Parts of a video, each of which is treated as if it had been cut out."""

    seconds: tuple[tuple[float, float], ...]  # start and end of each
    num_windows: int | None = None  # windows spread over each span; None: the windows of the grid


class SpanWindows(NamedTuple):
    """The windows of all spans of a video, ordered by their start."""

    span_W: np.ndarray  # int64: the span of each window
    moments_WT: np.ndarray  # seconds at which each window's frames are shown


def plan_windows(clock: Clock, layout: Grid | Views) -> np.ndarray:
    """Numbers of the frames of each window: (W, T) int64; first and last frames never decrease from row to row."""
    return _windows_on_grid(clock, layout) if isinstance(layout, Grid) else _spread_views(clock, layout)


def window_starts(num_points: int, grid: Grid) -> np.ndarray:
    """The grid points at which windows begin: (W,) int64, ascending, W at least 1.

    10 points, window 4, stride 4:  [0123][4567][89..]  ->  pad 0 4 8, drop 0 4, shift 0 4 6
    """
    window, stride = grid.window, grid.stride
    if grid.align == "center":
        count = -(-num_points // stride)  # one per stride, the last of which may be short
    elif grid.tail == "drop":
        count = 1 + max(0, (num_points - window) // stride)  # always a first one
    else:  # covers all points, except those that a stride longer than the window skips
        count = 1 + max(0, -(-(num_points - max(window, stride)) // stride))
    starts = grid.first_start + np.arange(count, dtype=np.int64) * stride
    if grid.align == "start" and grid.tail == "shift":
        starts[-1] = min(starts[-1], max(num_points - window, 0))  # moved back to end with the video
    return starts


def window_times(grid: Grid, *, duration_seconds: float, source_fps: float) -> np.ndarray:
    """Start and end of each window of a video, in seconds from its first frame: (W, 2) float64."""
    rate = grid.rate(source_fps)
    starts = window_starts(num_grid_points(duration_seconds, fps=rate), grid)
    return np.stack([starts, starts + grid.window], axis=1) / rate


def windows_in_spans(spans: Spans, grid: Grid, *, duration_seconds: float, source_fps: float) -> SpanWindows:
    """Lay the grid over each span, from its start to its end or the end of the video; no window leaves its span.

    Args:
        spans: each must begin before the video ends.
        grid: the grid.
        duration_seconds: length of the video.
        source_fps: average frame rate of the video.

    """
    rate = grid.rate(source_fps)
    moments, counts = [], []
    for start, end in spans.seconds:
        num_points = num_grid_points(min(end, duration_seconds) - start, fps=rate)
        firsts_W = (
            window_starts(num_points, grid)
            if spans.num_windows is None
            else _spread_starts(num_points, grid.window, count=spans.num_windows)
        )
        points_WT = firsts_W[:, None] + np.arange(grid.window)[None, :]
        moments.append(start + points_WT.clip(0, num_points - 1) / rate)
        counts.append(len(firsts_W))
    moments_WT = np.concatenate(moments)
    order_W = np.argsort(moments_WT[:, 0], kind="stable")  # spans may overlap, but a video is read only once
    return SpanWindows(np.repeat(np.arange(len(counts)), counts)[order_W], moments_WT[order_W])


def _spread_starts(num_points: int, window: int, *, count: int) -> np.ndarray:
    """Starts of windows that are spread evenly over points, so that they cover all parts equally: (count,).

    The range of possible starts is divided into equal parts, and a window begins in the middle of each.

    10 points, window 4, i.e. starts 0 to 6:  1 -> 3;  2 -> 2 4 (of 1.5 4.5);  3 -> 1 3 5
    """
    room = max(num_points - window, 0)
    starts: np.ndarray = np.rint((np.arange(count) + 0.5) * room / count).astype(np.int64)
    return starts


def _windows_on_grid(clock: Clock, grid: Grid) -> np.ndarray:
    """Frame numbers of windows on the grid; points before the first frame or after the last one repeat that frame."""
    shown_P = clock.on_grid(fps=grid.rate(clock.fps))
    points_WT = window_starts(len(shown_P), grid)[:, None] + np.arange(grid.window)[None, :]
    windows_WT: np.ndarray = shown_P[points_WT.clip(0, len(shown_P) - 1)]
    return windows_WT


def _spread_views(clock: Clock, views: Views) -> np.ndarray:
    """Frame numbers of the views, by the authors' arithmetic, which counts frames at the average rate."""
    rows = [
        view_indices(
            total_frames=clock.num_frames,
            fps=clock.fps,
            view=view,
            num_views=views.num_views,
            num_frames=views.num_frames,
            stride=views.stride,
            target_fps=views.target_fps,
        )
        for view in range(views.num_views)
    ]
    return np.array([clock.numbered(row) for row in rows], dtype=np.int64)
