"""The deterministic path from a frame to an encoder's input: scaling, cropping and normalisation."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from av import VideoFrame
from torch import Tensor

from hico_core.base.choices import NumCrops
from hico_core.config import AugmentConfig, Channels, DataConfig, one_or_three
from hico_core.corpus.clips.picture import rgb
from hico_core.data.augment import central_crops, cut, normalise_, scale
from hico_core.data.reading import read_clip
from hico_core.data.videos import IndexedVideos

# An encoder trained on crops of 112 pixels gets the central 112 of 128, as is usual since AlexNet.
_CROP_PART = 0.875


class Resize(NamedTuple):
    """How a frame is scaled, up or down, for a public network before the central crop."""

    height: int
    width: int | None = None  # None: `height` is the length of the shorter side, and the aspect ratio is kept
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    antialias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """How a frame becomes an encoder's input."""

    short_side: int | None  # larger frames are scaled down to this
    crop_part: float  # side of the square crop, as a fraction of the shorter side
    num_crops: NumCrops  # the central crop, or three along the longer side
    size: int  # side of the result, in pixels
    mean: Channels  # of red, green and blue, from 0 to 1
    std: Channels
    resize: Resize | None = None  # replaces the first three: scale the whole frame, then crop `size` centrally

    @property
    def fields(self) -> dict[str, Any]:
        """The fields as manifests record them: plain JSON values, and `resize` only if it is set."""
        plain = asdict(self) | {"mean": _plain(self.mean), "std": _plain(self.std)}
        del plain["resize"]
        return plain if self.resize is None else plain | {"resize": self.resize._asdict()}


def _plain(channels: Channels) -> float | list[float]:
    value = one_or_three(channels)
    return list(value) if isinstance(value, tuple) else value


class ClipShape(NamedTuple):
    """The number and rate of the frames that an encoder gets at once."""

    num_frames: int
    fps: float  # sampled frames per second of video


def clip_shape_for(data: DataConfig) -> ClipShape:
    """The clips of a training run with these settings: every `frame_stride`-th frame of a video at `target_fps`."""
    return ClipShape(data.num_frames, data.target_fps / data.frame_stride)


def picture_for(data: DataConfig, augment: AugmentConfig) -> Picture:
    """The central crop of a frame, for an encoder trained with these settings."""
    return Picture(
        short_side=round(data.crop_size / _CROP_PART),
        crop_part=_CROP_PART,
        num_crops=1,
        size=data.crop_size,
        mean=augment.channel_means,
        std=augment.channel_stds,
    )


def public_picture(resize: Resize, *, size: int, mean: Channels, std: Channels) -> Picture:
    """The input of a public network: the central square of a frame that was scaled as a whole."""
    return Picture(short_side=None, crop_part=1.0, num_crops=1, size=size, mean=mean, std=std, resize=resize)


def _resized_middle(whole_HWC: np.ndarray, resize: Resize, size: int) -> np.ndarray:
    """(H, W, 3) -> (size, size, 3) uint8, by torchvision, so that its networks get what its transforms would give."""
    from torchvision.transforms import InterpolationMode, functional  # slow to load, and seldom needed

    # Contiguous, because kernels for other layouts round differently.
    frame_CHW = torch.from_numpy(whole_HWC).permute(2, 0, 1).contiguous()
    sides = [resize.height] if resize.width is None else [resize.height, resize.width]
    mode = InterpolationMode(resize.interpolation)
    scaled_CHW = functional.resize(frame_CHW, sides, mode, antialias=resize.antialias)
    middle_CHW: Tensor = functional.center_crop(scaled_CHW, [size, size])
    return np.ascontiguousarray(middle_CHW.permute(1, 2, 0).numpy())


def crops_of(frame: VideoFrame, picture: Picture) -> list[np.ndarray]:
    """The crops of a frame, turned upright: (side, side, 3) uint8 each."""
    if picture.resize is not None:
        return [_resized_middle(rgb(frame, None), picture.resize, picture.size)]
    side = picture.short_side
    smaller = side is not None and min(frame.height, frame.width) > side  # scaling up would add nothing
    whole = rgb(frame, side if smaller else None)
    found = central_crops(*whole.shape[:2], part=picture.crop_part, count=picture.num_crops)
    return [whole[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width] for crop in found]


def clip_around(videos: IndexedVideos, video: int, seconds: float, *, data: DataConfig, picture: Picture) -> Tensor:
    """The central crop of a clip around a moment of a video, as long as in training: (T, side, side, 3) uint8.

    Args:
        videos: the videos of an index.
        video: position of the video among them.
        seconds: the moment.
        data: length of a clip, and how it is read.
        picture: how frames become an encoder's input.

    Raises:
        BadVideo: a file cannot be fetched or decoded.

    """
    half = data.span_seconds / 2
    window = (seconds - half, seconds + half)
    frames_THWC = read_clip(
        videos.pieces(video, window),
        window,
        num_frames=data.num_frames,
        decoder=data.decoder,
        short_side=picture.short_side,
    )
    return middle_of(frames_THWC, picture)


def middle_of(frames_THWC: Tensor, picture: Picture) -> Tensor:
    """The central crop of frames in memory, like `crops_of` for decoded frames: (T, side, side, 3) uint8."""
    if picture.resize is not None:
        middles = [_resized_middle(frame_HWC.numpy(), picture.resize, picture.size) for frame_HWC in frames_THWC]
        return torch.from_numpy(np.stack(middles))
    side = picture.short_side
    if side is not None and min(frames_THWC.shape[1:3]) > side:
        from torchvision.transforms import functional  # slow to load, and most frames were scaled during decoding

        scaled_TCHW = functional.resize(frames_THWC.permute(0, 3, 1, 2), [side], antialias=True)
        frames_THWC = scaled_TCHW.permute(0, 2, 3, 1)
    (crop,) = central_crops(*frames_THWC.shape[1:3], part=picture.crop_part, count=1)
    return cut(frames_THWC, crop)


def normalised(clips: Tensor, picture: Picture) -> Tensor:
    """(N, T, side, side, 3) uint8 -> (N, 3, T, S, S) float32, on the device of the clips."""
    scaled_NTCHW = torch.stack([scale(clip_THWC, size=picture.size) for clip_THWC in clips])
    return normalise_(scaled_NTCHW, picture.mean, picture.std).transpose(1, 2)


def normalised_frame(crop: np.ndarray, picture: Picture) -> np.ndarray:
    """The same as `normalised`, bit for bit, for a single frame: (side, side, 3) uint8 -> (S, S, 3) float32."""
    frame_CHW = normalised(torch.from_numpy(crop)[None, None], picture)[0, :, 0]
    # Channels last, like the uint8 crops, so that windows are assembled in the same way from both.
    return np.ascontiguousarray(frame_CHW.permute(1, 2, 0).numpy())
