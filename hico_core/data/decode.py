"""Single frames of a video file as pixels.

Frames are counted in the order in which they are shown, from 0. Whatever decoder is used, the same frames of
the same file have the same pixels.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from math import floor
from pathlib import Path
from typing import Literal, NamedTuple

import av
import numpy as np
import torch
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream
from torch import Tensor

from hico_core.choices import DecoderName
from hico_core.corpus.ffmpeg import INPUT_OPTIONS
from hico_core.corpus.picture import PLAIN_TURNS, margins_of, require_known_turn, rgb, turn_of, without_margins
from hico_core.corpus.probe import is_seekable, open_video, read_packets, units_of
from hico_core.errors import BadVideo, UsageError, short_reason

logger = logging.getLogger(__name__)


# What the other decoders give the very frames of that PyAV gives, as far as it was tried. Of more they give wrong
# frames, or other colours, without a word.
_H264_PIXELS = {"yuv420p", "yuvj420p", "yuv444p"}
_EXACT_ON = {
    "decord": {"h264": _H264_PIXELS, "vp8": {"yuv420p"}},
    "torchcodec": {"h264": _H264_PIXELS, "hevc": {"yuv420p"}, "vp8": {"yuv420p"}},
}

# What is said of a video whose pictures are not all of one size.
SIZE_CHANGES = "changes the size of its pictures in the middle"

# The kind of H.264 unit that a decoder can really begin at (ITU-T H.264, table 7-1).
_IDR_SLICE = 5


# The first frame that is shown is among so many that are decoded first: neither H.264 nor HEVC delays more than 16.
_MOST_REORDERED = 17


class _Request(NamedTuple):
    """What is wanted of one file."""

    path: Path
    numbers: list[int]  # of frames, ascending, without repeats
    short_side: int | None  # scale to this
    constant_fps: float | None  # if it is known, a timestamp tells its frame's number


# Reads frames of one file: one (H, W, 3) uint8 picture for each number.
Decoder = Callable[[_Request], list[np.ndarray]]


def decode_frames(
    path: Path | str,
    indices: Sequence[int],
    *,
    decoder: DecoderName = "auto",
    short_side: int | None = None,
    constant_fps: float | None = None,
) -> Tensor:
    """Decode the frames with the given numbers; they may repeat and come in any order.

    Args:
        path: a local video file; its first video stream is read, and shown as `ffmpeg -i` shows it.
        indices: frame numbers in presentation order, from 0.
        decoder: "pyav", "decord" or "torchcodec" (if installed), or "auto", which is PyAV: exact on every file, and
            the fastest, since it passes over frames that nobody asked for.
        short_side: scale the pictures so that the shorter side has this many pixels; None keeps the size.
        constant_fps: the index's rate of a video whose rate is constant. It spares reading all packets' times first.

    Returns:
        uint8 tensor (len(indices), H, W, 3), RGB.

    Raises:
        BadVideo: the file cannot be decoded, or has no such frame.
        UsageError: the decoder is not installed.

    """
    if not indices or min(indices) < 0:
        raise ValueError(f"frame numbers must be 0 or more, and at least one: {list(indices)}")
    require_decoder(decoder)
    wanted = sorted(set(indices))
    pictures = _DECODERS[decoder](_Request(Path(path), wanted, short_side, constant_fps))
    if len({picture.shape for picture in pictures}) > 1:
        raise BadVideo(path, SIZE_CHANGES)
    by_number = dict(zip(wanted, pictures, strict=True))
    return torch.from_numpy(np.stack([by_number[i] for i in indices]))


def require_decoder(decoder: DecoderName) -> None:
    """Check that a decoder is there before work is handed out that needs it.

    Raises:
        UsageError: it is not installed, or does not find what it needs.

    """
    if decoder in {"auto", "pyav"}:
        return
    if find_spec(decoder) is None:
        raise UsageError(f"data.decoder={decoder}: {decoder} is not installed here; use pyav")
    try:
        import_module(decoder)
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec looks for the libraries of an ffmpeg
        raise UsageError(f"data.decoder={decoder}: it does not load ({short_reason(error)}); use pyav") from error


def _scaled(picture: np.ndarray, short_side: int | None) -> np.ndarray:
    """A picture that another decoder gave, scaled as `rgb` does."""
    if short_side is None:
        return picture
    return rgb(VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"), short_side)


def _decode_pyav(request: _Request) -> list[np.ndarray]:
    frames = frames_at(request.path, request.numbers, constant_fps=request.constant_fps)
    return [rgb(frame, request.short_side) for frame in frames]


# Where more frames than these lie between two that are wanted, it is cheaper to look for a keyframe in between.
_SEEK_OVER = 64


def frames_at(path: Path | str, numbers: Sequence[int], *, constant_fps: float | None = None) -> Iterator[VideoFrame]:
    """Decode frames one after the other, without the margins that their container hides; one is in memory at a time.

    Frames that nobody asked for are decoded only where others refer to them.

    Args:
        path: a local video file; its first video stream is read.
        numbers: of the frames in presentation order, ascending, without repeats.
        constant_fps: see `decode_frames`.

    Raises:
        BadVideo: the file cannot be decoded, or has no such frame.

    """
    given = 0
    with open_video(path) as (container, stream):
        # A process a core reads videos; threads inside a decoder cost more CPU than they save.
        stream.thread_type = "NONE"
        margins = margins_of(container, stream)
        try:
            if is_seekable(container, stream):
                search = _search_by_rate(container, stream, constant_fps) or _search_by_packets(
                    path, numbers, container, stream
                )
                for run in _runs(numbers):
                    before = given
                    for frame in _frames_after_seek(run, search, container, stream):
                        if not given:
                            require_known_turn(frame, path=path)
                        given += 1
                        yield without_margins(frame, margins)
                    if given < before + len(run):
                        logger.warning("%s: seeking gives no sound frame; decoding from the start", path)
                        container.seek(0)
                        break
            if given < len(numbers):
                for frame in _frames_from_start(numbers[given:], container, stream):
                    if not given:
                        require_known_turn(frame, path=path)
                    given += 1
                    yield without_margins(frame, margins)
        except av.FFmpegError as error:
            raise BadVideo(path, f"cannot be decoded ({short_reason(error)})") from error
    if given < len(numbers):
        raise BadVideo(path, f"has no frame {numbers[given]}")


def _runs(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Parts of ascending numbers that are decoded in one go.

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

    seek_tick: Callable[[int], int]  # frame number -> where to begin, at or before that frame
    number_of: Callable[[int], int | None]  # timestamp -> frame number


def _frames_after_seek(
    wanted: Sequence[int], search: _Search, container: InputContainer, stream: VideoStream
) -> Iterator[VideoFrame]:
    """Decode from the last keyframe before the first wanted frame; ends early where that does not give all of them.

    Frames that nobody asked for and that no other frame refers to are passed over without being decoded, which
    leaves the others as they are to the last bit.
    """
    container.seek(search.seek_tick(wanted[0]), stream=stream)
    asked_for = set(wanted)
    given = 0
    context = stream.codec_context
    try:
        for packet in container.demux(stream):
            needed = packet.pts is None or search.number_of(packet.pts) in asked_for
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            for frame in packet.decode():
                number = None if frame.pts is None else search.number_of(frame.pts)
                if number == wanted[given]:
                    if frame.is_corrupt:  # what the file calls a keyframe is none to begin at
                        return
                    given += 1
                    yield frame
                    if given == len(wanted):
                        return
                elif number is None or number > wanted[given]:
                    return
    finally:
        context.skip_frame = "DEFAULT"


def _search_by_rate(container: InputContainer, stream: VideoStream, fps: float | None) -> _Search | None:
    """Where a constant rate is known, arithmetic tells which frame a timestamp is."""
    time_base = stream.time_base
    if fps is None or time_base is None:
        return None
    start = _first_tick(container, stream)
    frames_per_tick = fps * float(time_base)
    # Containers seek by decoding times, which run ahead of the times of showing by the decoder's delay.
    delay = stream.codec_context.delay + 1
    return _Search(
        lambda number: start + floor((number - delay) / frames_per_tick),
        lambda tick: round((tick - start) * frames_per_tick),
    )


def _first_tick(container: InputContainer, stream: VideoStream) -> int:
    """When the first frame is shown, which is not always what the container names as its start (edit lists)."""
    packets = (packet.pts for packet in container.demux(stream) if packet.size and not packet.is_discard)
    return min((tick for tick in islice(packets, _MOST_REORDERED) if tick is not None), default=0)


def _search_by_packets(
    path: Path | str, numbers: Sequence[int], container: InputContainer, stream: VideoStream
) -> _Search:
    """Read the times of all packets first: right for any rate.

    Raises:
        BadVideo: the file has fewer frames than the last one that is wanted.

    """
    info = read_packets(container, stream, path=path)
    if numbers[-1] >= len(info.timestamps):
        raise BadVideo(path, f"has {len(info.timestamps)} frames, so no frame {numbers[-1]}")
    number_of = {tick: number for number, tick in enumerate(info.timestamps)}

    def seek_tick(number: int) -> int:
        before = [keyframe for keyframe in info.keyframes if keyframe.position <= number]
        return before[-1].seek_tick if before else 0

    return _Search(seek_tick, number_of.get)


def _frames_from_start(wanted: Sequence[int], container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Count frames as they are shown; ends early where the video does."""
    given = 0
    for number, frame in enumerate(container.decode(stream)):
        if number == wanted[given]:
            given += 1
            yield frame
            if given == len(wanted):
                return


