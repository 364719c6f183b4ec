"""Compare HiCo with SimCLR and controls on synthetic videos, and print all tables.

    python scripts/evidence/benchmark.py [FOLDER] [--part PART]... [--seeds 1-10] [--workers N] [--json]

rates: each arm with three rates on seed 0, which chooses its rate. arms: every arm, on videos without and with fillers.
trimmed: each segment is a video of its own. controls: wrong videos for the topical term, other distances. looks: videos
that differ less or more from each other in what is common to all of their frames. long: three times the steps.
long-rates: each arm with three rates there, on seed 0. weights, mean-distance, sizes: three questions
(findings.QUESTIONS). All of it takes about a day of one core. Stopped, the same command continues.

Writes FOLDER/results.parquet, a row for each arm, corpus and probe.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from arms import MEANINGS
from findings import SETTING, SUCCESS, table_of, verdicts
from parts import PARTS, STEPS, TUNING_SEED, Part, cells_of, chosen_rates
from results import read_results, run_benchmark, write_results
from running import BenchmarkProgress

from hico_cli.console import progress, raising_on_signals, result
from hico_core.base.engine import available_cores
from hico_core.base.errors import HicoError

_PROBES = ("action-linear", "action-knn", "scene-linear", "topic-linear", "topic-knn", "topic-r1", "video-r1")


def run_parts(folder: Path, parts: Sequence[Part], *, seeds: Sequence[int], processes: int, as_json: bool) -> None:
    """Run parts one after the other, each with the rates that were chosen by then; report on them on stderr.

    Raises:
        HicoError: as `run_benchmark`.

    """
    for part in parts:
        cells = cells_of(part, seeds=seeds, rates=chosen_rates(read_results(folder)))
        with progress(part, total=len(cells), as_json=as_json) as report:

            def on_progress(now: BenchmarkProgress) -> None:
                report(now.done, f"{now.done}/{now.total} {now.what}", now._asdict())

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


def read_seeds(text: str) -> list[int]:
    """Numbers and ranges of numbers, "1-3,7" -> 1 2 3 7.

    Raises:
        argparse.ArgumentTypeError: something else, or a seed that is named twice or is the one that settings are
            chosen on.

    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None:
            raise argparse.ArgumentTypeError(f"{part!r} is neither a number nor a range such as 1-10")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise argparse.ArgumentTypeError(f"{part!r} ends before it begins")
        seeds += range(first, last + 1)
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise argparse.ArgumentTypeError(f"seed {seed} is named twice; each counts once")
    if TUNING_SEED in seeds:
        raise argparse.ArgumentTypeError(f"seed {TUNING_SEED} is the one on which rates are chosen; begin with 1")
    return seeds


def num_workers(text: str) -> int:
    """A number of processes.

    Raises:
        argparse.ArgumentTypeError: it is none.

    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes, 1 or more")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, and exit as `hico` does: 1 failed with one line, 2 wrong usage, 130 or 143 stopped."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("hico-benchmark"), help="where results go")
    parser.add_argument("--part", action="append", choices=PARTS, help="may be repeated; default: all, in this order")
    parser.add_argument("--seeds", type=read_seeds, default="1-10", help="of the corpora, such as 1-10 or 1,2,5")
    parser.add_argument("--workers", type=num_workers, help="trainings at a time, one thread each; default: one a core")
    parser.add_argument("--json", action="store_true", help="for programs")
    asked = parser.parse_args(arguments)
    try:
        with raising_on_signals("stopped; the same command continues"):
            processes = asked.workers or available_cores()
            run_parts(asked.folder, asked.part or PARTS, seeds=asked.seeds, processes=processes, as_json=asked.json)
        target, found = write_results(asked.folder), read_results(asked.folder)
    except (HicoError, OSError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        sys.exit(error.exit_code if isinstance(error, HicoError) else 1)
    result(f"{tables(found)}\n\n{target}", {"results": str(target), "rows": len(found)}, as_json=asked.json)


if __name__ == "__main__":
    main()
