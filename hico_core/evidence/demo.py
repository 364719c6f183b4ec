"""The claim in a few minutes: one synthetic corpus, HiCo beside SimCLR and an encoder that was never trained.

Everything goes the way that a person's own videos would: mp4 files, split, index, pretraining, and then a probe on
videos that nothing was trained on.
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
from hico_core.evidence.corpus import SegmentLabel, read_labels, read_recipe
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

# From the floor upwards.
DEMO_ARMS = ("random", FAR_3.name, HICO.name)

# AdamW's, as the part `rates` of scripts/evidence/benchmark.py chose them (docs/results-appendix.md).
_RATES = {FAR_3.name: 3e-3, HICO.name: 6e-3}

# Parts of the time, as measured.
_MADE_PART, _TRAINED_PART = 0.35, 0.6

# Every third video is for testing, and a step of training wants so many others.
LEAST_VIDEOS = 3 * VIDEOS_PER_STEP // 2

# Seconds between two looks at how far the trainings are.
_LOOK_EVERY = 5.0

# (part of the whole that is done, what was just done)
OnProgress = Callable[[float, str], None]


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
    on_progress: OnProgress = lambda done, what: None,
) -> DemoResult:
    """Make a corpus, train and probe; what is done already is left alone, and a training that was stopped goes on.

    Args:
        root: the workspace; made if missing.
        seed: of the videos and the weights.
        videos: to make; a third of them is for testing.
        steps: of each training.
        processes: trainings at a time, and videos that are split at a time.
        on_progress: called with how much of all is done (0 to 1), and what.

    Raises:
        UsageError: the videos are too few to train on, or not as many as those of the demo that is there.
        HicoError: the folder holds another demo or other runs, or is in use.

    """
    if videos < LEAST_VIDEOS:
        raise UsageError(f"{videos} videos are too few to train on; ask for {LEAST_VIDEOS} or more")
    place = Place(root)
    root.mkdir(parents=True, exist_ok=True)
    with lock(root / ".demo.lock", refusal=f"{root}: another demo runs here; wait for it, or give another --root"):
        there = read_recipe(place.videos)
        if there is not None and there.videos != videos:
            raise UsageError(f"{root}: has a demo of {there.videos} videos; ask for as many, or name another --root")
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
        made += 1  # each is made, and then split
        on_progress(_MADE_PART * made / (2 * videos), what)

    corpus = Corpus("scenes", 0.5, seed)
    labels = prepare_corpus(corpus, place, videos=videos, workers=workers, on_video=on_video)
    on_progress(_MADE_PART, "reading what the encoders will be asked about")
    return labels


def _train(
    arms: tuple[Arm, ...], place: Place, *, seed: int, steps: int, processes: int, on_progress: OnProgress
) -> None:
    """Train arms side by side, each in a process of its own."""
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
    """What an arm's features tell; of a run, it is written down for its report too."""
    if arm not in _RATES:
        return probe_encoder(untrained_encoder(seed), clips, seed=seed)
    run_dir = place.run_dir(arm)
    scores = probe_encoder(load_backbone(run_dir / "export" / "encoder.safetensors"), clips, seed=seed)
    rows = [score._asdict() for score in scores]
    write_text(run_dir / "segment_probes.json", json.dumps({"scores": rows}, indent=1) + "\n")
    return scores


def sentence(result: DemoResult) -> str:
    """What the numbers show, whichever way they fell."""
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
