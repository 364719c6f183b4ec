"""The augmentation of pretraining: first draw what happens to a clip, then do it to all its frames alike.

Shape letters: T frames, C = 3 channels, H height, W width. Pictures are float in [0, 1], shape (T, C, H, W).
"""

import math
import random
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2.functional import adjust_hue, gaussian_blur

from hico_core.config import AugmentConfig

# The frame that the authors' crop areas refer to, whatever the real size is.
_REFERENCE_HEIGHT, _REFERENCE_WIDTH = 256, 340

_CROP_TRIES = 10
_BLUR_KERNEL = 11  # pixels; a tenth of 112, as in SimCLR
_BLUR_SIGMA = (0.1, 2.0)

# ITU-R BT.601 luma
_GREY_WEIGHTS = (0.299, 0.587, 0.114)


class Crop(NamedTuple):
    """A square part of a frame, in pixels."""

    top: int
    left: int
    side: int


class ColourDraw(NamedTuple):
    """What happens to a clip's colours, in order."""

    operations: list[tuple[str, float]]  # name of an operation and its factor
    blur_sigma: float | None  # None: not blurred
    grey: bool


class AugmentDraw(NamedTuple):
    """Everything random about one clip."""

    crop: Crop
    colour: ColourDraw
    flip: bool


def crop_area_range(jitter: tuple[int, int]) -> tuple[float, float]:
    """Smallest and largest part of the frame's area that a crop may have, from the authors' two side lengths."""
    low, high = (side * side / (_REFERENCE_HEIGHT * _REFERENCE_WIDTH) for side in jitter)
    return low, high


def draw_crop(height: int, width: int, *, area: tuple[float, float], rng: random.Random) -> Crop:
    """A square of a random part of the frame's area at a random place.

    On very wide frames a square of that area may not fit; after 10 draws the largest central square is taken.
    """
    for _ in range(_CROP_TRIES):
        side = round(math.sqrt(height * width * rng.uniform(*area)))
        if 0 < side <= min(height, width):
            return Crop(rng.randint(0, height - side), rng.randint(0, width - side), side)
    side = min(height, width)
    return Crop((height - side) // 2, (width - side) // 2, side)


def draw_colour(settings: AugmentConfig, *, rng: random.Random) -> ColourDraw:
    """The colour stage, in the authors' order of draws: jitter or not, factors, their order, blur, grey."""
    operations: list[tuple[str, float]] = []
    if rng.random() < settings.colour_probability:
        operations = [
            ("brightness", rng.uniform(max(0.0, 1 - settings.brightness), 1 + settings.brightness)),
            ("contrast", rng.uniform(max(0.0, 1 - settings.contrast), 1 + settings.contrast)),
            ("saturation", rng.uniform(max(0.0, 1 - settings.saturation), 1 + settings.saturation)),
            ("hue", rng.uniform(-settings.hue, settings.hue)),
        ]
        rng.shuffle(operations)
    blurred = rng.random() < settings.blur_probability
    grey = rng.random() < settings.grey_probability
    # The authors' kernel is one pixel wide, so their blur changes nothing.
    really = blurred and settings.blur == "gaussian"
    return ColourDraw(operations, rng.uniform(*_BLUR_SIGMA) if really else None, grey)


def draw_augmentation(height: int, width: int, settings: AugmentConfig, *, rng: random.Random) -> AugmentDraw:
    """Draw what happens to a clip with frames of this size."""
    crop = draw_crop(height, width, area=crop_area_range(settings.crop_jitter), rng=rng)
    colour = draw_colour(settings, rng=rng)
    return AugmentDraw(crop, colour, flip=rng.random() < settings.flip_probability)


def resized_crop(frames_THWC: Tensor, crop: Crop, *, size: int) -> Tensor:
    """Cut first, then convert and scale: (T, H, W, C) uint8 -> (T, C, size, size) float in [0, 1]."""
    part = frames_THWC[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    part_TCHW = part.permute(0, 3, 1, 2).float() / 255
    return F.interpolate(part_TCHW, (size, size), mode="bilinear", align_corners=False)


def to_grey(pictures: Tensor) -> Tensor:
    """Luma in all three channels."""
    weights = torch.tensor(_GREY_WEIGHTS, dtype=pictures.dtype).view(3, 1, 1)
    return (pictures * weights).sum(dim=-3, keepdim=True).expand_as(pictures)


def _blend(pictures: Tensor, other: Tensor, factor: float) -> Tensor:
    """factor 1: the pictures, 0: the other, above 1: away from the other."""
    return (factor * pictures + (1 - factor) * other).clamp(0, 1)


def _adjust_brightness(pictures: Tensor, factor: float) -> Tensor:
    return _blend(pictures, torch.zeros_like(pictures), factor)


def _adjust_contrast(pictures: Tensor, factor: float) -> Tensor:
    """Against each frame's own mean grey."""
    return _blend(pictures, to_grey(pictures).mean(dim=(-3, -2, -1), keepdim=True), factor)


def _adjust_saturation(pictures: Tensor, factor: float) -> Tensor:
    return _blend(pictures, to_grey(pictures), factor)


def _adjust_hue(pictures: Tensor, turns: float) -> Tensor:
    return adjust_hue(pictures, turns)


OPERATIONS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "brightness": _adjust_brightness,
    "contrast": _adjust_contrast,
    "saturation": _adjust_saturation,
    "hue": _adjust_hue,
}


def apply_colour(pictures: Tensor, draw: ColourDraw) -> Tensor:
    """The colour stage of a clip."""
    for name, factor in draw.operations:
        pictures = OPERATIONS[name](pictures, factor)
    if draw.blur_sigma is not None:
        pictures = gaussian_blur(pictures, [_BLUR_KERNEL, _BLUR_KERNEL], [draw.blur_sigma, draw.blur_sigma])
    return to_grey(pictures) if draw.grey else pictures


def apply_augmentation(frames_THWC: Tensor, draw: AugmentDraw, *, size: int, mean: float, std: float) -> Tensor:
    """(T, H, W, 3) uint8 -> (3, T, size, size) float32, normalised."""
    pictures = apply_colour(resized_crop(frames_THWC, draw.crop, size=size), draw.colour)
    pictures = (pictures - mean) / std
    if draw.flip:
        pictures = pictures.flip(-1)
    return pictures.transpose(0, 1).contiguous()
