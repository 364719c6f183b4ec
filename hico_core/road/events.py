"""The events that `hico run` reports."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from hico_core.base.addresses import Location
from hico_core.base.tally import Summary, VideoEvent
from hico_core.corpus.index import IndexSummary
from hico_core.encoding.encoder import Meter
from hico_core.road.planning import RoadPlan
from hico_core.training.loop import RunSummary
from hico_core.training.task import Watch


class RoadEvents(Protocol):
    """Callbacks of `hico run`; those that return a context show the progress of a step, which ends with the context."""

    def on_note(self, text: str) -> None:
        """A message for the user."""

    def on_plan(self, plan: RoadPlan) -> None:
        """The plan for the rest, before it begins."""

    def splitting(self, num_videos: int) -> AbstractContextManager[Callable[[VideoEvent], None]]:
        """Videos are split."""

    def pretraining(self, title: str, num_epochs: int) -> AbstractContextManager[Watch]:
        """The encoder is trained."""

    def extracting(self, num_videos: int, meter: Meter) -> AbstractContextManager[Callable[[VideoEvent], None]]:
        """Features are extracted, at the speed that the meter shows."""

    def reporting(self, num_parts: int) -> AbstractContextManager[Callable[[str], None]]:
        """The report is written, part by part."""

    def on_split(self, summary: Summary) -> None:
        """All videos are split, except those that failed."""

    def on_indexed(self, summary: IndexSummary) -> None:
        """The index is written."""

    def on_pretrained(self, summary: RunSummary) -> None:
        """The encoder is trained and exported."""

    def on_extracted(self, summary: Summary, folder: Location, meter: Meter) -> None:
        """The features are written, except those of videos that failed."""
