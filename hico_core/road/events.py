"""What is told along the road."""

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
    """What is called along the road. What gives a context opens the progress of a step, which ends with it."""

    def on_note(self, text: str) -> None:
        """A line that a user should read."""

    def on_plan(self, plan: RoadPlan) -> None:
        """What the rest will take, before it is begun."""

    def splitting(self, num_videos: int) -> AbstractContextManager[Callable[[VideoEvent], None]]:
        """Videos are split."""

    def pretraining(self, title: str, num_epochs: int) -> AbstractContextManager[Watch]:
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
