"""The only way in which videos enter a workspace: split here, read in place, or cut by another tool.

    decide    is there anything to do, and may the video have its id?
    make      make and check its clips, or the facts about them
    commit    move clips to their final names, write the record, then remove the video's previous clips

Committed clips stay until their replacements are checked. The next process to come along completes any commit that was
announced, so a killed process never leaves a workspace between two states of a video.
"""

import errno
import logging
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from hico_core.base.addresses import Location, is_local, locate, quoted
from hico_core.base.choices import Verification
from hico_core.base.engine import Plan, Runner, run_restartable
from hico_core.base.errors import BadVideo, HicoError, counted, short_reason
from hico_core.base.failures import Failure
from hico_core.base.files import NO_ROOM, room_error
from hico_core.base.storage import write_text
from hico_core.base.tally import Summary, VideoEvent, VideoOutcome
from hico_core.base.version import __version__
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.workspace.access import Shard, opened_workspace, sweep, temporary_folder
from hico_core.corpus.workspace.commit import commit, finish_commit
from hico_core.corpus.workspace.records import (
    ClipRecord,
    Options,
    SourceFile,
    VideoRecord,
    fault_in_record,
    read_record,
    reading,
    record_ids,
    record_path,
    record_text,
    sha256_of,
    source_file,
)

logger = logging.getLogger(__name__)

# System errors for a name that is too long, or has characters that the file system does not store.
_REFUSALS = frozenset({errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL})


class Candidate(NamedTuple):
    """A video that is to enter a workspace, with the options that say how."""

    source: Source
    options: Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The clips made from a video; their files lie in a folder, each under the last part of its path."""

    clips: list[ClipRecord]
    fps: float
    variable_fps: bool
    num_decode_errors: int = 0
    num_damaged_clips: int = 0
    sha256: str | None = None  # of the source, if requested
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a known video is taken in again."""

    checksum: bool = False  # compare sources by SHA-256, not by time
    force: bool = False  # take in finished videos, too
    retry_failed: bool = False
    move: bool = False  # move it from its present subset
    verify: Verification = "fast"
    cuts: bool = False  # take in videos that are read in place and whose cuts are not known


def is_same_file(before: SourceFile, source: Source, *, checksum: bool = False) -> bool:
    """Whether a source's file is the one inspected before, judged by size and time or by its checksum."""
    now = source_file(source)
    if source.frame_rate is not None:
        return before.sha256 == now.sha256
    if before.size_bytes != now.size_bytes:
        return False
    if checksum and before.sha256 and is_local(source.path):
        return sha256_of(source.path) == before.sha256
    unit = 1 if is_local(source.path) else 10**9  # some servers give fractions of seconds in listings only
    return before.mtime_ns // unit == now.mtime_ns // unit


def other_file(before: SourceFile, source: Source) -> "Location | None":
    """The file that a record describes, if it still exists and is not this source; else None.

    A moved file leaves nothing behind, and two addresses may refer to the same object.
    """
    if before.path in {"", str(source.path)} or source.clips:
        return None
    other = locate(before.path)
    try:
        if not other.exists():
            return None
        if is_local(other) and is_local(source.path) and other.samefile(source.path):
            return None
    except OSError:  # the source itself is missing, which is reported later
        return other
    same_object = not is_local(other) and is_same_file(before, source)
    return None if same_object else other


def decide(
    before: VideoRecord | None, candidate: Candidate, rules: Rules
) -> Literal["to do", "unchanged", "failed before"]:
    """Whether there is anything to do for a video, and whether it may have its id; nothing else decides this.

    There is nothing to do if exactly this file was taken in, or failed, with exactly these options. An id belongs to
    one file, one subset and one kind of intake (split, untrimmed or adopted).

    Raises:
        HicoError: the id belongs to another file, subset or kind of intake; the message names both.

    """
    if before is None:
        return "to do"
    source, options = candidate
    if not before.failure:
        _require_id(before, candidate, move=rules.move)
    if rules.force or before.options != options or fault_in_record(before):  # an earlier version wrote unusable values
        return "to do"
    # A file that was only moved need not be split again; videos that are not split have rows that name the file.
    if before.source.path != str(source.path) and (options.kind != "split" or before.failure):
        return "to do"
    if not is_same_file(before.source, source, checksum=rules.checksum):
        return "to do"
    if before.failure:
        return "to do" if rules.retry_failed else "failed before"
    lacks_cuts = options.kind == "untrimmed" and any(clip.cuts is None for clip in before.clips)
    if rules.cuts and lacks_cuts:
        return "to do"
    return "to do" if rules.verify == "full" and before.verified == "fast" else "unchanged"


