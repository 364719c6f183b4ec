"""What is compared on a made corpus: trainings that differ in how clips are drawn and in the loss, and in nothing else.

The setting is one for all arms. It follows an experiment outside this project, and was looked at on corpus seed 0 only.
"""

from typing import Any, NamedTuple

from hico_core.config import AugmentConfig, Config, DataConfig, FinetuneConfig, compose_config

# Videos a step, and clips of each in arms with three of them; arms with two see the fewer clips.
VIDEOS_PER_STEP = 16

# Rates of AdamW that are tried for each arm, and the middle one, for an arm that was not tried.
RATES = (1.5e-3, 3e-3, 6e-3)
RATE = 3e-3

# What `hico benchmark --part rates` chose on the tuning seed (docs/results.md), for `hico demo`.
CHOSEN_RATES = {"simclr-far-3": 3e-3, "hico": 6e-3}

_WARMUP_PART = 0.05


class Arm(NamedTuple):
    """One way to train an encoder without labels."""

    name: str
    meaning: str  # in words for a person who reads a table
    sampling: dict[str, Any]  # what differs from HiCo's
    loss: dict[str, Any]


_SIMCLR = {"name": "simclr"}
_NO_TOPICS = {"topical": False}


def _fixed(seconds: float) -> dict[str, Any]:
    return {"distance": "fixed", "end_seconds": seconds}


HICO = Arm("hico", "HiCo: near clips agree, far clips share a topic, the distance grows to 1 s", {}, {})
FAR_3 = Arm(
    "simclr-far-3", "SimCLR, three clips from anywhere in the video", {"distance": "any", **_NO_TOPICS}, _SIMCLR
)

# In the order in which tables show them.
ARMS = (
    Arm("simclr-near", "SimCLR, three clips within 1 s of each other", {**_fixed(1.0), **_NO_TOPICS}, _SIMCLR),
    Arm(
        "simclr-far-2",
        "SimCLR, two clips from anywhere (the paper's baseline)",
        {"clips_per_video": 2, "distance": "any", **_NO_TOPICS},
        _SIMCLR,
    ),
    FAR_3,
    Arm(
        "simclr-growing",
        "SimCLR, three clips whose distance grows to 20 s",
        {"end_seconds": 20.0, **_NO_TOPICS},
        _SIMCLR,
    ),
    Arm("topical", "the topical term alone", {"distance": "any"}, {"visual_weight": 0.0}),
    Arm("visual", "the visual term alone, within 1 s", _fixed(1.0), {"topical_weight": 0.0}),
    Arm("visual-topical", "both terms, always within 1 s", _fixed(1.0), {}),
    HICO,
)

# Control of the topical term, and the sweep of the distance; "any" lets the near clips lie anywhere too.
CONTROLS = (
    Arm("hico-mixed-ids", "HiCo, whose topical term is told wrong videos", {}, {"topical_ids": "mixed"}),
    Arm("visual-topical-0.3s", "both terms, always within 0.3 s", _fixed(0.3), {}),
    Arm("visual-topical-0.5s", "both terms, always within 0.5 s", _fixed(0.5), {}),
    Arm("hico-0.5s", "HiCo, the distance grows to 0.5 s", {"end_seconds": 0.5}, {}),
    Arm("hico-2s", "HiCo, the distance grows to 2 s", {"end_seconds": 2.0}, {}),
    Arm("hico-4s", "HiCo, the distance grows to 4 s", {"end_seconds": 4.0}, {}),
    Arm("hico-any", "HiCo, near clips from anywhere in the video", {"distance": "any"}, {}),
)

# Arms in which nothing is pretrained.
MEANINGS = {
    "random": "an encoder that was never trained",
    "pixels": "no encoder: the pictures themselves, 8 x 8",
    "supervised": "trained on the actions' labels: an upper bound",
    **{arm.name: arm.meaning for arm in (*ARMS, *CONTROLS)},
}

PRETRAINED = {arm.name: arm for arm in (*ARMS, *CONTROLS)}

_DATA = {
    "num_frames": 8,
    "frame_stride": 1,
    "target_fps": 8.0,
    "crop_size": 24,
    "short_side": 36,
    "workers": 0,
    "memory_gb": 1.0,
    "epochs_per_round": 1,
}

# Crops of 0.45 to 0.9 of the picture, in the units of `crop_jitter`.
_AUGMENT = {
    "crop_jitter": [198, 280],
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.8,
    "hue": 0.3,
    "grey_probability": 0.4,
    "blur_probability": 0.0,
}


DATA, AUGMENT = DataConfig.model_validate(_DATA), AugmentConfig.model_validate(_AUGMENT)


def pretraining(arm: Arm, *, num_videos: int, steps: int, rate: float, seed: int) -> Config:
    """How an arm is pretrained.

    Args:
        arm: which.
        num_videos: to train on.
        steps: of 16 videos.
        rate: largest one of AdamW, reached after a twentieth of the steps, then falling along a cosine.
        seed: of weights and draws.

    """
    epochs = _epochs(steps, VIDEOS_PER_STEP, num_videos)
    clips_per_video = arm.sampling.get("clips_per_video", 3)
    settings = {
        "recipe": arm.name,
        "model": {"encoder": "s3dg-tiny"},
        "data": _DATA,
        "sampling": arm.sampling,
        "augment": _AUGMENT,
        "loss": arm.loss,
        "optim": {
            "name": "adamw",
            "base_lr": rate * 256 / (VIDEOS_PER_STEP * clips_per_video),
            "weight_decay": 1e-2,
            "warmup_epochs": epochs * _WARMUP_PART,
            "warmup_start_lr": 1e-5,
        },
        "train": _length(steps, epochs, VIDEOS_PER_STEP, seed) | {"checkpoint_epochs": epochs},
    }
    return compose_config(Config, settings, origin=arm.name)


def supervision(*, num_segments: int, steps: int, rate: float, seed: int) -> FinetuneConfig:
    """How the upper bound is trained: as many clips a step, and their labels."""
    clips_per_step = 3 * VIDEOS_PER_STEP
    epochs = _epochs(steps, clips_per_step, num_segments)
    settings = {
        "dataset": "made",
        "data": _DATA,
        "augment": _AUGMENT,
        "optim": {"base_lr": rate, "warmup_epochs": epochs * _WARMUP_PART, "warmup_start_lr": 1e-5},
        "train": _length(steps, epochs, clips_per_step, seed),
    }
    return compose_config(FinetuneConfig, settings, origin="supervised")


def _epochs(steps: int, per_step: int, num_items: int) -> int:
    """Passes over the items that are at least so many steps, where each pass may leave a part of a step over."""
    return -(-steps // max(num_items // per_step, 1))


def _length(steps: int, epochs: int, batch_size: int, seed: int) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "max_steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "precision": "fp32",
        "checkpoint_seconds": 3600.0,
    }
