"""Augmentation for training: first draw the parameters for a clip, then apply them identically to all its frames.

This happens in two places. The loader's workers cut the crop from the decoded frames and keep it uint8, so that they
send little data. On the model's device, all clips of a step are scaled, colour-jittered, normalised and flipped
together. The arithmetic equals the authors' in float32, up to rounding (tests/golden).
"""

# N clips, T frames, C = 3 channels, H height, W width, S side of the model's input. Pictures are float in [0, 1].

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hico_core.base.choices import NumCrops
from hico_core.config import AugmentConfig, Channels

# The frame size to which the authors' crop areas refer, whatever the real size.
_REFERENCE_HEIGHT, _REFERENCE_WIDTH = 256, 340

_CROP_TRIES = 10
_BLUR_KERNEL = 11  # pixels; a tenth of 112, as in SimCLR
_BLUR_SIGMA = (0.1, 2.0)

# ITU-R BT.601 luma
_GREY_WEIGHTS = (0.299, 0.587, 0.114)


class Crop(NamedTuple):
    """A part of a frame, in pixels."""

    top: int
    left: int
    height: int
    width: int


class ColourDraw(NamedTuple):
    """The colour augmentation drawn for a clip, in order."""

    operations: list[tuple[str, float]]  # name of an operation and its factor
    blur_sigma: float | None  # None: not blurred
    grey: bool
    grey_first: bool = False  # before the operations, not after them


class AugmentDraw(NamedTuple):
    """All random augmentation parameters of one clip."""

    crop: Crop
    colour: ColourDraw
    flip: bool


def crop_area_range(jitter: tuple[int, int]) -> tuple[float, float]:
    """Smallest and largest crop area as fractions of the frame's, from the authors' two side lengths."""
    low, high = (side * side / (_REFERENCE_HEIGHT * _REFERENCE_WIDTH) for side in jitter)
    return low, high


