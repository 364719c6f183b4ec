"""What the benchmark consists of: its parts, and the cells of each.

The rule by which HiCo succeeds was written down before any of the ten seeds was run; see `findings.SUCCESS`.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import pandas as pd
from arms import ARMS, CONTROLS, CUTS, FIXED_AS_GROWN, RATE, RATES, WEIGHTS
from cells import Cell

from hico_core.base.choices import Design
from hico_core.evidence.arms import FAR_3, HICO
from hico_core.evidence.trial import Corpus

Part = Literal[
    "rates", "arms", "trimmed", "controls", "looks", "long", "long-rates", "weights", "mean-distance", "cuts", "sizes"
]
PARTS: tuple[Part, ...] = get_args(Part)

# The seed on which the setting and the rates are chosen; no other seed may be looked at for that.
TUNING_SEED = 0

STEPS, LONG_STEPS = 600, 1800

LOOK = 0.5
_OTHER_LOOKS = (0.0, 0.75, 1.0)

_DESIGNS: tuple[Design, ...] = ("scenes", "fillers")

# Training videos of the part "sizes"; all 240 are in the part "arms".
SIZES = (15, 30, 60, 120)

_ARMS, _CONTROLS = ([arm.name for arm in arms] for arms in (ARMS, CONTROLS))

Rates = dict[str, float]  # by arm


def cells_of(part: Part, *, seeds: Sequence[int], rates: Rates) -> list[Cell]:
    """The cells of a part.

    rates: each trained arm with each rate, on the tuning seed. arms: each arm, both designs. trimmed: HiCo and
    SimCLR-far where each segment is a video. controls: mixed ids, and the sweep of the distance. looks: HiCo and
    SimCLR-far where videos' looks differ less or more. long: three times the steps, with the rates of the shorter
    trainings. long-rates: what other rates would have given there, on the tuning seed. weights: HiCo with smaller
    weights of its topical term. mean-distance: a fixed distance as large as that of hico-0.5s is on the average. cuts:
    HiCo with near clips within one shot. sizes: HiCo and both kinds of SimCLR on fewer videos.

    Args:
        part: which.
        seeds: of the corpora.
        rates: chosen for each arm; an arm that was not tried has HiCo's.

    """

    def cell(corpus: Corpus, arm: str, *, steps: int = STEPS, trimmed: bool = False, videos: int = 0) -> Cell:
        if arm in {"random", "pixels"}:
            return Cell(corpus=corpus, arm=arm)
        rate = rates.get(arm, rates.get(HICO.name, RATE))
        return Cell(corpus=corpus, arm=arm, steps=steps, rate=rate, trimmed=trimmed, videos=videos)

    scenes = [Corpus("scenes", LOOK, seed) for seed in seeds]
    both = [Corpus(design, LOOK, seed) for seed in seeds for design in _DESIGNS]
    match part:
        case "rates" | "long-rates":
            tuning, steps = Corpus("scenes", LOOK, TUNING_SEED), STEPS if part == "rates" else LONG_STEPS
            return [
                Cell(corpus=tuning, arm=arm, steps=steps, rate=rate) for arm in (*_ARMS, "supervised") for rate in RATES
            ]
        case "arms":
            return [cell(corpus, arm) for corpus in both for arm in ("random", "pixels", *_ARMS, "supervised")]
        case "trimmed":
            return [cell(corpus, arm.name, trimmed=True) for corpus in scenes for arm in (HICO, FAR_3)]
        case "controls":
            return [cell(corpus, arm) for corpus in scenes for arm in _CONTROLS]
        case "looks":
            looks = [Corpus("scenes", look, seed) for seed in seeds for look in _OTHER_LOOKS]
            return [cell(corpus, arm) for corpus in looks for arm in ("random", FAR_3.name, HICO.name)]
        case "weights" | "mean-distance" | "cuts":
            asked = {"weights": WEIGHTS, "mean-distance": FIXED_AS_GROWN, "cuts": (CUTS,)}[part]
            return [cell(corpus, arm.name) for corpus in scenes for arm in asked]
        case "sizes":
            return [
                cell(corpus, arm, videos=videos)
                for corpus in scenes
                for videos in SIZES
                for arm in ("simclr-near", FAR_3.name, HICO.name)
            ]
        case "long":
            return [cell(corpus, arm, steps=LONG_STEPS) for corpus in both for arm in (*_ARMS, "supervised")]


def chosen_rates(results: pd.DataFrame) -> Rates:
    """For each arm the rate with which it was best at the action on the tuning seed, by the linear probe.

    So each arm, the baselines too, is shown at what suits it best there.
    """
    tried = results[
        (results["seed"] == TUNING_SEED) & (results["probe"] == "action-linear") & (results["steps"] == STEPS)
    ]
    if tried.empty:
        return {}
    best = tried.loc[tried.groupby("arm")["accuracy"].idxmax()]
    return dict(zip(best["arm"], best["rate"], strict=True))
