"""Colour, crop and flip are the authors', and one draw holds for all frames of a clip."""

import json
import random
from typing import Any

import numpy as np
import pytest
import torch
from goldens import assert_close, load_arrays, load_json
from torch import Tensor
from torchvision.transforms.v2.functional import adjust_hue

from hico_core.config import AugmentConfig
from hico_core.data.augment import (
    OPERATIONS,
    AugmentDraw,
    ColourDraw,
    Crop,
    apply_augmentation,
    apply_colour,
    central_crops,
    crop_area_range,
    cut,
    draw_augmentation,
    draw_colour,
    draw_crop,
    scale,
    to_grey,
)
from hico_core.data.pictures import Picture, normalised

GOLDEN = load_arrays("augmentations.npz")
CLIP_THWC = torch.from_numpy(GOLDEN["clip_uint8_THWC"])
CLIP_TCHW = CLIP_THWC.permute(0, 3, 1, 2).float() / 255


def as_golden(pictures_TCHW: Tensor) -> Tensor:
    return pictures_TCHW.transpose(0, 1)


FACTORS = sorted(key for key in GOLDEN if key.split("/")[0] in OPERATIONS and not key.endswith("per_frame"))


@pytest.mark.parametrize("key", FACTORS)
def test_operations(key: str) -> None:
    name, factor = key.split("/")
    result = OPERATIONS[name](CLIP_TCHW.clone(), float(factor))
    assert_close(as_golden(result), GOLDEN[key], 1e-5 if name == "hue" else 1e-6)


def test_grey_normalisation_and_flip() -> None:
    assert_close(as_golden(to_grey(CLIP_TCHW).expand_as(CLIP_TCHW)), GOLDEN["grayscale"], 1e-6)
    whole = draw_augmentation(8, 8, SETTINGS_OFF, rng=random.Random(0))._replace(crop=Crop(0, 0, 8, 8))
    plain = augmented(CLIP_THWC, whole._replace(flip=False), size=8, mean=0.45, std=0.225)
    assert_close(plain, GOLDEN["normalize"], 1e-6)
    flipped = augmented(CLIP_THWC, whole._replace(flip=True), size=8, mean=0.0, std=1.0)
    assert_close(flipped, GOLDEN["hflip"], 1e-6)


def augmented(frames_THWC: Tensor, draw: AugmentDraw, *, size: int, mean: float, std: float) -> Tensor:
    """One clip on the whole way: (C, T, size, size)."""
    crop = cut(frames_THWC, draw.crop)
    return apply_augmentation([crop], [draw], size=size, mean=(mean,) * 3, std=(std,) * 3)[0]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_on_several_clips_are_those_on_each(name: str) -> None:
    """Also where the factors differ, which is how a GPU does them."""
    clips = torch.rand(3, 2, 3, 6, 6)
    factors = [0.3, -0.1, 0.15] if name == "hue" else [0.3, 1.7, 1.0]
    together = OPERATIONS[name](clips.clone(), torch.tensor(factors).view(-1, 1, 1, 1, 1))
    for clip, factor, result in zip(clips, factors, together, strict=True):
        assert_close(OPERATIONS[name](clip.clone(), factor), result, 1e-6)


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.13, 0.5])
def test_hue_is_that_of_torchvision(turns: float) -> None:
    """On random colours, on greys, and where two channels are equal."""
    pictures = torch.rand(2, 3, 40, 40)
    pictures[0, :, :10] = pictures[0, :1, :10]
    pictures[0, 1, 10:20] = pictures[0, 0, 10:20]
    pictures[0, 2, 20:30] = pictures[0, 1, 20:30]
    pictures[1, :, :5] = 0
    assert_close(OPERATIONS["hue"](pictures.clone(), turns), adjust_hue(pictures, turns), 1e-5)


