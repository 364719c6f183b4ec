"""Tables of measurements of the encoders of runs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hico_core.base.errors import counted
from hico_core.report.facts import RunFacts
from hico_core.report.results import Localised, ProbeRow
from hico_core.transfer.evaluation.intervals import Estimate, wilson_interval


class Table(NamedTuple):
    """A sortable table; numbers are right-aligned."""

    caption: str
    head: list[str]
    rows: list[list[Any]]
    is_facts: bool = False  # names and values of any kind, none of which is right-aligned


def by_name(runs: Sequence[RunFacts]) -> Mapping[str, RunFacts]:
    """Name runs; runs of different workspaces that share a name are called by their paths."""
    names = [run.name for run in runs]
    return {run.name if names.count(run.name) == 1 else str(run.path): run for run in runs}


def probe_table(runs: Sequence[RunFacts]) -> Table | None:
    """Accuracies of probes and classifiers, one column per run; None if there are none."""
    named = by_name(runs)
    measured = {name: {row.probe: row for row in run.results.probes} for name, run in named.items()}
    probes = list(dict.fromkeys(probe for rows in measured.values() for probe in rows))
    if not probes:
        return None
    table = []
    for probe in probes:
        found = [rows.get(probe) for rows in measured.values()]
        chance = next((row.chance for row in found if row is not None and row.chance is not None), None)
        accuracies = ["" if row is None else _accuracy(row) for row in found]
        table.append([probe, *accuracies, "" if chance is None else f"{100 * chance:.1f}"])
    return Table("Accuracy in percent, with 95 % interval or standard error", ["probe", *named, "chance"], table)


def _accuracy(row: ProbeRow) -> str:
    if row.interval is not None:
        return f"{_in_percent(row.interval)} of {counted(row.num_test or 0, 'video')}"
    error = row.standard_error
    return f"{100 * row.accuracy:.1f}" + ("" if error is None else f" ± {100 * error:.1f}")


def _in_percent(value: Estimate) -> str:
    """71.0 (59.6 to 81.8)."""
    return f"{100 * value.value:.1f} ({100 * value.low:.1f} to {100 * value.high:.1f})"


def retrieval_table(runs: Sequence[RunFacts]) -> Table | None:
    """Measurements of retrieval, one row each; None if there are none."""
    table = []
    for name, run in by_name(runs).items():
        for features, found in run.results.retrieval:
            first = wilson_interval(found.recall[1], found.num_queries)
            fifth = f"{100 * found.recall[5]:.1f}" if 5 in found.recall else ""
            average = found.mean_average_precision
            table.append(
                [
                    *(name, features, found.protocol, _in_percent(first), f"{100 * found.chance[1]:.1f}", fifth),
                    *("" if average is None else f"{100 * average:.1f}", found.num_queries, found.gallery_size),
                ]
            )
    head = ["run", "features", "protocol", "R@1", "R@1 by chance", "R@5", "mAP", "queries", "gallery"]
    caption = "Percent of queries with a match of the same class among the first k (R@k); R@1 with 95 % interval"
    return Table(caption, head, table) if table else None


def localised_tables(runs: Sequence[RunFacts]) -> list[Table]:
    """The measurements of `hico probe --segments`, one table per file."""
    return [_localised_table(name, found) for name, run in by_name(runs).items() for found in run.results.localised]


def _localised_table(name: str, found: Localised) -> Table:
    rows = [
        [
            row.features,
            *(_in_percent(value) for value in (row.frame_accuracy, row.edit, *row.f1.values())),
            f"{100 * row.mean_average_precision:.1f}",
        ]
        for row in found.rows
    ]
    head = ["features", "accuracy", "edit", *(f"F1@{overlap}" for overlap in found.rows[0].f1), "mAP"]
    num_seconds = sum(found.seconds_of_classes.values())
    caption = (
        f"{name}, {found.file}: percent of {counted(num_seconds, 'second')} of "
        f"{counted(found.num_videos, 'video')} in {counted(found.num_groups, 'group')}, with 95 % intervals over groups"
    )
    return Table(caption, head, rows)
