"""Untrimmed videos -> exact 5 s clips in the workspace, restartable at any moment.

Each frame of a video goes to the clip in whose interval its time, counted from the video's first frame, falls:
no frame lost, none doubled, none invented, at any frame rate, constant or not. For each video:

    stage        a local copy, where the video lies in a bucket
    make         its clips in a temporary folder, checked (encode.py)
    commit       clips to their final names, then the record

Nothing else is shared between videos, so they may be split anywhere: in threads here, or on a Ray cluster.
"""

import logging
import os
import shutil
import socket
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from hico_core import __version__
from hico_core.corpus.encode import OnCorrupt, SplitFailed, kept_frame_seconds, make_clips, require_encoder
from hico_core.corpus.engine import run_on_ray, run_on_threads
from hico_core.corpus.ffmpeg import Ffmpeg, find_ffmpeg
from hico_core.corpus.ids import Source, clip_name
from hico_core.corpus.plan import PlannedClip, Segment, plan_clips, plan_segments
from hico_core.corpus.probe import frame_rate
from hico_core.corpus.records import (
    FailedSource,
    Failure,
    SourceFile,
    SplitOptions,
    Verification,
    VideoRecord,
    read_record,
    remove_record,
    sha256_of,
    source_file,
    update_failures,
    write_record,
)
from hico_core.corpus.storage import Location, fetch, is_remote, locked, publish
from hico_core.errors import BadVideo, HicoError

__all__ = [  # planning is part of this module's interface
    "PlannedClip",
    "Segment",
    "SplitEvent",
    "SplitPolicy",
    "SplitSummary",
    "plan_clips",
    "plan_segments",
    "split_video",
    "split_videos",
]

logger = logging.getLogger(__name__)

Outcome = Literal["split", "unchanged", "failed", "failed before"]


class SplitPolicy(NamedTuple):
    """How videos are dealt with, apart from what their clips are to be (`SplitOptions`)."""

    verify: Verification = "fast"
    on_corrupt: OnCorrupt = "skip"
    checksum: bool = False  # tell sources apart by SHA-256, not by time
    force: bool = False  # split finished videos again
    retry_failed: bool = False
    timeout_seconds: float | None = None  # for one video
    min_free_bytes: int = 1_000_000_000


class SplitEvent(NamedTuple):
    """One video is dealt with."""

    record: VideoRecord
    outcome: Outcome
    num_done: int
    num_videos: int


class SplitSummary(NamedTuple):
    """What became of the videos of one call."""

    num_split: int
    num_unchanged: int
    num_failed: int  # failed before and not tried again ones included
    num_clips: int  # of the videos that are in order now
    num_failed_before: int = 0


def in_shard(video_id: str, *, number: int, count: int) -> bool:
    """Whether a video belongs to part `number` (from 1) of `count`; new videos do not move the others."""
    return zlib.crc32(video_id.encode()) % count == number - 1


def _scratch_folder(root: Location, cache_folder: Path) -> Path:
    """Where clips are made: on the workspace's own disk, so that they can be renamed into place."""
    return root / ".tmp" if isinstance(root, Path) else cache_folder / "split"


def _temporary_prefix(process_id: int) -> str:
    """Temporary folders are named by who made them, so that those of the dead can be swept."""
    return f"split-{socket.gethostname()}-{process_id}-"


def _sweep(scratch: Path, *, alone: bool) -> None:
    """Remove what killed runs left behind: everything if nobody else works here, else only what the dead left."""
    mine = f"split-{socket.gethostname()}-"
    for folder in scratch.glob("split-*"):
        process_id = folder.name.removeprefix(mine).split("-")[0]
        if alone or (process_id.isdigit() and not _is_alive(int(process_id))):
            shutil.rmtree(folder, ignore_errors=True)
    if alone:
        (scratch.parent / ".failures.jsonl.tmp").unlink(missing_ok=True)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _require_space(scratch: Path, min_free_bytes: int) -> None:
    """Stop before the disk is full rather than after.

    Raises:
        HicoError: there is less free than is to stay free.

    """
    free = shutil.disk_usage(scratch).free
    if free < min_free_bytes:
        raise HicoError(
            f"{scratch.parent}: {free / 1e9:.2f} GB are free and --min-free keeps {min_free_bytes / 1e9:.2f} GB; "
            "free some space, and the same command goes on"
        )


