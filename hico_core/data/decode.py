"""Decode single frames of a video file to pixels.

Frames are counted in presentation order, from 0. The same frame of the same file has the same pixels with every
decoder.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from math import floor
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream
from torch import Tensor

from hico_core.base.choices import DecoderName
from hico_core.base.errors import BadVideo, counted, short_reason
from hico_core.corpus.clips.frame_pictures import read_picture
from hico_core.corpus.clips.picture import margins_of, require_known_turn, rgb_of, without_margins
from hico_core.corpus.clips.probe import is_seekable, open_video, read_packets
from hico_core.corpus.sources.frame_folders import frame_names
from hico_core.data.other_decoders import decode_elsewhere, require_decoder

logger = logging.getLogger(__name__)


# The reason given for rejecting a video whose pictures differ in size.
SIZE_CHANGES = "changes its frame size"

# The first frame shown is among this many frames decoded first: neither H.264 nor HEVC delays more than 16.
_MOST_REORDERED = 17

# If a frame is not decodable from the keyframe decoded before it, the seek is repeated for a frame this much earlier.
# In an open GOP, that keyframe may be shown after the frame, which needs the keyframe before. A keyframe is decoded
# before it is shown by the delay of all frames, and by the number of frames shown before it but decoded after it.
_EARLIER = 2 * _MOST_REORDERED


def decode_frames(
    path: Path | str,
    indices: Sequence[int],
    *,
    decoder: DecoderName = "auto",
    short_side: int | None = None,
    constant_fps: float | None = None,
) -> Tensor:
    """Decode the frames with the given numbers, which may repeat and come in any order.

    Args:
        path: a local video file, whose first video stream is read, or a frame folder; shown as `ffmpeg -i` shows it.
        indices: frame numbers in presentation order, from 0.
        decoder: "pyav", "decord" or "torchcodec" (if installed), or "auto", which is PyAV: exact on every file, and
            the fastest, because it skips frames that are not needed.
        short_side: scale the pictures so that the shorter side has this many pixels; None keeps the size.
        constant_fps: the frame rate from the index if it is constant, which saves reading all packets' times first.

    Returns:
        uint8 tensor (len(indices), H, W, 3), RGB.

    Raises:
        BadVideo: the file cannot be decoded, or has no such frame.
        UsageError: the decoder is not installed.

    """
    if not indices or min(indices) < 0:
        raise ValueError(f"frame numbers must be 0 or more, and at least one: {list(indices)}")
    wanted = sorted(set(indices))
    if decoder == "auto" or decoder == "pyav":
        frames = frames_at(path, wanted, constant_fps=constant_fps)
        pictures = [rgb_of(frame, short_side, path=path) for frame in frames]
    else:
        require_decoder(decoder)
        pictures = decode_elsewhere(Path(path), wanted, decoder=decoder, short_side=short_side)
    if len({picture.shape for picture in pictures}) > 1:
        raise BadVideo(path, SIZE_CHANGES)
    by_number = dict(zip(wanted, pictures, strict=True))
    return torch.from_numpy(np.stack([by_number[i] for i in indices]))


def _pictures_at(folder: Path, numbers: Sequence[int]) -> Iterator[VideoFrame]:
    """Decode pictures of a frame folder.

    Raises:
        BadVideo: a picture cannot be decoded, or does not exist.

    """
    names = frame_names(folder)
    if numbers[-1] >= len(names):
        raise BadVideo(folder, f"has {counted(len(names), 'picture')}, so no frame {numbers[-1]}")
    for number in numbers:
        frame = read_picture(folder / names[number])
        if number == numbers[0]:
            require_known_turn(frame, path=folder)
        yield frame


# If two wanted frames are further apart than this many frames, seeking to a keyframe between them is cheaper.
_SEEK_OVER = 64


def frames_at(path: Path | str, numbers: Sequence[int], *, constant_fps: float | None = None) -> Iterator[VideoFrame]:
    """Decode frames without the margins that their container hides, keeping only one in memory at a time.

    Other frames are decoded only if they are reference frames.

    Args:
        path: a local video file, whose first video stream is read, or a frame folder.
        numbers: frame numbers in presentation order, ascending, without repeats.
        constant_fps: see `decode_frames`.

    Raises:
        BadVideo: the file cannot be decoded, or has no such frame.

    """
    if Path(path).is_dir():
        yield from _pictures_at(Path(path), numbers)
        return
    given = 0
    with open_video(path) as (container, stream):
        # One process per core reads videos; threads inside a decoder cost more CPU than they save.
        stream.thread_type = "NONE"
        margins = margins_of(container, stream)
        try:
            search = None
            if is_seekable(container, stream):
                search = _search_by_rate(container, stream, constant_fps) or _search_by_packets(
                    path, numbers, container, stream
                )
            for frame in _frames_found(path, numbers, search, container, stream):
                if not given:
                    require_known_turn(frame, path=path)
                given += 1
                yield without_margins(frame, margins)
        except av.FFmpegError as error:
            raise BadVideo(path, f"cannot be decoded ({short_reason(error)})") from error
    if given < len(numbers):
        raise BadVideo(path, f"has no frame {numbers[given]}")


def _frames_found(
    path: Path | str, numbers: Sequence[int], search: "_Search | None", container: InputContainer, stream: VideoStream
) -> Iterator[VideoFrame]:
    """Decode frames by seeking if possible, and otherwise from the start; end early if the video does."""
    given = 0
    if search is not None:
        for run in _runs(numbers):
            end = given + len(run)
            for earlier in (0, _EARLIER):
                if given < end:  # frames already yielded stay valid; only the rest is decoded again
                    for frame in _frames_after_seek(numbers[given:end], search, container, stream, earlier=earlier):
                        given += 1
                        yield frame
            if given < end:
                told = "%s: seeking does not find frame %d; decoding from the start (slower, with the same result)"
                logger.warning(told, path, numbers[given])
                container.seek(0)
                break
    if given < len(numbers):
        yield from _frames_from_start(numbers[given:], search, container, stream)


def _runs(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Groups of ascending numbers, each of which is decoded after a single seek.

    numbers 0 2 4 500 502  ->  [0 2 4] [500 502]
    """
    first = 0
    for place in range(1, len(numbers)):
        if numbers[place] - numbers[place - 1] > _SEEK_OVER:
            yield numbers[first:place]
            first = place
    yield numbers[first:]


