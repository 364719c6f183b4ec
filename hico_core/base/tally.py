"""Reports of commands that process many videos: on each video, and in total."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hico_core.base.failures import FailedSource, Failure

Outcome = Literal["done", "unchanged", "failed", "failed before"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOutcome:
    """The outcome of one video."""

    video_id: str
    source: str
    outcome: Outcome
    num_parts: int = 0  # clips, rows or windows that the video has now
    note: str = ""  # a remark for the user
    failure: Failure | None = None  # set if the outcome is a failure
    attempts: int | None = None  # failed attempts; None: one more than failures.jsonl says


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEvent:
    """Progress report: one video is finished."""

    video_id: str
    source: str
    outcome: Outcome
    num_parts: int  # clips, rows or windows that the video has now
    note: str  # why it failed, or a remark for the user; else empty
    num_done: int
    num_videos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The outcomes of the videos of one call."""

    num_done: int
    num_unchanged: int
    num_failed: int  # including videos that failed before and were not tried again
    num_parts: int  # clips, rows or windows of the videos that are fine now
    num_failed_before: int = 0


class Tally:
    """Counts the outcomes of videos so far."""

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
        """The counts so far."""
        counts = self._outcomes
        return Summary(
            num_done=counts["done"],
            num_unchanged=counts["unchanged"],
            num_failed=counts["failed"] + counts["failed before"],
            num_parts=self._num_parts,
            num_failed_before=counts["failed before"],
        )
