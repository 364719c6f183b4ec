"""Runs the cells on made videos, and reads what they gave."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from cells import Cell, run_cell, write_trimmed_index
from running import BenchmarkProgress, Experiment, read_cells, run_cells, write_table

from hico_core.evidence.corpus import read_labels
from hico_core.evidence.segments import Score
from hico_core.evidence.trial import Place, prepare_corpus, segment_clips

# 240 to train on, 120 to test on.
NUM_VIDEOS = 360

_COLUMNS = [
    "design",
    "look",
    "seed",
    "arm",
    "steps",
    "rate",
    "trimmed",
    "videos",
    "seconds",
    "probe",
    "accuracy",
    "chance",
]


def read_results(folder: Path) -> pd.DataFrame:
    """All that was measured in a folder so far, a row for each cell and probe."""
    return read_cells(folder, _COLUMNS)


def write_results(folder: Path) -> Path:
    """results.parquet from the files of the cells."""
    return write_table(folder, read_results(folder))


def run_benchmark(
    folder: Path,
    cells: Sequence[Cell],
    *,
    processes: int,
    videos: int = NUM_VIDEOS,
    on_progress: Callable[[BenchmarkProgress], None] = lambda progress: None,
) -> None:
    """Run the cells that were not run yet, see `run_cells`; each corpus has so many videos."""
    experiment = Experiment(partial(_prepare, videos=videos), _run)
    run_cells(folder, cells, experiment, processes=processes, on_progress=on_progress)


def _prepare(cell: Cell, root: Path, *, videos: int) -> None:
    """Make a corpus, and read what its arms are probed with."""
    place = Place(root)
    labels = prepare_corpus(cell.corpus, place, videos=videos, workers=1)
    write_trimmed_index(place, labels)
    segment_clips(place, labels)


def _run(cell: Cell, root: Path) -> list[Score]:
    place = Place(root)
    return run_cell(cell, place, read_labels(place.videos))
