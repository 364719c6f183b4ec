"""The whole pipeline in one call: split, index, pretrain, extract features, report, within the given hours.

Each step calls the same function as its own command and skips what is finished, so the same call continues after an
interruption. The hours are those of one call; the next call has as many for what is left.
"""

import shlex
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain, count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from hico_core.base.addresses import Location, local_part
from hico_core.base.choices import DeviceName
from hico_core.base.errors import HicoError, UsageError, counted
from hico_core.base.failures import forget_mended
from hico_core.base.tally import Summary, VideoEvent
from hico_core.checkpoints.export import ENCODER
from hico_core.config import Config
from hico_core.config.resolve import Asked
from hico_core.corpus.index import build_index
from hico_core.corpus.intake import Candidate, plan_intake
from hico_core.corpus.sources.finding import describe_passed_over, find_sources
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.split import SplitPolicy, split_videos
from hico_core.corpus.split_dry_run import sample_by_size
from hico_core.corpus.workspace.records import SplitOptions, source_file
from hico_core.encoding.encoder import Meter
from hico_core.encoding.hardware import choose_device
from hico_core.report.facts import read_run
from hico_core.report.page import corpus_of, write_report
from hico_core.report.road_times import RoadTimes, add_road_times
from hico_core.road.choosing import (
    Advice,
    Choice,
    Site,
    advice_after,
    begun_config,
    choose,
    describe_few,
    epochs_left,
    settings_of,
    weigh,
)
from hico_core.road.events import RoadEvents
from hico_core.road.measuring import Clock
from hico_core.road.pacing import train_in_time
from hico_core.road.planning import ENOUGH_STEPS, RoadPlan, features_seconds, in_words
from hico_core.training.run_folder import config_of, has_steps
from hico_core.training.task import Task
from hico_core.transfer.extraction.extract import Files, extract_features
from hico_core.transfer.extraction.jobs import jobs_of
from hico_core.transfer.features import FeatureExtractor

# Fraction of the hours for splitting and measuring.
_SPLIT_PART, _MEASURING_PART = 0.5, 0.1

# Number of videos that a dry run splits.
_SAMPLED = 4

