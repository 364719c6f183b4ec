"""Runs the cells of an experiment in parallel processes, and reads what they gave: each is written down once."""

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import pandas as pd

from hico_core.base.errors import HicoError
from hico_core.base.files import lock, remove_abandoned
from hico_core.base.storage import write_text, written_beside
from hico_core.evidence.workers import worker_pool


class Named(Protocol):
    """A corpus."""

    @property
    def name(self) -> str:
        """Of its folder."""


class Cell(Protocol):
    """The smallest piece of an experiment: one arm on one corpus."""

    @property
    def name(self) -> str:
        """Of its file of results."""

    @property
    def corpus(self) -> Named:
        """What it is trained and probed on."""

    @property
    def columns(self) -> Mapping[str, Any]:
        """Of its rows in the table of results."""


class Score(Protocol):
    """A named tuple: one row of the table, beside the columns of its cell."""

    def _asdict(self) -> dict[str, Any]: ...


CellT = TypeVar("CellT", bound=Cell)


@dataclass(frozen=True, slots=True)
class Experiment(Generic[CellT]):
    """What is done in the processes of the pool, each time with the folder of the cell's corpus."""

    prepare: Callable[[CellT, Path], None]  # called with the first cell of each corpus
    run: Callable[[CellT, Path], Sequence[Score]]


def file_of(cell: Cell, folder: Path) -> Path:
    """Where a cell's scores stand in an experiment's folder."""
    return folder / "cells" / f"{cell.name}.json"


def scores_as_json(cell: Cell, scores: Sequence[Score], *, seconds: float) -> str:
    """What is kept of a cell."""
    kept = {**cell.columns, "seconds": round(seconds, 1)}
    return json.dumps({**kept, "scores": [score._asdict() for score in scores]})


def read_cells(folder: Path, columns: Sequence[str]) -> pd.DataFrame:
    """All that was measured in a folder so far, a row for each cell and score.

    Raises:
        HicoError: a file is damaged.

    """
    rows = []
    for path in sorted((folder / "cells").glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scores = content.pop("scores")
            rows += [{**content, **score} for score in scores]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HicoError(f"{path}: not what the benchmark writes; remove it, and its cell is run again") from error
    return pd.DataFrame(rows, columns=list(columns))


def write_table(folder: Path, results: pd.DataFrame) -> Path:
    """Write results.parquet into a folder."""
    target = folder / "results.parquet"
    with written_beside(target) as beside:
        results.to_parquet(beside, index=False)
    return target


class BenchmarkProgress(NamedTuple):
    """How far a benchmark is."""

    done: int
    total: int
    what: str  # was just done


def run_cells(
    folder: Path,
    cells: Sequence[CellT],
    experiment: Experiment[CellT],
    *,
    processes: int,
    on_progress: Callable[[BenchmarkProgress], None] = lambda progress: None,
) -> None:
    """Run the cells that were not run yet, each in one of several processes of one thread.

    Args:
        folder: where results go, cells/NAME.json for each, and where corpora lie while they are needed.
        cells: what to run, all of one corpus together.
        experiment: how.
        processes: at a time.
        on_progress: called after each cell and corpus.

    Raises:
        HicoError: another benchmark runs in this folder, or a cell cannot be run. Those that are done are kept.

    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock", refusal=f"{folder}: another benchmark runs here; wait for it, or name another folder"):
        (folder / "cells").mkdir(exist_ok=True)
        remove_abandoned(folder / "cells")
        missing = [cell for cell in cells if not file_of(cell, folder).exists()]
        done = len(cells) - len(missing)
        with worker_pool(processes) as pool:
            for what, is_cell in _walk(folder, missing, experiment, pool, at_a_time=processes):
                done += is_cell
                on_progress(BenchmarkProgress(done, len(cells), what))


def _walk(
    folder: Path, cells: Sequence[CellT], experiment: Experiment[CellT], pool: ProcessPoolExecutor, *, at_a_time: int
) -> Iterator[tuple[str, bool]]:
    """Make corpora as they are needed, run their cells, remove them; yield what was done, and whether it was a cell."""
    cells_of_corpus: dict[str, list[CellT]] = {}
    for cell in cells:
        cells_of_corpus.setdefault(cell.corpus.name, []).append(cell)
    to_come = deque(cells_of_corpus)
    left: dict[str, int] = {}  # cells of the corpora that are there
    running: dict[Future[None], str | CellT] = {}
    while to_come or running:
        # One corpus more than processes, so that nobody waits for one to be made.
        while to_come and len(left) <= at_a_time:
            corpus = to_come.popleft()
            own = cells_of_corpus[corpus]
            left[corpus] = len(own)
            running[pool.submit(experiment.prepare, own[0], folder / "corpora" / corpus)] = corpus
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            what = running.pop(future)
            future.result()
            if isinstance(what, str):
                running |= {pool.submit(_run, folder, cell, experiment): cell for cell in cells_of_corpus[what]}
                yield what, False
            else:
                left[what.corpus.name] -= 1
                if not left[what.corpus.name]:
                    del left[what.corpus.name]
                    shutil.rmtree(folder / "corpora" / what.corpus.name)
                yield what.name, True


def _run(folder: Path, cell: CellT, experiment: Experiment[CellT]) -> None:
    """In a process of the pool: run a cell and write down what it gave."""
    began = time.monotonic()
    scores = experiment.run(cell, folder / "corpora" / cell.corpus.name)
    write_text(file_of(cell, folder), scores_as_json(cell, scores, seconds=time.monotonic() - began) + "\n")
