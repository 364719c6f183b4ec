"""What commands that go through many videos report of each, and of all."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hico_core.base.failures import FailedSource, Failure

Outcome = Literal["done", "unchanged", "failed", "failed before"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOutcome:
    """What became of one video."""

    video_id: str
    source: str
    outcome: Outcome
    num_parts: int = 0  # clips, rows or windows that the video has now
    note: str = ""  # what is worth knowing of it
    failure: Failure | None = None  # of the outcomes that are failures
    attempts: int | None = None  # that failed; None: one more than failures.jsonl says


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEvent:
    """One video is dealt with."""

    video_id: str
    source: str
    outcome: Outcome
    num_parts: int  # clips, rows or windows that the video has now
    note: str  # why it failed, or what is worth knowing of it; else empty
    num_done: int
    num_videos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
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

    def add(self, video: VideoOutcome) -> VideoEvent:
        """Count one video."""
        self._outcomes[video.outcome] += 1
        self._num_parts += video.num_parts
        note = video.note
        if video.failure is not None:
            note = note or video.failure.error
            self.failed.append(FailedSource(video.source, video.failure, video.attempts))
        else:
            self._sources.append(video.source)
        return VideoEvent(
            video_id=video.video_id,
            source=video.source,
            outcome=video.outcome,
            num_parts=video.num_parts,
            note=note,
            num_done=self._outcomes.total(),
            num_videos=self._num_videos,
        )

    @property
    def fine(self) -> Iterator[str]:
        """The sources that did not fail."""
        return iter(self._sources)

    def summary(self) -> Summary:
        """All that was counted."""
        counts = self._outcomes
        return Summary(
            num_done=counts["done"],
            num_unchanged=counts["unchanged"],
            num_failed=counts["failed"] + counts["failed before"],
            num_parts=self._num_parts,
            num_failed_before=counts["failed before"],
        )
