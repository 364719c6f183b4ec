"""Whole videos as windows of pictures, read by worker processes: each has a lane of videos and reads one at a time.

A video is read in one go. Each frame that some window has is decoded once, however many windows overlap there; a
window leaves as soon as its last frame is there, so memory does not grow with the length of a video.
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
from hico_core.data.clock import Clock
from hico_core.data.decode import SIZE_CHANGES, frames_at
from hico_core.data.pictures import Picture, crops_of, normalised_frame
from hico_core.data.reading import by_file, clock_of, errors_of_video, local_file, pieces_with, whole_file
from hico_core.data.videos import Piece
from hico_core.data.workers import as_it_is, outliving_a_death, worker_options
from hico_core.encoding.windows import Grid, Spans, Views, plan_windows, windows_in_spans

# A video with fewer frames than one in so many seconds has a hole that would be seen as thousands of equal windows.
_MOST_SECONDS_A_FRAME = 60.0

# Windows that travel from a worker together.
_WINDOWS_AT_ONCE = 4


class WholeVideo(NamedTuple):
    """A video to be read: from the clips it was split into, or from its own file."""

    path: Location
    pieces: list[Piece]  # none: from its own file, of which nothing is known yet
    spans: Spans | None = None  # the parts that are looked at; None: all of it

    def read_through(self, cache: LocalCache) -> "WholeVideo":
        """The same video, read through a cache where it lies in a bucket."""
        pieces = [replace(piece, path=through(piece.path, cache)) for piece in self.pieces]
        return self._replace(path=through(self.path, cache), pieces=pieces)


class Facts(NamedTuple):
    """What is known of a video once its times are read."""

    num_frames: int
    fps: float  # average
    duration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """Some of a video's windows, in order; or, with `bad`, why the video cannot be used.

    Raises:
        ValueError: it has neither windows nor a reason, or windows of other shapes.

    """

    video: int  # its number
    first_row: int = 0  # of the rows that the video has in all: windows times crops, window by window
    num_rows: int = 0  # in all
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

    layout: Grid | Views  # which windows
    picture: Picture  # what is looked at of each frame
    normalise: bool = False  # scale and normalise each frame where it is read, once, however many windows have it


def parts_of_video(number: int, video: WholeVideo, reading: Reading) -> Iterator[Part]:
    """Read one video from beginning to end.

    Args:
        number: of the video.
        video: what to read.
        reading: how.

    Raises:
        BadVideo: it cannot be decoded, or its pictures change their size.

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
            f"has {facts.num_frames} frames in {facts.duration_seconds:.0f} s: nearly all of it is one frame that "
            "stands still; cut it, or re-encode it",
        )
    windows_WT = _planned_windows(video, clock, reading.layout)
    frames = _frames_of(pieces, np.unique(windows_WT).tolist())
    num_rows = len(windows_WT) * reading.picture.num_crops
    first_row, ready = 0, list[np.ndarray]()
    for clips in _clips_of_windows(windows_WT, frames, reading, path=video.path):
        ready += clips
        if len(ready) >= _WINDOWS_AT_ONCE * reading.picture.num_crops or first_row + len(ready) == num_rows:
            stacked = torch.from_numpy(np.stack(ready))
            yield Part(video=number, first_row=first_row, num_rows=num_rows, clips=stacked, facts=facts)
            first_row, ready = first_row + len(ready), []


def _planned_windows(video: WholeVideo, clock: Clock, layout: Grid | Views) -> np.ndarray:
    """Numbers of the frames of each window: (W, T), of which the first ones never go back.

    Raises:
        BadVideo: a span lies behind its end.

    """
    if video.spans is None:
        return plan_windows(clock, layout)
    assert isinstance(layout, Grid), "views are of whole videos"
    duration_seconds = clock.duration_seconds
    last_start = max(start for start, _ in video.spans.seconds)
    if last_start >= duration_seconds:
        reason = f"has a segment that begins at {last_start:g} s, and only {duration_seconds:.3f} s"
        raise BadVideo(str(video.path), reason)
    found = windows_in_spans(video.spans, layout, duration_seconds=duration_seconds, source_fps=clock.fps)
    return clock.shown_at(found.moments_WT)


def _clips_of_windows(
    windows_WT: np.ndarray, frames: Iterator[tuple[int, VideoFrame]], reading: Reading, *, path: Location
) -> Iterator[list[np.ndarray]]:
    """Of each window, its clips (T, side, side, 3), one a crop.

    Raises:
        BadVideo: the pictures change their size.

    """
    held: dict[int, list[np.ndarray]] = {}  # by number of the frame: the crops of those that a window to come may have
    sides: set[tuple[int, ...]] = set()
    for window_T in windows_WT:
        # First frames do not go back from window to window: what lies before the first one is never needed again. What
        # is ahead of the last one is not needed yet; where spans overlap, it may be there already.
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
    """Decode frames of a video, with their numbers; ascending, file by file.

    Raises:
        BadVideo: a file cannot be fetched or decoded, or lacks a frame.

    """
    constant_fps = None if pieces[0].variable_fps else pieces[0].fps
    for of_file in by_file(pieces):
        file = of_file[0]
        in_file = [number for _, inside in pieces_with(of_file, numbers) for number in inside]
        if in_file:
            with local_file(file.path, size_bytes=file.size_bytes) as path:
                for number, frame in zip(in_file, frames_at(path, in_file, constant_fps=constant_fps), strict=True):
                    yield number - file.first_frame + file.first_number, frame


class _Lanes(IterableDataset[Part]):
    """Each worker reads every so-many-th of the videos. One that cannot be used is one part that says why."""

    def __init__(self, videos: list[tuple[int, WholeVideo]], reading: Reading) -> None:
        self._videos, self._reading = videos, reading

    def __iter__(self) -> Iterator[Part]:
        worker = get_worker_info()
        own = self._videos if worker is None else self._videos[worker.id :: worker.num_workers]
        for number, video in own:
            try:
                with errors_of_video(video.path):
                    yield from parts_of_video(number, video, self._reading)
            except BadVideo as bad:
                yield Part(video=number, bad=bad)


def read_parts(videos: Sequence[WholeVideo], reading: Reading, *, workers: int) -> Generator[Part, None, None]:
    """All parts of all videos; those of one video in order, those of different ones in turns.

    A worker that dies is survived once: the videos that were not read to their end are read again from their
    beginning, so that some parts may come twice, the same both times.

    Args:
        videos: what to read.
        reading: how.
        workers: processes that read; 0 reads in this one.

    Raises:
        HicoError: a second worker died.

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
