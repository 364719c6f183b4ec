"""The videos of an index, and the files that hold their frames."""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hico_core.base.addresses import Location, path_of, place_named, through
from hico_core.base.cache import LocalCache, local_cache
from hico_core.config import DataConfig
from hico_core.corpus.index import left_out_of_pretraining, read_index_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """5 s of a video: a clip file, or a part of the untrimmed video's file."""

    path: Location
    start_seconds: float  # of its first frame, from the video's first
    num_frames: int
    fps: float
    variable_fps: bool
    first_number: int = 0  # number of its first frame in the video
    first_frame: int = 0  # number of its first frame in the file; can exceed 0 if the file is a whole video
    size_bytes: int | None = None  # of the file
    short_side: int = 0  # pixels


# Columns of the index that are needed to read videos; see corpus/index.py.
COLUMNS = [
    *("video_id", "clip_index", "subset", "path", "first_frame", "start_seconds", "end_seconds"),
    *("num_frames", "fps", "variable_fps", "width", "height", "size_bytes", "source", "label", "cuts"),
]


# How far the start of a clip may deviate from its frame number, in frames, for counting to find its frames.
_MISPLACED_FRAMES = 0.5


class IndexIdentity(NamedTuple):
    """Identifies the videos of an index, so that a run can check that it continues with the same ones."""

    num_videos: int
    ids: str  # hash of the videos' ids, in order
    lengths: str  # hash of their durations, in the same order

    def changes_to(self, now: "IndexIdentity") -> str | None:
        """The difference in words; None if there is none."""
        if self.num_videos != now.num_videos:
            return f"there were {self.num_videos} videos, and there are {now.num_videos} now"
        if self.ids != now.ids:
            return f"there are {now.num_videos} videos as before, but not the same ones"
        return "the videos are the same, but their lengths have changed" if self.lengths != now.lengths else None


