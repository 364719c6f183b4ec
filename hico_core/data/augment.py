"""The augmentation of training: first draw what happens to a clip, then do it to all its frames alike.

It happens in two places. Where a clip is read, its crop is cut from the decoded frames and stays uint8, so little
leaves the loader's workers. Where the model is, on its device, all clips of a step are scaled, coloured, normalised
and flipped together. The arithmetic is the authors' in float32, to rounding (tests/golden).

Shape letters: N clips, T frames, C = 3 channels, H height, W width. Pictures are float in [0, 1].
"""

import math
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hico_core.choices import NumCrops
from hico_core.config import AugmentConfig

# The frame that the authors' crop areas refer to, whatever the real size is.
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
    """What happens to a clip's colours, in order."""

    operations: list[tuple[str, float]]  # name of an operation and its factor
    blur_sigma: float | None  # None: not blurred
    grey: bool
    grey_first: bool = False  # before the operations, not after them


class AugmentDraw(NamedTuple):
    """Everything random about one clip."""

    crop: Crop
    colour: ColourDraw
    flip: bool


def crop_area_range(jitter: tuple[int, int]) -> tuple[float, float]:
    """Smallest and largest part of the frame's area that a crop may have, from the authors' two side lengths."""
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
    """A random part of the frame's area, of a random ratio of width to height, at a random place.

    On very wide frames such a part may not fit; after 10 draws the largest central square is taken.
    """
    for _ in range(_CROP_TRIES):
        pixels = height * width * rng.uniform(*area)
        shape = 1.0 if ratio == (1.0, 1.0) else math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        tall, wide = round(math.sqrt(pixels / shape)), round(math.sqrt(pixels * shape))
        if 0 < tall <= height and 0 < wide <= width:
            return Crop(rng.randint(0, height - tall), rng.randint(0, width - wide), tall, wide)
    side = min(height, width)
    return Crop((height - side) // 2, (width - side) // 2, side, side)


def central_crops(height: int, width: int, *, part: float, count: NumCrops) -> list[Crop]:
    """What is looked at in testing: squares whose side is a part of the shorter side of the frame.

    One lies in the middle. Three lie at the beginning, the middle and the end of the longer side:

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
    return ColourDraw(operations, rng.uniform(*_BLUR_SIGMA) if really else None, grey, settings.grey_first)


def draw_augmentation(height: int, width: int, settings: AugmentConfig, *, rng: random.Random) -> AugmentDraw:
    """Draw what happens to a clip with frames of this size."""
    area = crop_area_range(settings.crop_jitter)
    crop = draw_crop(height, width, area=area, ratio=settings.crop_ratio, rng=rng)
    colour = draw_colour(settings, rng=rng)
    return AugmentDraw(crop, colour, flip=rng.random() < settings.flip_probability)


def cut(frames_THWC: Tensor, crop: Crop) -> Tensor:
    """The part of the frames that is used: (T, H, W, C) -> (T, crop.height, crop.width, C), a view."""
    return frames_THWC[:, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]


def scale(crop_THWC: Tensor, *, size: int) -> Tensor:
    """(T, H, W, C) uint8 -> (T, C, size, size) float in [0, 1]: bilinear, without antialiasing."""
    pictures = crop_THWC.permute(0, 3, 1, 2).float().mul_(1 / 255)
    return F.interpolate(pictures, (size, size), mode="bilinear", align_corners=False)


# The operations take pictures (..., C, H, W), and a factor that is a number or a tensor (..., 1, 1, 1). They may write
# over the pictures.


def to_grey(pictures: Tensor) -> Tensor:
    """Luma, in one channel: (..., 1, H, W)."""
    red, green, blue = (weight * plane for weight, plane in zip(_GREY_WEIGHTS, pictures.unbind(-3), strict=True))
    return (red + green + blue).unsqueeze(-3)


def _blend(pictures: Tensor, other: Tensor, factor: "float | Tensor") -> Tensor:
    """factor 1: the pictures, 0: the other, above 1: away from the other."""
    return pictures.mul_(factor).add_(other * (1 - factor)).clamp_(0, 1)


def _adjust_brightness(pictures: Tensor, factor: "float | Tensor") -> Tensor:
    return pictures.mul_(factor).clamp_(0, 1)


def _adjust_contrast(pictures: Tensor, factor: "float | Tensor") -> Tensor:
    """Against each frame's own mean grey."""
    return _blend(pictures, to_grey(pictures).mean(dim=(-2, -1), keepdim=True), factor)


def _adjust_saturation(pictures: Tensor, factor: "float | Tensor") -> Tensor:
    return _blend(pictures, to_grey(pictures), factor)


def _adjust_hue(pictures: Tensor, turns: "float | Tensor") -> Tensor:
    """Turn the hue in HSV, without going there.

    With V the largest of r, g, b, c = V minus the smallest, and h in [0, 6) the hue in sixths of a turn, the colour of
    hue h is V - c + c * (clamp(|h - 3| - 1), clamp(2 - |h - 2|), clamp(2 - |h - 4|)), clamped to [0, 1]. So only h is
    needed, not the saturation, and grey (c = 0) needs no care beyond the division.
    """
    if isinstance(turns, Tensor):
        turns = turns.squeeze(-3)
    red, green, blue = pictures.unbind(-3)
    largest = torch.maximum(torch.maximum(red, green), blue)
    smallest = torch.minimum(torch.minimum(red, green), blue)
    chroma = largest - smallest
    of_green = (blue - red).add_(chroma, alpha=2)
    of_blue = (red - green).add_(chroma, alpha=4)
    hue = torch.where(largest == red, green - blue, torch.where(largest == green, of_green, of_blue))
    hue.div_(chroma.clamp(min=1e-20)).add_(turns * 6)
    hue.sub_((hue / 6).floor_(), alpha=6)
    for plane, centre, sign, offset in ((red, 3, 1, -1), (green, 2, -1, 2), (blue, 4, -1, 2)):
        strength = (hue - centre).abs_().mul_(sign).add_(offset).clamp_(0, 1)
        torch.addcmul(smallest, strength, chroma, out=plane)
    return pictures


OPERATIONS: dict[str, Callable[[Tensor, "float | Tensor"], Tensor]] = {
    "brightness": _adjust_brightness,
    "contrast": _adjust_contrast,
    "saturation": _adjust_saturation,
    "hue": _adjust_hue,
}


class _Group(NamedTuple):
    """Clips that the same happens to at the same time, in place."""

    operation: Callable[[Tensor, "float | Tensor"], object]
    clips: list[int]
    factors: list[float]


def _grey_group(draws: Sequence[ColourDraw], *, first: bool) -> _Group:
    """The clips that are made grey before the operations, or after them."""
    chosen = [n for n, draw in enumerate(draws) if draw.grey and draw.grey_first == first]
    return _Group(lambda pictures, _: pictures.copy_(to_grey(pictures)), chosen, [0.0] * len(chosen))


def _operation_groups(draws: Sequence[ColourDraw]) -> list[_Group]:
    """The operations in the order of each clip; clips that have the same one next do it together."""
    groups = []
    for place in range(max((len(draw.operations) for draw in draws), default=0)):
        at_place = {n: draw.operations[place] for n, draw in enumerate(draws) if place < len(draw.operations)}
        for name, operation in OPERATIONS.items():
            factors = {n: factor for n, (drawn, factor) in at_place.items() if drawn == name}
            groups.append(_Group(operation, list(factors), list(factors.values())))
    return groups


def _do(clips: Tensor, groups: Sequence[_Group]) -> None:
    """Change the clips (N, T, C, H, W) of some groups, in place and group after group."""
    groups = [group for group in groups if group.clips]
    if not groups:
        return
    if len(clips) == 1:
        for group in groups:
            group.operation(clips[0], group.factors[0])
        return
    numbers = [(float(n), factor) for group in groups for n, factor in zip(group.clips, group.factors, strict=True)]
    table = _on_device(torch.tensor(numbers), clips.device)
    sizes = [len(group.clips) for group in groups]
    rows = zip(table[:, 0].long().split(sizes), table[:, 1].view(-1, 1, 1, 1, 1).split(sizes), strict=True)
    for group, (where, factor) in zip(groups, rows, strict=True):
        chosen = clips.index_select(0, where)
        group.operation(chosen, factor)
        clips.index_copy_(0, where, chosen)


def _on_device(numbers: Tensor, device: torch.device) -> Tensor:
    """A copy for which neither side waits: to a GPU, from memory that it reads by itself."""
    pinned = device.type == "cuda" and torch.cuda.is_available()  # not where a test pretends
    return (numbers.pin_memory() if pinned else numbers).to(device, non_blocking=True)


def apply_colour(clips: Tensor, draws: Sequence[ColourDraw]) -> Tensor:
    """The colour stage of clips (N, T, C, H, W), in place."""
    before = [_grey_group(draws, first=True), *_operation_groups(draws)]
    after = [_grey_group(draws, first=False)]
    blurred = {n: draw.blur_sigma for n, draw in enumerate(draws) if draw.blur_sigma is not None}
    if not blurred:
        _do(clips, before + after)  # so that all factors go over in one copy
        return clips
    _do(clips, before)
    for n, sigma in blurred.items():
        clips[n] = _blurred(clips[n], sigma)
    _do(clips, after)
    return clips


def _blurred(clip: Tensor, sigma: float) -> Tensor:
    """(T, 3, H, W) blurred by a Gaussian."""
    # Imported here, since it takes longer than all the rest of hico, in each process that loads this module.
    from torchvision.transforms.v2.functional import gaussian_blur

    blurred: Tensor = gaussian_blur(clip, [_BLUR_KERNEL, _BLUR_KERNEL], [sigma, sigma])
    return blurred


def apply_augmentation(
    crops: Sequence[Tensor], draws: Sequence[AugmentDraw], *, size: int, mean: float, std: float
) -> Tensor:
    """Make what the model gets: N crops (T, H, W, C) uint8 -> (N, C, T, size, size) float32, normalised.

    Args:
        crops: of each clip.
        draws: what is still to happen to each.
        size: of the result, in pixels.
        mean: subtracted from each channel.
        std: each channel is divided by it.

    """
    num_clips, num_frames = len(crops), len(crops[0])
    result = crops[0].new_empty((num_clips, 3, num_frames, size, size), dtype=torch.float32)
    # A GPU does all clips at once, since starting an operation is what costs there; a processor does one at a time,
    # since what fits into its cache is what is fast.
    together = num_clips if crops[0].is_cuda else 1
    for first in range(0, num_clips, together):
        some = draws[first : first + together]
        scaled = torch.stack([scale(crop, size=size) for crop in crops[first : first + together]])
        clips = apply_colour(scaled, [draw.colour for draw in some])
        clips.sub_(mean).div_(std)
        flipped = [n for n, draw in enumerate(some) if draw.flip]
        _do(clips, [_Group(lambda pictures, _: pictures.copy_(pictures.flip(-1)), flipped, [0.0] * len(flipped))])
        result[first : first + together] = clips.transpose(1, 2)
    return result
