"""Tables of docs/results-real.md and its appendix from what scripts/evidence/real.py measured.

    python scripts/evidence/real_page.py OUT

OUT is the benchmark's. Its results.parquet is copied to docs/measurements/real.parquet; the parts of
docs/results-real.md and docs/results-real-appendix.md between `<!-- begin NAME -->` and `<!-- end NAME -->` are written
anew.
"""

import shutil
import sys
from pathlib import Path

import pandas as pd
from findings import paired
from parts import TUNING_SEED
from real_cells import FROZEN, MEANINGS, NEAR, RealProbe
from real_findings import (
    REAL_PROBES,
    REAL_RULE,
    by_seed,
    difference,
    of_design,
    real_table,
    real_verdicts,
    said,
    settings_table,
    with_several_labels,
)
from real_parts import ALL_SESSIONS, read_real
from results_page import DOCS, markdown, with_parts
from results_page import said as said_of_seeds
from running import write_table

from hico_core.evidence.arms import FAR_3, HICO

# Pairs whose difference says what one part of HiCo does.
_PAIRS = (
    (HICO.name, FAR_3.name),
    (HICO.name, "untrained"),
    (FAR_3.name, "untrained"),
    (HICO.name, NEAR.name),
    ("hico-cuts", HICO.name),
)


def arms_table(rows: pd.DataFrame) -> str:
    """Arms by probes."""
    table = real_table(rows)
    lines = [[arm, MEANINGS[arm], *values] for arm, values in zip(table.index, table.to_numpy().tolist(), strict=True)]
    return markdown(["arm", "what it is", *table.columns], lines)


def pairs_table(rows: pd.DataFrame) -> str:
    """Differences of pairs of arms by probe, and of the linear probe by seed."""
    lines = []
    for arm, baseline in _PAIRS:
        gaps = [difference(rows[rows["probe"] == probe], arm, baseline) for probe in REAL_PROBES]
        if gaps[0] is not None:
            seeds = said_of_seeds(paired(by_seed(rows), arm, baseline, "linear"))
            lines.append([f"{arm} - {baseline}", *(said(gap, sign="+") for gap in gaps), seeds])
    return markdown(["points", *REAL_PROBES.values(), "linear, seeds: ± standard error, won"], lines)


def rule_table(results: pd.DataFrame) -> str:
    """What the rule says."""
    lines = [
        [verdict.setting, said_of_seeds(verdict.difference), "met" if verdict.met else "**not met**"]
        for verdict in real_verdicts(results)
    ]
    return f"> {REAL_RULE}\n\n" + markdown(["ego_gest", "HiCo - SimCLR-far, seeds won", "rule"], lines)


def summary_table(results: pd.DataFrame) -> str:
    """Arms by the linear probe of each set and design, and by how often a place is found."""
    found = {
        "gesture, untrimmed": _column(results, "ego_gest", "untrimmed", "linear"),
        "gesture, trimmed": _column(results, "ego_gest", "trimmed", "linear"),
        "environment": _column(results, "ego_gest", "untrimmed", "place-r1"),
        "fight, untrimmed": _column(results, "fight_surv", "untrimmed", "linear"),
    }
    lines = [[arm, *(column.get(arm, "") for column in found.values())] for arm in MEANINGS]
    return markdown(["method", *found], [line for line in lines if any(line[1:])])


def _column(results: pd.DataFrame, corpus: str, design: str, probe: RealProbe) -> dict[str, str]:
    rows = of_design(results, corpus, design)
    if rows.empty:
        return {}
    return {str(arm): value for arm, value in real_table(rows)[REAL_PROBES[probe]].items()}


def pages(results: pd.DataFrame) -> dict[Path, str]:
    """By page, its text with all its parts anew."""
    parts = {
        DOCS / "results-real.md": {"rule": rule_table(results), "summary": summary_table(results)},
        DOCS / "results-real-appendix.md": parts_of_appendix(results),
    }
    return {page: with_parts(page.read_text(), of_page, page=page) for page, of_page in parts.items()}


def parts_of_appendix(results: pd.DataFrame) -> dict[str, str]:
    """The text between each pair of marks of docs/results-real-appendix.md."""
    tuned = settings_table(results).rename(columns={"rate": "learning rate"})
    parts = {
        "settings": markdown([*tuned.columns], [[f"{value}" for value in row] for row in tuned.round(3).to_numpy()])
    }
    for corpus in ("ego_gest", "fight_surv"):
        for design in ("untrimmed", "trimmed"):
            rows = of_design(results, corpus, design)
            parts[f"{corpus} {design}"] = arms_table(rows) if not rows.empty else "Not run."
            parts[f"{corpus} {design} pairs"] = pairs_table(rows) if not rows.empty else "Not run."
    cameras = with_several_labels(of_design(results, "fight_surv", "untrimmed"))
    parts["fight_surv cameras"] = arms_table(cameras) if not cameras.empty else "Not run."
    large = of_design(results, ALL_SESSIONS, "untrimmed")
    parts["s3dg"] = arms_table(large) if not large.empty else "Not run."
    parts["s3dg pairs"] = pairs_table(large) if not large.empty else "Not run."
    named = ["corpus", "arm", "design", "seed", "augmentation", "pixels", "steps", "rate", "encoder"]
    cells = results.drop_duplicates(named)
    seeds = sorted({int(seed) for seed in cells[~cells["arm"].isin(FROZEN)]["seed"]} - {TUNING_SEED})
    parts["hours"] = (
        f"{len(cells)} cells of seeds {', '.join(map(str, seeds))} (and {TUNING_SEED} for the settings), "
        f"{cells['seconds'].sum() / 3600:.1f} hours of cells, two at a time on two cores that also had other work."
    )
    return parts


def main() -> None:
    """Write everything anew."""
    results = read_real(Path(sys.argv[1]))
    if results.empty:
        sys.exit(f"{sys.argv[1]}: no results of the benchmark here")
    shutil.copyfile(write_table(Path(sys.argv[1]), results), DOCS / "measurements" / "real.parquet")
    for page, text in pages(results).items():
        page.write_text(text)


if __name__ == "__main__":
    main()
