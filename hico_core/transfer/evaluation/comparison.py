"""The result of comparing encoders: rows of accuracies, and the prediction for each clip."""

import html
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from hico_core.base.addresses import Location
from hico_core.base.errors import HicoError, counted
from hico_core.base.storage import storage_of, written_beside
from hico_core.transfer.evaluation.intervals import percent

RESULTS, PREDICTIONS = "results.parquet", "predictions.parquet"


Probe = Literal["linear", "knn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRow:
    """A row of results.parquet: one probe of one encoder. Accuracies are fractions of 1, intervals are 95 %."""

    encoder: str
    weights: str | None
    weights_sha256: str | None
    probe: Probe
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    difference: float | None  # from the first encoder; None for that one
    difference_low: float | None
    difference_high: float | None
    num_test_clips: int
    num_test_groups: int
    num_classes: int
    chance: float  # of guessing one of the classes
    most_frequent_class: float  # accuracy of always predicting the most frequent class


class Comparison(NamedTuple):
    """The result of a comparison."""

    rows: list[ComparedRow]
    predictions: pa.Table  # encoder, probe, path, label, group, fold, predicted, correct: one row per test clip
    num_left_out: int  # clips that could not be read

    def __repr__(self) -> str:
        encoders = dict.fromkeys(row.encoder for row in self.rows)
        return f"Comparison({', '.join(encoders)}; {counted(self.rows[0].num_test_clips, 'test clip')})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        head = "".join(f"<th>{name}</th>" for name in ("encoder", "probe", "accuracy", "difference from the first"))
        rows = [
            (
                html.escape(row.encoder),
                row.probe,
                _with_ends(row.accuracy, row.accuracy_low, row.accuracy_high),
                _with_ends(row.difference, row.difference_low, row.difference_high),
            )
            for row in self.rows
        ]
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        first = self.rows[0]
        caption = (
            f"Percent of {counted(first.num_test_clips, 'test clip')} in {counted(first.num_test_groups, 'group')}, "
            f"with 95 % intervals; chance {percent(first.chance)}"
        )
        return f"<table><caption>{caption}</caption><tr>{head}</tr>{body}</table>"


def _with_ends(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return ""
    return f"{100 * value:.1f} ({100 * low:.1f} to {100 * high:.1f})"


# Also for columns without values, which have no type of their own.
_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    str | None: pa.string(),
    Probe: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    float | None: pa.float64(),
}
_SCHEMA = pa.schema([(field.name, _TYPES[field.type]) for field in fields(ComparedRow)])


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write results.parquet and predictions.parquet into a folder."""
    results = pa.Table.from_pylist([asdict(row) for row in comparison.rows], schema=_SCHEMA)
    for name, table in ((PREDICTIONS, comparison.predictions), (RESULTS, results)):
        with written_beside(folder / name) as beside:
            pq.write_table(table, beside)


def read_comparison(folder: Location) -> list[ComparedRow]:
    """The rows of results.parquet in a folder.

    Raises:
        HicoError: the file is damaged.

    """
    path = folder / RESULTS
    try:
        return [ComparedRow(**row) for row in pq.read_table(storage_of(path).for_arrow(path)).to_pylist()]
    except (OSError, pa.ArrowException, TypeError) as error:
        raise HicoError(f"{path}: is damaged ({type(error).__name__}); run `hico compare` again") from error
