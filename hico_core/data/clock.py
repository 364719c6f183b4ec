"""Which frame of a video is shown when. Whatever way a video comes in, it is asked here.

Frames are counted in presentation order from 0, times are seconds from the first frame. A clock is made of the times of
a file, or of what the index says of them, so both give the same frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor

import numpy as np

from hico_core.corpus.clips.probe import frame_rate
from hico_core.data.sampling import frame_indices

# Rounding of a timestamp must not hold a frame back by a whole step of a grid.
_ROUNDING_SECONDS = 1e-6

AUTHORS_FILE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clock:
    """When the frames of a video are shown.

    At a constant rate frame k is shown at k / fps: the container's rounding of that time (Matroska: to milliseconds)
    tells nothing. At a variable one it is shown at its own time.
    """

    fps: float  # average
    num_frames: int  # of the whole video
    period_seconds: float  # how long the usual frame is shown, and so the last one
    stamps: np.ndarray | None = None  # (n,) float64, ascending: when frames `first`, `first` + 1, ... are shown, where
    first: int = 0  # the rate varies; of all frames, or of those around the moments that will be asked for

    @property
    def duration_seconds(self) -> float:
        """From the first frame to the end of the last one; where the rate varies, of those that have stamps."""
        last = (self.num_frames - 1) / self.fps if self.stamps is None else float(self.stamps[-1])
        return last + self.period_seconds

    def shown_at(self, moments: Sequence[float] | np.ndarray) -> np.ndarray:
        """The frames that a player shows at moments (M,), in seconds: (M,) int64. In a hole, the one before it.

        Before the first frame that is the first one, and after the last frame the last.
        """
        # A little later than asked for: a frame that begins at a moment, but for rounding, is the one that is shown.
        late = np.asarray(moments, dtype=np.float64) + _ROUNDING_SECONDS
        if self.stamps is None:
            shown = np.floor(late * self.fps).astype(np.int64)
            return shown.clip(0, self.num_frames - 1)
        shown = np.searchsorted(self.stamps, late, side="right") - 1
        return self.first + shown.clip(0, len(self.stamps) - 1)

    def num_grid_points(self, *, fps: float) -> int:
        """Points k / fps that lie before the end of the video; one that lies on it by rounding is no longer shown."""
        return num_grid_points(self.duration_seconds, fps=fps)

    def on_grid(self, *, fps: float) -> np.ndarray:
        """The frame that is shown at each point k / fps of the video: (P,) int64.

        frames at 0.0 0.4 2.0, 1 fps  ->  0 (at 0 s), 1 (at 1 s), 2 (at 2 s)
        """
        return self.shown_at(np.arange(self.num_grid_points(fps=fps), dtype=np.float64) / fps)

    def numbered(self, numbers: Sequence[int]) -> list[int]:
        """The frames that are meant by numbers at the average rate, as the authors' arithmetic has them.

        At a constant rate these are the frames; at a variable one, those that are shown when they would be.
        """
        if self.stamps is None:
            return list(numbers)
        return self.shown_at(np.asarray(numbers) / self.fps).tolist()

    def of_window(self, window: tuple[float, float], *, num_frames: int) -> list[int]:
        """The frames of a training clip that covers [start, end) of the video; see `frame_indices`.

        Where the rate varies, those that are shown at equally spaced moments from start to end, both included.
        """
        start, end = window
        if self.stamps is not None:
            return self.shown_at(np.linspace(start, end, num_frames)).tolist()
        origin = self._file_of_authors(start)
        # By rounding alone, the window may begin before the file.
        numbers = frame_indices(
            start_seconds=max(start - origin / self.fps, 0.0),
            end_seconds=end - origin / self.fps,
            fps=self.fps,
            total_frames=self.num_frames - origin,
            num_frames=num_frames,
        )
        return [origin + number for number in numbers]

    def _file_of_authors(self, seconds: float) -> int:
        """The first frame of the 5 s, counted from the video's beginning, in which a moment lies.

        The authors count from the beginning of such a file, in float32: counted from that of the video, positions in a
        long one would be too coarse, and others where two frames tie.
        """
        shown = int(self.shown_at([seconds])[0]) / self.fps
        files_before = floor(shown / AUTHORS_FILE_SECONDS + _ROUNDING_SECONDS)
        return ceil(files_before * AUTHORS_FILE_SECONDS * self.fps - _ROUNDING_SECONDS)


def num_grid_points(duration_seconds: float, *, fps: float) -> int:
    """Points k / fps that lie before the end of a video of this length; at least one."""
    return max(int(np.ceil((duration_seconds - _ROUNDING_SECONDS) * fps)), 1)


def clock_of_times(frame_seconds: Sequence[float]) -> Clock:
    """The clock of a video whose frames are all shown at these times (ascending), the first one's being 0."""
    rate = frame_rate(frame_seconds)
    return Clock(
        fps=rate.fps,
        num_frames=len(frame_seconds),
        period_seconds=rate.period_seconds,
        stamps=np.asarray(frame_seconds, dtype=np.float64) if rate.variable else None,
    )
