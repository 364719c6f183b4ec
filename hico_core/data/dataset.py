"""One training item: some clips of one untrimmed video, read from its 5 s files and augmented."""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hico_core.config import AugmentConfig, DataConfig, SamplingConfig
from hico_core.corpus.addresses import Location, path_of
from hico_core.corpus.cache import LocalCache, default_cache_folder
from hico_core.corpus.probe import probe
from hico_core.data.augment import AugmentDraw, cut, draw_augmentation
from hico_core.data.decode import DecoderName, decode_frames
from hico_core.data.sampling import clip_span_seconds, clip_windows, frame_indices, frames_shown_at
from hico_core.errors import BadVideo, HicoError

# How many other videos may stand in for one before the item is given up.
_MAX_SUBSTITUTES = 20


class Piece(NamedTuple):
    """5 s of a video: a file of its own, or a part of the video's own file."""

    path: Location
    start_seconds: float  # of its first frame, from the video's first
    num_frames: int
    fps: float
    variable_fps: bool
    first_frame: int = 0  # its number in the file; not 0 where the file is a whole video
    size_bytes: int | None = None  # of the file
    short_side: int = 0  # pixels


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

    crops: list[Tensor]  # of each clip, (T, H, W, 3) uint8, its crop's size; none if no video could be decoded
    draws: list[AugmentDraw]  # what is still to happen to each
    video_id: str
    windows: list[tuple[float, float]]  # of the clips, in seconds
    unusable: list[UnusableVideo]  # tried before this video


