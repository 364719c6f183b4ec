"""Read frames of a video across the files that hold them."""

import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import av
import numpy as np
import torch
from torch import Tensor

from hico_core.base.addresses import Location
from hico_core.base.choices import DecoderName
from hico_core.base.errors import BadVideo, counted, short_reason
from hico_core.base.local_videos import local_video
from hico_core.corpus.clips.probe import frame_rate, frame_times
from hico_core.data.clock import Clock, clock_of_times
from hico_core.data.decode import decode_frames
from hico_core.data.videos import Piece

logger = logging.getLogger(__name__)


def clock_of(pieces: Sequence[Piece]) -> Clock:
    """The clock of consecutive pieces of a video.

    If the index says that the frame rate is constant, no file is read.

    Raises:
        BadVideo: a file's times cannot be read, or do not match the index.

    """
    first, last = pieces[0], pieces[-1]
    num_frames = last.first_number + last.num_frames  # up to the end of these pieces; later frames are never requested
    if not first.variable_fps:
        return Clock(fps=first.fps, num_frames=num_frames, period_seconds=1 / first.fps)
    stamps = [moment for of_file in by_file(pieces) for moment in _times_of(of_file)]
    period = frame_rate(stamps).period_seconds
    return Clock(
        fps=first.fps,
        num_frames=num_frames,
        period_seconds=period,
        stamps=np.array(stamps),
        first=first.first_number,
    )


def _times_of(pieces: Sequence[Piece]) -> list[float]:
    """The time of each frame of pieces that lie in one file, in seconds of the video.

    Raises:
        BadVideo: the file's times cannot be read, or its frames do not match the index.

    """
    file = pieces[0]
    with local_video(file.path, size_bytes=file.size_bytes) as path:
        in_file = frame_times(path)
    shown: list[float] = []
    for piece in pieces:
        seconds = in_file[piece.first_frame : piece.first_frame + piece.num_frames]
        if len(seconds) < piece.num_frames:
            indexed = piece.first_frame + piece.num_frames
            raise BadVideo(
                str(file.path), f"has {counted(len(in_file), 'frame')}, but the index says {indexed}; index it again"
            )
        # The start of a piece comes from the index, because a file's own clock may begin anywhere.
        shown += [piece.start_seconds + moment - seconds[0] for moment in seconds]
    return shown


def whole_file(path: Location) -> tuple[Piece, Clock]:
    """A file that is not in the index, as the only piece of its video.

    Raises:
        BadVideo: it cannot be fetched, or its times cannot be read.

    """
    with local_video(path) as local:
        clock = clock_of_times(frame_times(local))
    variable = clock.stamps is not None
    piece = Piece(path=path, start_seconds=0.0, num_frames=clock.num_frames, fps=clock.fps, variable_fps=variable)
    return piece, clock


