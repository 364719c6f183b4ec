"""Chooses the training of `hico run`: the requested one, a smaller one that fits, or the one already begun."""

import math
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from hico_core.base.addresses import Location
from hico_core.base.choices import DeviceName
from hico_core.base.errors import UsageError, counted
from hico_core.checkpoints.content import read_last
from hico_core.config import Config, as_override, flat_settings
from hico_core.config.authors.pretraining_keys import load_any_config
from hico_core.config.resolve import Asked, resolve_training
from hico_core.data.videos import open_videos
from hico_core.report.sample import num_moments
from hico_core.road.measuring import Clock, Measured, measure_speed
from hico_core.road.planning import (
    ENOUGH_STEPS,
    Candidate,
    Length,
    Shares,
    Work,
    best_fitting,
    divide_time,
    hours_for_enough,
)
from hico_core.training.fitting import batch_here
from hico_core.transfer.extraction.jobs import jobs_of

# Settings to try if the requested ones do not fit, each cheaper than the one before: a small encoder, then small
# clips.
_SMALLER: tuple[tuple[str, ...], ...] = (
    ("model.encoder=s3dg-tiny",),
    ("model.encoder=s3dg-tiny", "data.num_frames=8", "data.frame_stride=8", "data.crop_size=64"),
)
# With them, unless the user chooses the optimiser: one that needs few steps.
_FEW_STEPS = ("optim.name=adamw", "optim.base_lr=0.01")
# Fraction of the measuring time that the requested settings get.
_ASKED_PART = 0.6

# The settings for a run's length.
_LENGTH = ("epochs", "batch_size")


