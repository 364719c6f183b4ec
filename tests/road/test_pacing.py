"""A training ends in time, by a clock that a test moves."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from hico_core.config import Config, preset
from hico_core.encoding.hardware import Precision
from hico_core.road.choosing import Choice, with_length
from hico_core.road.events import RoadEvents
from hico_core.road.measuring import Clock, Measured
from hico_core.road.pacing import Pacing, train_in_time
from hico_core.road.planning import Length, Shares, Speed, Work
from hico_core.training.log import StepMetrics
from hico_core.training.loop import RunSummary
from hico_core.training.task import Task, Watch


class Hand:
    """Of a clock."""

    def __init__(self) -> None:
        self.seconds = 50.0

    def now(self) -> float:
        return self.seconds


def steps_until_over(pacing: Pacing, hand: Hand, step_seconds: list[float]) -> int:
    """How many of the steps are done, each of which is an epoch."""
    for number, seconds in enumerate(step_seconds):
        if pacing.is_over():
            return number
        hand.seconds += seconds
        pacing.on_step(cast("StepMetrics", SimpleNamespace(epoch=float(number))))
    return len(step_seconds)


@pytest.mark.parametrize(
    ("step_seconds", "most", "expected", "correction", "was_cut"),
    [
        ([10.0] * 10, 1000, 10, None, False),  # as planned
        ([11.0] * 10, None, 10, None, False),  # the tenth ends at 110 s, which is just soon enough
        ([12.0] * 10, None, 8, None, True),  # the others would end at 120 s
        ([10.4] * 10, None, 10, None, False),  # more of the last step lies within the time
        ([500.0] * 10, None, 1, None, True),  # one step is always done
        ([500.0] * 10, 1000, 1, None, True),
        ([12.0] * 10, 1000, 2, 8, False),  # too slow: ended after two steps, to be planned anew
        ([5.0] * 10, 1000, 2, 19, False),  # too fast
        ([5.0] * 10, 12, 2, 12, False),
        ([1.0] * 9 + [2.0], 1000, 10, None, False),  # before a tenth of the time has passed, nothing is changed
        ([10.0] * 3 + [15.0] * 6, 1000, 5, 7, False),  # becomes too slow: ended after half of the time
        ([10.0] * 6 + [15.0] * 6, 1000, 8, 8, False),  # later still
        ([10.0] * 4 + [4.0] * 6, 1000, 7, 13, False),  # becomes faster: planned by the mean of all, 7 s
    ],
)
def test_when_a_training_is_over(
    step_seconds: list[float], most: int | None, expected: int, correction: int | None, was_cut: bool
) -> None:
    hand = Hand()
    pacing = Pacing(Clock(0.0, 1000.0, hand.now), seconds=100.0, planned=10, most=most)
    assert steps_until_over(pacing, hand, step_seconds) == expected
    assert (pacing.correction, pacing.was_cut) == (correction, was_cut)


def choice_of(epochs: int, *, seconds: float) -> Choice:
    """A training of 8 videos, a step an epoch."""
    length = Length(epochs=epochs, batch_size=8, num_steps=epochs)
    return Choice(
        config=with_length(preset("hacs-hico-s"), length),
        settings=(),
        work=Work(num_videos=8, num_rows=1, num_clips=1, batch_size=8, recipe_epochs=1000),
        measured=Measured(Speed(video=1.0, row=0.0, clip=0.0), 1, "cpu"),
        shares=Shares(training=seconds, features=None, report=0.0),
        length=length,
    )


@pytest.mark.parametrize(
    ("step_seconds", "planned", "num_steps", "notes"),
    [
        (20.0, 5, 5, []),  # as planned
        (39.0, 5, 2, ["at the pace so far, 2 epochs fit instead of 5"]),  # which are done already
        (30.0, 5, 3, ["at the pace so far, 3 epochs fit instead of 5"]),
    ],
)
def test_a_training_in_two_parts_has_one_summary(
    step_seconds: float, planned: int, num_steps: int, notes: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only the steps are pretended: each takes seconds of the clock, and its loss is its number."""
    hand, choice, done, said = Hand(), choice_of(planned, seconds=100.0), list[int](), list[str]()

    def trains(task: Task[Config], watch: Watch) -> RunSummary:
        losses = list[float]()
        while len(done) < task.config.train.epochs and not watch.is_over():
            hand.seconds += step_seconds
            losses.append(float(len(done)))
            watch.on_step(SimpleNamespace(epoch=float(len(done))))
            done.append(1)
        return RunSummary(
            run_dir=tmp_path,
            encoder=tmp_path,
            num_steps=len(done),
            precision=Precision("fp32", "a test"),
            first_loss=losses[0] if losses else None,
            last_loss=losses[-1] if losses else None,
            knn_accuracy=None,
            collapsed=bool(losses),
        )

    class Events:
        @contextmanager
        def pretraining(self, title: str, num_epochs: int) -> Iterator[Watch]:
            yield Watch()

        def on_note(self, text: str) -> None:
            said.append(text)

        def on_pretrained(self, summary: RunSummary) -> None: ...

    monkeypatch.setattr("hico_core.road.pacing.run_pretraining", trains)
    task = Task(config=choice.config, root=tmp_path, run_dir=tmp_path)
    clock = Clock(0.0, 1000.0, hand.now)
    trained = train_in_time(task, choice, clock=clock, events=cast("RoadEvents", Events()))
    assert said == notes
    summary = trained.summary
    assert (summary.num_steps, summary.first_loss, summary.last_loss) == (num_steps, 0.0, num_steps - 1.0)
    assert summary.collapsed and not trained.was_cut
    assert trained.step_seconds == pytest.approx(step_seconds)
