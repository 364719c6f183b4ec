"""Plans what fits into the hours, from the measurements; pure functions of their arguments."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from hico_core.base.errors import counted

# With fewer steps than this, an encoder has learnt next to nothing.
ENOUGH_STEPS = 300

# Unless the user sets the epochs, training lasts for those of the recipe, or for this many steps if that is longer: on
# a few videos, the recipe's epochs are a handful of steps.
_MOST_STEPS = 5000

# This fraction of the training's time is kept in reserve, since later steps may be slower.
_RESERVE = 0.05

# The plan is changed if the steps would not fit, or would leave more than 15 % of their time unused.
_LEAST_USED = 0.85

# Time that training, extraction and report take besides their steps, windows and clips: starting processes, files.
_TRAINING_STARTS, _EXTRACTION_STARTS, _REPORT_DRAWS = 6.0, 6.0, 10.0


class CoreUse(NamedTuple):
    """What computes: a GPU beside the cores, or the same cores that read."""

    on_cpu: bool
    cores: int
    readers: int  # processes that read
    threads: int  # of computation on the CPU


def seconds_together(computing: float, reading: float, cores: CoreUse) -> float:
    """Seconds that work takes if the next item is read while the current one is computed.

    Args:
        computing: wall-clock seconds.
        reading: core seconds.
        cores: what computes and what reads.

    """
    if not cores.readers:
        return computing + reading
    longest = max(computing, reading / min(cores.readers, cores.cores))
    return max(longest, (computing * cores.threads + reading) / cores.cores) if cores.on_cpu else longest


class Speed(NamedTuple):
    """Measured seconds of an encoder on a machine."""

    video: float  # per video of a training step
    row: float  # per row of features
    clip: float  # per clip that the report reads by itself and encodes with two encoders


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The amount of work to do."""

    num_videos: int  # to train on
    num_rows: int  # of features
    num_clips: int  # to encode for the report
    batch_size: int  # at most
    recipe_epochs: int
    epochs_asked: bool = False  # whether the user set the number of epochs
    batch_asked: bool = False  # whether the user set the batch size

    @property
    def most_epochs(self) -> int:
        """Largest number of epochs, however much time there is."""
        enough = 0 if self.epochs_asked else math.ceil(_MOST_STEPS * self.batch_size / self.num_videos)
        return max(self.recipe_epochs, enough)


class Shares(NamedTuple):
    """How the remaining time is divided, in seconds."""

    training: float  # limit for training
    features: float | None  # None: no time for features
    report: float


def features_seconds(speed: Speed, work: Work) -> float:
    """Seconds of the extraction of all features."""
    return _EXTRACTION_STARTS + work.num_rows * speed.row


def share_out(speed: Speed, work: Work, *, left_seconds: float) -> Shares:
    """Reserve time for features and report; leave out features that would take more than half of the time."""
    report = _REPORT_DRAWS + work.num_clips * speed.clip
    features = features_seconds(speed, work)
    left = max(left_seconds - report, 0.0)
    return Shares(left, None, report) if features > left / 2 else Shares(left - features, features, report)


class Length(NamedTuple):
    """The length of a training."""

    epochs: int
    batch_size: int
    num_steps: int  # that fit
    is_cut: bool = False  # there is no time for a whole epoch


