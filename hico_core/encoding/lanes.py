"""Read whole videos as windows of pictures in worker processes, each of which reads its own videos one after another.

A video is read in one pass. Each frame of a window is decoded once, however many windows overlap there. A window is
passed on as soon as its last frame is decoded, so memory does not grow with the length of a video.
"""

# W windows of T frames, n clips = windows * crops, side and size of a square in pixels.

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from av import VideoFrame
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hico_core.base.addresses import Location, through
from hico_core.base.cache import LocalCache
from hico_core.base.errors import BadVideo
from hico_core.base.local_videos import local_video
from hico_core.data.clock import Clock
from hico_core.data.decode import SIZE_CHANGES, frames_at
from hico_core.data.pictures import Picture, crops_of, normalised_frame
from hico_core.data.reading import by_file, clock_of, errors_of_video, pieces_with, whole_file
from hico_core.data.shared_memory import share
from hico_core.data.videos import Piece
from hico_core.data.workers import as_it_is, outliving_a_death, worker_options
from hico_core.encoding.windows import Grid, Spans, Views, plan_windows, windows_in_spans

# A video with less than one frame in this many seconds has a gap that would give thousands of identical windows.
_MOST_SECONDS_A_FRAME = 60.0

# A worker sends this many windows together, or fewer if they have more than this many bytes; but at least one.
_WINDOWS_AT_ONCE, _BYTES_AT_ONCE = 4, 8_000_000


class WholeVideo(NamedTuple):
    """A video to be read, either from the clips into which it was split or from its own file."""

    path: Location
    pieces: list[Piece]  # empty: read its own file, which is not indexed
    spans: Spans | None = None  # the parts to read; None: the whole video

    def read_through(self, cache: LocalCache) -> "WholeVideo":
        """The same video, read through a cache if it lies in a bucket."""
        pieces = [replace(piece, path=through(piece.path, cache)) for piece in self.pieces]
        return self._replace(path=through(self.path, cache), pieces=pieces)


class Facts(NamedTuple):
    """Facts about a video that are known once its times are read."""

    num_frames: int
    fps: float  # average
    duration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Some of a video's windows, in order, or, in `bad`, why the video cannot be used.

    Raises:
        ValueError: there are neither windows nor a reason, or the windows have a wrong shape.

    """

    video: int  # number of the video
    first_row: int = 0  # index of its first row among all rows of the video: windows times crops, window by window
    num_rows: int = 0  # number of all rows of the video
    clips: Tensor | None = None  # (n, T, side, side, 3) uint8, or normalised: (n, T, size, size, 3) float32
    facts: Facts | None = None
    bad: BadVideo | None = None

    def __post_init__(self) -> None:
        clips = self.clips
        if clips is None or self.facts is None:
            if self.bad is None or clips is not None or self.facts is not None:
                raise ValueError(f"video {self.video}: a part has clips and facts, or says why it has none")
            return
        known = clips.dtype in (torch.uint8, torch.float32) and clips.dim() == 5
        if not known or clips.shape[2] != clips.shape[3] or clips.shape[4] != 3:
            raise ValueError(
                f"video {self.video}: clips are (n, T, side, side, 3) uint8 or float32, not {tuple(clips.shape)} "
                f"{clips.dtype}"
            )
        if not 0 <= self.first_row < self.first_row + len(clips) <= self.num_rows:
            raise ValueError(
                f"video {self.video}: {len(clips)} clips from row {self.first_row} on do not fit into {self.num_rows}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How whole videos become clips."""

    layout: Grid | Views  # the windows
    picture: Picture  # how each frame becomes the encoder's input
    normalise: bool = False  # scale and normalise each frame once in the worker, however many windows contain it


