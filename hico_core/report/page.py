"""The report on runs or a workspace, as one self-contained HTML file that loads nothing from the network."""

import base64
import io
import platform
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from PIL import Image

from hico_core.base.errors import HicoError, counted
from hico_core.base.storage import write_text
from hico_core.base.version import __version__
from hico_core.checkpoints.frozen import FrozenEncoder, load_frozen
from hico_core.config import Config, compose_config, flat_values
from hico_core.report import charts
from hico_core.report.comparisons import (
    ComparisonFacts,
    accuracy_chart,
    describe_test,
    in_percent,
    read_comparisons,
)
from hico_core.report.facts import CorpusFacts, RunFacts, last_values, read_corpus
from hico_core.report.road_times import RoadTimes
from hico_core.report.sample import (
    EncodedMoments,
    Moment,
    Sample,
    clips_as_drawn,
    data_of,
    network_before,
    sample_clips,
)
from hico_core.report.tables import Table, by_name, localised_tables, probe_table, retrieval_table
from hico_core.report.verdict import Evidence, Verdict, judge_finetuning, judge_pretraining, num_candidates
from hico_core.training.run_folder import part_done
from hico_core.training.started import Started
from hico_core.transfer.extraction.extract import ALIKE

_QUALITY = 80  # JPEG quality

# Number of videos whose clips are shown.
_PREVIEWED = 3

# Limit in bytes for the names of other runs in a file name; file systems allow 255 in all.
_LONGEST_NAME = 60

# Largest number of checkpoints that are named.
_MOST_CHECKPOINTS = 3

# Largest number of rows in a table of failures.
_MOST_FAILURES = 100

_CURVES: tuple[tuple[str, str, str, str], ...] = (
    ("loss", "Loss", "loss", "It should fall, quickly at first. If it stays where it began, nothing is being learnt."),
    ("visual", "Visual term", "visual", "It falls as near clips become more alike than clips of different videos."),
    (
        "topical",
        "Topical term",
        "topical",
        "Guessing gives 0.98 (at gamma 0.5); below that, the encoder recognises clips of the same video.",
    ),
    ("accuracy", "Training accuracy", "fraction of the clips", "On the clips of each step; the test is what counts."),
    (
        "lr",
        "Learning rate",
        "rate",
        "It rises linearly, then falls to 0 along a cosine; at a jump, the number of epochs was changed.",
    ),
    ("distance", "Largest distance of near clips", "seconds", "HiCo's gradual sampling: it grows during training."),
    (
        "embedding_std",
        "Spread of the embeddings",
        "standard deviation",
        "At 0, training has collapsed: all clips get the same embedding. Evenly spread embeddings of width D have "
        "1 / sqrt(D).",
    ),
    (
        "effective_rank",
        "Directions that the embeddings use",
        "effective rank",
        "It should stay well above 1; near 1, all embeddings are on one line.",
    ),
    (
        "clips_per_second",
        "Speed",
        "clips per second",
        "Steady after the first steps; a dip means waiting for the disk, or other work on the machine.",
    ),
    (
        "data_seconds",
        "Waiting for clips",
        "seconds per step",
        "If it is near 0, the loader keeps up; otherwise, more workers help.",
    ),
    (
        "knn_accuracy",
        "Nearest neighbours",
        "accuracy",
        "The fraction of queries whose nearest neighbours vote for the correct class.",
    ),
    ("val_accuracy", "Validation", "accuracy", "On the videos used to choose the checkpoint."),
)

# Facts about a workspace whose keys are too short to show.
_IN_WORDS = {"failed": "videos that failed", "with labels": "videos with a label"}


class Figure(NamedTuple):
    """A chart and how to read it."""

    title: str
    svg: Markup
    caption: str


class PageImage(NamedTuple):
    """A picture inside the page."""

    uri: str
    alt: str
    width: int
    height: int


