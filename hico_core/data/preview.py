"""A contact sheet of training clips: the clips of some videos, before and after augmentation."""

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from hico_core.base.errors import HicoError
from hico_core.data.augment import AugmentDraw, apply_augmentation
from hico_core.data.dataset import ClipDataset, ClipRequest, Sample
from hico_core.data.sampling import item_seed

_FRAMES = 4  # of each clip, evenly spread
_TILE = 112  # pixels, the height of a frame in the picture
_TEXT = 14  # pixels, the height of a line of text
_GAP = 6
_CROP_COLOUR = (255, 60, 0)
_LINE_COLOUR = (128, 128, 128)
_LEAST_WIDTH = 640  # pixels, wide enough for the header's text


class ClipPreview(NamedTuple):
    """One clip, as some of its frames."""

    video_id: str
    title: str
    before: list[Image.Image]  # whole frames with the crop's outline
    after: list[Image.Image]


def preview_clips(
    dataset: ClipDataset, *, samples: int, max_distance_seconds: float | None, seed: int
) -> list[ClipPreview]:
    """The clips of some videos, as drawn and as augmented.

    Args:
        dataset: makes the items.
        samples: largest number of videos.
        max_distance_seconds: between the near clips' centres; None: anywhere.
        seed: of the choice of videos and of everything drawn.

    Raises:
        HicoError: no video can be decoded.

    """
    videos = dataset.videos
    chosen = random.Random(seed).sample(range(len(videos)), min(samples, len(videos)))
    rows: list[ClipPreview] = []
    for position, video in enumerate(chosen):
        request = ClipRequest(video, item_seed(seed=seed, epoch=0, position=position), max_distance_seconds)
        sample = dataset[request]
        if not sample.crops:
            raise HicoError(f"none of {len(sample.unusable)} videos can be decoded: {sample.unusable[-1].reason}")
        rows += _rows(sample, dataset)
    return rows


def _rows(sample: Sample, dataset: ClipDataset) -> list[ClipPreview]:
    rows = []
    clips = zip(sample.crops, sample.draws, sample.windows, strict=True)
    for number, (crop, draw, window) in enumerate(clips, start=1):
        frames = dataset.frames_of(sample.video, window)
        # For viewing, so without normalisation.
        size = dataset.data.crop_size
        made = apply_augmentation([crop], [draw], size=size, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))[0]
        after = (made * 255).round().clamp(0, 255).byte().permute(1, 2, 3, 0)
        title = f"{sample.video_id}  clip {number}: {window[0]:.2f} to {window[1]:.2f} s"
        before = [_framed(frame, draw) for frame in _some(frames)]
        rows.append(ClipPreview(sample.video_id, title, before, [_image(frame) for frame in _some(after)]))
    return rows


def _some(frames: Tensor) -> Sequence[Tensor]:
    return [frames[int(number)] for number in np.linspace(0, len(frames) - 1, _FRAMES)]


def _image(frame_HWC: Tensor) -> Image.Image:
    picture = Image.fromarray(frame_HWC.numpy())
    return picture.resize((max(round(picture.width * _TILE / picture.height), 1), _TILE))


def _framed(frame_HWC: Tensor, draw: AugmentDraw) -> Image.Image:
    """A whole frame with the outline of its crop."""
    picture = Image.fromarray(frame_HWC.numpy())
    crop = draw.crop
    box = (crop.left, crop.top, crop.left + crop.width - 1, crop.top + crop.height - 1)
    ImageDraw.Draw(picture).rectangle(box, outline=_CROP_COLOUR, width=3)
    return _image(torch.from_numpy(np.array(picture)))


def contact_sheet(rows: Sequence[ClipPreview]) -> Image.Image:
    """One row per clip, with a title: original frames with the crop's outline, then the frames as the model gets them.

    A line separates videos. Frames keep their shape, so those of portrait videos are narrow.
    """
    before_width = max(sum(picture.width for picture in row.before) for row in rows)
    after_left = before_width + 4 * _GAP
    after_width = max(sum(picture.width for picture in row.after) for row in rows)
    height = _TEXT + _TILE + _GAP
    head = 2 * _TEXT + _GAP
    sheet = Image.new("RGB", (max(after_left + after_width, _LEAST_WIDTH), head + height * len(rows)), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((_GAP, 0), f"What training sees: {_FRAMES} frames of each clip, in the order of time", fill="black")
    pen.text((_GAP, _TEXT), "as in the video; what lies in the red square is cut out", fill="black")
    pen.text((after_left, _TEXT), "after augmentation, as the encoder gets it", fill="black")
    for number, row in enumerate(rows):
        top = head + number * height
        if number == 0 or row.video_id != rows[number - 1].video_id:
            pen.line((0, top - _GAP // 2, sheet.width, top - _GAP // 2), fill=_LINE_COLOUR)
        pen.text((_GAP, top), row.title, fill="black")
        for left, pictures in ((0, row.before), (after_left, row.after)):
            for picture in pictures:
                sheet.paste(picture, (left, top + _TEXT))
                left += picture.width
    return sheet
