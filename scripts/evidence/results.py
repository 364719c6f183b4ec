"""Runs cells in parallel processes, and reads what they gave: each is written down, and not run again."""

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from cells import Cell, run_cell, scores_as_json, write_trimmed_index

from hico_core.base.errors import HicoError
from hico_core.base.files import lock, remove_abandoned
from hico_core.base.storage import write_text, written_beside
from hico_core.evidence.corpus import read_labels
from hico_core.evidence.trial import Corpus, Place, prepare_corpus, segment_clips
from hico_core.evidence.workers import worker_pool

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


def file_of(cell: Cell, folder: Path) -> Path:
    """Where a cell's scores stand in a benchmark's folder."""
    return folder / "cells" / f"{cell.name}.json"


def read_results(folder: Path) -> pd.DataFrame:
    """All that was measured in a folder so far, a row for each cell and probe."""
    rows = []
    for path in sorted((folder / "cells").glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            scores = content.pop("scores")
            rows += [{**content, **score} for score in scores]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HicoError(f"{path}: not what the benchmark writes; remove it, and its cell is run again") from error
    return pd.DataFrame(rows, columns=_COLUMNS)


def write_results(folder: Path) -> Path:
    """results.parquet from the files of the cells."""
    target = folder / "results.parquet"
    with written_beside(target) as beside:
        read_results(folder).to_parquet(beside, index=False)
    return target


class BenchmarkProgress(NamedTuple):
    """How far a benchmark is."""

    done: int
    total: int
    what: str  # was just done


def run_benchmark(
    folder: Path,
    cells: Sequence[Cell],
    *,
    processes: int,
    videos: int = NUM_VIDEOS,
    on_progress: Callable[[BenchmarkProgress], None] = lambda progress: None,
) -> None:
    """Run the cells that were not run yet, each in one of several processes of one thread.

    Args:
        folder: where results go, cells/NAME.json for each, and where corpora lie while they are needed.
        cells: what to run, all of one corpus together.
        processes: at a time.
        videos: of each corpus.
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
            for what, is_cell in _walk(folder, missing, pool, videos=videos, at_a_time=processes):
                done += is_cell
                on_progress(BenchmarkProgress(done, len(cells), what))


def _walk(
    folder: Path, cells: Sequence[Cell], pool: ProcessPoolExecutor, *, videos: int, at_a_time: int
) -> Iterator[tuple[str, bool]]:
    """Make corpora as they are needed, run their cells, remove them; yield what was done, and whether it was a cell."""
    cells_of_corpus: dict[Corpus, list[Cell]] = {}
    for cell in cells:
        cells_of_corpus.setdefault(cell.corpus, []).append(cell)
    to_come = deque(cells_of_corpus)
    left: dict[Corpus, int] = {}  # cells of the corpora that are there
    running: dict[Future[None], Corpus | Cell] = {}
    while to_come or running:
        # One corpus more than processes, so that nobody waits for one to be made.
        while to_come and len(left) <= at_a_time:
            corpus = to_come.popleft()
            left[corpus] = len(cells_of_corpus[corpus])
            running[pool.submit(_prepare, folder, corpus, videos)] = corpus
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            what = running.pop(future)
            future.result()
            if isinstance(what, Corpus):
                running |= {pool.submit(_run, folder, cell): cell for cell in cells_of_corpus[what]}
            else:
                left[what.corpus] -= 1
                if not left[what.corpus]:
                    del left[what.corpus]
                    shutil.rmtree(_place(folder, what.corpus).root)
            yield what.name, isinstance(what, Cell)


def _place(folder: Path, corpus: Corpus) -> Place:
    return Place(folder / "corpora" / corpus.name)


def _prepare(folder: Path, corpus: Corpus, videos: int) -> None:
    """In a process of the pool: make a corpus, and read what its arms are probed with."""
    place = _place(folder, corpus)
    labels = prepare_corpus(corpus, place, videos=videos, workers=1)
    write_trimmed_index(place, labels)
    segment_clips(place, labels)


def _run(folder: Path, cell: Cell) -> None:
    """In a process of the pool: run a cell and write down what it gave."""
    began = time.monotonic()
    place = _place(folder, cell.corpus)
    scores = run_cell(cell, place, read_labels(place.videos))
    write_text(file_of(cell, folder), scores_as_json(cell, scores, seconds=time.monotonic() - began) + "\n")