def choose_length(speed: Speed, work: Work, *, training_seconds: float) -> Length:
    """The epochs that fit; if not even a step does, halve the batch size, to 2 at least. One step is always done."""
    seconds = max(training_seconds - _TRAINING_STARTS, 0.0) * (1 - _RESERVE)
    batch_size = work.batch_size
    while not work.batch_asked and batch_size > 2 and batch_size * speed.video > seconds:
        batch_size = max(batch_size // 2, 2)
    fitting = max(int(seconds / (batch_size * speed.video)), 1)
    # The most epochs with no more than these steps; their last, incomplete batch is left out.
    epochs = min(max(((fitting + 1) * batch_size - 1) // work.num_videos, 1), work.most_epochs)
    steps = max(epochs * work.num_videos // batch_size, 1)
    return Length(epochs, batch_size, min(fitting, steps), is_cut=fitting < steps)


def divide_time(speed: Speed, work: Work, *, left_seconds: float, epochs_left: float | None) -> tuple[Shares, Length]:
    """Divide the remaining time, and choose the length of the training.

    Features are only extracted from a finished training, so they get no time if it will be cut.

    Args:
        speed: measured.
        work: to do.
        left_seconds: of the call.
        epochs_left: in a run already begun, which cannot be shortened; None: a new run.

    """
    shares = share_out(speed, work, left_seconds=left_seconds)
    length = choose_length(speed, work, training_seconds=shares.training)
    will_be_cut = length.is_cut or (epochs_left is not None and length.epochs < epochs_left)
    if not will_be_cut or shares.features is None:
        return shares, length
    shares = shares._replace(training=shares.training + shares.features, features=None)
    return shares, choose_length(speed, work, training_seconds=shares.training)


def hours_for_enough(speed: Speed, work: Work, shares: Shares, *, used_seconds: float) -> float:
    """Approximate hours in which enough steps fit, with features and report, rounded up to two digits."""
    features = features_seconds(speed, work)
    training = _TRAINING_STARTS + ENOUGH_STEPS * work.batch_size * speed.video / (1 - _RESERVE)
    hours = (used_seconds + max(training, features) + features + shares.report) / 3600
    step = 10.0 ** (math.floor(math.log10(hours)) - 1)
    return round(math.ceil(hours / step - 1e-9) * step, 6)


class Candidate(NamedTuple):
    """Settings to choose from."""

    num_steps: int  # that fit
    hours: float  # for enough steps


def best_fitting(candidates: Sequence[Candidate]) -> int:
    """Index of the first candidate with enough steps, else of the one that needs the fewest hours for them."""
    enough = [place for place, candidate in enumerate(candidates) if candidate.num_steps >= ENOUGH_STEPS]
    return enough[0] if enough else min(range(len(candidates)), key=lambda place: candidates[place].hours)


class Pace(NamedTuple):
    """The pace of a training, from its steps so far."""

    epochs_done: float
    epoch_seconds: float
    left_seconds: float  # that it may still take


def corrected_epochs(pace: Pace, *, planned: int, most: int) -> int | None:
    """The epochs that fit at this pace, if the planned number does not; None if it does.

    pace 10 s per epoch, 2 done, 100 s left; 12 planned  ->  None; 20 planned  ->  11; 5 planned  ->  11
    """
    needed = (planned - pace.epochs_done) * pace.epoch_seconds
    if _LEAST_USED * pace.left_seconds <= needed <= pace.left_seconds:
        return None
    fitting = pace.epochs_done + max(pace.left_seconds, 0.0) * (1 - _RESERVE) / pace.epoch_seconds
    epochs = min(max(int(fitting), math.ceil(pace.epochs_done), 1), most)
    return None if epochs == planned else epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class RoadPlan:
    """What a call will do, and when."""

    hours: float
    encoder: str
    device: str
    shares: Shares
    split_seconds: float
    measuring_seconds: float
    num_rows: int
    step_seconds: float
    length: Length
    epochs_left: float | None = None  # before this call, in a run begun by an earlier one

    @property
    def training_seconds(self) -> float:
        """Seconds of the training's steps."""
        return min(self.length.num_steps * self.step_seconds + _TRAINING_STARTS, self.shares.training)


def in_words(seconds: float) -> str:
    """41 -> "41 s"; 540 -> "9.0 min"; 9000 -> "2.5 h"."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def describe_plan(plan: RoadPlan) -> str:
    """The plan as a small table."""
    length, shares = plan.length, plan.shares
    steps = f"{counted(length.num_steps, 'step')} of {length.batch_size} videos, {plan.step_seconds:.2g} s each"
    passes = "less than an epoch" if length.is_cut else counted(length.epochs, "epoch")
    if plan.epochs_left is not None:
        left = math.ceil(plan.epochs_left)
        is_all = length.epochs >= left and not length.is_cut
        passes = (counted(left, "epoch") if is_all else f"{passes} of the {left}") + " left in the existing run"
    rows = [
        ("split and index", in_words(plan.split_seconds), ""),
        ("measuring", in_words(plan.measuring_seconds), ""),
        ("training", in_words(plan.training_seconds), f"{plan.encoder} on {plan.device}: {passes}, {steps}"),
        (
            "features",
            "none" if shares.features is None else in_words(shares.features),
            "not enough time" if shares.features is None else counted(plan.num_rows, "row"),
        ),
        ("report", in_words(shares.report), ""),
    ]
    lines = [f"  {name:<16}{time:>9}  {note}".rstrip() for name, time, note in rows]
    return "\n".join([f"plan for --hours {plan.hours:g} ({in_words(3600 * plan.hours)}):", *lines])