@contextmanager
def _local_source(source: Source, folder: Path) -> Iterator[Path]:
    """The video as a local file.

    Raises:
        BadVideo: it cannot be fetched.

    """
    if isinstance(source.path, Path):
        yield source.path
        return
    staged = folder / f"source{source.path.suffix}"
    try:
        fetch(source.path, staged)
    except FileNotFoundError:
        raise BadVideo(str(source.path), "no such file") from None
    try:
        yield staged
    finally:
        staged.unlink()


def split_video(
    source: Source,
    *,
    root: Location,
    options: SplitOptions,
    policy: SplitPolicy,
    scratch: Path,
    program: Ffmpeg,
) -> VideoRecord:
    """Split one video and commit the result, good or bad.

    Clips are made in a temporary folder and take their final names only when all are checked. The record is written
    after them; killed in between, the same call does the video again.

    Args:
        source: the video.
        root: the workspace.
        options: what the clips are to be.
        policy: how it is dealt with.
        scratch: a folder for temporary ones, on the workspace's disk if that is local.
        program: the ffmpeg to run.

    Raises:
        HicoError: the disk is (nearly) full, or the video is damaged and the policy is to fail then.

    """
    _require_space(scratch, policy.min_free_bytes)
    before = read_record(root, source.video_id)
    folder = Path(tempfile.mkdtemp(prefix=_temporary_prefix(os.getpid()), dir=scratch))
    record = _new_record(source, options, before).model_copy(update={"verified": policy.verify})
    try:
        try:
            record = _make(record, source, options, policy, program, folder)
        except BadVideo as bad:
            failure = bad.failure if isinstance(bad, SplitFailed) else Failure(stage="probe", error=bad.reason)
            if failure.stage == "decode" and policy.on_corrupt == "fail":
                raise HicoError(f"{bad}; --on-corrupt skip goes on with the others") from bad
            record = record.model_copy(update={"failure": failure})
        if not (record.failure and program.stopped):
            _commit(root, record, folder, before)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return record


def _new_record(source: Source, options: SplitOptions, before: VideoRecord | None) -> VideoRecord:
    """The record of one more attempt, as it stands at its beginning."""
    return VideoRecord(
        hico_version=__version__,
        video_id=source.video_id,
        source=source_file(source.path),
        options=options,
        attempts=before.attempts + 1 if before else 1,
    )


def _make(
    record: VideoRecord, source: Source, options: SplitOptions, policy: SplitPolicy, program: Ffmpeg, folder: Path
) -> VideoRecord:
    """Write and check a video's clips in `folder`, under their final names. Returns its record.

    Raises:
        BadVideo: the video cannot be used.

    """
    deadline = None if policy.timeout_seconds is None else time.monotonic() + policy.timeout_seconds
    with _local_source(source, folder) as local:
        made, clips = make_clips(
            local,
            options,
            program=program,
            folder=folder,
            on_corrupt=policy.on_corrupt,
            verify=policy.verify,
            deadline=deadline,
        )
        identity = {"sha256": sha256_of(local)} if policy.checksum else {}
    named = []
    for clip, file in zip(clips, made.files, strict=True):
        name = clip_name(source.video_id, start_ms=clip.start_ms, end_ms=clip.end_ms)
        file.rename(folder / name)
        named.append(clip.model_copy(update={"path": f"{options.subset}/{name}"}))
    return record.model_copy(
        update={
            "source": record.source.model_copy(update=identity),
            "num_decode_errors": made.num_decode_errors,
            "num_damaged_clips": made.num_damaged,
            "fps": frame_rate(made.frame_seconds).fps,
            "variable_fps": frame_rate(kept_frame_seconds(made)).variable,
            "clips": named,
        }
    )