def _require_exact(decoder: Literal["decord", "torchcodec"], path: Path) -> None:
    """Let a decoder only at files of which it gives the right frames.

    Raises:
        BadVideo: names what makes it give others.

    """
    obstacle = _obstacle(decoder, path)
    if obstacle:
        raise BadVideo(path, f"{decoder} gives other frames of {obstacle}; use data.decoder=pyav")


def _obstacle(decoder: Literal["decord", "torchcodec"], path: Path) -> str | None:
    with open_video(path) as (container, stream):
        codec, pixels = stream.codec_context.name, stream.codec_context.pix_fmt
        if "avi" in container.format.name.split(","):
            return "AVI files, which have no times to sort frames by"
        if container.format.name == "mpegts":
            return "MPEG-TS files, whose colours may change in the middle"
        if pixels not in _EXACT_ON[decoder].get(codec, set()):
            return f"{codec} with {pixels}"
        if len(container.streams.video) > 1:
            return "several video streams"
        if margins_of(container, stream):
            return "pictures of which the container hides a part"
        if codec == "h264" and is_seekable(container, stream):
            keyframes = (bytes(packet) for packet in container.demux(stream) if packet.is_keyframe and packet.size)
            if not all(_IDR_SLICE in {unit[0] & 31 for unit in units_of(packet)} for packet in keyframes):
                return "keyframes that refer to frames before them"
            container.seek(0)
        first = next(container.decode(stream), None)
        if first is not None:
            require_known_turn(first, path=path)
        if first is not None and turn_of(first) not in PLAIN_TURNS:
            return "mirrored pictures"
        if first is not None and (first.width, first.height) != _size_aligned(path):
            return "pictures that the encoder cut off at the left"
        return "interlaced pictures" if first is not None and first.interlaced_frame else None