def test_clips_of_a_step_are_what_each_is_alone() -> None:
    """Whatever their sides, orders and factors."""
    rng = random.Random(0)
    frames = [torch.randint(0, 256, (2, 40, 60, 3), dtype=torch.uint8) for _ in range(12)]
    settings = AugmentConfig(blur="gaussian", crop_ratio=(0.8, 1.25))
    draws = [draw_augmentation(40, 60, settings, rng=rng) for _ in frames]
    crops = [cut(clip, draw.crop) for clip, draw in zip(frames, draws, strict=True)]
    together = apply_augmentation(crops, draws, size=16, mean=(0.45,) * 3, std=(0.225,) * 3)
    assert together.shape == (12, 3, 2, 16, 16)
    for clip, draw, result in zip(frames, draws, together, strict=True):
        assert torch.equal(augmented(clip, draw, size=16, mean=0.45, std=0.225), result)
    # As a GPU does it: the colours of all clips at once.
    scaled = torch.stack([scale(cut(clip, draw.crop), size=16) for clip, draw in zip(frames, draws, strict=True)])
    for result, n in zip(apply_colour(scaled.clone(), [draw.colour for draw in draws]), range(12), strict=True):
        assert_close(apply_colour(scaled[n : n + 1].clone(), [draws[n].colour])[0], result, 1e-6)


@pytest.mark.parametrize("key", sorted(key for key in GOLDEN if key.startswith("resized_crop/")))
def test_resized_crop(key: str) -> None:
    _, box, size = key.split("/")
    crop = Crop(*map(int, box.split("_")))
    assert_close(as_golden(scale(cut(CLIP_THWC, crop), size=int(size))), GOLDEN[key], 1e-6)


# Their letters -> which of three crops along the longer side of a frame.
PLACES = {"ll": 0, "cc": 1, "rr": 2}


@pytest.mark.parametrize(
    "key", sorted(key for key in GOLDEN if key.startswith("testcrop/auto/") and key.split("/")[3] in PLACES)
)
def test_crops_of_testing(key: str) -> None:
    _, _, source, place, part, size = key.split("/")
    frames_THWC = torch.from_numpy(GOLDEN[f"testcrop/src_{source}_uint8_THWC"])
    height, width = frames_THWC.shape[1:3]
    if source == "tall" and place != "cc":
        return  # theirs lie side by side there, ours one above the other
    crops = central_crops(height, width, part=float(part.removeprefix("scale")), count=3)
    (middle,) = central_crops(height, width, part=float(part.removeprefix("scale")), count=1)
    assert crops[1] == middle
    made = scale(cut(frames_THWC, crops[PLACES[place]]), size=int(size.removeprefix("size")))
    assert_close(as_golden(made), GOLDEN[key], 1e-6)


def test_the_whole_way_of_testing() -> None:
    """Nothing random: the middle, scaled and normalised. Half a pixel is rounded up there, and down in their crops."""
    frames_THWC = torch.from_numpy(GOLDEN["pipeline/seed0/in_uint8"])[0]
    (crop,) = central_crops(*frames_THWC.shape[1:3], part=224 / 256, count=1)
    assert crop == Crop(1, 5, 21, 21)
    expected = GOLDEN["finetune_pipeline/test/seed0"]
    theirs = cut(frames_THWC, crop._replace(top=2, left=6))
    picture = Picture(short_side=None, crop_part=0.875, num_crops=1, size=16, mean=(0.45,) * 3, std=(0.225,) * 3)
    assert_close(normalised(theirs[None], picture)[0].numpy(), expected, 1e-6)


def test_area_range() -> None:
    for case in json.loads(str(GOLDEN["random_resized_crop"])):
        low, high = case["train_jitter_scales"]
        assert crop_area_range((low, high)) == pytest.approx(case["scale"], abs=1e-12)


SETTINGS = AugmentConfig()
SETTINGS_OFF = AugmentConfig(colour_probability=0, grey_probability=0, blur_probability=0, flip_probability=0)


