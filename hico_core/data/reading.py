"""Frames of a video across the files that hold them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hico_core.config import DataConfig
from hico_core.corpus.addresses import Location
from hico_core.corpus.cache import LocalCache
from hico_core.corpus.probe import probe
from hico_core.data.decode import DecoderName, decode_frames
from hico_core.data.sampling import frame_indices, frames_shown_at
from hico_core.data.videos import Piece
from hico_core.errors import BadVideo, HicoError, NoRoom, short_reason


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
    # Of a video that was indexed in place, all pieces lie in one file.
    seconds_of = {path: probe(str(path)).frame_seconds for path in dict.fromkeys(piece.path for piece in pieces)}
    for piece in pieces:
        seconds = seconds_of[piece.path][piece.first_frame : piece.first_frame + piece.num_frames]
        shown += [piece.start_seconds + moment - seconds[0] for moment in seconds]
    return shown


class KeptFrames:
    """All frames of the pieces that were read first, as many as fit; those of the others are decoded when asked for."""

    def __init__(self, *, size_bytes: int) -> None:
        """Keep no more than this."""
        self._free = size_bytes
        self._kept: dict[tuple[Location, int, int | None], Tensor] = {}

    def take(
        self, piece: Piece, numbers: Sequence[int], side: int | None, decode: Callable[[Sequence[int]], Tensor]
    ) -> Tensor:
        """Frames (len(numbers), H, W, 3) of a piece, counted in its file; `decode` reads those that it is asked for."""
        key = (piece.path, piece.first_frame, side)
        if key not in self._kept:
            if self._free <= 0:
                return decode(numbers)
            frames = decode(range(piece.first_frame, piece.first_frame + piece.num_frames))
            if frames.nbytes > self._free:
                self._free = 0
                return frames[[number - piece.first_frame for number in numbers]]
            self._free -= frames.nbytes
            self._kept[key] = frames
        return self._kept[key][[number - piece.first_frame for number in numbers]]


def kept_frames(data: DataConfig) -> KeptFrames | None:
    """What a reading process keeps with these settings; None if nothing."""
    return KeptFrames(size_bytes=int(data.memory_gb * 1e9)) if data.memory_gb else None


def read_clip(
    pieces: Sequence[Piece],
    window: tuple[float, float],
    *,
    num_frames: int,
    decoder: DecoderName,
    cache: LocalCache,
    short_side: int | None = None,
    kept: KeptFrames | None = None,
) -> Tensor:
    """Decode the frames of a window, across the borders of files: (num_frames, H, W, 3) uint8.

    Args:
        pieces: of the whole video.
        window: in seconds of the video.
        num_frames: how many frames make the clip.
        decoder: see `decode_frames`.
        cache: for files in buckets.
        short_side: larger pictures are scaled down to it.
        kept: frames that need not be decoded again.

    Raises:
        BadVideo: a file cannot be fetched or decoded.

    """
    with local_pieces(pieces_of_window(pieces, window), cache=cache) as local:
        frames = frames_of_window(local, window, num_frames=num_frames)
        return decode_pieces(local, frames, decoder=decoder, short_side=short_side, kept=kept)


def decode_pieces(
    pieces: Sequence[Piece],
    frames: Sequence[int],
    *,
    decoder: DecoderName,
    short_side: int | None = None,
    kept: KeptFrames | None = None,
) -> Tensor:
    """Decode frames that are counted through the given pieces: (len(frames), H, W, 3) uint8.

    Args:
        pieces: of one video, with local files, without a hole between them.
        frames: their numbers from the first piece's first frame, ascending.
        decoder: see `decode_frames`.
        short_side: larger pictures are scaled down to it.
        kept: frames that need not be decoded again.

    Raises:
        BadVideo: a file cannot be decoded.

    """
    side = short_side if short_side is not None and pieces[0].short_side > short_side else None
    # A constant rate tells which frame a timestamp is, so that no packets need be counted.
    fps = None if pieces[0].variable_fps else pieces[0].fps
    decode = partial(decode_frames, decoder=decoder, short_side=side, constant_fps=fps)
    of_piece: list[tuple[Piece, list[int]]] = []
    passed = 0
    for piece in pieces:
        inside = [frame for frame in frames if passed <= frame < passed + piece.num_frames]
        if inside:
            of_piece.append((piece, [frame - passed + piece.first_frame for frame in inside]))
        passed += piece.num_frames
    if kept is not None:
        return torch.cat(
            [kept.take(piece, numbers, side, partial(decode, str(piece.path))) for piece, numbers in of_piece]
        )
    # Frames of one file are decoded in one go, whether it is a clip or a whole video.
    of_file: dict[Location, list[int]] = {}
    for piece, numbers in of_piece:
        of_file.setdefault(piece.path, []).extend(numbers)
    return torch.cat([decode(str(path), numbers) for path, numbers in of_file.items()])


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
        NoRoom: the disk is full.

    """
    with ExitStack() as stack:
        try:
            path = stack.enter_context(cache.local(location, size_bytes=size_bytes))
        except FileNotFoundError:
            raise BadVideo(str(location), "no such file") from None
        except (BadVideo, NoRoom):
            raise
        except HicoError as error:
            raise BadVideo(str(location), str(error).removeprefix(f"{location}: ")) from error
        except OSError as error:
            raise BadVideo(str(location), f"cannot be fetched ({short_reason(error)})") from error
        yield path