def _size_aligned(path: Path) -> tuple[int, int]:
    """(width, height) of the first frame where a decoder may leave in what is cut off; see `open_video`."""
    with av.open(str(path), options=INPUT_OPTIONS) as container:
        first = next(container.decode(video=0))
        return first.width, first.height


def _decode_decord(request: _Request) -> list[np.ndarray]:
    import decord  # has no wheels for some machines, so not at the top

    decord.logging.set_level(decord.logging.QUIET)  # ffmpeg's complaints; what matters is raised

    path = request.path
    _require_exact("decord", path)
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if request.numbers[-1] >= len(reader):
            raise BadVideo(path, f"has {len(reader)} frames, so no frame {request.numbers[-1]}")
        pictures = reader.get_batch(request.numbers).asnumpy()
    except (decord.DECORDError, RuntimeError) as error:
        raise BadVideo(path, f"cannot be decoded by decord ({short_reason(error)})") from error
    return [_scaled(picture, request.short_side) for picture in pictures]


def _decode_torchcodec(request: _Request) -> list[np.ndarray]:
    from torchcodec.decoders import VideoDecoder  # needs the libraries of an ffmpeg, so not at the top

    path = request.path
    _require_exact("torchcodec", path)
    try:
        decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        if request.numbers[-1] >= len(decoder):
            raise BadVideo(path, f"has {len(decoder)} frames, so no frame {request.numbers[-1]}")
        pictures = decoder.get_frames_at(indices=request.numbers).data.numpy()
    except (RuntimeError, ValueError, IndexError) as error:
        raise BadVideo(path, f"cannot be decoded by torchcodec ({short_reason(error)})") from error
    return [_scaled(picture, request.short_side) for picture in pictures]


_DECODERS: dict[DecoderName, Decoder] = {
    "auto": _decode_pyav,
    "pyav": _decode_pyav,
    "decord": _decode_decord,
    "torchcodec": _decode_torchcodec,
}