@pytest.mark.parametrize("case", load_json("sampling.json")["colour_draws"], ids=lambda c: str(c["seed"]))
def test_colour_draws(case: dict[str, Any]) -> None:
    rng = random.Random(case["seed"])
    for expected in case["clips"]:
        draw = draw_colour(SETTINGS, rng=rng)
        drawn = [{"op": name, "factor": factor} for name, factor in draw.operations]
        wanted = [e for e in expected if "factor" in e]
        assert [d["op"] for d in drawn] == [e["op"] for e in wanted]
        for d, e in zip(drawn, wanted, strict=True):
            assert d["factor"] == pytest.approx(e["factor"], abs=1e-12)
        assert draw.grey == any("gray" in e["op"] or "grey" in e["op"] for e in expected)


@pytest.mark.parametrize("ratio", [(1.0, 1.0), (6 / 7, 7 / 6)])
@pytest.mark.parametrize(("height", "width"), [(240, 320), (320, 240), (256, 456), (32, 32)])
def test_crops_lie_inside_and_have_their_area(height: int, width: int, ratio: tuple[float, float]) -> None:
    area = crop_area_range(SETTINGS.crop_jitter)
    rng = random.Random(0)
    for _ in range(300):
        top, left, tall, wide = draw_crop(height, width, area=area, ratio=ratio, rng=rng)
        assert 0 <= top <= height - tall and 0 <= left <= width - wide
        part = tall * wide / (height * width)
        assert area[0] - 0.05 <= part <= area[1] + 0.05
        assert ratio[0] - 0.05 <= wide / tall <= ratio[1] + 0.05


def test_a_square_that_never_fits_becomes_the_middle() -> None:
    area = crop_area_range((300, 320))
    assert draw_crop(100, 400, area=area, rng=random.Random(4)) == Crop(0, 150, 100, 100)


def test_all_frames_of_a_clip_are_treated_alike() -> None:
    still = CLIP_THWC[:1].expand(4, -1, -1, -1)
    for seed in range(20):
        draw = draw_augmentation(8, 8, AugmentConfig(blur="gaussian"), rng=random.Random(seed))
        clip = augmented(still, draw, size=8, mean=0.45, std=0.225)
        assert clip.shape == (3, 4, 8, 8)
        assert all(torch.equal(clip[:, 0], clip[:, t]) for t in range(1, 4))


def test_the_authors_blur_changes_nothing_and_a_real_one_does() -> None:
    always = {"colour_probability": 0.0, "grey_probability": 0.0, "blur_probability": 1.0}
    pictures = torch.rand(2, 3, 24, 24)
    theirs = draw_colour(AugmentConfig(**always, blur="authors"), rng=random.Random(0))
    assert float(GOLDEN["gaussian_blur_k1_max_change"]) == 0
    assert torch.equal(coloured(pictures, theirs), pictures)
    real = draw_colour(AugmentConfig(**always, blur="gaussian"), rng=random.Random(0))
    assert coloured(pictures, real).std() < pictures.std()


def coloured(pictures_TCHW: Tensor, draw: ColourDraw) -> Tensor:
    return apply_colour(pictures_TCHW.clone().unsqueeze(0), [draw])[0]


def test_blur_draws_do_not_shift_the_others() -> None:
    """Grey is drawn after the choice to blur and before its strength, so both settings agree on it."""
    for seed in range(30):
        theirs = draw_colour(AugmentConfig(blur="authors"), rng=random.Random(seed))
        real = draw_colour(AugmentConfig(blur="gaussian"), rng=random.Random(seed))
        assert theirs.operations == real.operations
        assert theirs.grey == real.grey


def test_operations_run_in_the_order_drawn() -> None:
    one = coloured(CLIP_TCHW, ColourDraw([("brightness", 1.8), ("contrast", 0.2)], None, grey=False))
    other = coloured(CLIP_TCHW, ColourDraw([("contrast", 0.2), ("brightness", 1.8)], None, grey=False))
    assert np.abs((one - other).numpy()).max() > 0.05
