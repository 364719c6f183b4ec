"""A verdict says what was learnt, beside what guessing reaches, and what to do where nothing was."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from hico_core.model.losses import info_nce, visual_loss
from hico_core.report.results import ProbeRow
from hico_core.report.sample import EncodedMoments, Moment
from hico_core.report.verdict import (
    Agreement,
    Evidence,
    judge_finetuning,
    judge_pretraining,
    num_candidates,
)

FOUND = Agreement(0.75, 0.02, 12)
GOOD = Evidence(encoder="s3dg", steps=1000, loss=0.8, num_candidates=10, spread=0.08, similarity=0.5)


@pytest.mark.parametrize(("batch_size", "clips_per_video"), [(2, 2), (4, 3), (5, 2)])
def test_chance_is_the_loss_of_embeddings_that_tell_nothing(batch_size: int, clips_per_video: int) -> None:
    same = torch.ones(batch_size * clips_per_video, 8) / math.sqrt(8)
    chance = replace(GOOD, num_candidates=num_candidates(batch_size=batch_size, clips_per_video=clips_per_video))
    for loss in (info_nce, visual_loss):
        assert float(loss(same, clips_per_video=clips_per_video, temperature=0.1)) == pytest.approx(chance.chance_loss)


@pytest.mark.parametrize(
    ("change", "level", "said", "advised"),
    [
        (
            {"steps": 0, "loss": None, "spread": None},
            "nothing",
            "has not completed a training step yet",
            "Train for longer",
        ),
        ({"steps": 1, "loss": 0.1}, "nothing", "learnt nothing yet: it was trained for 1 step.", "s3dg-tiny"),
        ({"steps": 2, "similarity": 1.0}, "nothing", "2 steps, and all clips look alike", "Train for longer"),
        ({"spread": 0.008}, "nothing", "collapsed: all clips get nearly the same embedding", "lower optim.base_lr"),
        ({"similarity": 0.99995}, "nothing", "does not distinguish clips", "lower optim.base_lr"),
        ({"loss": 2.2}, "nothing", "chance is 2.30 (the logarithm of the number of candidates, 10)", "longer"),
        ({"loss": 2.1, "steps": 299}, "begun", "is learning: the contrastive loss is 2.10, chance", "longer"),
        ({"steps": 299, "similarity": 0.96}, "begun", "of different videos are still very similar (mean", "longer"),
        ({"steps": 1, "encoder": "s3dg-tiny"}, "nothing", "for 1 step.", "make it cheaper with smaller clips"),
        (
            {},
            "learnt",
            "recognise clips of the same video: the contrastive loss is 0.80, chance is 2.30",
            "",
        ),
        (
            {"same_video": FOUND},
            "learnt",
            "neighbour of a clip is from the same video 75.0 % of the time (9 of 12 clips; chance 2.0 %)",
            "",
        ),
        (
            {"same_video": FOUND, "before": FOUND._replace(part=0.5)},
            "learnt",
            "from the same video 75.0 % of the time (9 of 12 clips; untrained 50.0 %; chance 2.0 %).",
            "",
        ),
        (
            {"same_video": FOUND, "before": FOUND._replace(part=0.5), "is_warm_start": True},
            "learnt",
            "(9 of 12 clips; before training 50.0 %; chance 2.0 %).",
            "",
        ),
        (
            {"same_video": FOUND, "before": FOUND},
            "begun",
            "clips of the same video no more often than an untrained one: the contrastive loss",
            "Measure it with labels",
        ),
        (
            {"same_video": FOUND, "before": FOUND, "steps": 299},
            "begun",
            "After 299 steps, it is too early to tell whether this encoder is learning",
            "Train for longer",
        ),
        (
            {"same_class": Agreement(0.5, 0.1, 8)},
            "learnt",
            "in another video is of the same class 50.0 % of the time (4 of 8 clips; chance 10.0 %)",
            "",
        ),
        (
            {"probes": [ProbeRow(probe="linear probe", accuracy=0.5, chance=0.25, num_test=8, file="x")]},
            "learnt",
            "linear probe: 50.0 % (4 of 8 test videos; chance 25.0 %; 95 % interval 21.5 to 78.5 %).",
            "",
        ),
    ],
)
def test_pretraining(change: dict[str, object], level: str, said: str, advised: str) -> None:
    verdict = judge_pretraining(replace(GOOD, **change))  # type: ignore[arg-type]
    assert verdict.level == level
    assert said in verdict.text
    assert advised in verdict.advice and bool(advised) == bool(verdict.advice)


@pytest.mark.parametrize(
    ("num_test", "accuracy", "chance", "level"),
    [
        (3, 2 / 3, 1 / 3, "nothing"),
        (300, 2 / 3, 1 / 3, "learnt"),
        (300, 1 / 3, 1 / 3, "nothing"),
        (3, 1, None, "begun"),
    ],
)
def test_finetuning(num_test: int, accuracy: float, chance: float | None, level: str) -> None:
    row = ProbeRow(probe="finetuning, top1", accuracy=accuracy, chance=chance, num_test=num_test, file="results.json")
    assert judge_finetuning(row).level == level
    assert judge_finetuning(None).level == "begun"


def moments(*kinds: tuple[str, str | None]) -> list[Moment]:
    return [Moment(video, 0.0, name, [Image.new("RGB", (1, 1))]) for video, name in kinds]


def test_agreement_is_counted_clip_by_clip() -> None:
    rng = np.random.default_rng(0)
    kinds = [(f"v{place // 3}", [None, "a", "b"][place // 3 % 3]) for place in range(24)]
    features = rng.normal(size=(24, 4))
    look = EncodedMoments(moments(*kinds), features)
    units = features / np.linalg.norm(features, axis=1, keepdims=True)

    def nearest(place: int, others: list[int]) -> int:
        return max(others, key=lambda other: float(units[place] @ units[other]))

    same, chance = [], []
    for place, (video, _) in enumerate(kinds):
        others = [other for other in range(24) if other != place]
        same.append(kinds[nearest(place, others)][0] == video)
        chance.append(2 / 23)
    assert look.same_video() == pytest.approx((np.mean(same), np.mean(chance), 24))
    tiny = EncodedMoments(look.moments, (1e-15 * features).astype(np.float32))  # as of an untrained S3D-G
    assert tiny.same_video() == look.same_video() and tiny.spread() == pytest.approx(look.spread())
    same, chance = [], []
    for place, (video, name) in enumerate(kinds):
        others = [other for other, (of, known) in enumerate(kinds) if of != video and known is not None]
        if name is not None:
            same.append(kinds[nearest(place, others)][1] == name)
            chance.append(sum(kinds[other][1] == name for other in others) / len(others))
    assert look.same_class() == pytest.approx((np.mean(same), np.mean(chance), len(same)))


def test_agreement_needs_two_of_a_kind() -> None:
    look = EncodedMoments(moments(("a", None), ("b", None)), np.eye(2))
    assert look.same_video() is None
    assert look.same_class() is None
