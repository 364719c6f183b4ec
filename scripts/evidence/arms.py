"""All arms of the benchmark: those that HiCo is compared with, its controls, and the upper bound with labels."""

from typing import Any

from hico_core.config import FinetuneConfig, compose_config
from hico_core.evidence.arms import FAR_3, HICO, MADE, VIDEOS_PER_STEP, WARMUP_PART, Arm, Setting, length_of

# Rates of AdamW that are tried for each arm, and the middle one, for an arm that was not tried.
RATES = (1.5e-3, 3e-3, 6e-3)
RATE = 3e-3

_SIMCLR = {"name": "simclr"}
_NO_TOPICS = {"topical": False}


def _fixed(seconds: float) -> dict[str, Any]:
    return {"distance": "fixed", "end_seconds": seconds}


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

# HiCo by its settings, trained inside `wrong_videos.wrong_videos`.
MIXED_IDS = Arm("hico-mixed-ids", "HiCo whose topical term gets wrong videos", {}, {})

# Control of the topical term, and the sweep of the distance; "any" lets the near clips lie anywhere too.
CONTROLS = (
    MIXED_IDS,
    Arm("visual-topical-0.3s", "both terms, always within 0.3 s", _fixed(0.3), {}),
    Arm("visual-topical-0.5s", "both terms, always within 0.5 s", _fixed(0.5), {}),
    Arm("hico-0.5s", "HiCo, the distance grows to 0.5 s", {"end_seconds": 0.5}, {}),
    Arm("hico-2s", "HiCo, the distance grows to 2 s", {"end_seconds": 2.0}, {}),
    Arm("hico-4s", "HiCo, the distance grows to 4 s", {"end_seconds": 4.0}, {}),
    Arm("hico-any", "HiCo, near clips from anywhere in the video", {"distance": "any"}, {}),
)

# For four questions that the controls left open; see `findings.QUESTIONS`.
WEIGHTS = tuple(
    Arm(f"hico-topical-{weight:g}", f"HiCo, the topical term with weight {weight:g}", {}, {"topical_weight": weight})
    for weight in (0.0, 0.1, 0.3)
)
FIXED_AS_GROWN = (Arm("visual-topical-0.25s", "both terms, always within 0.25 s", _fixed(0.25), {}),)

# HiCo by its settings, shown what `setting_of` gives.
CUTS = Arm("hico-cuts", "HiCo, near clips within one shot (data.cuts=respect)", {}, {})

PRETRAINED = {arm.name: arm for arm in (*ARMS, *CONTROLS, *WEIGHTS, *FIXED_AS_GROWN, CUTS)}

MEANINGS = {
    # In these nothing is pretrained.
    "random": "untrained encoder",
    "pixels": "no encoder: the frames themselves, 8 x 8 pixels",
    "supervised": "trained with the action labels: an upper bound",
    **{arm.name: arm.meaning for arm in PRETRAINED.values()},
}


def setting_of(arm: str, setting: Setting = MADE) -> Setting:
    """What an arm is shown: near clips lie on one side of a cut for `CUTS` alone."""
    if arm != CUTS.name:
        return setting
    return setting._replace(data=setting.data.model_copy(update={"cuts": "respect"}))


def supervision(
    *,
    num_segments: int,
    steps: int,
    rate: float,
    seed: int,
    setting: Setting = MADE,
    batch_size: int = 3 * VIDEOS_PER_STEP,
) -> FinetuneConfig:
    """How the upper bound is trained: by default with as many clips a step, and their labels."""
    length = length_of(steps=steps, num_items=num_segments, batch_size=batch_size, seed=seed)
    settings = {
        "dataset": "made",
        "data": setting.data,
        "augment": setting.augment,
        "optim": {"base_lr": rate, "warmup_epochs": length["epochs"] * WARMUP_PART, "warmup_start_lr": 1e-5},
        "train": length,
    }
    return compose_config(FinetuneConfig, settings, origin="supervised")