class Film(NamedTuple):
    """Frames in one strip, which the page shows one after the other."""

    strip: PageImage
    num_frames: int


class ClipRow(NamedTuple):
    """A clip as drawn, and as the model receives it."""

    title: str
    before: PageImage
    after: PageImage


class NeighbourRow(NamedTuple):
    """A moment and its most similar moments."""

    query: tuple[Film, str]
    matches: list[tuple[Film, str]]


class _Looked(NamedTuple):
    """Some clips, and their features from the run's encoder."""

    sample: Sample
    seen: EncodedMoments


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPart:
    """The page's content about one run."""

    facts: RunFacts
    command: str  # "" if unknown
    origin: list[str]  # what else it was started from, and how long it took
    clips: list[ClipRow]
    neighbours: list[NeighbourRow]
    map: Figure | None
    confusion: Figure | None
    spread: float | None  # mean similarity of different videos
    notes: list[str]  # missing parts, and why they are missing
    verdict: Verdict


def write_report(
    target: Path,
    runs: Sequence[RunFacts],
    corpus: CorpusFacts | None,
    *,
    on_part: Callable[[str], None] = lambda what: None,
    encoder: FrozenEncoder | None = None,
) -> Path:
    """Write the page.

    Args:
        target: the file.
        runs: from `read_run`; empty for a page about a workspace alone.
        corpus: of the workspace; None if the runs lie in none.
        on_part: called with each part as it is begun.
        encoder: for the neighbours and the map; None: each run's own.

    Raises:
        HicoError: the disk is full.

    """
    parts = [_run_part(run, encoder, on_part=on_part) for run in runs]
    on_part("writing the page")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(
        resources.files("hico_core.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    )
    title = ", ".join(run.name for run in runs) or str(corpus.root if corpus else "")
    page = template.render(
        title=title,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        versions=f"hico {__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}",
        summary=_summary(runs) if runs else None,
        curves=_curve_figures(runs),
        corpus=corpus,
        corpus_table=_corpus_table(corpus) if corpus else None,
        corpus_figures=_corpus_figures(corpus) if corpus else [],
        failures=_failures(corpus) if corpus else None,
        num_failures=len(corpus.failures) if corpus else 0,
        most_failures=_MOST_FAILURES,
        probes=probe_table(runs),
        retrieval=retrieval_table(runs),
        localised=localised_tables(runs),
        comparisons=_comparisons(read_comparisons(corpus.root) if corpus else []),
        runs=parts,
        settings=_settings_table(runs) if runs else None,
    )
    write_text(target, page)
    return target


def default_name(folders: Sequence[Path]) -> str:
    """Name of the report in the first folder; the report on several runs never replaces that on one run."""
    others = "-".join(folder.absolute().name for folder in folders[1:])
    if not others:
        return "report.html"
    return f"report-with-{others if len(others.encode()) <= _LONGEST_NAME else f'{len(folders) - 1}-others'}.html"


def corpus_of(runs: Sequence[RunFacts]) -> CorpusFacts | None:
    """Facts about the workspace of the first run that lies in one."""
    return next((read_corpus(run.root) for run in runs if run.root is not None), None)


def _run_part(run: RunFacts, encoder: FrozenEncoder | None, *, on_part: Callable[[str], None]) -> RunPart:
    """Build a run's part of the page; whatever cannot be shown becomes a note."""
    notes = []
    if run.num_unreadable:
        notes.append(f"Left out of metrics.jsonl: {counted(run.num_unreadable, 'line')}, damaged or incomplete.")
    if not run.metrics:
        notes.append("metrics.jsonl has no steps yet, so there are no curves.")
    if not run.checkpoints:
        notes.append("There is no checkpoint yet.")
    notes += _unfinished(run)
    if run.root is None:
        notes.append("The folder is not in a workspace, so neither videos nor clips can be shown.")
    clips: list[ClipRow] = []
    if run.root is not None and run.is_pretraining:
        on_part(f"{run.name}: sample clips")
        try:
            clips = _clip_rows(run, run.root)
        except HicoError as error:
            notes.append(f"No clips can be shown: {error}")
    looked = _look(run, encoder, notes, on_part=on_part)
    verdict = _verdict(run, None if encoder else looked, notes)
    seen = None if looked is None else looked.seen
    spread = None if seen is None else seen.spread()
    if spread is not None and spread > ALIKE:
        notes.append("No neighbours and no map: the features of all clips are alike, so both would be random.")
        seen = None
    elif verdict.level == "nothing" and encoder is None and seen is not None:
        notes.append("No neighbours and no map: the encoder has learnt nothing, so both would be random.")
        seen = None
    return RunPart(
        facts=run,
        command="" if run.started is None else shlex.join(run.started.command),
        origin=describe_origin(run.started, run.total("step_seconds"), run.road),
        clips=clips,
        neighbours=[] if seen is None else _neighbour_rows(seen),
        map=None if seen is None else _map(seen),
        confusion=None if run.confusion is None else _confusion_figure(run),
        spread=spread,
        notes=notes,
        verdict=verdict,
    )


def _unfinished(run: RunFacts) -> list[str]:
    """A note on a training that has not reached its end."""
    try:
        done = part_done(run.path)
    except HicoError as error:
        return [f"{error}."]
    return [f"The training was stopped after {done}, or is still running."] if done else []


def _look(
    run: RunFacts, encoder: FrozenEncoder | None, notes: list[str], *, on_part: Callable[[str], None]
) -> _Looked | None:
    """Encode some clips with the encoder; if that is impossible, the reason becomes a note."""
    if encoder is not None:
        notes.append(f"The neighbours and the map show the features of {encoder.text}.")
    if run.root is not None and run.encoder is None and encoder is None:
        notes.append("There is no exported encoder yet, so there are no neighbours and no map.")
    elif run.root is not None:
        on_part(f"{run.name}: nearest neighbours")
        try:
            shown_to = encoder or load_frozen(str(run.encoder))
            sample = sample_clips(shown_to, run.root, data_of(run.config))
            return _Looked(sample, sample.encoded(shown_to.network))
        except HicoError as error:
            notes.append(f"No neighbours and no map: {error}")
    return None


def _verdict(run: RunFacts, looked: _Looked | None, notes: list[str]) -> Verdict:
    """Judge what was learnt; an encoder that has learnt something is compared with its state before training."""
    if not run.is_pretraining:
        return judge_finetuning(run.results.tested)
    config = compose_config(Config, run.config, origin=str(run.path / "config.yaml"))
    evidence = _evidence(run, config, None if looked is None else looked.seen)
    verdict = judge_pretraining(evidence)
    if verdict.level == "nothing" or looked is None or evidence.same_video is None:
        return verdict
    if run.started is None:
        notes.append("Not compared with the encoder before training: the run does not record what it started from.")
        return verdict
    try:
        before = looked.sample.encoded(network_before(config, run.started)).same_video()
    except HicoError as error:
        notes.append(f"Not compared with the encoder before training: {error}")
        return verdict
    return judge_pretraining(replace(evidence, before=before, is_warm_start=run.started.encoder is not None))


def _evidence(run: RunFacts, config: Config, seen: EncodedMoments | None) -> Evidence:
    last = last_values(run, ["visual", "embedding_std"])
    return Evidence(
        encoder=config.model.encoder,
        steps=run.steps,
        loss=last["visual"] if config.loss.visual_weight else None,
        num_candidates=num_candidates(
            batch_size=config.train.batch_size, clips_per_video=config.sampling.clips_per_video
        ),
        spread=last["embedding_std"],
        similarity=None if seen is None else seen.spread(),
        same_video=None if seen is None else seen.same_video(),
        same_class=None if seen is None else seen.same_class(),
        probes=run.results.probes,
    )


def describe_origin(started: Started | None, seconds: float, road: RoadTimes | None) -> list[str]:
    """Describe what a run was started from besides its command, and how long its steps and `hico run` took."""
    said = []
    if started is not None:
        where = {"hico": "hico", "folder": "the folder in which it was started"}
        said += [
            f"Commit {state.commit[:12]} of {where[name]}{', with uncommitted changes' if state.is_dirty else ''}."
            for name, state in started.git.items()
        ]
        said += [f"It started from the weights in {started.encoder.path}."] if started.encoder else []
    if seconds:
        said.append(
            f"The steps, including those after resuming, took {_clock(seconds)} (hours:minutes:seconds) in all."
        )
    if road is not None:
        said.append(
            f"hico run took {_clock(road.whole)} before this report: {_clock(road.splitting)} for splitting, "
            f"{_clock(road.measuring)} for measuring, {_clock(road.training)} for training and "
            f"{_clock(road.features)} for features."
        )
    return said


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _clip_rows(run: RunFacts, root: Path) -> list[ClipRow]:
    config = compose_config(Config, run.config, origin=str(run.path / "config.yaml"))
    return [
        ClipRow(
            clip.title,
            _page_image(_strip(clip.before), f"Original frames of {clip.title}, with the crop outlined"),
            _page_image(_strip(clip.after), "The same frames as the encoder receives them"),
        )
        for clip in clips_as_drawn(config, root, samples=_PREVIEWED, at=0.5, seed=config.train.seed)
    ]


def _curve_figures(runs: Sequence[RunFacts]) -> list[Figure]:
    figures = []
    for field, title, y, caption in _CURVES:
        known = {name: curve for name, run in by_name(runs).items() if (curve := run.curve(field))}
        if known:
            figures.append(Figure(title, charts.lines(known, x="step", y=y), caption))
    return figures


def _summary(runs: Sequence[RunFacts]) -> Table:
    rows = []
    for name, run in by_name(runs).items():
        last = last_values(run, ["loss", "clips_per_second", "effective_rank"])
        seconds, waited = run.total("step_seconds"), run.total("data_seconds")
        rows.append(
            [
                name,
                "pretraining" if run.is_pretraining else "finetuning",
                run.config.get("recipe") or f"finetune-{run.config.get('dataset')}",
                run.steps,
                _rounded(last["loss"], 4),
                _rounded(last["effective_rank"], 1),
                _rounded(last["clips_per_second"], 1),
                f"{waited / seconds:.0%}" if seconds else "",
                f"{seconds / 3600:.2f}",
                describe_checkpoints(run.checkpoints),
            ]
        )
    head = ["run", "kind", "recipe", "steps", "loss", "effective rank", "clips/s", "waiting", "hours", "checkpoints"]
    return Table("Loss, rank and speed are means over the last ten steps.", head, rows)


def describe_checkpoints(checkpoints: Sequence[tuple[str, int]]) -> str:
    """Few by name, many by their number."""
    if len(checkpoints) > _MOST_CHECKPOINTS:
        return f"{len(checkpoints)} files, {sum(size for _, size in checkpoints) / 1e6:.1f} MB"
    return ", ".join(f"{file} ({size / 1e6:.1f} MB)" for file, size in checkpoints) or "none"


def _rounded(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _corpus_table(corpus: CorpusFacts) -> Table:
    rows: list[list[Any]] = [[_IN_WORDS.get(name, name), value] for name, value in corpus.summary().items()]
    return Table(f"The workspace {corpus.root}", ["property", "value"], rows, is_facts=True)


def _corpus_figures(corpus: CorpusFacts) -> list[Figure]:
    if not len(corpus.durations):
        return []
    lengths = charts.histogram(corpus.durations, x="seconds", y="videos")
    rates = charts.histogram(corpus.rates, x="frames per second, on average", y="videos")
    sizes = charts.bars(corpus.sizes[:8], x="videos")
    return [
        Figure("Lengths", lengths, "Videos shorter than one clip are left out of training."),
        Figure("Frame rates", rates, "Clips are measured in seconds, so frame rates may differ."),
        Figure("Picture sizes", sizes, "The most frequent sizes, in pixels."),
    ]


def _failures(corpus: CorpusFacts) -> Table:
    rows = [[line.source, line.stage, line.error, line.attempts] for line in corpus.failures[:_MOST_FAILURES]]
    return Table("Videos that could not be used, and why", ["source", "stage", "reason", "attempts"], rows)


def _comparisons(found: Sequence[ComparisonFacts]) -> list[tuple[Table, Figure]]:
    head = ["encoder", "linear probe", "difference from the first", "k-NN", "difference from the first"]
    return [
        (
            Table(describe_test(rows[0]), head, [[name, *cells] for name, cells in in_percent(rows).items()]),
            Figure(
                name,
                Markup(accuracy_chart(rows)),  # noqa: S704 - matplotlib escapes
                "The accuracy of pixels and motion requires no understanding of video. If the interval of a difference "
                "includes 0, either encoder may be the better one; more clips in more groups would tell.",
            ),
        )
        for name, rows in found
    ]


def _settings_table(runs: Sequence[RunFacts]) -> Table:
    """All settings; those in which runs differ come first."""
    named = by_name(runs)
    settings = {name: flat_values(run.config) for name, run in named.items()}
    keys = list(dict.fromkeys(key for values in settings.values() for key in values))
    rows = [[key, *(str(values.get(key, "")) for values in settings.values())] for key in keys]
    rows.sort(key=lambda row: len(set(row[1:])) == 1)
    return Table("Settings; those in which the runs differ come first", ["setting", *named], rows)


def _neighbour_rows(seen: EncodedMoments) -> list[NeighbourRow]:
    return [
        NeighbourRow(
            (_film(query), f"{query.video_id} at {query.seconds:.1f} s"),
            [
                (
                    _film(match.moment),
                    f"{match.moment.video_id} at {match.moment.seconds:.1f} s, similarity {match.similarity:.3f}",
                )
                for match in matches
            ],
        )
        for query, matches in seen.neighbours()
        if matches
    ]


def _map(seen: EncodedMoments) -> Figure:
    places, shares = seen.map()
    if places.shape[1] < 2:
        return Figure("Map of the features", Markup(""), "There are too few clips for a map.")
    labelled = any(moment.class_name is not None for moment in seen.moments)
    groups = [(m.class_name or "no label") if labelled else m.video_id for m in seen.moments]
    first, second = (
        f"direction {place} ({share:.0%} of the variance)" for place, share in zip((1, 2), shares, strict=True)
    )
    colours = "class" if labelled else "video"
    return Figure(
        f"Map of the features, coloured by {colours}",
        charts.scatter(places, groups, x=first, y=second),
        f"Each dot is a clip (PCA of {len(seen.moments)} clips). If dots of one {colours} lie together, the encoder "
        "recognises what these clips have in common.",
    )


def _confusion_figure(run: RunFacts) -> Figure:
    assert run.confusion is not None
    return Figure(
        "Confusion matrix",
        charts.confusion(run.confusion),
        "Correct answers are on the diagonal; a bright cell off it is a class that is mistaken for another.",
    )


def _film(moment: Moment) -> Film:
    return Film(_page_image(_strip(moment.frames), f"Frames of {moment.video_id}"), len(moment.frames))


def _strip(frames: Sequence[Image.Image]) -> Image.Image:
    """Join frames side by side."""
    strip = Image.new("RGB", (sum(frame.width for frame in frames), max(frame.height for frame in frames)))
    left = 0
    for frame in frames:
        strip.paste(frame, (left, 0))
        left += frame.width
    return strip


def _page_image(image: Image.Image, alt: str) -> PageImage:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return PageImage(uri, alt, image.width, image.height)
