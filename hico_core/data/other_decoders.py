"""Decoders other than PyAV, for comparison: used only on files from which they decode exactly the same frames."""

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av import VideoFrame

from hico_core.base.choices import DecoderName
from hico_core.base.errors import BadVideo, UsageError, counted, short_reason
from hico_core.corpus.clips.ffmpeg import INPUT_OPTIONS
from hico_core.corpus.clips.picture import PLAIN_TURNS, margins_of, require_known_turn, rgb, turn_of
from hico_core.corpus.clips.probe import is_seekable, open_video, units_of

OtherDecoder = Literal["decord", "torchcodec"]

# Codecs and pixel formats for which they gave exactly PyAV's frames in our tests. From other files they silently give
# wrong frames or other colours.
_H264_PIXELS = {"yuv420p", "yuvj420p", "yuv444p"}
_EXACT_ON = {
    "decord": {"h264": _H264_PIXELS, "vp8": {"yuv420p"}},
    "torchcodec": {"h264": _H264_PIXELS, "hevc": {"yuv420p"}, "vp8": {"yuv420p"}},
}

# The kind of H.264 unit at which a decoder can really begin (ITU-T H.264, table 7-1).
_IDR_SLICE = 5


def require_decoder(decoder: DecoderName) -> None:
    """Check that a decoder is usable before any work that needs it begins.

    Raises:
        UsageError: it is not installed, or does not find its libraries.

    """
    if decoder in {"auto", "pyav"}:
        return
    if find_spec(decoder) is None:
        raise UsageError(f"data.decoder={decoder}: {decoder} is not installed here; use pyav")
    try:
        import_module(decoder)
    except (ImportError, OSError, RuntimeError) as error:  # torchcodec searches for ffmpeg's libraries
        raise UsageError(
            f"data.decoder={decoder}: {decoder} cannot be loaded ({short_reason(error)}); use pyav"
        ) from error


def decode_elsewhere(
    path: Path, numbers: Sequence[int], *, decoder: OtherDecoder, short_side: int | None
) -> list[np.ndarray]:
    """Decode frames with another decoder: (H, W, 3) uint8 each.

    Args:
        path: a local video file.
        numbers: frame numbers in presentation order, ascending, without repeats.
        decoder: an installed decoder.
        short_side: scale the pictures so that the shorter side has this many pixels; None keeps the size.

    Raises:
        BadVideo: the file cannot be decoded, has no such frame, or is of a kind that this decoder decodes differently.

    """
    obstacle = _obstacle(decoder, path)
    if obstacle:
        raise BadVideo(path, f"{decoder} gives wrong frames for {obstacle}; use data.decoder=pyav")
    pictures_NHWC = _READERS[decoder](path, list(numbers))
    return [_scaled(picture_HWC, short_side) for picture_HWC in pictures_NHWC]


def _obstacle(decoder: OtherDecoder, path: Path) -> str | None:
    if path.is_dir():
        return "folders of pictures, which it does not read"
    with open_video(path) as (container, stream):
        codec, pixels = stream.codec_context.name, stream.codec_context.pix_fmt
        if "avi" in container.format.name.split(","):
            return "AVI files, which have no frame times"
        if container.format.name == "mpegts":
            return "MPEG-TS files, whose colour format may change"
        if pixels not in _EXACT_ON[decoder].get(codec, set()):
            return f"{codec} with {pixels}"
        if len(container.streams.video) > 1:
            return "several video streams"
        if margins_of(container, stream):
            return "frames that the container crops"
        if codec == "h264" and is_seekable(container, stream):
            keyframes = (bytes(packet) for packet in container.demux(stream) if packet.is_keyframe and packet.size)
            if not all(_IDR_SLICE in {unit[0] & 31 for unit in units_of(packet)} for packet in keyframes):
                return "keyframes that refer to earlier frames"
            container.seek(0)
        first = next(container.decode(stream), None)
        if first is not None:
            require_known_turn(first, path=path)
        if first is not None and turn_of(first) not in PLAIN_TURNS:
            return "mirrored frames"
        if first is not None and (first.width, first.height) != _size_aligned(path):
            return "frames that the encoder cropped at the left"
        return "interlaced frames" if first is not None and first.interlaced_frame else None


def _size_aligned(path: Path) -> tuple[int, int]:
    """(width, height) of the first frame if the decoder may keep pixels that should be cropped; see `open_video`."""
    with av.open(str(path), options=INPUT_OPTIONS) as container:
        first = next(container.decode(video=0))
        return first.width, first.height


def _scaled(picture_HWC: np.ndarray, short_side: int | None) -> np.ndarray:
    """A picture scaled in the same way as by `rgb`."""
    if short_side is None:
        return picture_HWC
    return rgb(VideoFrame.from_ndarray(np.ascontiguousarray(picture_HWC), format="rgb24"), short_side)


def _read_decord(path: Path, numbers: list[int]) -> np.ndarray:
    import decord  # has no wheels for some machines, so not at the top

    decord.logging.set_level(decord.logging.QUIET)  # hides ffmpeg's messages; real errors are raised
    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        if numbers[-1] >= len(reader):
            raise BadVideo(path, f"has {counted(len(reader), 'frame')}, so no frame {numbers[-1]}")
        pictures_NHWC: np.ndarray = reader.get_batch(numbers).asnumpy()
    except (decord.DECORDError, RuntimeError) as error:
        raise BadVideo(path, f"cannot be decoded by decord ({short_reason(error)})") from error
    return pictures_NHWC


def _read_torchcodec(path: Path, numbers: list[int]) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder  # needs the libraries of an ffmpeg, so not at the top

    try:
        decoder = VideoDecoder(str(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")
        if numbers[-1] >= len(decoder):
            raise BadVideo(path, f"has {counted(len(decoder), 'frame')}, so no frame {numbers[-1]}")
        pictures_NHWC: np.ndarray = decoder.get_frames_at(indices=numbers).data.numpy()
    except (RuntimeError, ValueError, IndexError) as error:
        raise BadVideo(path, f"cannot be decoded by torchcodec ({short_reason(error)})") from error
    return pictures_NHWC


# (path, numbers) -> (N, H, W, 3) uint8, one picture per number.
_READERS: dict[OtherDecoder, Callable[[Path, list[int]], np.ndarray]] = {
    "decord": _read_decord,
    "torchcodec": _read_torchcodec,
}
