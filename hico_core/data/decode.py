"""Single frames of a video file as pixels.

Frames are counted in the order in which they are shown, from 0. Whatever decoder is used, the same frames of
the same file have the same pixels.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
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

from hico_core.corpus.probe import is_seekable, open_video, read_packets, short_reason
from hico_core.errors import BadVideo, UsageError

logger = logging.getLogger(__name__)

DecoderName = Literal["auto", "pyav", "decord", "torchcodec"]

# What the other decoders give the very frames of that PyAV gives, as far as it was tried. Of more they give wrong
# frames, or other colours, without a word.
_H264_PIXELS = {"yuv420p", "yuvj420p", "yuv444p"}
_EXACT_ON = {
    "decord": {"h264": _H264_PIXELS, "vp8": {"yuv420p"}},
    "torchcodec": {"h264": _H264_PIXELS, "hevc": {"yuv420p"}, "vp8": {"yuv420p"}},
}

# The kind of H.264 unit that a decoder can really begin at (ITU-T H.264, table 7-1).
_IDR_SLICE = 5


class _Request(NamedTuple):
    """What is wanted of one file."""

    path: Path
    numbers: list[int]  # of frames, ascending, without repeats
    short_side: int | None  # scale to this
    constant_fps: float | None  # if it is known, a timestamp tells its frame's number


# Reads frames of one file: one (H, W, 3) uint8 picture for each number.
Decoder = Callable[[_Request], list[np.ndarray]]


def scaled_size(height: int, width: int, *, short_side: int) -> tuple[int, int]:
    """(height, width) with the shorter one equal to `short_side` and the other in proportion."""
    if height <= width:
        return short_side, round(width * short_side / height)
    return round(height * short_side / width), short_side


def upright(picture: np.ndarray, rotation: int) -> np.ndarray:
    """Turn a picture as its container asks (`rotation` degrees counter-clockwise, in right angles)."""
    return np.ascontiguousarray(np.rot90(picture, rotation // 90))


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
        path: a local video file; its first video stream is read, its rotation applied.
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
    if len(pictures) < len(wanted):
        raise BadVideo(path, f"has no frame {wanted[len(pictures)]}")
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


def _rgb(frame: VideoFrame, short_side: int | None) -> np.ndarray:
    """A frame as it is shown, scaled on the way from YUV if it is to be."""
    if short_side is not None:
        height, width = scaled_size(frame.height, frame.width, short_side=short_side)
        frame = frame.reformat(width, height, format="rgb24", interpolation="BICUBIC", threads=1)
    return upright(frame.to_ndarray(format="rgb24", threads=1), frame.rotation)


def _scaled(picture: np.ndarray, short_side: int | None) -> np.ndarray:
    """A picture that another decoder gave, scaled as `_rgb` does."""
    if short_side is None:
        return picture
    return _rgb(VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24"), short_side)


def _decode_pyav(request: _Request) -> list[np.ndarray]:
    with open_video(request.path) as (container, stream):
        # The loader has a process a core; threads inside a decoder cost more CPU than they save.
        stream.thread_type = "NONE"
        try:
            if is_seekable(container, stream):
                pictures = _decode_after_seek(request, container, stream)
                if pictures is not None:
                    return pictures
                logger.warning("%s: seeking missed a frame; decoding from the start", request.path)
                container.seek(0)
            return _decode_from_start(request, container, stream)
        except av.FFmpegError as error:
            raise BadVideo(request.path, f"cannot be decoded ({short_reason(error)})") from error


class _Search(NamedTuple):
    """How to find frames by their timestamps."""

    seek_tick: int  # where to begin: at or before the first wanted frame
    number_of: Callable[[int], int | None]  # timestamp -> frame number


def _decode_after_seek(request: _Request, container: InputContainer, stream: VideoStream) -> list[np.ndarray] | None:
    """Decode from the last keyframe before the first wanted frame; None if that does not give all of them.

    Frames that nobody asked for and that no other frame refers to are passed over without being decoded, which
    leaves the others as they are to the last bit.
    """
    search = _search_by_rate(request, stream) or _search_by_packets(request, container, stream)
    container.seek(search.seek_tick, stream=stream)
    wanted = request.numbers
    asked_for = set(wanted)
    pictures: list[np.ndarray] = []
    context = stream.codec_context
    try:
        for packet in container.demux(stream):
            needed = packet.pts is None or search.number_of(packet.pts) in asked_for
            context.skip_frame = "DEFAULT" if needed else "NONREF"
            for frame in packet.decode():
                number = None if frame.pts is None else search.number_of(frame.pts)
                if number == wanted[len(pictures)]:
                    pictures.append(_rgb(frame, request.short_side))
                    if len(pictures) == len(wanted):
                        return pictures
                elif number is None or number > wanted[len(pictures)]:
                    return None
        return None
    finally:
        context.skip_frame = "DEFAULT"


def _search_by_rate(request: _Request, stream: VideoStream) -> _Search | None:
    """Where a constant rate is known, arithmetic tells which frame a timestamp is."""
    fps, time_base, start = request.constant_fps, stream.time_base, stream.start_time
    if fps is None or time_base is None or start is None:
        return None
    frames_per_tick = fps * float(time_base)
    # Containers seek by decoding times, which run ahead of the times of showing by the decoder's delay.
    earliest = request.numbers[0] - stream.codec_context.delay - 1
    seek_tick = start + floor(earliest / frames_per_tick)
    return _Search(seek_tick, lambda tick: round((tick - start) * frames_per_tick))


def _search_by_packets(request: _Request, container: InputContainer, stream: VideoStream) -> _Search:
    """Read the times of all packets first: right for any rate.

    Raises:
        BadVideo: the file has fewer frames than the last one that is wanted.

    """
    info = read_packets(container, stream, path=request.path)
    last = request.numbers[-1]
    if last >= len(info.timestamps):
        raise BadVideo(request.path, f"has {len(info.timestamps)} frames, so no frame {last}")
    before = [keyframe for keyframe in info.keyframes if keyframe.position <= request.numbers[0]]
    numbers = {tick: number for number, tick in enumerate(info.timestamps)}
    return _Search(before[-1].seek_tick if before else 0, numbers.get)


def _decode_from_start(request: _Request, container: InputContainer, stream: VideoStream) -> list[np.ndarray]:
    """Count frames as they are shown; fewer pictures than wanted if the video ends before."""
    pictures: list[np.ndarray] = []
    for number, frame in enumerate(container.decode(stream)):
        if number == request.numbers[len(pictures)]:
            pictures.append(_rgb(frame, request.short_side))
            if len(pictures) == len(request.numbers):
                break
    return pictures


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
        if pixels not in _EXACT_ON[decoder].get(codec, set()):
            return f"{codec} with {pixels}"
        if len(container.streams.video) > 1:
            return "several video streams"
        if codec == "h264" and is_seekable(container, stream):
            keyframes = (bytes(packet) for packet in container.demux(stream) if packet.is_keyframe and packet.size)
            if not all(_IDR_SLICE in _units_of(packet) for packet in keyframes):
                return "keyframes that refer to frames before them"
            container.seek(0)
        first = next(container.decode(stream), None)
        return "interlaced pictures" if first is not None and first.interlaced_frame else None


def _units_of(packet: bytes) -> set[int]:
    """The kinds of H.264 units in a packet of an mp4 file, where each unit follows its length in 4 bytes."""
    kinds, position = set(), 0
    while position + 4 < len(packet):
        kinds.add(packet[position + 4] & 31)
        position += 4 + int.from_bytes(packet[position : position + 4], "big")
    return kinds


def _decode_decord(request: _Request) -> list[np.ndarray]:
    import decord  # has no wheels for some machines, so not at the top

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


def play(path: Path | str) -> Iterator[tuple[float, VideoFrame]]:
    """Decode a whole video in order, one frame in memory at a time.

    Yields:
        The time of each frame in seconds from the first one's, and the frame, not yet converted.

    Raises:
        BadVideo: the file cannot be decoded to its end.

    """
    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        first: float | None = None
        try:
            for frame in container.decode(stream):
                if frame.time is None:
                    raise BadVideo(path, "has a frame without a time")
                first = frame.time if first is None else first
                yield frame.time - first, frame
        except av.FFmpegError as error:
            raise BadVideo(path, f"cannot be decoded ({short_reason(error)})") from error
    if first is None:
        raise BadVideo(path, "has no frame that decodes")