# The parts of a report: the clips and the neighbours of one run, and the page.
_REPORT_PARTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asks `hico run` for.

    Attributes:
        name: of the run, and of the folder of its features.
        device: see `choose_device`.
        asked: the settings of the training.
        fit: use a smaller encoder or smaller clips if too few steps of the requested training fit.
        resume: only continue an existing run.
        command: what to type to run the same with other options.
        typed: the command as typed, which a new run records.

    """

    asked: Asked
    name: str = "run"
    device: DeviceName = "auto"
    fit: bool = False
    resume: bool = False
    command: str = "hico run VIDEOS"
    typed: tuple[str, ...] = ()


class Road(NamedTuple):
    """The outcome of `hico run`."""

    num_failed: int  # videos that were not split, or whose features are missing
    report: Path
    warnings: tuple[str, ...]  # what the user should know about the result


def take_road(inputs: Sequence[str], root: Location, wanted: Wanted, *, clock: Clock, events: RoadEvents) -> Road:
    """From untrimmed videos to an encoder, its features and a report.

    Videos that fail are left out, as long as most succeed.

    Args:
        inputs: videos, folders, patterns, lists, or addresses in buckets.
        root: the workspace; made if missing.
        wanted: what the user asks for.
        clock: start of the call, and the time for all of it.
        events: callbacks for the steps.

    Raises:
        HicoError: a step cannot be done, or splitting takes more than half of the time.

    """
    _settings_here(wanted)  # so that mistakes in the settings are reported before any work is done
    run_dir = local_part(root) / "runs" / wanted.name
    if wanted.resume and not has_steps(run_dir):
        raise UsageError("no such run to continue; leave out --resume", subject=run_dir)
    split = split_inputs(inputs, root, clock=clock, events=events)
    events.on_indexed(build_index(root))
    ends = [clock.used]
    chosen = _choose(run_dir, Site(root, wanted.device), wanted, clock=clock, events=events)
    task = Task(
        config=chosen.config, root=root, run_dir=run_dir, device=wanted.device, resume=True, command=wanted.typed
    )
    ends.append(clock.used)
    trained = train_in_time(task, chosen.choice, clock=clock, events=events)
    ends.append(clock.used)
    left = clock.left - (chosen.choice.shares.report if chosen.choice else 0.0)
    extracted, seconds = None, time_for_features(chosen.choice, left_seconds=left, was_cut=trained.was_cut)
    if seconds is not None:
        until = clock.used + seconds
        extracted = extract_index(root, run_dir, device=wanted.device, clock=clock, until=until, events=events)
    warnings = []
    if extracted is None and not trained.was_cut:
        words = ["hico", "extract-features", "--root", str(root), "--encoder", str(run_dir)]
        warnings.append(
            f"there was not enough time to extract all features; `{shlex.join(words)}` extracts the missing ones"
        )
    ends.append(clock.used)
    _add_times(run_dir, ends)
    report = report_run(run_dir, events)
    if trained.was_cut:
        warnings.append(
            "the time given by --hours ran out before the last training step, so there are no features yet; the same "
            "command continues the training"
        )
    if trained.summary.num_steps < ENOUGH_STEPS:
        taken = _names_in(run_dir.parent)
        advice = advice_after(chosen.advice, chosen.choice, trained.step_seconds, used_seconds=ends[1])
        warnings.append(_few(trained.summary.num_steps, chosen.config, advice, wanted, taken=taken))
    num_failed = split.num_failed + (extracted.num_failed if extracted else 0)
    return Road(num_failed, report, tuple(warnings))


def _settings_here(wanted: Wanted) -> Config:
    """The requested settings, if this machine has the requested device.

    Raises:
        UsageError: a setting is wrong, or there is no GPU.

    """
    choose_device(wanted.device)
    return settings_of(wanted.asked)


def _add_times(run_dir: Path, ends: Sequence[float]) -> None:
    """Record when the steps of a call ended, in seconds from its start."""
    splitting, measuring, training, features = (end - begin for begin, end in pairwise([0.0, *ends]))
    add_road_times(run_dir, RoadTimes(splitting=splitting, measuring=measuring, training=training, features=features))


def time_for_features(choice: Choice | None, *, left_seconds: float, was_cut: bool) -> float | None:
    """Seconds that the extraction of features may take; None: it does not begin.

    Args:
        choice: what was planned; None if the training was finished before.
        left_seconds: of the call, without the report.
        was_cut: the training ended before its last step. The next call will train its encoder further, and would have
            to extract the features again.

    """
    if was_cut:
        return None
    if choice is None:
        return left_seconds
    if choice.shares.features is not None:
        return max(left_seconds, choice.shares.features)
    return left_seconds if features_seconds(choice.measured.speed, choice.work) <= left_seconds else None


def _few(num_steps: int, config: Config, advice: Advice | None, wanted: Wanted, *, taken: Collection[str]) -> str:
    """Say that a training has too few steps, and what to type for enough, in another run.

    Args:
        num_steps: of the training.
        config: of the training.
        advice: settings with enough steps.
        wanted: what the user asks for.
        taken: names of the existing runs.

    """
    names = chain([wanted.name], (f"{wanted.name}-{number}" for number in count(2)))
    name = next(name for name in names if name not in taken)
    command = f"{wanted.command} {shlex.join(['--name', name])}"
    more = "more epochs or --hours" if wanted.asked.names("train.epochs") else "more --hours"
    return describe_few(num_steps, config.model.encoder, advice, command=command, more=more)


def _names_in(runs: Path) -> set[str]:
    return {path.name for path in runs.glob("*")}


class Chosen(NamedTuple):
    """The training of a call."""

    config: Config
    choice: Choice | None  # with its times; None if the training was finished before
    advice: Advice | None


def _choose(run_dir: Path, site: Site, wanted: Wanted, *, clock: Clock, events: RoadEvents) -> Chosen:
    """Choose the existing run, or a new one that fits; report the plan."""
    split_seconds, until = clock.used, clock.used + _MEASURING_PART * clock.seconds
    advice, begun = None, config_of(run_dir, Config)
    config = begun_config(begun, wanted.asked, fit=wanted.fit) if begun else settings_of(wanted.asked)
    left = epochs_left(run_dir, config, site.root) if begun else None
    if left == 0:
        return Chosen(config, None, None)
    events.on_note(_describe_measuring(config, clock))
    if begun:
        choice = weigh(config, wanted.asked, site, clock=clock, until=until, on_note=events.on_note, left=left)
    else:
        choice, advice = choose(wanted.asked, site, fit=wanted.fit, clock=clock, until=until, on_note=events.on_note)
    events.on_plan(plan_of(choice, clock, split_seconds=split_seconds, left=left))
    if advice is not None:
        taken = {wanted.name, *_names_in(run_dir.parent)}  # including this run, which now begins
        events.on_note(_few(choice.length.num_steps, choice.config, advice, wanted, taken=taken))
    return Chosen(choice.config, choice, advice)


def _describe_measuring(config: Config, clock: Clock) -> str:
    return (
        f"measuring how fast {config.model.encoder} trains on this machine; this should take at most "
        f"{in_words(_MEASURING_PART * clock.seconds)}"
    )


def plan_of(choice: Choice, clock: Clock, *, split_seconds: float, left: float | None = None) -> RoadPlan:
    """Turn a choice into the plan of a call; `left` epochs of an existing run were left before it."""
    return RoadPlan(
        hours=clock.seconds / 3600,
        encoder=choice.config.model.encoder,
        device=choice.measured.device,
        shares=choice.shares,
        split_seconds=split_seconds,
        measuring_seconds=clock.used - split_seconds,
        num_rows=choice.work.num_rows,
        step_seconds=choice.length.batch_size * choice.measured.speed.video,
        length=choice.length,
        epochs_left=left,
    )


def split_inputs(inputs: Sequence[str], root: Location, *, clock: Clock, events: RoadEvents) -> Summary:
    """Split the videos that are not split yet, with the profile `training`.

    Raises:
        HicoError: splitting takes more than its share of the time; finished videos are kept.

    """
    passed_over: Counter[str] = Counter()
    sources = find_sources(inputs, passed_over=passed_over)
    if passed_over:
        events.on_note(describe_passed_over(passed_over))
    forget_mended(root, inputs, sources, command="split")
    with events.splitting(len(sources)) as on_event:

        def in_time(event: VideoEvent) -> None:
            on_event(event)
            if clock.used > _SPLIT_PART * clock.seconds and event.num_done < event.num_videos:
                raise HicoError(
                    f"splitting {event.num_done} of {counted(event.num_videos, 'video')} has taken half of --hours "
                    f"{clock.seconds / 3600:g}; their clips are kept, and the same command continues with the rest "
                    "(or use more --hours)"
                )

        summary = split_videos(sources, root=root, on_event=in_time)
    events.on_split(summary)
    return summary


class _OutOfTime(Exception):
    """The time for features has run out."""


def extract_index(
    root: Location, run_dir: Path, *, device: DeviceName, clock: Clock, until: float, events: RoadEvents
) -> Summary | None:
    """Extract the missing features of the index's videos, with the run's encoder.

    Returns None if extraction was ended after `until` seconds of the call; finished features are kept.
    """
    jobs = jobs_of(None, root)
    forget_mended(root, [], [job.source for job in jobs], command="extract-features")
    extractor = FeatureExtractor.from_checkpoint(run_dir / ENCODER, device=device)
    if any(job.source.clips for job in jobs):
        events.on_note("reading the 5 s clips; to read the original videos: hico extract-features --from sources")
    folder, meter = root / "features" / run_dir.name, Meter()
    with events.extracting(len(jobs), meter) as on_event:

        def in_time(event: VideoEvent) -> None:
            on_event(event)
            if clock.used > until and event.num_done < event.num_videos:
                raise _OutOfTime

        try:
            summary = extract_features(
                jobs, encoder=extractor, root=root, files=Files(folder), meter=meter, on_event=in_time
            )
        except _OutOfTime:
            return None
    events.on_extracted(summary, folder, meter)
    return summary


def report_run(run_dir: Path, events: RoadEvents) -> Path:
    """Write the run's report into its folder."""
    with events.reporting(_REPORT_PARTS) as on_part:
        runs = [read_run(run_dir)]
        return write_report(run_dir / "report.html", runs, corpus_of(runs), on_part=on_part)


