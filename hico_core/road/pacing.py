"""A training that ends on time: its number of epochs is corrected a few times at most, and a clock ends it."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from hico_core.base.errors import counted
from hico_core.config import Config
from hico_core.road.choosing import Choice, with_length
from hico_core.road.events import RoadEvents
from hico_core.road.measuring import Clock
from hico_core.road.planning import Length, Pace, corrected_epochs
from hico_core.training.log import StepMetrics
from hico_core.training.loop import RunSummary, run_pretraining
from hico_core.training.task import Task

# The pace is checked after these fractions of the training's time, and at least this many steps.
_CHECKS, _STEPS = (0.1, 0.5, 0.8), 2

# A training that would end within this fraction of its time after it is not cut.
_GRACE = 0.1


class Pacing:
    """The clock of a training, queried before each step."""

    def __init__(
        self, clock: Clock, *, seconds: float, planned: int, most: int | None, checks: Sequence[float] = _CHECKS
    ) -> None:
        """Start the clock of the training.

        Args:
            clock: of this call.
            seconds: that the training may take from now on.
            planned: number of epochs.
            most: largest number of epochs to which it may be changed; None: it may not be changed.
            checks: fractions of its time after which the pace is checked.

        """
        self.was_cut = False  # whether the clock ended it
        self.correction: int | None = None  # the corrected number of epochs, for which the training was stopped
        self.checks = checks  # still to come
        self._clock, self._began, self._seconds = clock, clock.used, seconds
        self._planned, self._most = planned, most
        self._steps: list[tuple[float, float]] = []  # seconds used after each step, epochs done before it

    def on_step(self, metrics: StepMetrics) -> None:
        """Record a finished step."""
        self._steps.append((self._clock.used, metrics.epoch))

    def is_over(self) -> bool:
        """Whether to end the training before the next step; at least one step is done."""
        if not self._steps:
            return False
        now = self._clock.used
        taken, left = now - self._began, self._began + self._seconds - now
        step = (self._steps[-1][0] - self._began) / len(self._steps)
        pace = self._pace(left) if len(self._steps) >= _STEPS else None
        needed = math.inf if pace is None else (self._planned - pace.epochs_done) * pace.epoch_seconds
        # More than half of the next step would lie after the end.
        self.was_cut = step / 2 > left and needed > left + _GRACE * self._seconds
        is_due = bool(self.checks) and taken >= self.checks[0] * self._seconds
        if self.was_cut or self._most is None or pace is None or not is_due:
            return self.was_cut
        self.checks = [check for check in self.checks if taken < check * self._seconds]
        self.correction = corrected_epochs(pace, planned=self._planned, most=self._most)
        return self.correction is not None

    def _pace(self, left_seconds: float) -> Pace:
        """The slower of the paces of all steps and of their last half."""
        last, last_epoch = self._steps[-1]
        starts = [self._steps[0], self._steps[-max(len(self._steps) // 2, _STEPS)]]
        seconds = max((last - first) / max(last_epoch - epoch, 1e-9) for first, epoch in starts)
        a_step = (last_epoch - self._steps[0][1]) / (len(self._steps) - 1)
        return Pace(last_epoch + a_step, seconds, left_seconds)

    @property
    def step_seconds(self) -> float | None:
        """Mean seconds of a step but the first; None if there is no other."""
        if len(self._steps) < _STEPS:
            return None
        return (self._steps[-1][0] - self._steps[0][0]) / (len(self._steps) - 1)


class Trained(NamedTuple):
    """How a training ended."""

    summary: RunSummary
    was_cut: bool  # the clock ended it before its last step
    step_seconds: float | None  # mean of this call's steps; None if they were too few


def train_in_time(task: Task[Config], choice: Choice | None, *, clock: Clock, events: RoadEvents) -> Trained:
    """Start or continue a training, within the time that the choice allots to it.

    Args:
        task: the training to do.
        choice: holds the allotted time; None: the training is finished already.
        clock: of this call.
        events: called for steps and for a changed number of epochs.

    Raises:
        HicoError: see `run_pretraining`.

    """
    if choice is None:
        with events.pretraining(f"{task.config.dataset}-{task.config.recipe}", task.config.train.epochs) as watch:
            summary = run_pretraining(task, watch)
        events.on_pretrained(summary)
        return Trained(summary, was_cut=False, step_seconds=None)
    ends, planned = clock.used + choice.shares.training, task.config.train.epochs
    most = None if choice.work.epochs_asked else choice.work.most_epochs
    pacing = Pacing(clock, seconds=choice.shares.training, planned=planned, most=most)
    summary, step_seconds = _paced(task, pacing, events), pacing.step_seconds
    while (epochs := pacing.correction) is not None:
        events.on_note(f"at the pace so far, {counted(epochs, 'epoch')} fit instead of {planned}")
        planned = epochs
        length = Length(epochs, task.config.train.batch_size, 0)
        task = replace(task, config=with_length(task.config, length), allow_changed=True)
        pacing = Pacing(clock, seconds=ends - clock.used, planned=epochs, most=most, checks=pacing.checks)
        summary = _joined(summary, _paced(task, pacing, events))
        step_seconds = pacing.step_seconds or step_seconds
    events.on_pretrained(summary)
    return Trained(summary, pacing.was_cut, step_seconds)


def _joined(before: RunSummary, after: RunSummary) -> RunSummary:
    """The summary of a training in two parts; the second has no steps if the first did all that fit."""
    if after.last_loss is None:
        return before
    return replace(after, first_loss=before.first_loss)


def _paced(task: Task[Config], pacing: Pacing, events: RoadEvents) -> RunSummary:
    title = f"{task.config.dataset}-{task.config.recipe}"
    with events.pretraining(title, task.config.train.epochs) as watch:

        def on_step(metrics: StepMetrics) -> None:
            watch.on_step(metrics)
            pacing.on_step(metrics)

        return run_pretraining(task, replace(watch, on_step=on_step, is_over=pacing.is_over))
