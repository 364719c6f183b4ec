"""Estimate the time and space needed to split a corpus from a sample of its videos, without touching the workspace."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from hico_core.base.addresses import Location
from hico_core.base.errors import HicoError
from hico_core.base.tally import VideoEvent
from hico_core.corpus.intake import Candidate, plan_intake
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.split import SplitPolicy, split_videos
from hico_core.corpus.workspace.records import SplitOptions, read_records, source_file

# Videos to split for the measurement: enough to occupy every worker.
_SAMPLED_PER_WORKER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPlan:
    """What `hico split` would do; minutes, bytes and hours are extrapolated from a sample by file size."""

    num_videos: int  # videos to split
    num_unchanged: int  # already finished
    num_failed_before: int  # retried only on request
    num_unusable: int  # unusable names, unreadable records
    num_sampled: int = 0
    num_sampled_failed: int = 0
    minutes: float = 0.0  # of video
    clip_bytes: int = 0
    hours: float = 0.0  # with `workers` on this machine
    workers: int


def sample_by_size(sources: Sequence[Source], count: int) -> list[Source]:
    """A sample for a quick measurement: videos spread over all sizes in the smaller half."""
    by_size = sorted(sources, key=lambda source: (source_file(source).size_bytes, source.video_id))
    smaller = by_size[: (len(by_size) + 1) // 2]
    return smaller[:: max(len(smaller) // count, 1)][:count]


def dry_run_split(
    sources: Sequence[Source], *, root: Location, options: SplitOptions, policy: SplitPolicy, workers: int
) -> SplitPlan:
    """Split a few videos into a temporary folder, and estimate what all of them would take.

    Args:
        sources: all videos, of which those of the policy's shard count.
        root: the workspace, which shows what is already done.
        options: format of the clips.
        policy: how videos are processed.
        workers: videos split in parallel.

    Raises:
        HicoError: an id belongs to another video, or none of the sample can be split.

    """
    own = [source for source in sources if policy.shard is None or policy.shard.has(source.video_id)]
    plan = plan_intake([Candidate(source, options) for source in own], root=root, rules=policy.rules).plan
    todo = [candidate.source for candidate in plan.todo]
    known = Counter(video.outcome for video in plan.dealt_with)
    found = SplitPlan(
        num_videos=len(todo),
        num_unchanged=known["unchanged"],
        num_failed_before=known["failed before"],
        num_unusable=known["failed"],
        workers=workers,
    )
    if not todo:
        return found
    chosen = sample_by_size(todo, _SAMPLED_PER_WORKER * workers)
    events: list[VideoEvent] = []
    with TemporaryDirectory(prefix="hico-") as folder:
        began = time.monotonic()
        alone = replace(policy, shard=None, ray_address=None)
        split_videos(
            chosen, root=Path(folder) / "root", options=options, policy=alone, workers=workers, on_event=events.append
        )
        took = time.monotonic() - began
        records = [record for record in read_records(Path(folder) / "root") if not record.failure]
    failed = [event.note for event in events if event.outcome == "failed"]
    if not records:
        raise HicoError(f"none of {len(chosen)} sampled videos can be split; the first: {chosen[0].path}: {failed[0]}")
    share = _bytes_of(todo) / max(_bytes_of(chosen), 1)
    return replace(
        found,
        num_sampled=len(chosen),
        num_sampled_failed=len(failed),
        minutes=share * sum(record.clips[-1].end_seconds for record in records) / 60,
        clip_bytes=round(share * sum(clip.size_bytes for record in records for clip in record.clips)),
        hours=share * took / 3600,
    )


def _bytes_of(sources: Sequence[Source]) -> int:
    return sum(source_file(source).size_bytes for source in sources)