class _Search(NamedTuple):
    """How to find frames by their timestamps."""

    seek_tick: Callable[[int], int]  # frame number -> tick to seek to, at or before that frame
    number_of: Callable[[int], int | None]  # timestamp -> frame number


def _frames_after_seek(
    wanted: Sequence[int], search: _Search, container: InputContainer, stream: VideoStream, *, earlier: int
) -> Iterator[VideoFrame]:
    """Decode from the last keyframe before the first wanted frame; end early if that does not give all of them.

    Non-reference frames that are not wanted are skipped without being decoded, which leaves the others bit-identical.

    Args:
        wanted: frame numbers, ascending.
        search: finds them.
        container: of the video.
        stream: of the video.
        earlier: seek to the last keyframe that is this many frames before the first wanted one.

    """
    container.seek(search.seek_tick(max(wanted[0] - earlier, 0)), stream=stream)
    asked_for = set(wanted)
    given = 0
    context = stream.codec_context
    try:
        for packet in container.demux(stream):
            # A packet's time is that of its frame, so whether the frame is wanted is known before decoding.
            needed = packet.pts is None or search.number_of(packet.pts) in asked_for
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            for frame in packet.decode():
                number = None if frame.pts is None else search.number_of(frame.pts)
                if number == wanted[given]:
                    if frame.is_corrupt:  # decoding cannot really begin at what the file calls a keyframe
                        return
                    given += 1
                    yield frame
                    if given == len(wanted):
                        return
                elif number is None or number > wanted[given]:
                    return  # the wanted frame was missed: the keyframe lay after it, or this frame has no time
    finally:
        context.skip_frame = "DEFAULT"


def _search_by_rate(container: InputContainer, stream: VideoStream, fps: float | None) -> _Search | None:
    """Compute frame numbers from timestamps, for a known constant frame rate; None if the rate is not known."""
    time_base = stream.time_base
    if fps is None or time_base is None:
        return None
    start = _first_tick(container, stream)
    frames_per_tick = fps * float(time_base)
    # Containers seek by decoding times, which precede presentation times by the decoder's delay.
    delay = stream.codec_context.delay + 1
    return _Search(
        lambda number: start + floor((number - delay) / frames_per_tick),
        lambda tick: round((tick - start) * frames_per_tick),
    )


def _first_tick(container: InputContainer, stream: VideoStream) -> int:
    """The first frame's presentation time, which can differ from the start stated in the container (edit lists)."""
    packets = (packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard)
    return min((tick for tick in islice(packets, _MOST_REORDERED) if tick is not None), default=0)


def _search_by_packets(
    path: Path | str, numbers: Sequence[int], container: InputContainer, stream: VideoStream
) -> _Search:
    """Read the times of all packets first, which works for any frame rate.

    Raises:
        BadVideo: the file ends before the last wanted frame.

    """
    info = read_packets(container, stream, path=path)
    if numbers[-1] >= len(info.timestamps):
        raise BadVideo(path, f"has {len(info.timestamps)} frames, so no frame {numbers[-1]}")
    # Of frames with equal times, the first; the others are found by counting.
    number_of = {tick: number for number, tick in reversed([*enumerate(info.timestamps)])}

    def seek_tick(number: int) -> int:
        before = [keyframe for keyframe in info.keyframes if keyframe.position <= number]
        return before[-1].seek_tick if before else 0

    return _Search(seek_tick, number_of.get)


def _frames_from_start(
    wanted: Sequence[int], search: _Search | None, container: InputContainer, stream: VideoStream
) -> Iterator[VideoFrame]:
    """Decode from the start; end early if the video does.

    A frame that cannot be decoded, as before the first keyframe, is replaced by the next one that can, so frames keep
    their numbers. A frame without a time, or with that of the frame before, has the next number.
    """
    given, number, last = 0, -1, None
    for frame in container.decode(stream):
        found = None if search is None or frame.pts is None else search.number_of(frame.pts)
        number = number + 1 if found is None or found == last else found
        last = found
        while wanted[given] <= number:
            given += 1
            yield frame
            if given == len(wanted):
                return