class IndexedVideos:
    """The videos of an index, stored as flat columns: a million rows are quick to open and need little memory."""

    def __init__(
        self,
        index: pa.Table,
        *,
        root: Location,
        subset: str | None = None,
        shortest_seconds: float = 0.0,
        cache: LocalCache | None = None,
    ) -> None:
        """Select the videos of `subset` (None: all) that are long enough; `num_short` counts those that are too short.

        Args:
            index: from `read_index_table`, with at least `COLUMNS`.
            root: the workspace to which the index's paths are relative.
            subset: train, val or test.
            shortest_seconds: minimum length of a video.
            cache: the cache through which files in buckets are read; None: the default one.

        """
        rows = index if subset is None else index.filter(pc.equal(index["subset"], subset))
        first_rows = np.flatnonzero(rows["clip_index"].to_numpy() == 0)
        last_rows = np.append(first_rows[1:], len(rows)).astype(np.int64) - 1
        last_rows = last_rows[: len(first_rows)]
        self.cache = cache or local_cache()
        self.root, self.shortest_seconds = root, shortest_seconds
        self._root = through(root, self.cache)
        self._paths, self._cuts = rows["path"], rows["cuts"]
        self._columns = {
            name: rows[name].to_numpy()
            for name in (
                *("start_seconds", "num_frames", "fps", "variable_fps", "first_frame", "width", "height"),
                "size_bytes",
            )
        }
        self._columns["first_number"] = numbers = _counted_from(first_rows, self._columns["num_frames"])
        # If clips are missing, or the rate is only approximate, frames must be found by time instead of by counting.
        misplaced = np.abs(self._columns["start_seconds"] * self._columns["fps"] - numbers) > _MISPLACED_FRAMES
        self._columns["variable_fps"] = self._columns["variable_fps"] | _spread_over_videos(misplaced, first_rows)
        durations = rows["end_seconds"].to_numpy()[last_rows]
        long_enough = durations >= shortest_seconds
        self._first = first_rows[long_enough]
        self._last = last_rows[long_enough]
        self._durations = durations[long_enough]
        self._ids = rows["video_id"].take(pa.array(self._first))
        self._sources = rows["source"].take(pa.array(self._first))
        self._labels = rows["label"].take(pa.array(self._first))
        self.num_short = int((~long_enough).sum())

    @property
    def left_out(self) -> str:
        """A sentence about the videos that are too short; empty if there are none."""
        return left_out_of_pretraining(self.num_short, clip_seconds=self.shortest_seconds)

    def __len__(self) -> int:
        return len(self._first)

    def identity(self) -> IndexIdentity:
        """The identity of these videos, for comparison with an earlier index."""
        ids = "\0".join(map(str, self._ids.to_pylist())).encode("utf-8", "surrogateescape")
        lengths = np.asarray(self._durations, dtype="<f8").tobytes()
        return IndexIdentity(len(self), hashlib.sha256(ids).hexdigest(), hashlib.sha256(lengths).hexdigest())

    @property
    def largest_short_side(self) -> int:
        """The largest shorter side of all clips, in pixels; 0 if there are none."""
        sides = np.minimum(self._columns["width"], self._columns["height"])
        return int(sides.max(initial=0))

    @property
    def knows_cuts(self) -> bool:
        """Whether the cuts of any part of a video are known."""
        return bool(self._cuts.null_count < len(self._cuts))

    def video_id(self, video: int) -> str:
        """The id of the video at a position."""
        return str(self._ids[video].as_py())

    def source(self, video: int) -> str:
        """The path that the untrimmed video at a position had when it was split or indexed."""
        return place_named(self._root, str(self._sources[video].as_py()))

    def is_in_place(self, video: int) -> bool:
        """Whether the video at a position was not split, so that it is read from its own file."""
        return bool(self._paths[int(self._first[video])].as_py() == self._sources[video].as_py())

    def label(self, video: int) -> int | None:
        """The class of the video at a position; None if it has none."""
        label: int | None = self._labels[video].as_py()
        return label

    def cuts(self, video: int) -> list[float] | None:
        """Times in seconds at which new shots begin in the video at a position; None unless known for all of it."""
        first, last = int(self._first[video]), int(self._last[video])
        rows = self._cuts.slice(first, last - first + 1)
        return None if rows.null_count else [moment for row in rows.to_pylist() for moment in row]

    def duration_seconds(self, video: int) -> float:
        """Time from a video's first frame to the end of its last one."""
        return float(self._durations[video])

    def pieces(self, video: int, window: tuple[float, float] | None = None) -> list[Piece]:
        """A video's parts in time order.

        Args:
            video: its position.
            window: give only the parts that hold the frames shown from start to end, in seconds; in a gap, the part
                before it. The cost hardly depends on the length of the video.

        """
        columns = self._columns
        first, last = int(self._first[video]), int(self._last[video])
        if window is not None:
            starts = columns["start_seconds"][first : last + 1]
            # A time rounded by the container may lie on the other side of the window's border.
            margin = 1 / float(columns["fps"][first])
            begin = max(int(np.searchsorted(starts, window[0] - margin, side="right")) - 1, 0)
            end = max(int(np.searchsorted(starts, window[1] + margin, side="right")), begin + 1)
            first, last = first + begin, first + end - 1
        return [
            Piece(
                path=path_of(self._root, self._paths[row].as_py(), self.cache),
                start_seconds=float(columns["start_seconds"][row]),
                num_frames=int(columns["num_frames"][row]),
                fps=float(columns["fps"][row]),
                variable_fps=bool(columns["variable_fps"][row]),
                first_number=int(columns["first_number"][row]),
                first_frame=int(columns["first_frame"][row]),
                size_bytes=int(columns["size_bytes"][row]),
                short_side=int(min(columns["width"][row], columns["height"][row])),
            )
            for row in range(first, last + 1)
        ]


def open_videos(root: Location, *, subset: str | None = None, data: DataConfig | None = None) -> IndexedVideos:
    """The videos of a workspace's index.

    Args:
        root: the workspace.
        subset: train, val or test; None: all.
        data: leave out videos shorter than a clip with these settings, and read files in buckets through their cache.

    Raises:
        HicoError: there is no index, or a damaged one.

    """
    index = read_index_table(root, columns=COLUMNS)
    shortest_seconds, cache = (data.span_seconds, data.cache) if data else (0.0, None)
    return IndexedVideos(index, root=root, subset=subset, shortest_seconds=shortest_seconds, cache=cache)


def _counted_from(first_rows: np.ndarray, num_frames: np.ndarray) -> np.ndarray:
    """For each row, the number of frames of its video in earlier rows: (R,) int64."""
    before = np.concatenate([[0], np.cumsum(num_frames[:-1], dtype=np.int64)])[: len(num_frames)]
    rows_of_video = np.diff(np.append(first_rows, len(num_frames)))
    return before - np.repeat(before[first_rows], rows_of_video)


def _spread_over_videos(of_row: np.ndarray, first_rows: np.ndarray) -> np.ndarray:
    """For each row, whether `of_row` is true for any row of its video: (R,) bool."""
    if not len(of_row):
        return of_row
    rows_of_video = np.diff(np.append(first_rows, len(of_row)))
    return np.repeat(np.logical_or.reduceat(of_row, first_rows), rows_of_video)