_CAME_IN = {
    "split": "was split here",
    "untrimmed": "is read in place here",
    "adopted": "was cut by another tool and adopted here",
}


def _require_id(before: VideoRecord, candidate: Candidate, *, move: bool) -> None:
    source, options = candidate
    name = f"{source.path}: a video with id {source.video_id!r}"
    was = before.options
    if was.kind != options.kind:
        raise HicoError(f"{name} {_CAME_IN[was.kind]} ({before.source.path or was.subset}); use another --root")
    other = other_file(before.source, source)
    if other is not None:
        raise HicoError(
            f"{source.path} and {other}, added before, have the same id, {source.video_id!r}; rename one of them, "
            "include folders in the ids with --id relpath (not in `hico run`), or use another --root"
        )
    if was.subset != options.subset and not move:
        command = "split" if options.kind == "split" else "index"
        raise HicoError(
            f"{name} is already in the subset {was.subset}; move it to {options.subset} with `hico {command} --move`"
        )


def new_record(candidate: Candidate, before: VideoRecord | None) -> VideoRecord:
    """The record of a new attempt at its start."""
    return VideoRecord(
        hico_version=__version__,
        video_id=candidate.source.video_id,
        source=source_file(candidate.source),
        options=candidate.options,
        attempts=before.attempts + 1 if before else 1,
    )


class Taken(NamedTuple):
    """The result of taking in one video."""

    candidate: Candidate
    record: VideoRecord | None  # the record that is valid now; None if nothing can be recorded
    failure: Failure | None = None
    note: str = ""


def take_one(
    candidate: Candidate,
    *,
    root: Location,
    scratch: Path,
    rules: Rules,
    make: Callable[[Candidate, Path], Made],
) -> Taken:
    """Process one video and commit the result, success or failure; a failure leaves existing good clips unchanged.

    Args:
        candidate: the video.
        root: the workspace.
        scratch: parent of temporary folders, on the workspace's disk if that is local.
        rules: when a known video is taken in again.
        make: candidate, empty folder -> the clips made there; raises BadVideo.

    Raises:
        HicoError: the disk is full, the bucket cannot be reached, or the work must stop for another reason.

    """
    name = candidate.source.video_id
    finish_commit(root, name)
    before = _read_for_replacement(root, name, force=rules.force)
    if decide(before, candidate, rules) == "unchanged":  # done by a process that died before it could report so
        return Taken(candidate, before)
    record = new_record(candidate, before)
    note = ""
    try:
        with temporary_folder(scratch) as folder:
            if is_local(root) and (fault := name_fault(folder, f"{name}.json")):
                # Not even the failure can be recorded.
                return Taken(candidate, before, Failure(stage="name", error=fault))
            try:
                with _own_faults(candidate.source):
                    made = make(candidate, folder)
                filled = _filled(record, made, rules)
                _require_free_names(root, candidate, made, before, force=rules.force)
            except BadVideo as bad:
                failure = Failure(stage=bad.stage, error=bad.reason, stderr_tail=bad.stderr_tail)
                if before is not None and not before.failure:
                    kept = f"; kept its {counted(len(before.clips), 'existing clip')}"
                    failure = failure.model_copy(update={"error": failure.error + kept})
                    return Taken(candidate, before, failure)
                record = record.model_copy(update={"failure": failure})
            else:
                note = made.note
                record = filled
            commit(root, record, folder, before)
    except OSError as error:
        raise room_error(error, scratch.parent) or error from error
    return Taken(candidate, record, record.failure, note)


