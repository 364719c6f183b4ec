"""What commands that go through many videos tell of each, and of all."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

from hico_core.corpus.failures import FailedSource
from hico_core.corpus.records import Failure

Outcome = Literal["done", "unchanged", "failed", "failed before"]


class VideoEvent(NamedTuple):
    """One video is dealt with."""

    video_id: str
    source: str
    outcome: Outcome
    num_parts: int  # clips, rows or windows that the video has now
    note: str  # why it failed, or what is worth knowing of it; else empty
    num_done: int
    num_videos: int


class Summary(NamedTuple):
    """What became of the videos of one call."""

    num_done: int
    num_unchanged: int
    num_failed: int  # failed before and not tried again ones included
    num_parts: int  # clips, rows or windows of the videos that are in order now
    num_failed_before: int = 0


class Tally:
    """What became of the videos so far."""

    def __init__(self, num_videos: int) -> None:
        self.failed: list[FailedSource] = []
        self._outcomes = Counter[Outcome]()
        self._num_videos = num_videos
        self._num_parts = 0
        self._sources: list[str] = []

    def add(
        self,
        video_id: str,
        source: str,
        outcome: Outcome,
        *,
        num_parts: int = 0,
        note: str = "",
        failure: Failure | None = None,
        attempts: int | None = None,
    ) -> VideoEvent:
        """Count one video; `failure` belongs to the outcomes that are failures."""
        self._outcomes[outcome] += 1
        self._num_parts += num_parts
        if failure is not None:
            note = note or failure.error
            self.failed.append(FailedSource(source, failure, attempts))
        else:
            self._sources.append(source)
        return VideoEvent(video_id, source, outcome, num_parts, note, self._outcomes.total(), self._num_videos)

    @property
    def fine(self) -> Iterable[str]:
        """The sources that did not fail."""
        return iter(self._sources)

    def summary(self) -> Summary:
        """All that was counted."""
        counts = self._outcomes
        num_failed = counts["failed"] + counts["failed before"]
        return Summary(counts["done"], counts["unchanged"], num_failed, self._num_parts, counts["failed before"])
