"""The whole road in one call: split, index, pretrain, extract features, report, with settings that fit videos and time.

Each step is a call of the function that its own command makes, and leaves alone what is finished, so the same call goes
on where it was stopped.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from hico_core.base.addresses import Location, local_part
from hico_core.base.choices import DeviceName
from hico_core.base.failures import forget_mended
from hico_core.base.tally import Summary, VideoEvent
from hico_core.checkpoints.export import ENCODER
from hico_core.config import load_config, preset
from hico_core.config.authors.pretraining_keys import load_any_config
from hico_core.corpus.index import IndexSummary, build_index
from hico_core.corpus.sources.finding import describe_passed_over, find_sources
from hico_core.corpus.split import split_videos
from hico_core.encoding.encoder import Meter
from hico_core.report.facts import read_run
from hico_core.report.page import corpus_of, write_report
from hico_core.training.dry_run import dry_run
from hico_core.training.fitting import fit_batch
from hico_core.training.loop import RunSummary, run_pretraining
from hico_core.training.resolve import Asked, resolve_training
from hico_core.training.run_folder import has_steps
from hico_core.training.task import Task, Watch
from hico_core.transfer.extraction.extract import Files, extract_features
from hico_core.transfer.extraction.jobs import jobs_of
from hico_core.transfer.features import FeatureExtractor

RECIPE = "hacs-hico-s"

# What a report goes through: the clips and the neighbours of one run, and the page.
_REPORT_PARTS = 3


class RoadEvents(Protocol):
    """What is called along the road. What gives a context opens the progress of a step, which ends with it."""

    def on_note(self, text: str) -> None:
        """A line that a user should read."""

    def splitting(self, num_videos: int) -> AbstractContextManager[Callable[[VideoEvent], None]]:
        """Videos are split."""

    def pretraining(self, num_epochs: int) -> AbstractContextManager[Watch]:
        """The encoder is trained."""

    def extracting(self, num_videos: int, meter: Meter) -> AbstractContextManager[Callable[[VideoEvent], None]]:
        """Features are extracted, at the speed that the meter shows."""

    def reporting(self, num_parts: int) -> AbstractContextManager[Callable[[str], None]]:
        """The report is written, part by part."""

    def on_split(self, summary: Summary) -> None:
        """All videos are split, but for those that failed."""

    def on_indexed(self, summary: IndexSummary) -> None:
        """The index is written."""

    def on_pretrained(self, summary: RunSummary) -> None:
        """The encoder is trained and exported."""

    def on_extracted(self, summary: Summary, folder: Location, meter: Meter) -> None:
        """The features are there, but for those of videos that failed."""


class Road(NamedTuple):
    """What came of it."""

    num_failed: int  # videos that were not split, or of which there are no features
    report: Path


def take_road(
    inputs: Sequence[str],
    root: Location,
    *,
    name: str = "run",
    hours: float = 1.0,
    device: DeviceName = "auto",
    events: RoadEvents,
) -> Road:
    """From untrimmed videos to an encoder, its features and a report.

    Videos that fail are left out; it is enough that most are done.

    Args:
        inputs: videos, folders, patterns, lists, or addresses in buckets.
        root: the workspace; made if missing.
        name: of the run, and of the folder of its features.
        hours: what pretraining may take.
        device: as `choose_device` takes it.
        events: called along the road.

    Raises:
        HicoError: a step cannot be done.

    """
    split = split_inputs(inputs, root, events)
    events.on_indexed(build_index(root))
    run_dir = local_part(root) / "runs" / name
    length = run_length(root, run_dir, hours=hours, device=device)
    if length.description:
        events.on_note(length.description)
    pretrain_for(length, root, run_dir, device=device, events=events)
    extracted = extract_index(root, run_dir, device=device, events=events)
    return Road(split.num_failed + extracted.num_failed, report_run(run_dir, events))


def split_inputs(inputs: Sequence[str], root: Location, events: RoadEvents) -> Summary:
    """Split what is not split yet, as the profile `training` has it."""
    passed_over: Counter[str] = Counter()
    sources = find_sources(inputs, passed_over=passed_over)
    if passed_over:
        events.on_note(describe_passed_over(passed_over))
    forget_mended(root, inputs, sources, command="split")
    with events.splitting(len(sources)) as on_event:
        summary = split_videos(sources, root=root, on_event=on_event)
    events.on_split(summary)
    return summary


class RunLength(NamedTuple):
    """How long pretraining takes."""

    epochs: int
    batch_size: int  # videos a step
    description: str = ""  # of what was chosen, in words; empty where the run was begun before


def run_length(root: Location, run_dir: Path, *, hours: float, device: DeviceName) -> RunLength:
    """Epochs and videos a step of the run that is there; of a new one, what fits into time and memory here."""
    if has_steps(run_dir):
        train = load_config(run_dir / "config.yaml").train
        return RunLength(train.epochs, train.batch_size)
    recipe = preset(RECIPE)
    fitted = fit_batch(Task(config=recipe, root=root, run_dir=run_dir, device=device, lower_batch=True))
    config, reason = fitted.config, fitted.reason
    plan = dry_run(fitted, device=device).measured
    epochs = max(min(int(config.train.epochs * hours / plan.hours), config.train.epochs), 1)
    because = f" ({reason}; the recipe has {recipe.train.batch_size})" if reason else ""
    return RunLength(
        epochs,
        config.train.batch_size,
        f"pretraining {epochs} of the recipe's {config.train.epochs} epochs, {config.train.batch_size} videos a step"
        f"{because}: about {plan.hours * epochs / config.train.epochs:.2f} hours at {plan.step_seconds:.1f} s a step "
        f"on {plan.device} (--hours)",
    )


def pretrain_for(length: RunLength, root: Location, run_dir: Path, *, device: DeviceName, events: RoadEvents) -> None:
    """Pretrain, or go on with the run; the recipe's warm-up changes in proportion to its epochs."""
    asked = Asked(recipe=RECIPE, options={"train.batch_size": length.batch_size}, epochs=length.epochs)
    config = resolve_training(load_any_config, asked).config
    with events.pretraining(length.epochs) as watch:
        summary = run_pretraining(Task(config=config, root=root, run_dir=run_dir, device=device, resume=True), watch)
    events.on_pretrained(summary)


def extract_index(root: Location, run_dir: Path, *, device: DeviceName, events: RoadEvents) -> Summary:
    """Extract the features of the index's videos that are not there yet, with the run's encoder."""
    jobs = jobs_of(None, root)
    forget_mended(root, [], [job.source for job in jobs], command="extract-features")
    extractor = FeatureExtractor.from_checkpoint(run_dir / ENCODER, device=device)
    if any(job.source.clips for job in jobs):
        events.on_note("reading the 5 s clips; to read the original videos: hico extract-features --from sources")
    folder, meter = root / "features" / run_dir.name, Meter()
    with events.extracting(len(jobs), meter) as on_event:
        summary = extract_features(
            jobs, encoder=extractor, root=root, files=Files(folder), meter=meter, on_event=on_event
        )
    events.on_extracted(summary, folder, meter)
    return summary


def report_run(run_dir: Path, events: RoadEvents) -> Path:
    """Write the run's report into its folder."""
    with events.reporting(_REPORT_PARTS) as on_part:
        runs = [read_run(run_dir)]
        return write_report(run_dir / "report.html", runs, corpus_of(runs), on_part=on_part)
