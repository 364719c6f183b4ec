"""What the benchmark on real videos consists of: its parts, the cells of each, and the settings that were chosen.

The rule by which HiCo succeeds was written down before any unsupervised arm was run; see `real_findings.REAL_RULE`.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import pandas as pd
from arms import CUTS, RATE
from parts import TUNING_SEED
from real_cells import FROZEN, NEAR, NOTHING, Augmentation, Design, RealCell, RealCorpus, Training
from running import read_cells

from hico_core.evidence.arms import FAR_3, HICO

RealPart = Literal["settings", "frozen", "untrimmed", "trimmed", "supervised", "s3dg"]
REAL_PARTS: tuple[RealPart, ...] = get_args(RealPart)
DEFAULT_PARTS = [part for part in REAL_PARTS if part not in ("settings", "s3dg")]

# Strides of which a clip covers 2.1 s, and 1.6 s where no clip of the corpus lasts longer than about 2 s.
_STRIDES = {"ego_gest": 4, "fight_surv": 3}

# What the supervised arm is tried with on the tuning seed, of ego_gest.
_TRIED: tuple[tuple[Augmentation, int, int], ...] = (("strong", 32, 300), ("weak", 32, 300), ("weak", 32, 600))

# The corpus of S3D-G: ego_gest with the sessions of fight_surv beside its own.
ALL_SESSIONS = "all_sessions"

# Chosen by the part "settings": of those that were tried, the only one with which the supervised arm learns.
AUGMENTATION: Augmentation = "weak"
PIXELS, STEPS = 32, 600

_COLUMNS = [
    *("corpus", "arm", "design", "seed", "pixels", "stride", "augmentation", "steps", "rate"),
    *("encoder", "seconds", "probe", "clip", "label", "group", "correct"),
]


def cells_of(part: RealPart, corpus: RealCorpus, *, seeds: Sequence[int]) -> list[RealCell]:
    """The cells of a part; see the command for what each is.

    Args:
        part: which.
        corpus: on which videos.
        seeds: of weights and draws.

    """
    stride = _STRIDES.get(corpus.name, _STRIDES["ego_gest"])
    chosen = Training(pixels=PIXELS, stride=stride, augmentation=AUGMENTATION, steps=STEPS, rate=RATE)

    def cells(design: Design, arms: Sequence[str], training: Training = chosen) -> list[RealCell]:
        return [
            RealCell(corpus=corpus, arm=arm, design=design, seed=seed, training=training)
            for seed in seeds
            for arm in arms
        ]

    def untrained(training: Training) -> list[RealCell]:
        return cells("", ["untrained"], replace(training, steps=0, rate=0.0))

    match part:
        case "settings":
            return [
                RealCell(
                    corpus=corpus,
                    arm="supervised",
                    seed=TUNING_SEED,
                    training=replace(chosen, augmentation=augmentation, pixels=pixels, steps=steps),
                )
                for augmentation, pixels, steps in _TRIED
            ]
        case "frozen":
            return [*(RealCell(corpus=corpus, arm=arm, training=NOTHING) for arm in FROZEN), *untrained(chosen)]
        case "untrimmed":
            return cells("untrimmed", [HICO.name, FAR_3.name, NEAR.name, CUTS.name])
        case "trimmed":
            return cells("trimmed", [HICO.name, FAR_3.name])
        case "supervised":
            return cells("", ["supervised"])
        case "s3dg":
            large = replace(chosen, encoder="s3dg")
            return [*untrained(large), *cells("untrimmed", [HICO.name, FAR_3.name], large)]


def read_real(folder: Path) -> pd.DataFrame:
    """All that was measured in a folder so far, a row for each cell, probe and clip."""
    return read_cells(folder, _COLUMNS)
