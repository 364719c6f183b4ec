"""Whole videos as windows of pictures, read by worker processes: each has a lane of videos and reads one at a time.

A video is read in one go. Each frame that some window has is decoded once, however many windows overlap there; a
window leaves as soon as its last frame is there, so memory does not grow with the length of a video.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from av import VideoFrame
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from hico_core.corpus.addresses import Location
from hico_core.corpus.cache import LocalCache
from hico_core.data.decode import SIZE_CHANGES, frames_at
from hico_core.data.loader import as_it_is, outliving_a_death, worker_options
from hico_core.data.pictures import Picture, crops_of, normalised_frame
from hico_core.data.reading import by_file, clock_of, errors_of_video, local_file, pieces_with, whole_file
from hico_core.data.videos import Piece
from hico_core.data.windows import Grid, Views, plan_windows
from hico_core.errors import BadVideo

# A video with fewer frames than one in so many seconds has a hole that would be seen as thousands of equal windows.
_MOST_SECONDS_A_FRAME = 60.0

# Windows that travel from a worker together.
_WINDOWS_AT_ONCE = 4


class WholeVideo(NamedTuple):
    """A video to be read: from the clips it was split into, or from its own file."""

    path: Location
    pieces: list[Piece]  # none: from its own file, of which nothing is known yet


class Facts(NamedTuple):
    """What is known of a video once its times are read."""

    num_frames: int
    fps: float  # average
    duration_seconds: float


class Part(NamedTuple):
    """Some of a video's windows, in order."""

    video: int  # its number
    first_row: int  # of the rows that the video has in all: windows times crops, window by window
    num_rows: int  # in all
    clips: Tensor | None  # (n, T, side, side, 3) uint8, or normalised: (n, T, size, size, 3) float32; None: no use
    facts: Facts | None
    bad: BadVideo | None = None  # why it cannot be used


def parts_of_video(
    number: int,
    video: WholeVideo,
    layout: Grid | Views,
    picture: Picture,
    *,
    normalise: bool = False,
    cache: LocalCache,
) -> Iterator[Part]:
    """Read one video from beginning to end.

    Args:
        number: of the video.
        video: what to read.
        layout: which windows.
        picture: what is looked at of each frame.
        normalise: scale and normalise each frame here, once, however many windows have it.
        cache: for files in buckets.

    Raises:
        BadVideo: it cannot be decoded, or its pictures change their size.

    """
    if video.pieces:
        pieces, clock = video.pieces, clock_of(video.pieces, cache=cache)
    else:
        piece, clock = whole_file(video.path, cache=cache)
        pieces = [piece]
    facts = Facts(clock.num_frames, clock.fps, clock.duration_seconds)
    if facts.duration_seconds > _MOST_SECONDS_A_FRAME * facts.num_frames:
        raise BadVideo(
            str(video.path),
            f"has {facts.num_frames} frames in {facts.duration_seconds:.0f} s: nearly all of it is one frame that "
            "stands still; cut it, or encode it anew",
        )
    windows = plan_windows(clock, layout)
    num_rows = len(windows) * picture.num_crops
    held: dict[int, list[np.ndarray]] = {}  # by number of the frame: those that a window to come may have
    frames = _frames_of(pieces, np.unique(windows).tolist(), cache=cache)
    ready: list[np.ndarray] = []
    sides: set[tuple[int, ...]] = set()
    done = 0
    for window in windows:
        while not held or max(held) < window[-1]:
            frame_number, frame = next(frames)
            crops = crops_of(frame, picture)
            sides |= {crop.shape for crop in crops}
            if len(sides) > 1:
                raise BadVideo(str(video.path), SIZE_CHANGES)
            held[frame_number] = [normalised_frame(crop, picture) for crop in crops] if normalise else crops
        for passed in [frame_number for frame_number in held if frame_number < window[0]]:
            del held[passed]
        ready += _stacked([held[frame_number] for frame_number in window])
        if len(ready) >= _WINDOWS_AT_ONCE * picture.num_crops or done + len(ready) == num_rows:
            yield Part(number, done, num_rows, torch.from_numpy(np.stack(ready)), facts)
            done += len(ready)
            ready = []


def _stacked(frames: list[list[np.ndarray]]) -> list[np.ndarray]:
    """The crops of a window's frames as clips: (T, ...) each."""
    return [np.stack([crops[place] for crops in frames]) for place in range(len(frames[0]))]


def _frames_of(
    pieces: Sequence[Piece], numbers: Sequence[int], *, cache: LocalCache
) -> Iterator[tuple[int, VideoFrame]]:
    """Decode frames of a video, with their numbers; ascending, file by file.

    Raises:
        BadVideo: a file cannot be fetched or decoded, or lacks a frame.

    """
    constant_fps = None if pieces[0].variable_fps else pieces[0].fps
    for of_file in by_file(pieces):
        file = of_file[0]
        in_file = [number for _, inside in pieces_with(of_file, numbers) for number in inside]
        if in_file:
            with local_file(file.path, cache=cache, size_bytes=file.size_bytes) as path:
                for number, frame in zip(in_file, frames_at(path, in_file, constant_fps=constant_fps), strict=True):
                    yield number - file.first_frame + file.first_number, frame


class _ReadingOptions(TypedDict):
    """Of `parts_of_video`."""

    normalise: bool
    cache: LocalCache


class _Lanes(IterableDataset[Part]):
    """Each worker reads every so-many-th of the videos. One that cannot be used is one part that says why."""

    def __init__(
        self,
        videos: list[tuple[int, WholeVideo]],
        layout: Grid | Views,
        picture: Picture,
        *,
        normalise: bool,
        cache: LocalCache,
    ) -> None:
        self._videos, self._layout, self._picture = videos, layout, picture
        self._options: _ReadingOptions = {"normalise": normalise, "cache": cache}

    def __iter__(self) -> Iterator[Part]:
        worker = get_worker_info()
        own = self._videos if worker is None else self._videos[worker.id :: worker.num_workers]
        for number, video in own:
            try:
                with errors_of_video(video.path):
                    yield from parts_of_video(number, video, self._layout, self._picture, **self._options)
            except BadVideo as bad:
                yield Part(number, 0, 0, None, None, bad)


def read_parts(
    videos: Sequence[WholeVideo],
    layout: Grid | Views,
    picture: Picture,
    *,
    normalise: bool = False,
    cache: LocalCache,
    workers: int,
) -> Generator[Part, None, None]:
    """All parts of all videos; those of one video in order, those of different ones in turns.

    A worker that dies is survived once: the videos that were not read to their end are read again from their
    beginning, so that some parts may come twice, the same both times.

    Args:
        videos: what to read.
        layout: which windows.
        picture: what is looked at of each frame.
        normalise: see `parts_of_video`.
        cache: for files in buckets.
        workers: processes that read; 0 reads in this one.

    Raises:
        HicoError: a second worker died.

    """
    remaining = dict(enumerate(videos))

    def loader() -> DataLoader[Part]:
        lanes = _Lanes(list(remaining.items()), layout, picture, normalise=normalise, cache=cache)
        return DataLoader(lanes, batch_size=None, collate_fn=as_it_is, **worker_options(min(workers, len(remaining))))

    def next_one() -> str:
        return str(next(iter(remaining.values())).path)

    for part in outliving_a_death(loader, next_one):
        if part.clips is None or part.first_row + len(part.clips) == part.num_rows:
            remaining.pop(part.video, None)
        yield part
