"""All cells of the benchmark, run in parallel processes and resumable: what is measured stands in a file of its own.

The rule by which HiCo succeeds was written down before any of the ten seeds was run; see `findings.SUCCESS`.
"""

import json
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import pandas as pd

from hico_core.choices import Design
from hico_core.corpus.files import lock, remove_abandoned, write_text, written_beside
from hico_core.errors import HicoError
from hico_core.evidence.arms import ARMS, CONTROLS, FAR_3, HICO, RATE, RATES
from hico_core.evidence.cells import Cell, Corpus, Place, prepare_corpus, run_cell, scores_as_json, segment_clips
from hico_core.evidence.corpus import read_labels
from hico_core.evidence.workers import worker_pool

Part = Literal["rates", "arms", "trimmed", "controls", "looks", "long", "long-rates"]
PARTS: tuple[Part, ...] = get_args(Part)

# The seed on which the setting and the rates are chosen; no other seed may be looked at for that.
TUNING_SEED = 0
SEEDS = tuple(range(1, 11))

# 240 to train on, 120 to test on.
NUM_VIDEOS = 360

STEPS, LONG_STEPS = 600, 1800

LOOK = 0.5
_OTHER_LOOKS = (0.0, 0.75, 1.0)

_DESIGNS: tuple[Design, ...] = ("scenes", "fillers")

_ARMS, _CONTROLS = ([arm.name for arm in arms] for arms in (ARMS, CONTROLS))

Rates = dict[str, float]  # by arm


def cells_of(part: Part, *, seeds: Sequence[int], rates: Rates) -> list[Cell]:
    """The cells of a part.

    rates: each trained arm with each rate, on the tuning seed. arms: each arm, both designs. trimmed: HiCo and
    SimCLR-far where each segment is a video. controls: mixed ids, and the sweep of the distance. looks: HiCo and
    SimCLR-far where videos' looks differ less or more. long: three times the steps, with the rates of the shorter
    trainings. long-rates: what other rates would have given there, on the tuning seed.

    Args:
        part: which.
        seeds: of the corpora.
        rates: chosen for each arm; an arm that was not tried has HiCo's.

    """

    def cell(corpus: Corpus, arm: str, *, steps: int = STEPS, trimmed: bool = False) -> Cell:
        if arm in {"random", "pixels"}:
            return Cell(corpus, arm, 0, 0.0)
        return Cell(corpus, arm, steps, rates.get(arm, rates.get(HICO.name, RATE)), trimmed)

    scenes = [Corpus("scenes", LOOK, seed) for seed in seeds]
    both = [Corpus(design, LOOK, seed) for seed in seeds for design in _DESIGNS]
    match part:
        case "rates" | "long-rates":
            tuning, steps = Corpus("scenes", LOOK, TUNING_SEED), STEPS if part == "rates" else LONG_STEPS
            return [Cell(tuning, arm, steps, rate) for arm in (*_ARMS, "supervised") for rate in RATES]
        case "arms":
            return [cell(corpus, arm) for corpus in both for arm in ("random", "pixels", *_ARMS, "supervised")]
        case "trimmed":
            return [cell(corpus, arm.name, trimmed=True) for corpus in scenes for arm in (HICO, FAR_3)]
        case "controls":
            return [cell(corpus, arm) for corpus in scenes for arm in _CONTROLS]
        case "looks":
            looks = [Corpus("scenes", look, seed) for seed in seeds for look in _OTHER_LOOKS]
            return [cell(corpus, arm) for corpus in looks for arm in ("random", FAR_3.name, HICO.name)]
        case "long":
            return [cell(corpus, arm, steps=LONG_STEPS) for corpus in both for arm in (*_ARMS, "supervised")]


def chosen_rates(results: pd.DataFrame) -> Rates:
    """For each arm the rate with which it was best at the action on the tuning seed, by the linear probe.

    So each arm, the baselines too, is shown at what suits it best there.
    """
    tried = results[
        (results["seed"] == TUNING_SEED) & (results["probe"] == "action-linear") & (results["steps"] == STEPS)
    ]
    if tried.empty:
        return {}
    best = tried.loc[tried.groupby("arm")["accuracy"].idxmax()]
    return dict(zip(best["arm"], best["rate"], strict=True))


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
    columns = ["design", "look", "seed", "arm", "steps", "rate", "trimmed", "seconds", "probe", "accuracy", "chance"]
    return pd.DataFrame(rows, columns=columns)


def write_results(folder: Path) -> Path:
    """results.parquet from the files of the cells."""
    target = folder / "results.parquet"
    with written_beside(target) as beside:
        read_results(folder).to_parquet(beside, index=False)
    return target


class Progress(NamedTuple):
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
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Run the cells that were not run yet, each in one of several processes of one thread.

    Args:
        folder: where results go, cells/NAME.json for each, and where corpora lie while they are needed.
        cells: what to run, all of one corpus together.
        processes: at a time.
        videos: of each corpus.
        on_progress: told of each cell and corpus.

    Raises:
        HicoError: another benchmark runs in this folder, or a cell cannot be run. Those that are done are kept.

    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock", refusal=f"{folder}: another benchmark runs here; wait for it, or name another folder"):
        (folder / "cells").mkdir(exist_ok=True)
        remove_abandoned(folder / "cells")
        missing = [cell for cell in cells if not _file_of(cell, folder).exists()]
        done = len(cells) - len(missing)
        with worker_pool(processes) as pool:
            for what, is_cell in _walk(folder, missing, pool, videos=videos, at_a_time=processes):
                done += is_cell
                on_progress(Progress(done, len(cells), what))


def _file_of(cell: Cell, folder: Path) -> Path:
    return folder / "cells" / f"{cell.name}.json"


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
    segment_clips(place, prepare_corpus(corpus, place, videos=videos, workers=1))


def _run(folder: Path, cell: Cell) -> None:
    """In a process of the pool: run a cell and write down what it gave."""
    began = time.monotonic()
    place = _place(folder, cell.corpus)
    scores = run_cell(cell, place, read_labels(place.videos))
    write_text(_file_of(cell, folder), scores_as_json(cell, scores, seconds=time.monotonic() - began) + "\n")