class Site(NamedTuple):
    """Where a training is measured, and what fraction of the videos is there."""

    root: Location
    device: DeviceName
    num_videos: int | None = None  # in total, if the workspace holds only a sample; None: it holds all of them
    share: float = 1.0  # rows of features of all videos, per row of the workspace's videos


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A training, and how much of it fits."""

    config: Config  # with the chosen length
    settings: tuple[str, ...]  # that differ from the requested ones
    work: Work
    measured: Measured
    shares: Shares
    length: Length


class Advice(NamedTuple):
    """Settings that allow enough steps, if the chosen training has too few."""

    encoder: str
    num_steps: int  # that fit into the hours; 0: the chosen training has these settings
    settings: tuple[str, ...]  # that `--fit` gives in addition
    hours: float


def settings_of(asked: Asked, settings: Sequence[str] = ()) -> Config:
    """The configuration that the user asks for, with other settings on top."""
    with_them = replace(asked, overrides=[*asked.overrides, *settings])
    return resolve_training(load_any_config, with_them).config


def with_length(config: Config, length: Length) -> Config:
    """The configuration with this length, and a warm-up in proportion."""
    warmup = config.optim.warmup_epochs * length.epochs / config.train.epochs
    return config.model_copy(
        update={
            "optim": config.optim.model_copy(update={"warmup_epochs": warmup}),
            "train": config.train.model_copy(update={"epochs": length.epochs, "batch_size": length.batch_size}),
        }
    )


def _fitted_settings(asked: Asked) -> list[tuple[str, ...]]:
    """Settings to try instead of the requested ones, each cheaper than the one before."""
    chooses_optimiser = any(asked.names(setting.partition("=")[0]) for setting in _FEW_STEPS)
    return [settings if chooses_optimiser else (*settings, *_FEW_STEPS) for settings in _SMALLER]


def begun_config(begun: Config, asked: Asked, *, fit: bool) -> Config:
    """The requested configuration with the length of the run begun, and what hico chose for it if it was to fit."""
    chosen = {setting.partition("=")[0] for settings in _fitted_settings(asked) for setting in settings}
    fitted = [as_override(key, value) for key, value in flat_settings(begun).items() if key in chosen] if fit else []
    config = settings_of(asked, fitted)
    return config.model_copy(
        update={
            "optim": config.optim.model_copy(update={"warmup_epochs": begun.optim.warmup_epochs}),
            "train": config.train.model_copy(update={name: getattr(begun.train, name) for name in _LENGTH}),
        }
    )


def epochs_left(run_dir: Path, config: Config, root: Location) -> float:
    """Epochs that a run already begun still has to do.

    Raises:
        UsageError: the videos are not those that it has been trained on.

    """
    last = read_last(run_dir / "checkpoints")
    if last is None:
        return config.train.epochs
    now = open_videos(root, subset="train", data=config.data).identity()
    changes = last.progress.index.changes_to(now) if last.progress.index else None
    if changes is not None:
        words = ["--root", str(root), "--name", run_dir.name, "--config", str(run_dir / "config.yaml")]
        raise UsageError(
            f"{run_dir}: the index has changed since the last checkpoint: {changes}; use another --name, or continue "
            f"with `hico pretrain {shlex.join(words)} --resume --allow-changed`"
        )
    return config.train.epochs - last.progress.epochs_done


def weigh(
    config: Config,
    asked: Asked,
    site: Site,
    *,
    clock: Clock,
    until: float,
    on_note: Callable[[str], None],
    left: float | None = None,
) -> Choice:
    """Measure a training, and find how much of it fits.

    Args:
        config: of the training, without a length.
        asked: what the user asks for; those settings are kept.
        site: where to measure.
        clock: of this call.
        until: see `measure_speed`.
        on_note: called with a description of each measurement.
        left: epochs left in a run already begun, whose length stays as planned; None: a new run.

    Raises:
        HicoError: the training cannot be measured.

    """
    jobs = jobs_of(None, site.root)
    num_videos = site.num_videos or len(open_videos(site.root, subset="train", data=config.data))
    is_new = left is None
    batch_asked = not is_new or asked.names("train.batch_size")
    if not batch_asked:
        batch_size, _ = batch_here(config, num_videos=num_videos, device=site.device)
        config = config.model_copy(update={"train": config.train.model_copy(update={"batch_size": batch_size})})
    measured = measure_speed(config, site.root, jobs, device=site.device, clock=clock, until=until, on_note=on_note)
    work = Work(
        num_videos=num_videos,
        num_rows=round(site.share * measured.num_rows),
        num_clips=num_moments(site.num_videos or len(jobs)),
        batch_size=config.train.batch_size,
        recipe_epochs=config.train.epochs if left is None else math.ceil(left),
        epochs_asked=not is_new or asked.names("train.epochs"),
        batch_asked=batch_asked,
    )
    shares, length = divide_time(measured.speed, work, left_seconds=clock.left, epochs_left=left)
    return Choice(
        config=with_length(config, length) if is_new else config,
        settings=(),
        work=work,
        measured=measured,
        shares=shares,
        length=length,
    )


def choose(
    asked: Asked, site: Site, *, fit: bool, clock: Clock, until: float, on_note: Callable[[str], None]
) -> tuple[Choice, Advice | None]:
    """Choose the requested training or one that fits; if it has too few steps, also return what would have enough.

    Args:
        asked: what the user asks for.
        site: where to measure.
        fit: choose what fits instead of what was requested.
        clock: of this call.
        until: seconds of the call by which measuring is to end.
        on_note: called with a description of each measurement.

    Raises:
        HicoError: the requested training cannot be measured.

    """
    first = settings_of(asked)
    # The requested settings get most of the time; smaller ones also take less time to measure.
    until_asked = clock.used + _ASKED_PART * (until - clock.used)
    choices = [weigh(first, asked, site, clock=clock, until=until_asked, on_note=on_note)]
    length, num_videos = choices[0].length, choices[0].work.num_videos
    fits = length.epochs == first.train.epochs and not length.is_cut
    # The given epochs all fit, or have too few steps, however much time there is.
    if asked.names("train.epochs") and (fits or first.train.epochs * num_videos // length.batch_size < ENOUGH_STEPS):
        return choices[0], None
    for settings in _fitted_settings(asked):
        if choices[-1].length.num_steps >= ENOUGH_STEPS or (len(choices) > 1 and clock.used > until):
            break
        config = settings_of(asked, settings)
        if config != first:
            smaller = weigh(config, asked, site, clock=clock, until=until, on_note=on_note)
            choices.append(replace(smaller, settings=settings))
    hours = [
        hours_for_enough(choice.measured.speed, choice.work, choice.shares, used_seconds=clock.used)
        for choice in choices
    ]
    steps = [choice.length.num_steps for choice in choices]
    place = best_fitting([Candidate(*candidate) for candidate in zip(steps, hours, strict=True)])
    best = choices[place]
    taken = best if fit else choices[0]
    if taken.length.num_steps >= ENOUGH_STEPS:
        return taken, None
    needed = clock.seconds / 3600 if best.length.num_steps >= ENOUGH_STEPS else hours[place]
    steps_instead = 0 if taken is best else best.length.num_steps
    return taken, Advice(best.config.model.encoder, steps_instead, best.settings, needed)


def advice_after(
    advice: Advice | None, choice: Choice | None, step_seconds: float | None, *, used_seconds: float
) -> Advice | None:
    """The advice after a training with too few steps: if it is to train for longer, with the hours at its true pace.

    Args:
        advice: from before it.
        choice: the training.
        step_seconds: mean of its steps; None if it had too few of them.
        used_seconds: until it began.

    """
    if advice is None or advice.num_steps or choice is None or step_seconds is None:
        return advice
    speed = choice.measured.speed._replace(video=step_seconds / choice.length.batch_size)
    return advice._replace(hours=hours_for_enough(speed, choice.work, choice.shares, used_seconds=used_seconds))


def describe_few(num_steps: int, encoder: str, advice: Advice | None, *, command: str, more: str) -> str:
    """Say that a training has too few steps, and what to type for enough.

    Args:
        num_steps: of the training.
        encoder: of the training.
        advice: settings with enough steps; None: none were measured.
        command: to which the advice is added.
        more: what a longer training needs, if there is no advice.

    """
    few = (
        f"{counted(num_steps, 'step')} {'is' if num_steps == 1 else 'are'} too few for {encoder} to learn from (at "
        f"least {ENOUGH_STEPS} are needed): treat the result as a trial"
    )
    if advice is None:
        return f"{few}, and train for longer with another --name and {more}"
    words = [command, f"--hours {advice.hours:g}"]
    words += ["--fit"] if advice.settings else []
    has_small_clips = any(setting.startswith("data.") for setting in advice.settings)
    instead = f"{advice.encoder} with smaller clips" if has_small_clips else advice.encoder
    fits = f"; {counted(advice.num_steps, 'step')} of {instead} would fit" if advice.num_steps > num_steps else ""
    return f"{few}{fits}; for enough steps: `{' '.join(words)}`"