def draw_crop(
    height: int,
    width: int,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float] = (1.0, 1.0),
    rng: random.Random,
) -> Crop:
    """Draw a crop with a random area, a random ratio of width to height, and a random position.

    On very wide frames such a crop may not fit; after 10 attempts, the largest central square is used.
    """
    for _ in range(_CROP_TRIES):
        # The order of draws is the authors': area, ratio, top, left. A fixed ratio is not drawn.
        pixels = height * width * rng.uniform(*area)
        shape = 1.0 if ratio == (1.0, 1.0) else math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        tall, wide = round(math.sqrt(pixels / shape)), round(math.sqrt(pixels * shape))
        if 0 < tall <= height and 0 < wide <= width:
            return Crop(rng.randint(0, height - tall), rng.randint(0, width - wide), tall, wide)
    side = min(height, width)
    return Crop((height - side) // 2, (width - side) // 2, side, side)


def central_crops(height: int, width: int, *, part: float, count: NumCrops) -> list[Crop]:
    """The crops for testing: squares whose side is a fraction of the frame's shorter side.

    A single crop lies in the centre. Three lie at the beginning, the middle and the end of the longer side:

        +-------------+
        | [ ] [ ] [ ] |
        +-------------+
    """
    side = int(min(height, width) * part)
    top, left = (height - side) // 2, (width - side) // 2
    if count == 1:
        return [Crop(top, left, side, side)]
    if width >= height:
        return [Crop(top, at, side, side) for at in (0, left, width - side)]
    return [Crop(at, left, side, side) for at in (0, top, height - side)]


def draw_colour(settings: AugmentConfig, *, rng: random.Random) -> ColourDraw:
    """Draw the colour stage, in the authors' order: jitter or not, factors, their order, blur, grey."""
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
    return ColourDraw(operations, rng.uniform(*_BLUR_SIGMA) if really else None, grey, settings.grey_first)


def draw_augmentation(height: int, width: int, settings: AugmentConfig, *, rng: random.Random) -> AugmentDraw:
    """Draw the augmentation of a clip with frames of this size."""
    area = crop_area_range(settings.crop_jitter)
    crop = draw_crop(height, width, area=area, ratio=settings.crop_ratio, rng=rng)
    colour = draw_colour(settings, rng=rng)
    return AugmentDraw(crop, colour, flip=rng.random() < settings.flip_probability)


def cut(frames_THWC: Tensor, crop: Crop) -> Tensor:
    """Crop frames: (T, H, W, C) -> (T, crop.height, crop.width, C), a view."""
    return frames_THWC[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def scale(crop_THWC: Tensor, *, size: int) -> Tensor:
    """(T, H, W, C) uint8 -> (T, C, S, S) float in [0, 1]: bilinear without antialiasing, as in the authors' code."""
    pictures_TCHW = crop_THWC.permute(0, 3, 1, 2).float().mul_(1 / 255)
    return F.interpolate(pictures_TCHW, (size, size), mode="bilinear", align_corners=False)


# The operations change pictures (..., C, H, W) in place. Their factor is a number or a tensor (..., 1, 1, 1).
Factor = float | Tensor


def to_grey(pictures: Tensor) -> Tensor:
    """Luma, in one channel: (..., 1, H, W)."""
    red, green, blue = (weight * plane for weight, plane in zip(_GREY_WEIGHTS, pictures.unbind(-3), strict=True))
    return (red + green + blue).unsqueeze(-3)


def _blend(pictures: Tensor, other: Tensor, factor: Factor) -> Tensor:
    """Blend in place: factor 1 gives the pictures, 0 gives `other`, above 1 moves away from `other`."""
    return pictures.mul_(factor).add_(other * (1 - factor)).clamp_(0, 1)


def _adjust_hue(pictures: Tensor, turns: Factor) -> Tensor:
    """Rotate the hue in HSV space without converting to HSV.

    With V the largest of r, g, b, c = V minus the smallest, and h in [0, 6) the hue in sixths of a turn, the colour of
    hue h is V - c + c * (clamp(|h - 3| - 1), clamp(2 - |h - 2|), clamp(2 - |h - 4|)), clamped to [0, 1]. So only h is
    needed, not the saturation, and grey (c = 0) needs no care beyond the division.
    """
    if isinstance(turns, Tensor):
        turns = turns.squeeze(-3)  # to match planes (..., H, W)
    red, green, blue = pictures.unbind(-3)
    largest = torch.maximum(torch.maximum(red, green), blue)
    smallest = torch.minimum(torch.minimum(red, green), blue)
    chroma = largest - smallest
    of_green = (blue - red).add_(chroma, alpha=2)
    of_blue = (red - green).add_(chroma, alpha=4)
    hue = torch.where(largest == red, green - blue, torch.where(largest == green, of_green, of_blue))
    hue.div_(chroma.clamp(min=1e-20)).add_(turns * 6)  # for grey, 0 / 1e-20: any hue will do
    hue.sub_((hue / 6).floor_(), alpha=6)  # back to [0, 6)
    for plane, centre, sign, offset in ((red, 3, 1, -1), (green, 2, -1, 2), (blue, 4, -1, 2)):
        strength = (hue - centre).abs_().mul_(sign).add_(offset).clamp_(0, 1)
        torch.addcmul(smallest, strength, chroma, out=plane)
    return pictures


OPERATIONS: dict[str, Callable[[Tensor, Factor], Tensor]] = {
    "brightness": lambda pictures, factor: pictures.mul_(factor).clamp_(0, 1),
    # Against each frame's own mean grey.
    "contrast": lambda pictures, factor: _blend(pictures, to_grey(pictures).mean(dim=(-2, -1), keepdim=True), factor),
    "saturation": lambda pictures, factor: _blend(pictures, to_grey(pictures), factor),
    "hue": _adjust_hue,
    "grey": lambda pictures, _: pictures.copy_(to_grey(pictures)),
    "flip": lambda pictures, _: pictures.copy_(pictures.flip(-1)),
}

# Name of an operation and its factor, which grey and flip ignore.
Step = tuple[str, float]
_WHOLLY = 1.0


def _apply(clips_NTCHW: Tensor, steps: Sequence[dict[int, Step]]) -> None:
    """Change clips in place, step by step.

    Args:
        clips_NTCHW: the clips.
        steps: for each step, clip number -> operation; clips not listed stay unchanged.

    """
    if len(clips_NTCHW) == 1:
        for name, factor in (step[0] for step in steps if step):
            OPERATIONS[name](clips_NTCHW[0], factor)
        return
    # Clips with the same operation in a step are changed together, by index_select: a boolean mask would have to be
    # counted first.
    groups = [
        (name, {n: factor for n, (drawn, factor) in step.items() if drawn == name})
        for step in steps
        for name in OPERATIONS
    ]
    groups = [(name, factors) for name, factors in groups if factors]
    if not groups:
        return
    # The numbers of all groups go to the device in one copy: (clip, factor) per row, in float32, exact for the clips.
    table = _on_device(
        torch.tensor([(float(n), factor) for _, factors in groups for n, factor in factors.items()]),
        clips_NTCHW.device,
    )
    sizes = [len(factors) for _, factors in groups]
    rows = zip(table[:, 0].long().split(sizes), table[:, 1].view(-1, 1, 1, 1, 1).split(sizes), strict=True)
    for (name, _), (where, factor) in zip(groups, rows, strict=True):
        chosen = clips_NTCHW.index_select(0, where)
        clips_NTCHW.index_copy_(0, where, OPERATIONS[name](chosen, factor))


def _on_device(numbers: Tensor, device: torch.device) -> Tensor:
    """Copy to a device without blocking; for a GPU, from pinned memory."""
    pinned = device.type == "cuda" and torch.cuda.is_available()  # False if a test only pretends to have a GPU
    return (numbers.pin_memory() if pinned else numbers).to(device, non_blocking=True)


def apply_colour(clips_NTCHW: Tensor, draws: Sequence[ColourDraw]) -> Tensor:
    """Apply the colour stage to clips (N, T, C, H, W), in place."""

    def greys(*, first: bool) -> dict[int, Step]:
        return {n: ("grey", _WHOLLY) for n, draw in enumerate(draws) if draw.grey and draw.grey_first == first}

    most = max((len(draw.operations) for draw in draws), default=0)
    jitter = [
        {n: draw.operations[place] for n, draw in enumerate(draws) if place < len(draw.operations)}
        for place in range(most)
    ]
    before, after = [greys(first=True), *jitter], [greys(first=False)]
    blurred = {n: draw.blur_sigma for n, draw in enumerate(draws) if draw.blur_sigma is not None}
    if not blurred:
        _apply(clips_NTCHW, before + after)  # in one call, so that all factors reach the device in one copy
        return clips_NTCHW
    _apply(clips_NTCHW, before)
    for n, sigma in blurred.items():
        clips_NTCHW[n] = _blurred(clips_NTCHW[n], sigma)
    _apply(clips_NTCHW, after)
    return clips_NTCHW


def _blurred(clip_TCHW: Tensor, sigma: float) -> Tensor:
    """A clip blurred by a Gaussian, in the same shape."""
    # Imported here because this import takes longer than all of hico, in each process that loads this module.
    from torchvision.transforms.v2.functional import gaussian_blur

    blurred: Tensor = gaussian_blur(clip_TCHW, [_BLUR_KERNEL, _BLUR_KERNEL], [sigma, sigma])
    return blurred


def normalise_(clips: Tensor, mean: Channels, std: Channels) -> Tensor:
    """Subtract each channel's mean from (..., 3, H, W) and divide by its standard deviation, in place."""
    mean_C11, std_C11 = (clips.new_tensor(value)[:, None, None] for value in (mean, std))
    return clips.sub_(mean_C11).div_(std_C11)


def apply_augmentation(
    crops: Sequence[Tensor], draws: Sequence[AugmentDraw], *, size: int, mean: Channels, std: Channels
) -> Tensor:
    """Make the model's input: N crops (T, H, W, C) uint8 -> (N, C, T, S, S) float32, normalised.

    Args:
        crops: one per clip.
        draws: the augmentation of each clip.
        size: side of the result, in pixels.
        mean: subtracted from red, green and blue.
        std: standard deviations by which red, green and blue are divided.

    """
    num_clips, num_frames = len(crops), len(crops[0])
    result_NCTHW = crops[0].new_empty((num_clips, 3, num_frames, size, size), dtype=torch.float32)
    # A GPU processes all clips at once, because launch overhead dominates there; a CPU processes one at a time, so that
    # the data fits into its cache.
    together = num_clips if crops[0].is_cuda else 1
    for first in range(0, num_clips, together):
        some = draws[first : first + together]
        scaled_NTCHW = torch.stack([scale(crop_THWC, size=size) for crop_THWC in crops[first : first + together]])
        clips_NTCHW = apply_colour(scaled_NTCHW, [draw.colour for draw in some])
        normalise_(clips_NTCHW, mean, std)
        _apply(clips_NTCHW, [{n: ("flip", _WHOLLY) for n, draw in enumerate(some) if draw.flip}])
        result_NCTHW[first : first + together] = clips_NTCHW.transpose(1, 2)
    return result_NCTHW
