"""`hico run`: the four commands and a report, with settings that fit the videos and the time."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import (
    counting,
    progress,
    raising_on_signals,
    result,
    video_progress,
    video_reporter,
    warn,
)
from hico_cli.options import ConfigFile, Device, Json, Override, Root, TrainedEncoder, require_file_name_part, typed
from hico_cli.outcomes import (
    describe_speed,
    extraction_fields,
    report_extraction,
    report_index,
    report_pretraining,
    report_split,
    watched_pretraining,
)
from hico_core.base.addresses import DEFAULT_ROOT, locate_root
from hico_core.base.choices import Dataset

if TYPE_CHECKING:
    from hico_core.base.addresses import Location
    from hico_core.base.tally import Summary, VideoEvent
    from hico_core.corpus.index import IndexSummary
    from hico_core.encoding.encoder import Meter
    from hico_core.road.planning import RoadPlan
    from hico_core.training.loop import RunSummary
    from hico_core.training.task import Watch


def run(
    context: typer.Context,
    inputs: Annotated[
        list[str], typer.Argument(help="Videos, folders, patterns, .txt lists, or addresses in buckets.")
    ],
    root: Root = DEFAULT_ROOT,
    name: Annotated[str, typer.Option(help="Name of the run and of the folder of features.")] = "run",
    hours: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=1e5,
            help="Time for the whole call: splitting, measuring, training, features and report. A later call that "
            "continues the run has the same time available again.",
        ),
    ] = 1.0,
    fit: Annotated[
        bool,
        typer.Option(
            "--fit",
            help="If fewer than 300 training steps fit into --hours, train the small encoder s3dg-tiny with AdamW, on "
            "smaller clips if necessary.",
        ),
    ] = False,
    dataset: Annotated[
        Dataset | None,
        typer.Option(rich_help_panel="Settings", help="Dataset whose recipe to use. Default: hacs (hacs-hico-s)."),
    ] = None,
    config: ConfigFile = None,
    override: Override = None,
    encoder: TrainedEncoder = None,
    device: Device = "auto",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            rich_help_panel="Continuing",
            help="Stop if there is no run to continue. An interrupted run is continued even without this option.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the plan only. Measures with a few videos, split into a temporary folder; the workspace does "
            "not change.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Run the whole pipeline: split, index, pretrain, extract features, and write an HTML report.

    Measures how fast training is on this machine, prints a plan that fits into --hours, and follows it. After an
    interruption, the same command continues. Exit code 3: some videos failed; the others were processed.
    """
    began = time.monotonic()
    require_file_name_part(name, option="--name")
    place = locate_root(root)
    from hico_core.config import default_recipe
    from hico_core.config.resolve import Asked

    of_dataset = dataset or "hacs"
    asked = Asked(
        recipe=f"{of_dataset}-{default_recipe(of_dataset)}",
        file=config,
        options={"model.encoder": encoder},
        overrides=override or [],
    )
    given = {
        "--root": None if root == DEFAULT_ROOT else root,
        "--dataset": dataset,
        "--config": config,
        "--encoder": encoder,
        "--device": None if device == "auto" else device,
    }
    words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
    words += [word for setting in override or [] for word in ("-o", setting)]
    command = shlex.join(["hico", "run", *inputs, *words])
    from hico_core.road.measuring import Clock
    from hico_core.road.take import Wanted, plan_road, take_road

    wanted = Wanted(
        name=name, device=device, asked=asked, fit=fit, resume=resume, command=command, typed=typed(context)
    )
    clock = Clock(began, hours * 3600)
    if dry_run:
        with raising_on_signals("stopped"):
            plan, few = plan_road(inputs, place, wanted, clock=clock, on_note=warn)
        _print_plan(plan, as_json=json)
        if few:
            warn(few)
        return
    with raising_on_signals():
        road = take_road(inputs, place, wanted, clock=clock, events=_Events(root, as_json=json))
    taken = {"seconds": round(clock.used, 1), "seconds_asked": clock.seconds, "warnings": road.warnings}
    fields = {"report": str(road.report), "bytes": road.report.stat().st_size, **taken}
    result(str(road.report), fields, as_json=json)
    for warning in road.warnings:
        warn(warning)
    if road.num_failed:
        raise typer.Exit(3)


def _print_plan(plan: "RoadPlan", *, as_json: bool) -> None:
    from hico_core.road.planning import describe_plan

    fields = {**asdict(plan), "shares": plan.shares._asdict(), "length": plan.length._asdict()}
    result(describe_plan(plan), {"plan": fields}, as_json=as_json)


class _Events:
    """Prints for each step of `hico run` what the step's own command prints."""

    def __init__(self, root: str, *, as_json: bool) -> None:
        self._root, self._as_json = root, as_json

    def on_note(self, text: str) -> None:
        warn(text)

    def on_plan(self, plan: "RoadPlan") -> None:
        _print_plan(plan, as_json=self._as_json)

    def splitting(self, num_videos: int) -> "AbstractContextManager[Callable[[VideoEvent], None]]":
        return video_progress(as_json=self._as_json)("split", num_videos)

    def on_split(self, summary: "Summary") -> None:
        report_split(summary, root=self._root, folder=f"{self._root}/train", as_json=self._as_json)

    def on_indexed(self, summary: "IndexSummary") -> None:
        report_index(summary, root=self._root, as_json=self._as_json)

    def pretraining(self, title: str, num_epochs: int) -> "AbstractContextManager[Watch]":
        return watched_pretraining(title, epochs=num_epochs, as_json=self._as_json)

    def on_pretrained(self, summary: "RunSummary") -> None:
        report_pretraining(summary, as_json=self._as_json)

    @contextmanager
    def extracting(self, num_videos: int, meter: "Meter") -> "Iterator[Callable[[VideoEvent], None]]":
        with progress("features", total=num_videos, as_json=self._as_json) as report:
            yield video_reporter(report, done="extracted", part="row", more=lambda: describe_speed(meter))

    def on_extracted(self, summary: "Summary", folder: "Location", meter: "Meter") -> None:
        report_extraction(extraction_fields(summary, meter), folder, root=self._root, as_json=self._as_json)

    @contextmanager
    def reporting(self, num_parts: int) -> Iterator[Callable[[str], None]]:
        with progress("report", total=num_parts, as_json=self._as_json) as report:
            yield counting(report, "part")
