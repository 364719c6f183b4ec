"""Probes of segments, on features of which it is known what they hold."""

import numpy as np

from hico_core.evidence.corpus import CorpusRecipe, SegmentLabel, labels_of
from hico_core.evidence.scenery import ACTIONS
from hico_core.evidence.segments import LabelledSegments, Score, probe_segments

LABELS = list(labels_of(CorpusRecipe(videos=60, seed=1, design="fillers")))
TRAIN = [label for label in LABELS if label.subset == "train"]
TEST = [label for label in LABELS if label.subset == "test"]


def scores_of(train: np.ndarray, test: np.ndarray) -> dict[str, Score]:
    return {
        score.probe: score
        for score in probe_segments(LabelledSegments(train, TRAIN), LabelledSegments(test, TEST), seed=0)
    }


def features(labels: list[SegmentLabel], value: list[int], *, seed: int) -> np.ndarray:
    """One-hot vectors of a value, and some noise."""
    noise = np.random.default_rng(seed).normal(size=(len(labels), 30)) * 0.1
    noise[np.arange(len(labels)), value] += 1
    return noise.astype(np.float32)


def test_features_that_hold_the_action_and_nothing_else() -> None:
    values = [
        [len(ACTIONS) if label.action is None else ACTIONS.index(label.action) for label in s] for s in (TRAIN, TEST)
    ]
    found = scores_of(features(TRAIN, values[0], seed=1), features(TEST, values[1], seed=2))
    assert found["action-linear"].accuracy == found["action-knn"].accuracy == 1.0
    assert found["filler-linear"].accuracy == 1.0  # they have no action
    assert found["topic-linear"].accuracy < 0.35
    assert found["scene-linear"].accuracy < 0.2
    assert set(found) == {
        *(f"{what}-{how}" for what in ("action", "scene", "topic", "filler") for how in ("linear", "knn")),
        *("video-r1", "topic-r1"),
    }


def test_features_that_hold_the_video() -> None:
    """Of no use for other videos: what remains is to know the same video again."""
    videos = [list(dict.fromkeys(label.video for label in side)) for side in (TRAIN, TEST)]
    rng = np.random.default_rng(3)
    looks = {video: rng.normal(size=20) for side in videos for video in side}
    train, test = (
        np.array([looks[label.video] + rng.normal(size=20) * 0.01 for label in side], dtype=np.float32)
        for side in (TRAIN, TEST)
    )
    found = scores_of(train, test)
    assert found["video-r1"].accuracy == 1.0
    assert found["video-r1"].chance < 0.2
    assert found["action-linear"].accuracy < 0.35
    # Of another video, chance decides about the topic.
    assert abs(found["topic-r1"].accuracy - found["topic-r1"].chance) < 0.25


def test_chance_is_the_most_frequent_answer() -> None:
    actions = [label.action for label in TEST if label.action is not None]
    most = max(actions.count(action) for action in ACTIONS) / len(actions)
    rng = np.random.default_rng(0)
    found = scores_of(*(rng.normal(size=(len(s), 4)).astype(np.float32) for s in (TRAIN, TEST)))
    assert found["action-linear"].chance == most
