"""Compare HiCo with SimCLR and controls on synthetic videos, and print all tables.

    python scripts/evidence/benchmark.py [FOLDER] [--part PART]... [--seeds 1-10] [--workers N] [--json]

rates: each arm with three rates on seed 0, which chooses its rate. arms: every arm, on videos without and with fillers.
trimmed: each segment is a video of its own. controls: wrong videos for the topical term, other distances. looks: videos
that differ less or more from each other in what is common to all of their frames. long: three times the steps.
long-rates: each arm with three rates there, on seed 0. weights, mean-distance, cuts, sizes: four questions
(findings.QUESTIONS). All of it takes about a day of one core. Stopped, the same command continues.

Writes FOLDER/results.parquet, a row for each arm, corpus and probe.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from arms import MEANINGS
from command import add_options, exiting_as_hico, reported
from findings import SETTING, SUCCESS, table_of, verdicts
from parts import PARTS, STEPS, TUNING_SEED, Part, cells_of, chosen_rates
from results import read_results, run_benchmark, write_results

from hico_cli.console import result

_PROBES = ("action-linear", "action-knn", "scene-linear", "topic-linear", "topic-knn", "topic-r1", "video-r1")


def run_parts(folder: Path, parts: Sequence[Part], *, seeds: Sequence[int], processes: int, as_json: bool) -> None:
    """Run parts one after the other, each with the rates that were chosen by then; report on them on stderr.

    Raises:
        HicoError: as `run_benchmark`.

    """
    for part in parts:
        cells = cells_of(part, seeds=seeds, rates=chosen_rates(read_results(folder)))
        with reported(part, total=len(cells), as_json=as_json) as on_progress:
            run_benchmark(folder, cells, processes=processes, on_progress=on_progress)


def tables(results: pd.DataFrame) -> str:
    """All settings that were measured, one table each, and what the rule says."""
    parts = []
    shown = results[results["seed"] != TUNING_SEED]
    untrained = shown["steps"] == 0
    for (design, look, trimmed, videos, steps), rows in shown[~untrained].groupby(SETTING):
        beside = shown[untrained & (shown["design"] == design) & (shown["look"] == look)]
        trim = ", trimmed" if trimmed else ""
        few = f", {videos} videos" if videos else ""
        title = f"{design}{trim}{few}, look {look:g}, {steps} steps, {rows['seed'].nunique()} seeds"
        table = table_of(pd.concat([beside, rows]), _PROBES, list(MEANINGS))
        parts.append(f"{title}: percent right, mean ± standard error\n{table.to_string()}")
    rule = [
        f"  {verdict.setting}: {verdict.difference.mean:+.1%} ± {verdict.difference.standard_error:.1%}, "
        f"{verdict.difference.won} of {verdict.difference.num_seeds} seeds: {'met' if verdict.met else 'NOT met'}"
        for verdict in verdicts(results, steps=STEPS)
    ]
    return "\n\n".join([*parts, "\n".join(["The rule, written before the run: " + SUCCESS, *rule])])


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and exit as `hico` does: 1 failed with one line, 2 wrong usage, 130 or 143 stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("hico-benchmark"), help="where results go")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; default: all, in this order")
    add_options(parser)
    asked = parser.parse_args(arguments)
    with exiting_as_hico("benchmark"):
        run_parts(asked.folder, asked.part or PARTS, seeds=asked.seeds, processes=asked.workers, as_json=asked.json)
        target, found = write_results(asked.folder), read_results(asked.folder)
    result(f"{tables(found)}\n\n{target}", {"results": str(target), "rows": len(found)}, as_json=asked.json)


if __name__ == "__main__":
    main()
