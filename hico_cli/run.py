"""`hico run`: the four commands and a report, with settings that fit the videos and the time."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
from hico_cli.options import Device, Json, Root, require_file_name_part
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

if TYPE_CHECKING:
    from hico_core.base.addresses import Location
    from hico_core.base.tally import Summary, VideoEvent
    from hico_core.corpus.index import IndexSummary
    from hico_core.encoding.encoder import Meter
    from hico_core.training.loop import RunSummary
    from hico_core.training.task import Watch


def run(
    inputs: Annotated[
        list[str], typer.Argument(help="Videos, folders, patterns, .txt lists, or addresses in buckets.")
    ],
    root: Root = DEFAULT_ROOT,
    name: Annotated[str, typer.Option(help="Name of the run and of the folder of features.")] = "run",
    hours: Annotated[
        float, typer.Option(min=0.001, help="Time for pretraining; trains as many epochs of the recipe as fit.")
    ] = 1.0,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Run the whole pipeline: split, index, pretrain (hacs-hico-s), extract features, and write an HTML report.

    If it is interrupted, the same command continues. Exit code 3: some videos failed; the others were processed.
    """
    require_file_name_part(name, option="--name")
    place = locate_root(root)
    from hico_core.road import take_road

    with raising_on_signals():
        road = take_road(inputs, place, name=name, hours=hours, device=device, events=_Events(root, as_json=json))
    result(str(road.report), {"report": str(road.report), "bytes": road.report.stat().st_size}, as_json=json)
    if road.num_failed:
        raise typer.Exit(3)


class _Events:
    """What is printed along the road: what each of its commands prints."""

    def __init__(self, root: str, *, as_json: bool) -> None:
        self._root, self._as_json = root, as_json

    def on_note(self, text: str) -> None:
        warn(text)

    def splitting(self, num_videos: int) -> "AbstractContextManager[Callable[[VideoEvent], None]]":
        return video_progress(as_json=self._as_json)("split", num_videos)

    def on_split(self, summary: "Summary") -> None:
        report_split(summary, root=self._root, folder=f"{self._root}/train", as_json=self._as_json)

    def on_indexed(self, summary: "IndexSummary") -> None:
        report_index(summary, root=self._root, as_json=self._as_json)

    def pretraining(self, num_epochs: int) -> "AbstractContextManager[Watch]":
        from hico_core.road import RECIPE

        return watched_pretraining(RECIPE, epochs=num_epochs, as_json=self._as_json)

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