@contextmanager
def _own_faults(source: Source) -> Iterator[None]:
    """Turn system errors about a video's own files into failures of that video; any other goes on.

    Raises:
        BadVideo: there was such an error.
        HicoError: the bucket cannot be reached, which would be on record as a failure of each video that is left.

    """
    try:
        yield
    except BadVideo as bad:
        if bad.stage == "fetch":
            raise HicoError(str(bad)) from bad
        raise
    except OSError as error:
        file, own = Path(str(error.filename)), {str(path) for path in (source.path, *source.clips)}
        if error.errno in NO_ROOM or own.isdisjoint(map(str, (file, *file.parents))):
            raise
        raise BadVideo(str(source.path), f"cannot be read ({short_reason(error)})") from error


def name_fault(folder: Path, name: str) -> str | None:
    """Why a folder's file system refuses a name made from a video's id, as some do with colons; None if it does not."""
    try:
        (folder / name).touch()
        (folder / name).unlink()
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        return f"its file name makes {name}, which is refused here ({short_reason(error)}); rename it"
    return None


def _filled(record: VideoRecord, made: Made, rules: Rules) -> VideoRecord:
    """The record of a successful attempt.

    Raises:
        BadVideo: the index would reject its rows.

    """
    filled = record.model_copy(
        update={
            "source": record.source.model_copy(update={"sha256": made.sha256 or record.source.sha256}),
            "verified": rules.verify,
            "num_decode_errors": made.num_decode_errors,
            "num_damaged_clips": made.num_damaged_clips,
            "fps": made.fps,
            "variable_fps": made.variable_fps,
            "clips": made.clips,
        }
    )
    if fault := fault_in_record(filled):
        raise BadVideo(filled.source.path, f"{fault}, which cannot be indexed", stage="verify")
    return filled


def _read_for_replacement(root: Location, video_id: str, *, force: bool) -> VideoRecord | None:
    """A video's record; with `force`, an unreadable one counts as missing, since it is replaced anyway."""
    try:
        return read_record(root, video_id)
    except HicoError:
        if force:
            return None
        raise


def _require_free_names(
    root: Location, candidate: Candidate, made: Made, before: VideoRecord | None, *, force: bool
) -> None:
    """Check that no unrelated file has the name of a new clip.

    Raises:
        BadVideo: such a file exists.

    """
    if not is_local(root) or candidate.options.kind != "split" or force:
        return
    own = {clip.path for clip in before.clips} if before else set()
    for clip in made.clips:
        if clip.path not in own and (root / clip.path).exists():
            raise BadVideo(
                str(candidate.source.path),
                f"{root / clip.path} already exists without a record; `hico index --adopt --root {quoted(root)}` "
                "adopts such clips, `hico split --force` replaces them",
                stage="commit",
            )


class Planned(NamedTuple):
    """The videos to take in, and the records to update."""

    plan: Plan[Candidate]
    moved: list[VideoRecord]  # updated records of finished videos whose files have moved


def plan_intake(candidates: Iterable[Candidate], *, root: Location, rules: Rules) -> Planned:
    """Sort all videos, before any work is done, into those that are finished or unusable and those left to do.

    Args:
        candidates: the videos.
        root: the workspace.
        rules: when a known video is taken in again.

    Raises:
        HicoError: a video may not have its id.

    """
    todo: list[Candidate] = []
    dealt_with: list[VideoOutcome] = []
    moved: list[VideoRecord] = []
    known = frozenset(record_ids(root))
    for found, elsewhere in reading(root, partial(_look_up, root=root, known=known, rules=rules), candidates):
        if isinstance(found, Candidate):
            todo.append(found)
        else:
            dealt_with.append(found)
        if elsewhere is not None:
            moved.append(elsewhere)
    return Planned(Plan(todo, dealt_with), moved)


def _look_up(
    candidate: Candidate, *, root: Location, known: Container[str], rules: Rules
) -> tuple[Candidate | VideoOutcome, VideoRecord | None]:
    """A video that is left to do, or else its outcome; and the updated record of a finished one whose file has moved.

    Raises:
        HicoError: the video may not have its id.

    """
    source = candidate.source
    if source.obstacle:
        return failed_outcome(source, stage="name", error=source.obstacle), None
    if source.video_id not in known:
        return candidate, None
    try:
        before = _read_for_replacement(root, source.video_id, force=rules.force)
    except HicoError as unreadable:
        return failed_outcome(source, stage="record", error=str(unreadable)), None
    decision = decide(before, candidate, rules)
    if before is None or decision == "to do":
        return candidate, None
    outcome = VideoOutcome(
        video_id=source.video_id,
        source=str(source.path),
        outcome=decision,
        num_parts=len(before.clips),
        failure=before.failure,
        attempts=before.attempts,
    )
    if decision != "unchanged" or before.source.path == str(source.path):
        return outcome, None
    place = before.source.model_copy(update={"path": str(source.path)})
    return outcome, before.model_copy(update={"source": place})


