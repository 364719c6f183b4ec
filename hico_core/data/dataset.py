"""One training item: some clips of one untrimmed video, read from its 5 s files and augmented."""

import random
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hico_core.config import AugmentConfig, DataConfig, SamplingConfig
from hico_core.corpus.probe import probe
from hico_core.data.augment import apply_augmentation, draw_augmentation
from hico_core.data.decode import DecoderName, decode_frames
from hico_core.data.sampling import clip_span_seconds, clip_windows, frame_indices, frames_shown_at
from hico_core.errors import BadVideo

# How many other videos may stand in for one before the item is given up.
_MAX_SUBSTITUTES = 20


class Piece(NamedTuple):
    """One 5 s file of a video."""

    path: Path
    start_seconds: float  # of its first frame, from the video's first
    num_frames: int
    fps: float
    variable_fps: bool


class ClipRequest(NamedTuple):
    """Everything a loader's worker needs to know to make one item; it has no other input."""

    video: int  # position among the training videos
    seed: int  # all randomness of the item comes from here
    max_distance_seconds: float | None  # of the near clips' centres; None: anywhere in the video


class UnusableVideo(NamedTuple):
    """A video that another one stood in for."""

    video_id: str
    reason: str


class Sample(NamedTuple):
    """One training item."""

    clips: Tensor | None  # (K, 3, T, H, W) float32; None if no video could be decoded
    video_id: str
    windows: list[tuple[float, float]]  # of the clips, in seconds
    unusable: list[UnusableVideo]  # tried before this video


# What of the index is needed to read videos; see corpus/index.py.
COLUMNS = ["video_id", "subset", "path", "start_seconds", "end_seconds", "num_frames", "fps", "variable_fps", "source"]


class IndexedVideos:
    """The videos of an index, as flat columns."""

    def __init__(
        self, index: pd.DataFrame, *, root: Path, subset: str | None = None, shortest_seconds: float = 0.0
    ) -> None:
        """Take the videos of `subset` (None: of all) that are long enough; count the others in `num_short`.

        Args:
            index: from `read_index`, with at least `COLUMNS`.
            root: the workspace to which the index's paths are relative.
            subset: train, val or test.
            shortest_seconds: what a video must last.

        """
        rows = index if subset is None else index[index["subset"] == subset]
        first_rows = np.flatnonzero((rows["video_id"] != rows["video_id"].shift()).to_numpy())
        borders = np.append(first_rows, len(rows))
        self._root = root
        self._paths = rows["path"].to_numpy()
        self._start_seconds = rows["start_seconds"].to_numpy()
        self._num_frames = rows["num_frames"].to_numpy()
        self._fps = rows["fps"].to_numpy()
        self._variable = rows["variable_fps"].to_numpy()
        last_rows = borders[1:] - 1
        durations = rows["end_seconds"].to_numpy()[last_rows]
        long_enough = durations >= shortest_seconds
        self._first = borders[:-1][long_enough]
        self._last = last_rows[long_enough]
        self._durations = durations[long_enough]
        self._ids = rows["video_id"].to_numpy()[self._first]
        self._sources = rows["source"].to_numpy()[self._first]
        self.num_short = int((~long_enough).sum())

    def __len__(self) -> int:
        return len(self._first)

    def video_id(self, video: int) -> str:
        """The id of the video at a position."""
        return str(self._ids[video])

    def source(self, video: int) -> str:
        """The path of the untrimmed video at a position, as it was when it was split."""
        return str(self._sources[video])

    def duration_seconds(self, video: int) -> float:
        """Time from a video's first frame to the end of its last."""
        return float(self._durations[video])

    def pieces(self, video: int) -> list[Piece]:
        """A video's files in time order."""
        return [
            Piece(
                self._root / self._paths[row],
                float(self._start_seconds[row]),
                int(self._num_frames[row]),
                float(self._fps[row]),
                bool(self._variable[row]),
            )
            for row in range(self._first[video], self._last[video] + 1)
        ]


def pieces_of_window(pieces: Sequence[Piece], window: tuple[float, float]) -> list[Piece]:
    """The files that hold the frames shown in [start, end); at a hole, the file before it.

    pieces |0    |5    |10   ,  window 4 .. 6  ->  |0    |5
    """
    start, end = window
    first = max((i for i, piece in enumerate(pieces) if piece.start_seconds <= start), default=0)
    return [pieces[first], *(piece for piece in pieces[first + 1 :] if piece.start_seconds < end)]


