"""`hico benchmark`: the claim on a made corpus in full, with controls."""

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import progress, raising_on_signals, result
from hico_cli.options import Json

if TYPE_CHECKING:
    import pandas as pd

    from hico_core.evidence.benchmark import Progress


class PartName(str, Enum):
    """See `hico_core.evidence.benchmark.cells_of`."""

    RATES = "rates"
    ARMS = "arms"
    TRIMMED = "trimmed"
    CONTROLS = "controls"
    LOOKS = "looks"
    LONG = "long"
    LONG_RATES = "long-rates"


_PROBES = ("action-linear", "action-knn", "scene-linear", "topic-linear", "topic-knn", "topic-r1", "video-r1")


def benchmark(
    folder: Annotated[Path, typer.Argument(help="Where results go.")] = Path("hico-benchmark"),
    part: Annotated[
        list[PartName] | None,
        typer.Option("--part", help="What to run; may be repeated. Default: everything, in this order."),
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help="Seeds of the corpora, such as 1-10 or 1,2,5.")] = "1-10",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trainings at a time, one thread each. Default: one a core.")
    ] = None,
    json: Json = False,
) -> None:
    """Compare HiCo with SimCLR and controls on made videos, and print all tables.

    rates: each arm with three rates on seed 0, which chooses its rate. arms: every arm, on videos without and with
    fillers. trimmed: each segment is a video of its own. controls: wrong videos for the topical term, other distances.
    looks: videos that differ less or more from each other in what is common to all of their frames. long: three times
    the steps. long-rates: each arm with three rates there, on seed 0. All of it takes about a day of one core. Stopped,
    the same command goes on.

    Writes FOLDER/results.parquet, a row for each arm, corpus and probe.
    """
    from hico_core.corpus.engine import available_cores
    from hico_core.evidence.benchmark import cells_of, chosen_rates, read_results, run_benchmark, write_results

    chosen = read_seeds(seeds)
    with raising_on_signals("stopped; the same command goes on"):
        for name in part or list(PartName):
            cells = cells_of(name.value, seeds=chosen, rates=chosen_rates(read_results(folder)))
            with progress(name.value, total=len(cells), as_json=json) as report:

                def on_progress(now: "Progress") -> None:
                    report(now.done, f"{now.done}/{now.total} {now.what}", now._asdict())

                run_benchmark(folder, cells, processes=workers or available_cores(), on_progress=on_progress)
    target = write_results(folder)
    found = read_results(folder)
    result(_tables(found) + f"\n\n{target}", {"results": str(target), "rows": len(found)}, as_json=json)


def read_seeds(text: str) -> list[int]:
    """Numbers and ranges of numbers, "1-3,7" -> 1 2 3 7.

    Raises:
        typer.BadParameter: something else, or a seed that is named twice or is the one that settings are chosen on.

    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None:
            raise typer.BadParameter(f"{part!r} is neither a number nor a range such as 1-10", param_hint="--seeds")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise typer.BadParameter(f"{part!r} ends before it begins", param_hint="--seeds")
        seeds += range(first, last + 1)
    for seed in seeds:
        if seeds.count(seed) > 1:
            raise typer.BadParameter(f"seed {seed} is named twice; each counts once", param_hint="--seeds")
    if 0 in seeds:
        raise typer.BadParameter("seed 0 is the one on which rates are chosen; begin with 1", param_hint="--seeds")
    return seeds


def _tables(results: "pd.DataFrame") -> str:
    """All settings that were measured, one table each, and what the rule says."""
    import pandas as pd

    from hico_core.evidence.arms import MEANINGS
    from hico_core.evidence.benchmark import STEPS, TUNING_SEED
    from hico_core.evidence.findings import SETTING, SUCCESS, table_of, verdicts

    parts = []
    shown = results[results["seed"] != TUNING_SEED]
    untrained = shown["steps"] == 0
    for (design, look, trimmed, steps), rows in shown[~untrained].groupby(SETTING):
        beside = shown[untrained & (shown["design"] == design) & (shown["look"] == look)]
        trim = ", trimmed" if trimmed else ""
        title = f"{design}{trim}, look {look:g}, {steps} steps, {rows['seed'].nunique()} seeds"
        table = table_of(pd.concat([beside, rows]), _PROBES, list(MEANINGS))
        parts.append(f"{title}: percent right, mean ± standard error\n{table.to_string()}")
    rule = [
        f"  {verdict.setting}: {verdict.difference.mean:+.1%} ± {verdict.difference.standard_error:.1%}, "
        f"{verdict.difference.won} of {verdict.difference.num_seeds} seeds: {'met' if verdict.met else 'NOT met'}"
        for verdict in verdicts(results, steps=STEPS)
    ]
    return "\n\n".join([*parts, "\n".join(["The rule, written before the run: " + SUCCESS, *rule])])
