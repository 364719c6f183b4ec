"""The claim in a few minutes: one made corpus, HiCo beside SimCLR and an encoder that was never trained.

Everything goes the way that a person's own videos would: mp4 files, split, index, pretraining, and then a probe on
videos that nothing was trained on.
"""

import json
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import NamedTuple

from hico_core.corpus.files import lock
from hico_core.corpus.storage import write_text
from hico_core.errors import UsageError
from hico_core.evidence.arms import CHOSEN_RATES, FAR_3, HICO, VIDEOS_PER_STEP
from hico_core.evidence.cells import Cell, Corpus, Place, encoder_of, prepare_corpus, probe_cell, segment_clips
from hico_core.evidence.corpus import read_labels, read_recipe
from hico_core.evidence.segments import Score
from hico_core.evidence.workers import worker_pool
from hico_core.interop.checkpoints import load_backbone

# From the floor upwards.
DEMO_ARMS = ("random", FAR_3.name, HICO.name)

# Parts of the time, as measured.
_MADE_PART, _TRAINED_PART = 0.35, 0.6

# Every third video is for testing, and a step of training wants so many others.
LEAST_VIDEOS = 3 * VIDEOS_PER_STEP // 2

# Seconds between two looks at how far the trainings are.
_LOOK_EVERY = 5.0


class DemoResult(NamedTuple):
    """What came out."""

    scores: dict[str, list[Score]]  # by arm
    runs: list[Path]  # of the arms that were trained

    def accuracy(self, arm: str, probe: str) -> float:
        """Of one arm and probe."""
        return next(score.accuracy for score in self.scores[arm] if score.probe == probe)

    def chance(self, probe: str) -> float:
        """What the most frequent answer would get."""
        return next(score.chance for score in self.scores[HICO.name] if score.probe == probe)


def run_demo(
    root: Path,
    *,
    seed: int,
    videos: int,
    steps: int,
    processes: int,
    on_progress: Callable[[float, str], None] = lambda done, what: None,
) -> DemoResult:
    """Make a corpus, train and probe; what is done already is left alone, and a training that was stopped goes on.

    Args:
        root: the workspace; made if missing.
        seed: of the videos and the weights.
        videos: to make; a third of them is for testing.
        steps: of each training.
        processes: trainings at a time, and videos that are split at a time.
        on_progress: told how much of all is done (0 to 1), and what.

    Raises:
        HicoError: the folder holds another demo or other runs, or is in use.

    """
    place = Place(root)
    corpus = Corpus("scenes", 0.5, seed)
    root.mkdir(parents=True, exist_ok=True)
    with lock(root / ".demo.lock", refusal=f"{root}: another demo runs here; wait for it, or give another --root"):
        there = read_recipe(place.videos)
        if there is not None and there.videos != videos:
            raise UsageError(f"{root}: has a demo of {there.videos} videos; ask for as many, or name another --root")
        made = 0

        def on_video(what: str) -> None:
            nonlocal made
            made += 1
            on_progress(_MADE_PART * made / (2 * videos), what)

        labels = prepare_corpus(corpus, place, videos=videos, workers=processes, on_video=on_video)
        on_progress(_MADE_PART, "reading what the encoders will be asked about")
        clips = segment_clips(place, labels)
        cells = {
            arm: Cell(corpus, arm, steps if arm in CHOSEN_RATES else 0, CHOSEN_RATES.get(arm, 0.0)) for arm in DEMO_ARMS
        }
        trained = [cell for cell in cells.values() if cell.steps]
        _train(trained, place, processes=processes, on_progress=on_progress)
        scores = {}
        for arm, cell in cells.items():
            on_progress(_MADE_PART + _TRAINED_PART, f"probing {arm}")
            if not cell.steps:
                scores[arm] = probe_cell(cell, encoder_of(cell, place, place.run_dir(arm), labels), clips)
            else:
                trained_encoder = load_backbone(place.run_dir(arm) / "export" / "encoder.safetensors")
                scores[arm] = probe_cell(cell, trained_encoder, clips)
                rows = [score._asdict() for score in scores[arm]]
                write_text(place.run_dir(arm) / "segment_probes.json", json.dumps({"scores": rows}, indent=1) + "\n")
        return DemoResult(scores, [place.run_dir(cell.arm) for cell in trained])


def _train(cells: list[Cell], place: Place, *, processes: int, on_progress: Callable[[float, str], None]) -> None:
    """Train cells side by side, each in a process of its own."""
    with worker_pool(min(processes, len(cells))) as pool:
        running: set[Future[None]] = {pool.submit(_train_one, cell, place) for cell in cells}
        total = sum(cell.steps for cell in cells)
        while running:
            done, running = wait(running, timeout=_LOOK_EVERY)
            steps = {cell.arm: _steps_done(place.run_dir(cell.arm)) for cell in cells}
            said = ", ".join(f"{arm} step {count}" for arm, count in steps.items())
            on_progress(_MADE_PART + _TRAINED_PART * sum(steps.values()) / total, said)
            for future in done:
                future.result()


def _train_one(cell: Cell, place: Place) -> None:
    encoder_of(cell, place, place.run_dir(cell.arm), read_labels(place.videos), resume=True)


def _steps_done(run_dir: Path) -> int:
    try:
        return (run_dir / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def sentence(result: DemoResult) -> str:
    """What the numbers show, whichever way they fell."""
    hico, far, floor = (result.accuracy(arm, "action-linear") for arm in (HICO.name, FAR_3.name, "random"))
    if hico > floor > far:
        return (
            "SimCLR, which pulls clips from anywhere in a video together, came to know less of what happens in a clip "
            "than an encoder that was never trained; HiCo, whose close pairs are near in time, learned it."
        )
    if hico > max(floor, far):
        return (
            "HiCo, whose close pairs are near in time, knows best what happens in a clip; SimCLR, which pulls clips "
            "from anywhere in a video together, knows less of it."
        )
    return (
        "With this seed HiCo does not know best what happens in a clip. Seeds differ; `hico benchmark` takes ten, "
        "and docs/results.md has the table."
    )