# What of the index is needed to read videos; see corpus/index.py.
COLUMNS = [
    *("video_id", "clip_index", "subset", "path", "first_frame", "start_seconds", "end_seconds"),
    *("num_frames", "fps", "variable_fps", "width", "height", "size_bytes", "source", "label"),
]


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
        self, index: pa.Table, *, root: Location, subset: str | None = None, shortest_seconds: float = 0.0
    ) -> None:
        """Take the videos of `subset` (None: of all) that are long enough; count the others in `num_short`.

        Args:
            index: from `read_index_table`, with at least `COLUMNS`.
            root: the workspace to which the index's paths are relative.
            subset: train, val or test.
            shortest_seconds: what a video must last.

        """
        rows = index if subset is None else index.filter(pc.equal(index["subset"], subset))
        first_rows = np.flatnonzero(rows["clip_index"].to_numpy() == 0)
        last_rows = np.append(first_rows[1:], len(rows)).astype(np.int64) - 1
        last_rows = last_rows[: len(first_rows)]
        self._root = root
        self._paths = rows["path"]
        self._columns = {
            name: rows[name].to_numpy()
            for name in (
                *("start_seconds", "num_frames", "fps", "variable_fps", "first_frame", "width", "height"),
                "size_bytes",
            )
        }
        durations = rows["end_seconds"].to_numpy()[last_rows]
        long_enough = durations >= shortest_seconds
        self._first = first_rows[long_enough]
        self._last = last_rows[long_enough]
        self._durations = durations[long_enough]
        self._ids = rows["video_id"].take(pa.array(self._first))
        self._sources = rows["source"].take(pa.array(self._first))
        self._labels = rows["label"].take(pa.array(self._first))
        self.num_short = int((~long_enough).sum())

    def __len__(self) -> int:
        return len(self._first)

    def identity(self) -> IndexIdentity:
        """Which videos these are."""
        ids = "\0".join(map(str, self._ids.to_pylist())).encode("utf-8", "surrogateescape")
        lengths = np.asarray(self._durations, dtype="<f8").tobytes()
        return IndexIdentity(len(self), hashlib.sha256(ids).hexdigest(), hashlib.sha256(lengths).hexdigest())

    def video_id(self, video: int) -> str:
        """The id of the video at a position."""
        return str(self._ids[video].as_py())

    def source(self, video: int) -> str:
        """The path of the untrimmed video at a position, as it was when it was split or indexed."""
        return str(self._sources[video].as_py())

    def label(self, video: int) -> int | None:
        """The class of the video at a position; None where the list that it came from had none."""
        label: int | None = self._labels[video].as_py()
        return label

    def duration_seconds(self, video: int) -> float:
        """Time from a video's first frame to the end of its last."""
        return float(self._durations[video])

    def pieces(self, video: int) -> list[Piece]:
        """A video's parts in time order."""
        columns = self._columns
        return [
            Piece(
                path_of(self._root, self._paths[row].as_py()),
                start_seconds=float(columns["start_seconds"][row]),
                num_frames=int(columns["num_frames"][row]),
                fps=float(columns["fps"][row]),
                variable_fps=bool(columns["variable_fps"][row]),
                first_frame=int(columns["first_frame"][row]),
                size_bytes=int(columns["size_bytes"][row]),
                short_side=int(min(columns["width"][row], columns["height"][row])),
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
    """Which frames make a clip of the window, counted through the given pieces from the first one's first frame.

    With a constant frame rate, by the authors' arithmetic. Otherwise, from the files' timestamps, the frames
    that are shown at equally spaced moments of the window.

    Args:
        pieces: from `pieces_of_window`, with local files.
        window: in seconds of the video.
        num_frames: how many frames make the clip.

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
    return frames_shown_at(times_of_frames(pieces), np.linspace(start, end, num_frames).tolist())


def times_of_frames(pieces: Sequence[Piece]) -> list[float]:
    """When each frame of the pieces, with local files, is shown: seconds of the video, from the files' timestamps.

    Raises:
        BadVideo: a file's timestamps cannot be read.

    """
    shown: list[float] = []
    for piece in pieces:
        seconds = probe(str(piece.path)).frame_seconds[piece.first_frame : piece.first_frame + piece.num_frames]
        shown += [piece.start_seconds + moment - seconds[0] for moment in seconds]
    return shown


def read_clip(
    pieces: Sequence[Piece],
    window: tuple[float, float],
    *,
    num_frames: int,
    decoder: DecoderName,
    cache: LocalCache,
    short_side: int | None = None,
) -> Tensor:
    """Decode the frames of a window, across the borders of files: (num_frames, H, W, 3) uint8.

    Args:
        pieces: of the whole video.
        window: in seconds of the video.
        num_frames: how many frames make the clip.
        decoder: see `decode_frames`.
        cache: for files in buckets.
        short_side: larger pictures are scaled down to it.

    Raises:
        BadVideo: a file cannot be fetched or decoded.

    """
    with local_pieces(pieces_of_window(pieces, window), cache=cache) as local:
        frames = frames_of_window(local, window, num_frames=num_frames)
        return decode_pieces(local, frames, decoder=decoder, short_side=short_side)


def decode_pieces(
    pieces: Sequence[Piece], frames: Sequence[int], *, decoder: DecoderName, short_side: int | None = None
) -> Tensor:
    """Decode frames that are counted through the given pieces: (len(frames), H, W, 3) uint8.

    Args:
        pieces: of one video, with local files, without a hole between them.
        frames: their numbers from the first piece's first frame, ascending.
        decoder: see `decode_frames`.
        short_side: larger pictures are scaled down to it.

    Raises:
        BadVideo: a file cannot be decoded.

    """
    # Frames of one file are decoded in one go, whether it is a clip or a whole video.
    of_file: dict[Location, list[int]] = {}
    passed = 0
    for piece in pieces:
        inside = [frame for frame in frames if passed <= frame < passed + piece.num_frames]
        if inside:
            of_file.setdefault(piece.path, []).extend(frame - passed + piece.first_frame for frame in inside)
        passed += piece.num_frames
    side = short_side if short_side is not None and pieces[0].short_side > short_side else None
    # A constant rate tells which frame a timestamp is, so that no packets need be counted.
    fps = None if pieces[0].variable_fps else pieces[0].fps
    return torch.cat(
        [
            decode_frames(str(path), numbers, decoder=decoder, short_side=side, constant_fps=fps)
            for path, numbers in of_file.items()
        ]
    )


@contextmanager
def local_pieces(pieces: Sequence[Piece], *, cache: LocalCache) -> Iterator[list[Piece]]:
    """The pieces with their files on this machine.

    Raises:
        BadVideo: a file cannot be fetched.

    """
    with ExitStack() as stack:
        yield [
            piece._replace(path=stack.enter_context(local_file(piece.path, cache=cache, size_bytes=piece.size_bytes)))
            for piece in pieces
        ]


@contextmanager
def local_file(location: Location, *, cache: LocalCache, size_bytes: int | None = None) -> Iterator[Path]:
    """A video as a local file, wherever it lies.

    Raises:
        BadVideo: it cannot be fetched.

    """
    with ExitStack() as stack:
        try:
            path = stack.enter_context(cache.local(location, size_bytes=size_bytes))
        except FileNotFoundError:
            raise BadVideo(str(location), "no such file") from None
        except BadVideo:
            raise
        except (OSError, HicoError) as error:
            raise BadVideo(str(location), f"cannot be fetched ({error})") from error
        yield path


def with_substitutes(
    request: ClipRequest, videos: IndexedVideos, make: Callable[[int, random.Random], Sample]
) -> Sample:
    """Make an item of the video that is asked for, or, while that fails, of another one drawn at random.

    Args:
        request: the video and the seed of everything that is drawn.
        videos: from which others are drawn.
        make: makes the item of a video; raises BadVideo where that cannot be decoded.

    Returns:
        The item, or one without crops if none of 20 others can be decoded either.

    """
    rng = random.Random(request.seed)
    video = request.video
    unusable: list[UnusableVideo] = []
    for _ in range(_MAX_SUBSTITUTES + 1):
        try:
            sample = make(video, rng)
        except BadVideo as bad:
            unusable.append(UnusableVideo(videos.video_id(video), str(bad)))
            video = rng.randrange(len(videos))
        else:
            return sample._replace(unusable=unusable)
    return Sample([], [], videos.video_id(request.video), [], unusable)


class ClipDataset(Dataset[Sample]):
    """Answers a `ClipRequest` with the crops of its video's clips, or of another's where that cannot be decoded."""

    def __init__(
        self, videos: IndexedVideos, *, data: DataConfig, sampling: SamplingConfig, augment: AugmentConfig
    ) -> None:
        self._videos = videos
        self.cache = LocalCache(Path(data.cache_dir or default_cache_folder()), size_bytes=int(data.cache_gb * 1e9))
        self._data = data
        self._sampling = sampling
        self._augment = augment

    def __getitem__(self, request: ClipRequest) -> Sample:
        """Make one item. The same request gives the same item, in any process.

        Nothing is raised for bad videos: an exception would cross from a worker as a page of traceback.
        """

        def make(video: int, rng: random.Random) -> Sample:
            windows = self._draw_windows(video, request.max_distance_seconds, rng)
            clips = [self._read_crop(video, window, rng) for window in windows]
            crops, draws = [crop for crop, _ in clips], [draw for _, draw in clips]
            return Sample(crops, draws, self._videos.video_id(video), windows, [])

        return with_substitutes(request, self._videos, make)

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

    def _read_crop(self, video: int, window: tuple[float, float], rng: random.Random) -> tuple[Tensor, AugmentDraw]:
        """Decode one clip and cut its crop, (T, H, W, 3) uint8; the rest of its augmentation is only drawn."""
        frames_THWC = read_clip(
            self._videos.pieces(video),
            window,
            num_frames=self._data.num_frames,
            decoder=self._data.decoder,
            cache=self.cache,
            short_side=self._data.short_side,
        )
        draw = draw_augmentation(frames_THWC.shape[1], frames_THWC.shape[2], self._augment, rng=rng)
        # A copy, so that the whole frames are not kept until the batch is complete.
        return cut(frames_THWC, draw.crop).clone(), draw