def plan_road(
    inputs: Sequence[str], root: Location, wanted: Wanted, *, clock: Clock, on_note: Callable[[str], None]
) -> tuple[RoadPlan, str]:
    """The plan of `take_road`, measured on a few videos that are split into a temporary folder.

    Args:
        inputs: see `take_road`.
        root: the workspace, for videos that are split already; nothing is written there.
        wanted: what the user asks for.
        clock: of a call that starts now.
        on_note: called with messages for the user.

    Returns:
        The plan, and what the user should know about it (may be empty).

    Raises:
        HicoError: no video of the sample can be split, or it is too small to train on.

    """
    config = _settings_here(wanted)
    sources = find_sources(inputs)
    known = plan_intake([Candidate(source, SplitOptions()) for source in sources], root=root, rules=SplitPolicy().rules)
    todo = [candidate.source for candidate in known.plan.todo]
    sample = sources if len(sources) <= _SAMPLED else sample_by_size(sources, _SAMPLED)
    on_note(f"splitting {counted(len(sample), 'video')} into a temporary folder to measure the speed")
    runs = local_part(root) / "runs"
    if has_steps(runs / wanted.name):
        on_note(f"this plan is for a new run; without --dry-run, the command continues the existing run {wanted.name}")
    with TemporaryDirectory(prefix="hico-") as folder:
        place = Path(folder) / "root"
        began = clock.used
        split_videos(sample, root=place)
        build_index(place)
        split_seconds = (clock.used - began) * _bytes_of(todo) / _bytes_of(sample)
        share = _bytes_of(sources) / _bytes_of(sample)
        # The clock of a call that has just split all videos.
        later = clock._replace(began=clock.now() - split_seconds)
        until = later.used + _MEASURING_PART * clock.seconds
        site = Site(place, wanted.device, len(sources), share)
        on_note(_describe_measuring(config, clock))
        choice, advice = choose(wanted.asked, site, fit=wanted.fit, clock=later, until=until, on_note=on_note)
        plan = plan_of(choice, later, split_seconds=split_seconds)
    if advice is None:
        return plan, ""
    return plan, _few(choice.length.num_steps, choice.config, advice, wanted, taken=_names_in(runs))


def _bytes_of(sources: Sequence[Source]) -> int:
    return sum(source_file(source).size_bytes for source in sources)