def failed_outcome(source: Source, *, stage: str, error: str) -> VideoOutcome:
    """The outcome of a video that cannot be used."""
    failure = Failure(stage=stage, error=error)
    return VideoOutcome(video_id=source.video_id, source=str(source.path), outcome="failed", failure=failure)


class Workplace(NamedTuple):
    """The workspace that videos enter, and the folder where they are prepared."""

    root: Location  # the workspace; created if missing
    scratch: Path  # where clips are made; on the workspace's disk if that is local
    shard: Shard | None = None  # only this part of the videos; other parts may be taken in at the same time


def take_in(
    candidates: Sequence[Candidate],
    place: Workplace,
    *,
    command: str,
    rules: Rules,
    make: Callable[[Candidate, Path], Made],
    runner: Runner[Candidate, Taken],
    on_event: Callable[[VideoEvent], None],
) -> Summary:
    """Take videos into a workspace; those that cannot be used become lines of `<root>/failures.jsonl`.

    Args:
        candidates: the videos; with a shard, still all of them.
        place: the workspace, the scratch folder and the shard.
        command: the name under which failures are listed.
        rules: when a known video is taken in again.
        make: candidate, empty folder -> the clips made there; raises BadVideo.
        runner: runs the work; if it uses other machines, `make` must be importable there.
        on_event: called for each video when it is finished.

    Raises:
        HicoError: an id belongs to another video, the disk is full, or another command is writing here.

    """
    root, scratch, shard = place
    if shard:
        candidates = [candidate for candidate in candidates if shard.has(candidate.source.video_id)]
    with opened_workspace(root, shard=shard):
        if is_local(root):
            made_here = {candidate.options.subset for candidate in candidates if candidate.options.kind == "split"}
            for folder in ("records", *made_here):
                (root / folder).mkdir(parents=True, exist_ok=True)
        with _opened_scratch(scratch, alone=shard is None and is_local(root)):
            planned = plan_intake(candidates, root=root, rules=rules)
            for record in planned.moved:
                write_text(record_path(root, record.video_id), record_text(record, root))
            return run_restartable(
                planned.plan,
                partial(take_each, take=partial(take_one, root=root, scratch=scratch, rules=rules, make=make)),
                runner,
                finish=_outcome_of,
                root=root,
                command=command,
                on_event=on_event,
            )


@contextmanager
def _opened_scratch(scratch: Path, *, alone: bool) -> Iterator[None]:
    """A parent for temporary folders, cleared of what killed runs left; removed afterwards if nothing else needs it."""
    scratch.mkdir(parents=True, exist_ok=True)
    sweep(scratch, alone=alone)
    try:
        yield
    finally:
        sweep(scratch, alone=alone)
        if alone and not any(scratch.iterdir()):
            scratch.rmdir()


def take_each(candidates: Iterable[Candidate], *, take: Callable[[Candidate], Taken]) -> Iterator[Taken]:
    """`take_one` for each candidate, under the name by which a cluster lists the work."""
    return map(take, candidates)


def _outcome_of(taken: Taken) -> VideoOutcome:
    source, record = taken.candidate.source, taken.record
    kept = record is not None and not record.failure
    return VideoOutcome(
        video_id=source.video_id,
        source=str(source.path),
        outcome="failed" if taken.failure else "done",
        num_parts=len(record.clips) if record is not None and kept else 0,
        note=taken.note,
        failure=taken.failure,
        attempts=record.attempts if record is not None and not kept else None,
    )


def take_lost(candidate: Candidate, reason: str, *, root: Location, scratch: Path) -> Taken:
    """Record a failure of a video that lost its process on every attempt: the video may be what kills it."""

    def fail(candidate: Candidate, folder: Path) -> Made:
        raise BadVideo(str(candidate.source.path), f"its worker process died each time ({reason})", stage="engine")

    return take_one(candidate, root=root, scratch=scratch, rules=Rules(force=True), make=fail)
