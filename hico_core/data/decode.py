"""Single frames of a video file as pixels.

Frames are counted in the order in which they are shown, from 0. Whatever decoder is used, the same frames of
the same file have the same pixels.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import av
import numpy as np
import torch
from av import VideoFrame
from av.container import InputContainer
from av.video.stream import VideoStream
from torch import Tensor
from torchvision.transforms.v2.functional import resize

from hico_core.corpus.probe import is_seekable, open_video, read_packets, short_reason
from hico_core.errors import BadVideo, UsageError

logger = logging.getLogger(__name__)

DecoderName = Literal["auto", "pyav", "decord"]

# Reads frames of one file: (path, ascending frame numbers) -> one (H, W, 3) uint8 picture a number.
Decoder = Callable[[Path, Sequence[int]], list[np.ndarray]]

# Containers without presentation times, by which decord sorts.
_NO_TIMESTAMPS = {".avi"}


def scaled_size(height: int, width: int, *, short_side: int) -> tuple[int, int]:
    """(height, width) with the shorter one equal to `short_side` and the other in proportion."""
    if height <= width:
        return short_side, round(width * short_side / height)
    return round(height * short_side / width), short_side


def upright(picture: np.ndarray, rotation: int) -> np.ndarray:
    """Turn a picture as its container asks (`rotation` degrees counter-clockwise, in right angles)."""
    return np.ascontiguousarray(np.rot90(picture, rotation // 90))


def decode_frames(
    path: Path | str, indices: Sequence[int], *, decoder: DecoderName = "auto", short_side: int | None = None
) -> Tensor:
    """Decode the frames with the given numbers; they may repeat and come in any order.

    Args:
        path: a local video file; its first video stream is read, its rotation applied.
        indices: frame numbers in presentation order, from 0.
        decoder: "pyav", "decord" (if installed), or "auto", which is PyAV: exact on every file.
        short_side: scale the pictures so that the shorter side has this many pixels; None keeps the size.

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
    pictures = dict(zip(wanted, _DECODERS[decoder](Path(path), wanted), strict=True))
    frames_THWC = torch.from_numpy(np.stack([pictures[i] for i in indices]))
    if short_side is None:
        return frames_THWC
    size = scaled_size(frames_THWC.shape[1], frames_THWC.shape[2], short_side=short_side)
    scaled_TCHW: Tensor = resize(frames_THWC.permute(0, 3, 1, 2), list(size), antialias=True)
    return scaled_TCHW.permute(0, 2, 3, 1).contiguous()


def require_decoder(decoder: DecoderName) -> None:
    """Check that a decoder is there before work is handed out that needs it.

    Raises:
        UsageError: it is not installed.

    """
    if decoder == "decord" and find_spec("decord") is None:
        raise UsageError("data.decoder=decord: decord is not installed here; use pyav")


def _rgb(frame: VideoFrame) -> np.ndarray:
    return upright(frame.to_ndarray(format="rgb24", threads=1), frame.rotation)


def _decode_pyav(path: Path, wanted: Sequence[int]) -> list[np.ndarray]:
    with open_video(path) as (container, stream):
        # The loader has a process a core; threads inside a decoder cost more CPU than they save.
        stream.thread_type = "NONE"
        try:
            pictures = None
            if is_seekable(container, stream):
                pictures = _decode_after_seek(path, container, stream, wanted)
            if pictures is None:
                container.seek(0)
                pictures = _decode_from_start(container, stream, wanted)
        except av.FFmpegError as error:
            raise BadVideo(path, f"cannot be decoded ({short_reason(error)})") from error
    if len(pictures) < len(wanted):
        raise BadVideo(path, f"has no frame {wanted[len(pictures)]}")
    return pictures


def _decode_after_seek(
    path: Path, container: InputContainer, stream: VideoStream, wanted: Sequence[int]
) -> list[np.ndarray] | None:
    """Decode from the last keyframe before the first wanted frame; None if that does not give all of them.

    Frames that nobody asked for and that no other frame refers to are passed over without being decoded, which
    leaves the others as they are to the last bit.
    """
    info = read_packets(container, stream, path=path)
    if wanted[-1] >= len(info.timestamps):
        raise BadVideo(path, f"has {len(info.timestamps)} frames, so no frame {wanted[-1]}")
    before = [keyframe for keyframe in info.keyframes if keyframe.position <= wanted[0]]
    container.seek(before[-1].seek_tick if before else 0, stream=stream)
    remaining = [info.timestamps[i] for i in wanted]
    asked_for = set(remaining)
    pictures: list[np.ndarray] = []
    for packet in container.demux(stream):
        stream.codec_context.skip_frame = "DEFAULT" if packet.pts in asked_for else "NONREF"
        for frame in packet.decode():
            if frame.pts == remaining[len(pictures)]:
                pictures.append(_rgb(frame))
                if len(pictures) == len(wanted):
                    return pictures
    stream.codec_context.skip_frame = "DEFAULT"
    logger.warning("%s: seeking missed a frame; decoding from the start", path)
    return None


def _decode_from_start(container: InputContainer, stream: VideoStream, wanted: Sequence[int]) -> list[np.ndarray]:
    """Count frames as they are shown; fewer pictures than wanted if the video ends before."""
    pictures: list[np.ndarray] = []
    for number, frame in enumerate(container.decode(stream)):
        if number == wanted[len(pictures)]:
            pictures.append(_rgb(frame))
            if len(pictures) == len(wanted):
                break
    return pictures


def _decode_decord(path: Path, wanted: Sequence[int]) -> list[np.ndarray]:
    import decord  # has no wheels for some machines, so not at the top

    if path.suffix.lower() in _NO_TIMESTAMPS:
        raise BadVideo(path, "decord puts the frames of AVI files in a wrong order; use data.decoder=pyav")
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if wanted[-1] >= len(reader):
            raise BadVideo(path, f"has {len(reader)} frames, so no frame {wanted[-1]}")
        return list(reader.get_batch(list(wanted)).asnumpy())
    except (decord.DECORDError, RuntimeError) as error:
        raise BadVideo(path, f"cannot be decoded by decord ({short_reason(error)})") from error


_DECODERS: dict[DecoderName, Decoder] = {"auto": _decode_pyav, "pyav": _decode_pyav, "decord": _decode_decord}


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