def parts_of_video(number: int, video: WholeVideo, reading: Reading) -> Iterator[Part]:
    """Read one video from beginning to end.

    Args:
        number: number of the video.
        video: the video to read.
        reading: how to read it.

    Raises:
        BadVideo: it cannot be decoded, or its pictures change size.

    """
    if video.pieces:
        pieces, clock = video.pieces, clock_of(video.pieces)
    else:
        piece, clock = whole_file(video.path)
        pieces = [piece]
    facts = Facts(clock.num_frames, clock.fps, clock.duration_seconds)
    if facts.duration_seconds > _MOST_SECONDS_A_FRAME * facts.num_frames:
        raise BadVideo(
            str(video.path),
            f"has {facts.num_frames} frames in {facts.duration_seconds:.0f} s: nearly all of it is a single still "
            "frame; cut it, or re-encode it",
        )
    windows_WT = _planned_windows(video, clock, reading.layout)
    frames = _frames_of(pieces, np.unique(windows_WT).tolist())
    num_rows = len(windows_WT) * reading.picture.num_crops
    first_row, ready = 0, list[np.ndarray]()
    for clips in _clips_of_windows(windows_WT, frames, reading, path=video.path):
        ready += clips
        num_sent = min(_WINDOWS_AT_ONCE, max(_BYTES_AT_ONCE // sum(clip.nbytes for clip in clips), 1)) * len(clips)
        if len(ready) >= num_sent or first_row + len(ready) == num_rows:
            stacked = torch.from_numpy(np.stack(ready))
            yield Part(video=number, first_row=first_row, num_rows=num_rows, clips=stacked, facts=facts)
            first_row, ready = first_row + len(ready), []


def _planned_windows(video: WholeVideo, clock: Clock, layout: Grid | Views) -> np.ndarray:
    """Numbers of the frames of each window: (W, T); first frames never decrease from window to window.

    Raises:
        BadVideo: a span begins after the end of the video.

    """
    if video.spans is None:
        return plan_windows(clock, layout)
    assert isinstance(layout, Grid), "views are of whole videos"
    duration_seconds = clock.duration_seconds
    last_start = max(start for start, _ in video.spans.seconds)
    if last_start >= duration_seconds:
        reason = f"has a segment that begins at {last_start:g} s, but is only {duration_seconds:.3f} s long"
        raise BadVideo(str(video.path), reason)
    found = windows_in_spans(video.spans, layout, duration_seconds=duration_seconds, source_fps=clock.fps)
    return clock.shown_at(found.moments_WT)


def _clips_of_windows(
    windows_WT: np.ndarray, frames: Iterator[tuple[int, VideoFrame]], reading: Reading, *, path: Location
) -> Iterator[list[np.ndarray]]:
    """For each window, its clips (T, side, side, 3), one per crop.

    Raises:
        BadVideo: the pictures change size.

    """
    held: dict[int, list[np.ndarray]] = {}  # frame number -> crops, for frames that later windows may need
    sides: set[tuple[int, ...]] = set()
    for window_T in windows_WT:
        # First frames never decrease from window to window, so frames before a window's first one are never needed
        # again. Frames after its last one are not needed yet, but with overlapping spans they may already be held.
        while not held or max(held) < window_T[-1]:
            number, frame = next(frames)
            crops = crops_of(frame, reading.picture)
            sides |= {crop.shape for crop in crops}
            if len(sides) > 1:
                raise BadVideo(str(path), SIZE_CHANGES)
            held[number] = [normalised_frame(crop, reading.picture) for crop in crops] if reading.normalise else crops
        for passed in [number for number in held if number < window_T[0]]:
            del held[passed]
        yield [np.stack(same_crop) for same_crop in zip(*(held[number] for number in window_T), strict=True)]


def _frames_of(pieces: Sequence[Piece], numbers: Sequence[int]) -> Iterator[tuple[int, VideoFrame]]:
    """Decode frames of a video, file by file; yields ascending numbers with their frames.

    Raises:
        BadVideo: a file cannot be fetched or decoded, or lacks a frame.

    """
    constant_fps = None if pieces[0].variable_fps else pieces[0].fps
    for of_file in by_file(pieces):
        file = of_file[0]
        in_file = [number for _, inside in pieces_with(of_file, numbers) for number in inside]
        if in_file:
            with local_video(file.path, size_bytes=file.size_bytes) as path:
                for number, frame in zip(in_file, frames_at(path, in_file, constant_fps=constant_fps), strict=True):
                    yield number - file.first_frame + file.first_number, frame


class _Lanes(IterableDataset[Part]):
    """Gives worker k of n every n-th video from number k on; an unusable video becomes one part that says why."""

    def __init__(self, videos: list[tuple[int, WholeVideo]], reading: Reading) -> None:
        self._videos, self._reading = videos, reading

    def __iter__(self) -> Iterator[Part]:
        worker = get_worker_info()
        own = self._videos if worker is None else self._videos[worker.id :: worker.num_workers]
        for number, video in own:
            try:
                with errors_of_video(video.path):
                    for part in parts_of_video(number, video, self._reading):
                        if worker is not None and part.clips is not None:
                            share(part.clips)
                        yield part
            except BadVideo as bad:
                yield Part(video=number, bad=bad)


def read_parts(videos: Sequence[WholeVideo], reading: Reading, *, workers: int) -> Generator[Part, None, None]:
    """All parts of all videos: in order within a video, interleaved between videos.

    The first death of a worker is tolerated: unfinished videos are read again from their beginning, so some parts may
    come twice, the same both times.

    Args:
        videos: the videos to read.
        reading: how to read them.
        workers: processes that read; 0 reads in this process.

    Raises:
        HicoError: a second worker died.
        NoRoom: shared memory is full, or the disk that holds copies from buckets.

    """
    remaining = dict(enumerate(videos))

    def loader() -> DataLoader[Part]:
        lanes = _Lanes(list(remaining.items()), reading)
        return DataLoader(lanes, batch_size=None, collate_fn=as_it_is, **worker_options(min(workers, len(remaining))))

    def next_one() -> str:
        return str(next(iter(remaining.values())).path)

    for part in outliving_a_death(loader, next_one):
        if part.clips is None or part.first_row + len(part.clips) == part.num_rows:
            remaining.pop(part.video, None)
        yield part
