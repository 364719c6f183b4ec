"""What splitting a corpus would take, measured on some of its videos, with nothing written to the workspace."""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from hico_core.corpus.addresses import Location
from hico_core.corpus.events import Tally
from hico_core.corpus.ids import Source
from hico_core.corpus.intake import Candidate, Rules, plan_intake
from hico_core.corpus.records import SplitOptions, VideoRecord, read_records, source_file
from hico_core.corpus.split import SplitPolicy, split_videos
from hico_core.errors import HicoError

# Videos that are split to measure: enough that every worker has some.
_SAMPLED_PER_WORKER = 2


class SplitPlan(NamedTuple):
    """What `hico split` would do. Minutes, bytes and hours go by the sample and by the sizes of the files."""

    num_videos: int  # to split
    num_unchanged: int  # finished already
    num_failed_before: int  # which are tried again only if asked for
    num_sampled: int
    num_sampled_failed: int
    minutes: float  # of video
    clip_bytes: int
    hours: float  # with so many workers on this machine
    workers: int


def sample_by_size(sources: Sequence[Source], count: int) -> list[Source]:
    """Some videos of the smaller half, of all sizes that there are in it: to measure on, in little time."""
    by_size = sorted(sources, key=lambda source: (source_file(source).size_bytes, source.video_id))
    smaller = by_size[: (len(by_size) + 1) // 2]
    return smaller[:: max(len(smaller) // count, 1)][:count]


def rehearse_split(
    sources: Sequence[Source], *, root: Location, options: SplitOptions, policy: SplitPolicy, workers: int
) -> SplitPlan:
    """Split a few videos into a temporary folder, and say what all would take.

    Args:
        sources: all videos.
        root: the workspace, for what is done already.
        options: what the clips are to be.
        policy: how videos are dealt with.
        workers: videos at a time.

    Raises:
        HicoError: an id belongs to another video, or none of the sample can be split.

    """
    rules = Rules(policy.checksum, policy.force, policy.retry_failed, policy.move, policy.verify)
    tally = Tally(len(sources))
    planned = list(plan_intake([Candidate(s, options) for s in sources], root=root, rules=rules, tally=tally))
    todo = [one.source for one in planned if isinstance(one, Candidate)]
    known = tally.summary()
    if not todo:
        return SplitPlan(0, known.num_unchanged, known.num_failed_before, 0, 0, 0.0, 0, 0.0, workers)
    chosen = sample_by_size(todo, _SAMPLED_PER_WORKER * workers)
    with TemporaryDirectory(prefix="hico-") as folder:
        began = time.monotonic()
        failed: list[str] = []
        split_videos(
            chosen,
            root=Path(folder) / "root",
            options=options,
            workers=workers,
            policy=policy,
            on_event=lambda event: failed.append(event.note) if event.outcome == "failed" else None,
        )
        took = time.monotonic() - began
        records = [record for record in read_records(Path(folder) / "root") if not record.failure]
    if not records:
        raise HicoError(f"none of {len(chosen)} sampled videos can be split; the first: {chosen[0].path}: {failed[0]}")
    share = _bytes_of(todo) / max(_bytes_of(chosen), 1)
    return SplitPlan(
        len(todo),
        known.num_unchanged,
        known.num_failed_before,
        len(chosen),
        len(failed),
        share * sum(_seconds(record) for record in records) / 60,
        round(share * sum(clip.size_bytes for record in records for clip in record.clips)),
        share * took / 3600,
        workers,
    )


def _bytes_of(sources: Sequence[Source]) -> int:
    return sum(source_file(source).size_bytes for source in sources)


def _seconds(record: VideoRecord) -> float:
    return record.clips[-1].end_seconds
