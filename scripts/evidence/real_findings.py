"""What the numbers of the benchmark on real videos say: means, intervals, and whether HiCo succeeded by the rule."""

# S seeds, G groups, R resamples.

from functools import cache

import numpy as np
import pandas as pd
from findings import Verdict, is_won, paired
from parts import TUNING_SEED
from real_cells import MEANINGS

from hico_core.evidence.arms import FAR_3, HICO
from hico_core.transfer.evaluation.intervals import Estimate

# Written down before any unsupervised arm was run. Everything else is reported, and required of nobody.
REAL_RULE = (
    "On the linear probe of ego_gest's gestures, with untrimmed sessions, HiCo minus SimCLR-far with three "
    "clips is more than 2 standard errors of the differences paired by seed, and positive in at least 9 of 10 seeds; "
    "with trimmed videos the gap is within 5 points."
)
_LARGEST_TRIMMED_GAP = 0.05

_RESAMPLES, _PERCENTILES = 10_000, (2.5, 97.5)

REAL_PROBES = {"linear": "linear probe", "knn": "20-NN", "place-r1": "place R@1", "second": "each second"}

# What stands beside every design.
_NO_DESIGN = ""


@cache  # since there are many intervals over the same seeds and groups
def _drawn(num_seeds: int, num_groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed, (R, S), and each group, (R, G), is in each resample."""
    rng = np.random.default_rng(seed)
    drawn_RS = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=_RESAMPLES)
    drawn_RG = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=_RESAMPLES)
    return drawn_RS, drawn_RG


def interval(values_SG: np.ndarray, clips_G: np.ndarray, *, seed: int = 0) -> Estimate:
    """The mean over clips, with its 95 % interval where both seeds and whole groups are drawn with replacement.

    Args:
        values_SG: sums over the clips of each group, with each seed.
        clips_G: how many clips each group has.
        seed: of the draws.

    """
    num_seeds, num_groups = values_SG.shape
    drawn_RS, drawn_RG = _drawn(num_seeds, num_groups, seed)
    sums_R = ((drawn_RS @ values_SG) * drawn_RG).sum(axis=1)
    low, high = np.percentile(sums_R / (num_seeds * (drawn_RG @ clips_G)), _PERCENTILES)
    return Estimate(float(values_SG.sum() / (num_seeds * clips_G.sum())), float(low), float(high))


def _sums(rows: pd.DataFrame) -> pd.DataFrame:
    """Seeds by groups: how many clips are right."""
    return rows.pivot_table(index="seed", columns="group", values="correct", aggfunc="sum")


def _clips(rows: pd.DataFrame) -> np.ndarray:
    """How many clips each group has, in order of the groups' names."""
    counts: np.ndarray = rows.groupby("group")["clip"].nunique().to_numpy()
    return counts


def accuracy(rows: pd.DataFrame) -> Estimate | None:
    """Of one arm and probe, over all seeds; None where it was not asked."""
    return None if rows.empty else interval(_sums(rows).to_numpy(dtype=float), _clips(rows))


def difference(rows: pd.DataFrame, arm: str, baseline: str) -> Estimate | None:
    """One arm minus another with one probe, over the seeds that both have; None without any."""
    sums = [_sums(rows[rows["arm"] == name]) for name in (arm, baseline) if (rows["arm"] == name).any()]
    if len(sums) < 2 or (sums[0] - sums[1]).dropna().empty:
        return None
    return interval((sums[0] - sums[1]).dropna().to_numpy(dtype=float), _clips(rows))


def by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracies, a row for each arm, seed and probe."""
    return rows.groupby(["arm", "seed", "probe"], as_index=False).agg(accuracy=("correct", "mean"))


def of_design(results: pd.DataFrame, corpus: str, design: str) -> pd.DataFrame:
    """The rows of a design, beside those of arms that have none; the tuning seed is left out of what is trained."""
    chosen = results[(results["corpus"] == corpus) & results["design"].isin([design, _NO_DESIGN])]
    return chosen[(chosen["seed"] != TUNING_SEED) | (chosen["pixels"] == 0)]


def with_several_labels(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of groups that have clips of several labels."""
    count = rows.groupby("group")["label"].nunique()
    return rows[rows["group"].isin(count[count > 1].index)]


def real_verdicts(results: pd.DataFrame) -> list[Verdict]:
    """The rule, for what was measured of it."""
    found = []
    for design in ("untrimmed", "trimmed"):
        rows = by_seed(of_design(results, "ego_gest", design))
        gap = paired(rows, HICO.name, FAR_3.name, "linear")
        if gap.num_seeds:
            met = is_won(gap) if design == "untrimmed" else abs(gap.mean) <= _LARGEST_TRIMMED_GAP
            found.append(Verdict(design, gap, met))
    return found


def said(estimate: Estimate | None, *, sign: str = "") -> str:
    """In percent, with the ends of the interval."""
    if estimate is None:
        return ""
    value, low, high = (f"{100 * part:{sign}.1f}" for part in estimate)
    return f"{value} ({low} to {high})"


def real_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Arms by probes, of one corpus and design."""
    arms = [arm for arm in MEANINGS if (rows["arm"] == arm).any()]
    cells = [
        [
            str(rows[rows["arm"] == arm]["seed"].nunique()),
            *(said(accuracy(rows[(rows["arm"] == arm) & (rows["probe"] == probe)])) for probe in REAL_PROBES),
        ]
        for arm in arms
    ]
    return pd.DataFrame(cells, index=arms, columns=["seeds", *REAL_PROBES.values()])


def settings_table(results: pd.DataFrame) -> pd.DataFrame:
    """The supervised arm on the tuning seed, a row a setting."""
    tried = results[
        (results["seed"] == TUNING_SEED) & (results["arm"] == "supervised") & (results["probe"] == "linear")
    ]
    return tried.groupby(["corpus", "augmentation", "pixels", "stride", "steps", "rate"], as_index=False).agg(
        linear=("correct", "mean")
    )


def tables(results: pd.DataFrame) -> str:
    """All that was measured, and what the rule says."""
    parts = [f"settings, supervised arm, seed {TUNING_SEED}\n{settings_table(results).to_string(index=False)}"]
    for corpus in sorted(results["corpus"].unique()):
        for design in ("untrimmed", "trimmed"):
            rows = of_design(results, corpus, design)
            if not rows.empty:
                parts.append(f"{corpus}, {design}: percent right, 95 % interval\n{real_table(rows).to_string()}")
    rule = [
        f"  {verdict.setting}: {verdict.difference.mean:+.1%} ± {verdict.difference.standard_error:.1%}, "
        f"{verdict.difference.won} of {verdict.difference.num_seeds} seeds: {'met' if verdict.met else 'NOT met'}"
        for verdict in real_verdicts(results)
    ]
    return "\n\n".join([*parts, "\n".join(["The rule, written before the run: " + REAL_RULE, *rule])])
