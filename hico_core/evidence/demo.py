"""The demo: HiCo, SimCLR and an untrained encoder on one synthetic corpus, within a few minutes.

Everything works as with a user's own videos: mp4 files, split, index, pretraining, and then a probe on videos that were
not used for training.
"""

import json
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import NamedTuple

from hico_core.base.errors import UsageError
from hico_core.base.files import lock
from hico_core.base.storage import write_text
from hico_core.checkpoints.reading import load_backbone
from hico_core.evidence.arms import FAR_3, HICO, VIDEOS_PER_STEP, Arm, pretraining
from hico_core.evidence.corpus import SegmentLabel, read_labels, read_recipe, require_empty
from hico_core.evidence.segments import Score, SegmentClips
from hico_core.evidence.trial import (
    Corpus,
    Place,
    num_training_videos,
    prepare_corpus,
    probe_encoder,
    segment_clips,
    untrained_encoder,
)
from hico_core.evidence.workers import worker_pool
from hico_core.training.loop import pretrain

# From the baseline upwards.
DEMO_ARMS = ("random", FAR_3.name, HICO.name)

# AdamW's learning rates, as chosen by the part `rates` of scripts/evidence/benchmark.py (docs/results-appendix.md).
_RATES = {FAR_3.name: 3e-3, HICO.name: 6e-3}

# Fractions of the time, as measured.
_MADE_PART, _TRAINED_PART = 0.35, 0.6

# Every third video is for testing, and a training step needs this many of the others.
LEAST_VIDEOS = 3 * VIDEOS_PER_STEP // 2

# Held while a demo runs.
_LOCK = ".demo.lock"

# Seconds between two checks of the trainings' progress.
_LOOK_EVERY = 5.0

# (fraction of the whole that is done, what was just done)
OnProgress = Callable[[float, str], None]


class DemoResult(NamedTuple):
    """The result of the demo."""

    scores: dict[str, list[Score]]  # by arm
    runs: list[Path]  # of the arms that were trained

    def accuracy(self, arm: str, probe: str) -> float:
        """Accuracy of one arm under one probe."""
        return next(score.accuracy for score in self.scores[arm] if score.probe == probe)

    def chance(self, probe: str) -> float:
        """Accuracy of always giving the most frequent answer."""
        return next(score.chance for score in self.scores[HICO.name] if score.probe == probe)


def run_demo(
    root: Path,
    *,
    seed: int,
    videos: int,
    steps: int,
    processes: int,
    on_progress: OnProgress = lambda done, what: None,
) -> DemoResult:
    """Make a corpus, train and probe; finished work is skipped, and an interrupted training continues.

    Args:
        root: the workspace; made if missing.
        seed: of the videos and the weights.
        videos: number to render; a third of them is for testing.
        steps: of each training.
        processes: number of trainings in parallel, and of videos split in parallel.
        on_progress: called with the fraction of the work done (0 to 1), and what was done.

    Raises:
        UsageError: there are too few videos to train on, or not as many as in the existing demo; or the folder has
            something else in it.
        HicoError: the folder is in use.

    """
    if videos < LEAST_VIDEOS:
        raise UsageError(f"--videos {videos}: too few to train on; use at least {LEAST_VIDEOS}")
    place = Place(root)
    if read_recipe(place.videos) is None:
        require_empty(root, but={_LOCK, place.videos.name}, wanted="demo")
    root.mkdir(parents=True, exist_ok=True)
    with lock(root / _LOCK, refusal=f"{root}: another demo is running here; wait for it to end, or use another --root"):
        there = read_recipe(place.videos)
        if there is not None and there.videos != videos:
            raise UsageError(
                f"{root}: has a demo of {there.videos} videos; use --videos {there.videos}, or another --root"
            )
        labels = _prepare(place, seed=seed, videos=videos, workers=processes, on_progress=on_progress)
        clips = segment_clips(place, labels)
        _train((FAR_3, HICO), place, seed=seed, steps=steps, processes=processes, on_progress=on_progress)
        scores = {}
        for arm in DEMO_ARMS:
            on_progress(_MADE_PART + _TRAINED_PART, f"probing {arm}")
            scores[arm] = _probe(arm, place, clips, seed=seed)
        return DemoResult(scores, [place.run_dir(arm) for arm in _RATES])


def _prepare(place: Place, *, seed: int, videos: int, workers: int, on_progress: OnProgress) -> list[SegmentLabel]:
    made = 0

    def on_video(what: str) -> None:
        nonlocal made
        made += 1  # each video is rendered, and then split
        on_progress(_MADE_PART * made / (2 * videos), what)

    corpus = Corpus("scenes", 0.5, seed)
    labels = prepare_corpus(corpus, place, videos=videos, workers=workers, on_video=on_video)
    on_progress(_MADE_PART, "reading the segments to classify")
    return labels


def _train(
    arms: tuple[Arm, ...], place: Place, *, seed: int, steps: int, processes: int, on_progress: OnProgress
) -> None:
    """Train arms in parallel, each in a process of its own."""
    with worker_pool(min(processes, len(arms))) as pool:
        running: set[Future[None]] = {pool.submit(_train_one, arm, place, seed=seed, steps=steps) for arm in arms}
        while running:
            done, running = wait(running, timeout=_LOOK_EVERY)
            counts = {arm.name: _steps_done(place.run_dir(arm.name)) for arm in arms}
            what = ", ".join(f"{name} step {count}" for name, count in counts.items())
            on_progress(_MADE_PART + _TRAINED_PART * sum(counts.values()) / (steps * len(arms)), what)
            for future in done:
                future.result()


def _train_one(arm: Arm, place: Place, *, seed: int, steps: int) -> None:
    num_videos = num_training_videos(read_labels(place.videos))
    config = pretraining(arm, num_videos=num_videos, steps=steps, rate=_RATES[arm.name], seed=seed)
    pretrain(config, root=place.root, run_dir=place.run_dir(arm.name), device="cpu", resume=True)


def _steps_done(run_dir: Path) -> int:
    try:
        return (run_dir / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def _probe(arm: str, place: Place, clips: SegmentClips, *, seed: int) -> list[Score]:
    """Probe an arm's features; the scores of a run are also written for its report."""
    if arm not in _RATES:
        return probe_encoder(untrained_encoder(seed), clips, seed=seed)
    run_dir = place.run_dir(arm)
    scores = probe_encoder(load_backbone(run_dir / "export" / "encoder.safetensors"), clips, seed=seed)
    rows = [score._asdict() for score in scores]
    write_text(run_dir / "segment_probes.json", json.dumps({"scores": rows}, indent=1) + "\n")
    return scores


def sentence(result: DemoResult) -> str:
    """Summarise what the numbers show, whatever the outcome."""
    hico, far, floor = (result.accuracy(arm, "action-linear") for arm in (HICO.name, FAR_3.name, "random"))
    if hico > floor > far:
        return (
            "SimCLR, whose positives come from anywhere in a video, recognises motion worse than an untrained encoder; "
            "HiCo, whose positives are near in time, recognises it better."
        )
    if hico > max(floor, far):
        return (
            "HiCo, whose positives are near in time, recognises motion best; SimCLR, whose positives come from "
            "anywhere in a video, recognises it less well."
        )
    return (
        "With this seed, HiCo does not recognise motion best. Seeds differ; docs/results-appendix.md has the table of "
        "ten seeds."
    )