def by_file(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Pieces grouped by file: a video indexed in place has many pieces in one file."""
    grouped: dict[str, list[Piece]] = {}
    for piece in pieces:
        grouped.setdefault(str(piece.path), []).append(piece)
    return list(grouped.values())


def pieces_with(pieces: Sequence[Piece], numbers: Sequence[int]) -> list[tuple[Piece, list[int]]]:
    """The pieces that hold the given frames of a video, each with the frames' numbers in its file.

    Args:
        pieces: of the video, in order.
        numbers: frame numbers in the video, ascending.

    """
    found = []
    for piece in pieces:
        first = piece.first_number
        # By bisection, because a video of several hours has thousands of pieces.
        inside = numbers[bisect_left(numbers, first) : bisect_left(numbers, first + piece.num_frames)]
        if inside:
            found.append((piece, [number - first + piece.first_frame for number in inside]))
    return found


class KeptFrames:
    """Caches all frames of the first pieces read, as many as fit; those of other pieces are decoded on each request."""

    def __init__(self, *, size_bytes: int) -> None:
        """Keep at most this many bytes of frames."""
        self._free = size_bytes
        self._kept: dict[tuple[Location, int, int | None], Tensor] = {}

    def take(
        self, piece: Piece, numbers: Sequence[int], side: int | None, decode: Callable[[Sequence[int]], Tensor]
    ) -> Tensor:
        """Frames (len(numbers), H, W, 3) of a piece, numbered as in its file; `decode` decodes frame numbers."""
        key = (piece.path, piece.first_frame, side)
        if key not in self._kept:
            if self._free <= 0:
                return decode(numbers)
            frames = decode(range(piece.first_frame, piece.first_frame + piece.num_frames))
            if frames.nbytes > self._free:
                self._free = 0  # full from now on: to try smaller pieces, each would have to be decoded completely
                return frames[[number - piece.first_frame for number in numbers]]
            self._free -= frames.nbytes
            self._kept[key] = frames
        return self._kept[key][[number - piece.first_frame for number in numbers]]


def kept_frames(memory_gb: float) -> KeptFrames | None:
    """The frame cache of a reading process; None if it keeps nothing."""
    return KeptFrames(size_bytes=int(memory_gb * 1e9)) if memory_gb else None


def read_clip(
    pieces: Sequence[Piece],
    window: tuple[float, float],
    *,
    num_frames: int,
    decoder: DecoderName,
    short_side: int | None = None,
    kept: KeptFrames | None = None,
) -> Tensor:
    """Decode the frames of a window, across the borders of files: (num_frames, H, W, 3) uint8.

    Args:
        pieces: of the video, at least those that `IndexedVideos.pieces` gives for the window.
        window: start and end in seconds of the video.
        num_frames: frames per clip.
        decoder: see `decode_frames`.
        short_side: larger pictures are scaled down to it.
        kept: cache of decoded frames; None: none.

    Raises:
        BadVideo: a file cannot be fetched or decoded.

    """
    frames = clock_of(pieces).of_window(window, num_frames=num_frames)
    return decode_pieces(pieces, frames, decoder=decoder, short_side=short_side, kept=kept)


def decode_pieces(
    pieces: Sequence[Piece],
    frames: Sequence[int],
    *,
    decoder: DecoderName,
    short_side: int | None = None,
    kept: KeptFrames | None = None,
) -> Tensor:
    """Decode frames of a video: (len(frames), H, W, 3) uint8.

    Args:
        pieces: must include those that hold the frames.
        frames: frame numbers in the video, ascending; they may repeat.
        decoder: see `decode_frames`.
        short_side: larger pictures are scaled down to it.
        kept: cache of decoded frames; None: none.

    Raises:
        BadVideo: a file cannot be fetched or decoded.

    """
    side = short_side if short_side is not None and pieces[0].short_side > short_side else None
    # With a constant rate, a timestamp gives the frame number without counting packets.
    fps = None if pieces[0].variable_fps else pieces[0].fps

    def decode(piece: Piece, numbers: Sequence[int]) -> Tensor:
        with local_video(piece.path, size_bytes=piece.size_bytes) as path:
            return decode_frames(path, numbers, decoder=decoder, short_side=side, constant_fps=fps)

    found = pieces_with(pieces, frames)
    if kept is not None:
        return torch.cat([kept.take(piece, numbers, side, partial(decode, piece)) for piece, numbers in found])
    # All frames of one file are decoded in one call, whether it is a clip or a whole video.
    of_file: dict[Location, tuple[Piece, list[int]]] = {}
    for piece, numbers in found:
        of_file.setdefault(piece.path, (piece, []))[1].extend(numbers)
    return torch.cat([decode(piece, numbers) for piece, numbers in of_file.values()])


@contextmanager
def errors_of_video(video: "Location | str") -> Iterator[None]:
    """Turn errors of decoders and calculations inside the block into BadVideo, so that they do not end a run.

    Raises:
        BadVideo: such an error occurred.

    """
    try:
        yield
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, av.FFmpegError) as error:
        logger.debug("%s", video, exc_info=True)
        raise BadVideo(str(video), f"cannot be read ({type(error).__name__}: {short_reason(error)})") from error