def _commit(root: Location, record: VideoRecord, folder: Path, before: VideoRecord | None) -> None:
    """Take back what the video's last record committed, move its new clips into place, then write the record."""
    if before:
        remove_record(root, before)
    for clip in record.clips:
        publish(folder / Path(clip.path).name, root / clip.path)
    write_record(root, record, scratch=folder)


def _split_in_task(
    source: Source, *, root: Location, options: SplitOptions, policy: SplitPolicy, scratch: Path
) -> VideoRecord:
    """Split one video in a process of a cluster, which has nothing yet and ends its children by itself."""
    scratch.mkdir(parents=True, exist_ok=True)
    program = Ffmpeg(find_ffmpeg(), own_session=False)
    return split_video(source, root=root, options=options, policy=policy, scratch=scratch, program=program)


def _commit_lost(source: Source, reason: str, *, root: Location, options: SplitOptions, scratch: Path) -> VideoRecord:
    """The record of a video whose every attempt ended with its process: it may be what kills them."""
    before = read_record(root, source.video_id)
    failure = Failure(stage="engine", error=f"its worker process died each time ({reason})")
    record = _new_record(source, options, before).model_copy(update={"failure": failure})
    folder = Path(tempfile.mkdtemp(prefix=_temporary_prefix(os.getpid()), dir=scratch))
    try:
        _commit(root, record, folder, before)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return record


def outcome_so_far(
    before: VideoRecord | None, source: Source, *, options: SplitOptions, policy: SplitPolicy
) -> Literal["unchanged", "failed before"] | None:
    """What a video's record says is done already; None if the video is to be split.

    It is done if it was split, or failed, with this very file in this very way.
    """
    if before is None or before.options != options or policy.force:
        return None
    if not _is_same_file(before.source, source, checksum=policy.checksum):
        return None
    if before.failure:
        return None if policy.retry_failed else "failed before"
    return None if policy.verify == "full" and before.verified == "fast" else "unchanged"


def _is_same_file(before: SourceFile, source: Source, *, checksum: bool) -> bool:
    now = source_file(source.path)
    if before.size_bytes != now.size_bytes:
        return False
    if checksum and before.sha256 and isinstance(source.path, Path):
        return sha256_of(source.path) == before.sha256
    return before.mtime_ns == now.mtime_ns


def _refuse_other_video(before: VideoRecord | None, source: Source) -> None:
    """An id of the root that belongs to another file, still there, is not taken from it.

    Raises:
        HicoError: names both files.

    """
    if before is None or before.failure is not None or before.source.path in {str(source.path), ""}:
        return
    if is_remote(source.path):
        return  # the same bucket may be reached by other addresses
    other = Path(before.source.path)
    if other.exists() and not other.samefile(str(source.path)):
        raise HicoError(
            f"{source.path} and {other}, split before, have one id, {source.video_id!r}: "
            "rename one of them, or use another --root"
        )


def _hold_workspace(stack: ExitStack, root: Path, shard: tuple[int, int] | None) -> None:
    """Let nobody else split into the workspace meanwhile, but for the other shards of a job.

    Raises:
        HicoError: somebody does.

    """
    taken = stack.enter_context(locked(root / ".split.lock", shared=shard is not None))
    if taken and shard is not None:
        taken = stack.enter_context(locked(root / f".split-{shard[0]}-of-{shard[1]}.lock"))
    if not taken:
        raise HicoError(f"{root}: another `hico split` is writing here; wait for it to end, or use another --root")


