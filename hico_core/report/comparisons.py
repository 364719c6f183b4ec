"""Charts and tables of comparisons of encoders, for their folders and for the page of a workspace."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hico_core.base.addresses import Location
from hico_core.base.errors import counted
from hico_core.base.storage import write_text
from hico_core.report import charts
from hico_core.transfer.evaluation.comparison import RESULTS, ComparedRow, read_comparison

PICTURE = "accuracy.svg"

_IN_WORDS = {"linear": "linear probe", "knn": "k-NN"}


class ComparisonFacts(NamedTuple):
    """The content of a folder in ROOT/compare."""

    name: str
    rows: list[ComparedRow]


def read_comparisons(root: Location) -> list[ComparisonFacts]:
    """Read all comparisons of a workspace, by name.

    Raises:
        HicoError: the results of a comparison are damaged.

    """
    folders = sorted((path.parent for path in (root / "compare").glob(f"*/{RESULTS}")), key=str)
    return [ComparisonFacts(folder.name, read_comparison(folder)) for folder in folders]


def describe_test(row: ComparedRow) -> str:
    """Describe the test set and the baselines of the accuracies."""
    return (
        f"Percent of {counted(row.num_test_clips, 'test clip')} in {counted(row.num_test_groups, 'group')}, with 95 % "
        f"intervals; chance {100 * row.chance:.1f}, most frequent class {100 * row.most_frequent_class:.1f}"
    )


def in_percent(rows: Sequence[ComparedRow]) -> dict[str, list[str]]:
    """Encoder -> accuracy and difference from the first encoder, linear probe first, then k-NN: 71.0 (59.6 to 81.8)."""
    cells: dict[str, list[str]] = {}
    for row in rows:
        difference = ""
        if row.difference is not None and row.difference_low is not None and row.difference_high is not None:
            difference = _with_ends(row.difference, row.difference_low, row.difference_high, "+.1f")
        accuracy = _with_ends(row.accuracy, row.accuracy_low, row.accuracy_high, ".1f")
        cells.setdefault(row.encoder, []).extend([accuracy, difference])
    return cells


def _with_ends(value: float, low: float, high: float, form: str) -> str:
    return f"{100 * value:{form}} ({100 * low:{form}} to {100 * high:{form}})"


def accuracy_chart(rows: Sequence[ComparedRow]) -> str:
    """Accuracy of each encoder with its interval, and chance, as SVG."""
    return charts.intervals(
        {
            words: [_percent(row.accuracy, row.accuracy_low, row.accuracy_high) for row in rows if row.probe == probe]
            for probe, words in _IN_WORDS.items()
        },
        list(dict.fromkeys(row.encoder for row in rows)),
        lines_at={"chance": 100 * rows[0].chance, "most frequent class": 100 * rows[0].most_frequent_class},
        x="accuracy in percent, with 95 % interval",
    )


def _percent(value: float, low: float, high: float) -> tuple[float, float, float]:
    return 100 * value, 100 * low, 100 * high


def write_picture(folder: Path, rows: Sequence[ComparedRow]) -> Path:
    """Write the chart into the folder of a comparison; return the file."""
    target = folder / PICTURE
    write_text(target, accuracy_chart(rows) + "\n")
    return target
