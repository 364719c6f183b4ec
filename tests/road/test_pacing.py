"""A training ends in time, by a clock that a test moves."""

from types import SimpleNamespace
from typing import cast

import pytest

from hico_core.road.measuring import Clock
from hico_core.road.pacing import Pacing
from hico_core.training.log import StepMetrics


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