def split_videos(
    sources: Sequence[Source],
    *,
    root: Location,
    options: SplitOptions,
    workers: int,
    on_event: Callable[[SplitEvent], None],
    policy: SplitPolicy = SplitPolicy(),  # noqa: B008 - immutable
    shard: tuple[int, int] | None = None,
    cache_folder: Path = Path(tempfile.gettempdir()),  # noqa: B008 - immutable
    ray_address: str | None = None,
) -> SplitSummary:
    """Split videos into `<root>/<subset>/`, several at a time, leaving out those that are finished.

    A video that cannot be split becomes a line of `<root>/failures.jsonl`, and the others are done all the same.

    Args:
        sources: from `hico_core.corpus.ids.find_sources`.
        root: the workspace; made if missing.
        options: what the clips are to be.
        workers: how many videos at a time, each with one thread of ffmpeg; of no meaning on a cluster.
        on_event: told of each video, in the order in which they end.
        policy: how they are dealt with.
        shard: (number from 1, count): only this part of the videos; other parts may run at the same time.
        cache_folder: where clips are made if the workspace lies in a bucket.
        ray_address: run on this Ray cluster ("local" starts one here) instead of in threads.

    Raises:
        HicoError: there is no usable ffmpeg, an id belongs to another file, the disk is full, or another run is
            writing here.

    """
    program = Ffmpeg(find_ffmpeg())
    scratch = _scratch_folder(root, cache_folder)
    if shard:
        sources = [source for source in sources if in_shard(source.video_id, number=shard[0], count=shard[1])]
    with ExitStack() as stack:
        if isinstance(root, Path):
            for folder in (root / options.subset, root / "records"):
                folder.mkdir(parents=True, exist_ok=True)
            _hold_workspace(stack, root, shard)
        scratch.mkdir(parents=True, exist_ok=True)
        alone = shard is None and isinstance(root, Path)
        _sweep(scratch, alone=alone)
        tally = _Tally(len(sources), on_event)
        todo = _todo(sources, root=root, options=options, policy=policy, tally=tally)
        task = partial(split_video, root=root, options=options, policy=policy, scratch=scratch)
        try:
            require_encoder(program, options, folder=scratch)
            if ray_address is None:
                done = run_on_threads(partial(task, program=program), todo, workers=workers, stop=program.stop)
            else:
                done = run_on_ray(
                    partial(_split_in_task, root=root, options=options, policy=policy, scratch=scratch),
                    todo,
                    address=ray_address,
                    on_lost=partial(_commit_lost, root=root, options=options, scratch=scratch),
                )
            with closing(done):
                for record in done:
                    tally.add(record, "failed" if record.failure else "split")
        finally:
            unfinished = {failed.source for failed in tally.failed}
            fine = (str(source.path) for source in sources if str(source.path) not in unfinished)
            update_failures(root, command="split", fine=fine if tally.is_complete else [], failed=tally.failed)
            _sweep(scratch, alone=alone)
            if alone and not any(scratch.iterdir()):
                scratch.rmdir()
    counts = tally.counts
    num_failed = counts["failed"] + counts["failed before"]
    return SplitSummary(
        counts["split"], counts["unchanged"], num_failed, tally.num_clips, num_failed_before=counts["failed before"]
    )


class _Tally:
    """What became of the videos so far."""

    def __init__(self, num_videos: int, on_event: Callable[[SplitEvent], None]) -> None:
        self.counts = Counter[str]()
        self.num_clips = 0
        self.failed: list[FailedSource] = []
        self._num_videos = num_videos
        self._on_event = on_event

    @property
    def is_complete(self) -> bool:
        return self.counts.total() == self._num_videos

    def add(self, record: VideoRecord, outcome: Outcome) -> None:
        self.counts[outcome] += 1
        self.num_clips += len(record.clips)
        if record.failure:
            self.failed.append(FailedSource(record.source.path, record.failure, record.attempts))
        self._on_event(SplitEvent(record, outcome, self.counts.total(), self._num_videos))


def _todo(
    sources: Sequence[Source], *, root: Location, options: SplitOptions, policy: SplitPolicy, tally: _Tally
) -> Iterator[Source]:
    """The videos that are to be split, found one by one; the others are counted as they are met."""
    for source in sources:
        before = read_record(root, source.video_id)
        outcome = outcome_so_far(before, source, options=options, policy=policy)
        if before is not None and outcome is not None:
            tally.add(before, outcome)
        else:
            _refuse_other_video(before, source)
            yield source
