"""What is known about each source video: <root>/records/<id>.json, and the list of failures made from them.

A record is written last, after its clips lie under their final names, so it is the commit point: clips
without a record are leftovers, and nothing is ever concluded from a listing of the clips' folder.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ValidationError

from hico_core.errors import HicoError

Subset = Literal["train", "val", "test"]


class SourceFile(BaseModel, frozen=True, extra="forbid"):
    """The file that a record is about; another size or time means that it is about another file."""

    path: str  # absolute
    size_bytes: int
    mtime_ns: int


class SplitOptions(BaseModel, frozen=True, extra="forbid"):
    """Everything that decides what the clips of a video are."""

    subset: Subset = "train"
    segment_seconds: float = 5.0
    tail: Literal["keep", "drop"] = "keep"
    short_side: int = 256  # pixels
    preset: str = "veryfast"
    crf: int = 23
    gop: int = 30  # frames


class ClipRecord(BaseModel, frozen=True, extra="forbid"):
    """One clip; the columns of index.parquet."""

    path: str  # relative to the root, /-separated
    start_ms: int  # of the plan
    end_ms: int
    start_seconds: float  # of its first frame, from the source's first frame
    end_seconds: float  # end of its last frame
    num_frames: int
    width: int
    height: int
    codec: str
    keyframe_interval: int  # frames
    size_bytes: int
    sha256: str


class Failure(BaseModel, frozen=True, extra="forbid"):
    """Why a video could not be used."""

    stage: str
    error: str
    stderr_tail: list[str] = []


class VideoRecord(BaseModel, frozen=True, extra="forbid"):
    """What happened to one source video. It has clips or a failure."""

    schema_version: Literal[1] = 1
    hico_version: str
    video_id: str
    source: SourceFile
    options: SplitOptions
    attempts: int
    fps: float | None = None  # average
    variable_fps: bool | None = None
    clips: list[ClipRecord] = []
    failure: Failure | None = None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def source_file(path: Path) -> SourceFile:
    """The identity of a file on disk; a missing one has size and time 0."""
    try:
        stat = path.stat()
    except OSError:
        return SourceFile(path=str(path), size_bytes=0, mtime_ns=0)
    return SourceFile(path=str(path), size_bytes=stat.st_size, mtime_ns=stat.st_mtime_ns)


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def _record_path(root: Path, video_id: str) -> Path:
    return root / "records" / f"{video_id}.json"


def read_record(root: Path, video_id: str) -> VideoRecord | None:
    """The record of one video, or None if there is none.

    Raises:
        HicoError: the file is there but is no record of this version.

    """
    path = _record_path(root, video_id)
    try:
        return VideoRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise HicoError(f"{path}: not a record of this version of hico; delete it to split the video anew") from error


def read_records(root: Path) -> Iterator[VideoRecord]:
    """All records in order of their ids, one at a time."""
    ids = sorted(path.name.removesuffix(".json") for path in (root / "records").glob("*.json"))
    for video_id in ids:
        record = read_record(root, video_id)
        if record is not None:
            yield record


def write_record(root: Path, record: VideoRecord) -> None:
    """Commit what happened to a video."""
    write_atomically(_record_path(root, record.video_id), record.model_dump_json(indent=1) + "\n")


def remove_record(root: Path, record: VideoRecord) -> None:
    """Take back a commit: the record first, then its clips."""
    _record_path(root, record.video_id).unlink(missing_ok=True)
    for clip in record.clips:
        (root / clip.path).unlink(missing_ok=True)


class FailureLine(BaseModel, frozen=True, extra="forbid"):
    """A line of failures.jsonl."""

    source: str
    stage: str
    error: str
    stderr_tail: list[str]
    attempts: int
    command: str  # that failed on this source


def update_failures(root: Path, *, command: str, fine: Iterable[str], failed: Iterable[tuple[str, Failure]]) -> None:
    """Bring <root>/failures.jsonl up to date: a line for each source that failed, none for one that is fine now.

    Args:
        root: the workspace.
        command: what ran; the lines of other commands stay as they are.
        fine: sources that the command has dealt with.
        failed: sources that it has not, and why.

    """
    path = root / "failures.jsonl"
    old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    lines = {(line.source, line.command): line for line in map(FailureLine.model_validate_json, old)}
    for source in fine:
        lines.pop((source, command), None)
    for source, failure in failed:
        before = lines.get((source, command))
        lines[source, command] = FailureLine(
            source=source,
            stage=failure.stage,
            error=failure.error,
            stderr_tail=failure.stderr_tail,
            attempts=before.attempts + 1 if before else 1,
            command=command,
        )
    if lines or path.exists():
        write_atomically(path, "".join(line.model_dump_json() + "\n" for line in lines.values()))
