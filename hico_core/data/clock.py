"""Which frame of a video is shown at which time, in one place for all ways of reading a video.

Frames are counted in presentation order from 0; times are seconds from the first frame. A clock is made from a file's
own times or from the index, and both give the same frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from hico_core.corpus.clips.probe import frame_rate
from hico_core.data.sampling import frame_indices

# Tolerance, so that the rounding of a timestamp does not delay a frame by a whole grid step.
_ROUNDING_SECONDS = 1e-6

AUTHORS_FILE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clock:
    """The times at which the frames of a video are shown.

    At a constant rate, frame k is shown at k / fps, and the container's rounding of that time (Matroska: to
    milliseconds) is ignored. At a variable rate, it is shown at its own time.
    """

    fps: float  # average
    num_frames: int  # of the whole video
    period_seconds: float  # how long a typical frame is shown; assumed for the last one
    # (n,) float64, ascending: the times of frames `first`, `first` + 1, ... if the rate varies; either all frames, or
    # those around the moments that will be looked up. None: the rate is constant.
    stamps: np.ndarray | None = None
    first: int = 0

    @property
    def duration_seconds(self) -> float:
        """Seconds from the first frame to the end of the last one; if the rate varies, of the last one with a stamp."""
        last = (self.num_frames - 1) / self.fps if self.stamps is None else float(self.stamps[-1])
        return last + self.period_seconds

    def shown_at(self, moments: Sequence[float] | np.ndarray) -> np.ndarray:
        """The frames that a player shows at moments (M,), in seconds: (M,) int64; in a gap, the frame before the gap.

        Moments before the first frame give the first one, moments after the last frame give the last.
        """
        # Slightly later than requested, so that a frame that begins at a moment, up to rounding, is the one shown.
        late = np.asarray(moments, dtype=np.float64) + _ROUNDING_SECONDS
        if self.stamps is None:
            shown = np.floor(late * self.fps).astype(np.int64)
            return shown.clip(0, self.num_frames - 1)
        shown = np.searchsorted(self.stamps, late, side="right") - 1
        return self.first + shown.clip(0, len(self.stamps) - 1)

    def num_grid_points(self, *, fps: float) -> int:
        """Number of points k / fps before the end of the video; a point at the end, up to rounding, does not count."""
        return num_grid_points(self.duration_seconds, fps=fps)

    def on_grid(self, *, fps: float) -> np.ndarray:
        """The frame shown at each point k / fps of the video: (P,) int64.

        frames at 0.0 0.4 2.0, 1 fps  ->  0 (at 0 s), 1 (at 1 s), 2 (at 2 s)
        """
        return self.shown_at(np.arange(self.num_grid_points(fps=fps), dtype=np.float64) / fps)

    def numbered(self, numbers: Sequence[int]) -> list[int]:
        """The frames that correspond to frame numbers at the average rate, which the authors' arithmetic gives.

        At a constant rate, they are the same; at a variable rate, the frames shown at the times of these numbers.
        """
        if self.stamps is None:
            return list(numbers)
        return self.shown_at(np.asarray(numbers) / self.fps).tolist()

    def of_window(self, window: tuple[float, float], *, num_frames: int) -> list[int]:
        """The frames of a training clip that covers [start, end) of the video; see `frame_indices`.

        If the rate varies, they are the frames shown at equally spaced moments from start to end, both included.
        """
        start, end = window
        if self.stamps is not None:
            return self.shown_at(np.linspace(start, end, num_frames)).tolist()
        origin = self._file_of_authors(start)
        # Through rounding, the window may begin slightly before the file.
        numbers = frame_indices(
            start_seconds=max(start - origin / self.fps, 0.0),
            end_seconds=end - origin / self.fps,
            fps=self.fps,
            total_frames=self.num_frames - origin,
            num_frames=num_frames,
        )
        return [origin + number for number in numbers]

    def _file_of_authors(self, seconds: float) -> int:
        """The first frame of the 5 s file, on a grid from the video's beginning, that contains a moment.

        The authors count frames from the beginning of such a file, in float32. Counted from the beginning of a long
        video, positions would be too coarse, and ties between two frames would be resolved differently.
        """
        shown = int(self.shown_at([seconds])[0]) / self.fps
        files_before = floor(shown / AUTHORS_FILE_SECONDS + _ROUNDING_SECONDS)
        return ceil(files_before * AUTHORS_FILE_SECONDS * self.fps - _ROUNDING_SECONDS)


def num_grid_points(duration_seconds: float, *, fps: float) -> int:
    """Number of points k / fps before the end of a video of this length; at least one."""
    return max(int(np.ceil((duration_seconds - _ROUNDING_SECONDS) * fps)), 1)


def clock_of_times(frame_seconds: Sequence[float]) -> Clock:
    """The clock of a video from the times of all its frames, ascending from 0."""
    rate = frame_rate(frame_seconds)
    return Clock(
        fps=rate.fps,
        num_frames=len(frame_seconds),
        period_seconds=rate.period_seconds,
        stamps=np.asarray(frame_seconds, dtype=np.float64) if rate.variable else None,
    )
