"""The arms compared on a synthetic corpus: trainings that differ only in how clips are drawn and in the loss.

All arms share one setting. It follows an experiment outside this project, and was inspected on corpus seed 0 only.
"""

from typing import Any, NamedTuple

from hico_core.config import AugmentConfig, Config, DataConfig, compose_config

# Videos per step, and clips per video in arms with three of them; arms with two see fewer clips.
VIDEOS_PER_STEP = 16

# Fraction of the steps for the warm-up of the learning rate.
WARMUP_PART = 0.05

DATA = DataConfig(
    num_frames=8,
    frame_stride=1,
    target_fps=8.0,
    crop_size=24,
    short_side=36,
    workers=0,
    memory_gb=1.0,
    epochs_per_round=1,
)

# Crops of 0.45 to 0.9 of the picture, in the units of `crop_jitter`.
AUGMENT = AugmentConfig(
    crop_jitter=(198, 280),
    brightness=0.4,
    contrast=0.4,
    saturation=0.8,
    hue=0.3,
    grey_probability=0.4,
    blur_probability=0.0,
)


class Setting(NamedTuple):
    """Which encoder is trained and how it sees videos, the same for all arms."""

    data: DataConfig
    augment: AugmentConfig
    encoder: str = "s3dg-tiny"


MADE = Setting(DATA, AUGMENT)


class Arm(NamedTuple):
    """One way to train an encoder without labels."""

    name: str
    meaning: str  # in words, for readers of a table
    sampling: dict[str, Any]  # settings that differ from HiCo's
    loss: dict[str, Any]


HICO = Arm("hico", "HiCo: near clips agree, far clips share a topic, the distance grows to 1 s", {}, {})
FAR_3 = Arm(
    "simclr-far-3",
    "SimCLR, three clips from anywhere in the video",
    {"distance": "any", "topical": False},
    {"name": "simclr"},
)


def pretraining(arm: Arm, *, num_videos: int, steps: int, rate: float, seed: int, setting: Setting = MADE) -> Config:
    """The configuration by which an arm is pretrained.

    Args:
        arm: the arm.
        num_videos: number of videos to train on.
        steps: of 16 videos, or of all if there are fewer.
        rate: peak learning rate of AdamW, reached after a twentieth of the steps; a cosine follows.
        seed: of the weights and all draws.
        setting: the encoder and what it sees; by default, as for synthetic videos.

    """
    batch_size = min(VIDEOS_PER_STEP, num_videos)
    length = length_of(steps=steps, num_items=num_videos, batch_size=batch_size, seed=seed)
    clips_per_video = arm.sampling.get("clips_per_video", 3)
    settings = {
        "recipe": arm.name,
        "model": {"encoder": setting.encoder},
        "data": setting.data,
        "sampling": arm.sampling,
        "augment": setting.augment,
        "loss": arm.loss,
        "optim": {
            "name": "adamw",
            # Undoes the linear scaling rule, so that the learning rate does not depend on the number of clips.
            "base_lr": rate * 256 / (batch_size * clips_per_video),
            "weight_decay": 1e-2,
            "warmup_epochs": length["epochs"] * WARMUP_PART,
            "warmup_start_lr": 1e-5,
        },
        "train": length | {"checkpoint_epochs": length["epochs"]},
    }
    return compose_config(Config, settings, origin=arm.name)


def length_of(*, steps: int, num_items: int, batch_size: int, seed: int) -> dict[str, Any]:
    """Settings for a training with this many steps; its epochs suffice, though each may leave out part of a step."""
    return {
        "epochs": -(-steps // max(num_items // batch_size, 1)),
        "max_steps": steps,
        "batch_size": batch_size,
        "seed": seed,
        "precision": "fp32",
        "checkpoint_seconds": 3600.0,
    }
