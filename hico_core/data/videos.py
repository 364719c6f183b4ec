"""The videos of an index, and where their frames lie."""

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
    """5 s of a video: a file of its own, or a part of the video's own file."""

    path: Location
    start_seconds: float  # of its first frame, from the video's first
    num_frames: int
    fps: float
    variable_fps: bool
    first_number: int = 0  # number of its first frame in the video
    first_frame: int = 0  # the same in the file; not 0 where the file is a whole video
    size_bytes: int | None = None  # of the file
    short_side: int = 0  # pixels


# What of the index is needed to read videos; see corpus/index.py.
COLUMNS = [
    *("video_id", "clip_index", "subset", "path", "first_frame", "start_seconds", "end_seconds"),
    *("num_frames", "fps", "variable_fps", "width", "height", "size_bytes", "source", "label", "cuts"),
]


# How far a clip may begin from where its number says, in frames, for its frames to be found by counting.
_MISPLACED_FRAMES = 0.5


class IndexIdentity(NamedTuple):
    """What a run needs to know to tell whether it goes on with the videos that it began with."""

    num_videos: int
    ids: str  # hash of the videos' ids, in order
    lengths: str  # hash of their durations, in the same order

    def changes_to(self, now: "IndexIdentity") -> str | None:
        """What differs, in words; None if nothing does."""
        if self.num_videos != now.num_videos:
            return f"there were {self.num_videos} videos, and there are {now.num_videos} now"
        if self.ids != now.ids:
            return f"there are {now.num_videos} videos as before, but not the same ones"
        return "the videos are the same, but last longer or shorter" if self.lengths != now.lengths else None


class IndexedVideos:
    """The videos of an index, as flat columns: a million rows take little time to open and little memory."""

    def __init__(
        self,
        index: pa.Table,
        *,
        root: Location,
        subset: str | None = None,
        shortest_seconds: float = 0.0,
        cache: LocalCache | None = None,
    ) -> None:
        """Take the videos of `subset` (None: of all) that are long enough; count the others in `num_short`.

        Args:
            index: from `read_index_table`, with at least `COLUMNS`.
            root: the workspace to which the index's paths are relative.
            subset: train, val or test.
            shortest_seconds: what a video must last.
            cache: through which files in buckets are read; None: the usual one.

        """
        rows = index if subset is None else index.filter(pc.equal(index["subset"], subset))
        first_rows = np.flatnonzero(rows["clip_index"].to_numpy() == 0)
        last_rows = np.append(first_rows[1:], len(rows)).astype(np.int64) - 1
        last_rows = last_rows[: len(first_rows)]
        self._cache = cache or local_cache()
        self.root, self.shortest_seconds = root, shortest_seconds
        self._root = through(root, self._cache)
        self._paths, self._cuts = rows["path"], rows["cuts"]
        self._columns = {
            name: rows[name].to_numpy()
            for name in (
                *("start_seconds", "num_frames", "fps", "variable_fps", "first_frame", "width", "height"),
                "size_bytes",
            )
        }
        self._columns["first_number"] = numbers = _counted_from(first_rows, self._columns["num_frames"])
        # Where clips are missing, or the rate is only about right, counting does not find frames: their times do.
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
        """What to say of the videos that are too short; empty where there are none."""
        return left_out_of_pretraining(self.num_short, clip_seconds=self.shortest_seconds)

    def __len__(self) -> int:
        return len(self._first)

    def identity(self) -> IndexIdentity:
        """Which videos these are."""
        ids = "\0".join(map(str, self._ids.to_pylist())).encode("utf-8", "surrogateescape")
        lengths = np.asarray(self._durations, dtype="<f8").tobytes()
        return IndexIdentity(len(self), hashlib.sha256(ids).hexdigest(), hashlib.sha256(lengths).hexdigest())

    @property
    def largest_short_side(self) -> int:
        """Pixels; 0 where there are no videos."""
        sides = np.minimum(self._columns["width"], self._columns["height"])
        return int(sides.max(initial=0))

    @property
    def knows_cuts(self) -> bool:
        """Whether it is known of any part of a video where the picture cuts."""
        return bool(self._cuts.null_count < len(self._cuts))

    def video_id(self, video: int) -> str:
        """The id of the video at a position."""
        return str(self._ids[video].as_py())

    def source(self, video: int) -> str:
        """The path of the untrimmed video at a position, as it was when it was split or indexed."""
        return place_named(self._root, str(self._sources[video].as_py()))

    def is_in_place(self, video: int) -> bool:
        """Whether the video at a position is read from its own file, as it was not split."""
        return bool(self._paths[int(self._first[video])].as_py() == self._sources[video].as_py())

    def label(self, video: int) -> int | None:
        """The class of the video at a position; None where the list that it came from had none."""
        label: int | None = self._labels[video].as_py()
        return label

    def cuts(self, video: int) -> list[float] | None:
        """When new shots begin in the video at a position, in seconds; None where that is not known of all of it."""
        first, last = int(self._first[video]), int(self._last[video])
        rows = self._cuts.slice(first, last - first + 1)
        return None if rows.null_count else [moment for row in rows.to_pylist() for moment in row]

    def duration_seconds(self, video: int) -> float:
        """Time from a video's first frame to the end of its last."""
        return float(self._durations[video])

    def pieces(self, video: int, window: tuple[float, float] | None = None) -> list[Piece]:
        """A video's parts in time order.

        Args:
            video: its position.
            window: only those that hold the frames shown from start to end, in seconds; at a hole, the one before it.
                That takes the same time however long the video is.

        """
        columns = self._columns
        first, last = int(self._first[video]), int(self._last[video])
        if window is not None:
            starts = columns["start_seconds"][first : last + 1]
            # A container's rounding of a time may put a border on the other side of the window's.
            margin = 1 / float(columns["fps"][first])
            begin = max(int(np.searchsorted(starts, window[0] - margin, side="right")) - 1, 0)
            end = max(int(np.searchsorted(starts, window[1] + margin, side="right")), begin + 1)
            first, last = first + begin, first + end - 1
        return [
            Piece(
                path=path_of(self._root, self._paths[row].as_py(), self._cache),
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
        subset: train, val or test; None: of all.
        data: leave out what is shorter than a clip of these settings, and read files in buckets through their cache.

    Raises:
        HicoError: there is no index, or a damaged one.

    """
    index = read_index_table(root, columns=COLUMNS)
    shortest_seconds, cache = (data.span_seconds, data.cache) if data else (0.0, None)
    return IndexedVideos(index, root=root, subset=subset, shortest_seconds=shortest_seconds, cache=cache)


def _counted_from(first_rows: np.ndarray, num_frames: np.ndarray) -> np.ndarray:
    """For each row, how many frames its video has in the rows before it: (R,) int64."""
    before = np.concatenate([[0], np.cumsum(num_frames[:-1], dtype=np.int64)])[: len(num_frames)]
    rows_of_video = np.diff(np.append(first_rows, len(num_frames)))
    return before - np.repeat(before[first_rows], rows_of_video)


def _spread_over_videos(of_row: np.ndarray, first_rows: np.ndarray) -> np.ndarray:
    """For each row, whether something holds for any row of its video: (R,) bool."""
    if not len(of_row):
        return of_row
    rows_of_video = np.diff(np.append(first_rows, len(of_row)))
    return np.repeat(np.logical_or.reduceat(of_row, first_rows), rows_of_video)