def frames_of_window(pieces: Sequence[Piece], window: tuple[float, float], *, num_frames: int) -> list[int]:
    """Which frames make a clip of the window, counted through the given files from the first one's first frame.

    With a constant frame rate, by the authors' arithmetic. Otherwise, from the files' timestamps, the frames
    that are shown at equally spaced moments of the window.

    Raises:
        BadVideo: a file's timestamps cannot be read.

    """
    start, end = window
    origin = pieces[0].start_seconds
    if not pieces[0].variable_fps:
        return frame_indices(
            start_seconds=max(start - origin, 0.0),
            end_seconds=end - origin,
            fps=pieces[0].fps,
            total_frames=sum(piece.num_frames for piece in pieces),
            num_frames=num_frames,
        )
    shown: list[float] = []
    for piece in pieces:
        info = probe(piece.path)
        shown += [piece.start_seconds + float((tick - info.timestamps[0]) * info.time_base) for tick in info.timestamps]
    return frames_shown_at(shown, np.linspace(start, end, num_frames).tolist())


def read_clip(pieces: Sequence[Piece], window: tuple[float, float], *, num_frames: int, decoder: DecoderName) -> Tensor:
    """Decode the frames of a window, across the borders of files: (num_frames, H, W, 3) uint8.

    Raises:
        BadVideo: a file cannot be decoded.

    """
    pieces = pieces_of_window(pieces, window)
    frames = frames_of_window(pieces, window, num_frames=num_frames)
    parts = []
    ends = list(accumulate(piece.num_frames for piece in pieces))
    for piece, end in zip(pieces, ends, strict=True):
        local = [frame - end + piece.num_frames for frame in frames if end - piece.num_frames <= frame < end]
        if local:
            parts.append(decode_frames(piece.path, local, decoder=decoder))
    return torch.cat(parts)


class ClipDataset(Dataset[Sample]):
    """Answers a `ClipRequest` with the clips of its video, or of another one where that cannot be decoded."""

    def __init__(
        self, videos: IndexedVideos, *, data: DataConfig, sampling: SamplingConfig, augment: AugmentConfig
    ) -> None:
        self._videos = videos
        self._data = data
        self._sampling = sampling
        self._augment = augment

    def __getitem__(self, request: ClipRequest) -> Sample:
        """Make one item. The same request gives the same item, in any process.

        Nothing is raised for bad videos: an exception would cross from a worker as a page of traceback.
        """
        rng = random.Random(request.seed)
        video = request.video
        unusable: list[UnusableVideo] = []
        for _ in range(_MAX_SUBSTITUTES + 1):
            windows = self._draw_windows(video, request.max_distance_seconds, rng)
            try:
                clips = [self._make_clip(video, window, rng) for window in windows]
            except BadVideo as bad:
                unusable.append(UnusableVideo(self._videos.video_id(video), str(bad)))
                video = rng.randrange(len(self._videos))
                continue
            return Sample(torch.stack(clips), self._videos.video_id(video), windows, unusable)
        return Sample(None, self._videos.video_id(request.video), [], unusable)

    def _draw_windows(
        self, video: int, max_distance_seconds: float | None, rng: random.Random
    ) -> list[tuple[float, float]]:
        return clip_windows(
            duration_seconds=self._videos.duration_seconds(video),
            span_seconds=clip_span_seconds(
                num_frames=self._data.num_frames,
                frame_stride=self._data.frame_stride,
                target_fps=self._data.target_fps,
            ),
            num_clips=self._sampling.clips_per_video,
            max_distance_seconds=max_distance_seconds,
            topical=self._sampling.topical,
            rng=rng,
        )

    def _make_clip(self, video: int, window: tuple[float, float], rng: random.Random) -> Tensor:
        """Decode and augment one clip: (3, T, crop_size, crop_size)."""
        frames_THWC = read_clip(
            self._videos.pieces(video), window, num_frames=self._data.num_frames, decoder=self._data.decoder
        )
        draw = draw_augmentation(frames_THWC.shape[1], frames_THWC.shape[2], self._augment, rng=rng)
        return apply_augmentation(
            frames_THWC, draw, size=self._data.crop_size, mean=self._augment.mean, std=self._augment.std
        )
