"""What is known about each source video: <root>/records/<id>.json, and the list of failures made from them.

A record is written last, after its clips lie under their final names, so it is the commit point: clips
without a record are leftovers, and nothing is ever concluded from a listing of the clips' folder.
"""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from hico_core.corpus.storage import Location, is_remote, locked, publish, write_atomically
from hico_core.errors import HicoError

Subset = Literal["train", "val", "test"]
Encoder = Literal["libx264", "libx265", "libopenh264", "h264_nvenc"]
Verification = Literal["fast", "full"]


class SourceFile(BaseModel, frozen=True, extra="forbid"):
    """The file that a record is about; another size or time means that it is about another file."""

    path: str  # absolute, or an address in a bucket; empty where it is not known
    size_bytes: int
    mtime_ns: int
    sha256: str | None = None  # if asked for; then it decides, not the time


class SplitOptions(BaseModel, frozen=True, extra="forbid"):
    """Everything that decides what the clips of a video are. The defaults are the profile "training"."""

    kind: Literal["split"] = "split"
    subset: Subset = "train"
    segment_seconds: float = Field(5.0, gt=0)
    tail: Literal["keep", "drop"] = "keep"
    short_side: int | None = Field(192, ge=16)  # pixels at most; None: the source's size
    fps: float | None = Field(None, gt=0)  # None: each frame at its own time
    encoder: Encoder = "libx264"
    preset: str = "veryfast"
    crf: int = Field(23, ge=0, le=51)  # constant quality, less is better
    gop: int = Field(32, ge=1)  # frames from keyframe to keyframe, at most
    fast_decode: bool = True  # cheaper to read: simpler coding, and three of four frames that no other refers to
    audio: Literal["drop", "keep"] = "drop"


PROFILES = {
    # What the loader reads fastest; docs/benchmarks.md has the measurements behind the choice.
    "training": SplitOptions(),
    # Close to the source at a smaller size, for people and for other tools.
    "archive": SplitOptions(short_side=256, preset="medium", crf=18, gop=250, fast_decode=False),
    # The source's size, and hardly a visible loss.
    "source": SplitOptions(short_side=None, preset="medium", crf=17, gop=250, fast_decode=False),
}


class UntrimmedOptions(BaseModel, frozen=True, extra="forbid"):
    """A video that is read where it lies, in rows of this length."""

    kind: Literal["untrimmed"] = "untrimmed"
    subset: Subset = "train"
    label: int | None = None  # class of the video
    segment_seconds: float = Field(5.0, gt=0)


class AdoptedOptions(BaseModel, frozen=True, extra="forbid"):
    """Clips that another tool cut."""

    kind: Literal["adopted"] = "adopted"
    subset: Subset = "train"


class ClipRecord(BaseModel, frozen=True, extra="forbid"):
    """One clip; the columns of index.parquet."""

    path: str  # relative to the root, /-separated; of an untrimmed video: the video's own
    first_frame: int = 0  # number of the first frame in that file
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
    sha256: str | None  # None for untrimmed videos


class Failure(BaseModel, frozen=True, extra="forbid"):
    """Why a video could not be used."""

    stage: str  # probe, decode, split, timeout, verify, plan or engine
    error: str
    stderr_tail: list[str] = []


class VideoRecord(BaseModel, frozen=True, extra="forbid"):
    """What happened to one source video. It has clips or a failure."""

    schema_version: Literal[1] = 1
    hico_version: str
    video_id: str
    source: SourceFile
    options: Annotated[SplitOptions | UntrimmedOptions | AdoptedOptions, Field(discriminator="kind")]
    attempts: int
    verified: Verification = "fast"
    num_decode_errors: int = 0  # lines that ffmpeg wrote about the source
    num_damaged_clips: int = 0  # left out
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


def source_file(location: Location) -> SourceFile:
    """The identity of a video file; a missing one has size and time 0."""
    try:
        stat = location.stat()
    except OSError:
        return SourceFile(path=str(location), size_bytes=0, mtime_ns=0)
    mtime_ns = round(stat.st_mtime * 1e9) if is_remote(location) else stat.st_mtime_ns
    return SourceFile(path=str(location), size_bytes=stat.st_size, mtime_ns=mtime_ns)


def _record_path(root: Location, video_id: str) -> Location:
    return root / "records" / f"{video_id}.json"


def read_record(root: Location, video_id: str) -> VideoRecord | None:
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


def read_records(root: Location) -> Iterator[VideoRecord]:
    """All records in order of their ids, one at a time."""
    folder = root / "records"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    for name in sorted(name.removesuffix(".json") for name in names if name.endswith(".json")):
        record = read_record(root, name)
        if record is not None:
            yield record


def write_record(root: Location, record: VideoRecord, *, scratch: Path) -> None:
    """Commit what happened to a video.

    Args:
        root: the workspace.
        record: what is known now.
        scratch: a folder of the caller, on the workspace's disk if that is local.

    """
    beside = scratch / "record.json"
    beside.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    publish(beside, _record_path(root, record.video_id))


def remove_record(root: Location, record: VideoRecord) -> None:
    """Take back a commit: the record first, then its clips. An untrimmed video's file is not ours."""
    _record_path(root, record.video_id).unlink(missing_ok=True)
    if record.options.kind == "split":
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


class FailedSource(NamedTuple):
    """A source that a command could not use."""

    source: str
    failure: Failure
    attempts: int | None = None  # None: one more than its line says


def update_failures(root: Location, *, command: str, fine: Iterable[str], failed: Iterable[FailedSource]) -> None:
    """Bring <root>/failures.jsonl up to date: a line for each source that failed, none for one that is fine now.

    Args:
        root: the workspace.
        command: what ran; the lines of other commands stay as they are.
        fine: sources that the command has dealt with.
        failed: sources that it has not, and why.

    """
    with locked(root / ".failures.lock", wait=True) if isinstance(root, Path) else nullcontext():
        path = root / "failures.jsonl"
        old = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        lines = {(line.source, line.command): line for line in map(FailureLine.model_validate_json, old)}
        for source in fine:
            lines.pop((source, command), None)
        for source, failure, attempts in failed:
            before = lines.get((source, command))
            lines[source, command] = FailureLine(
                source=source,
                stage=failure.stage,
                error=failure.error,
                stderr_tail=failure.stderr_tail,
                attempts=attempts or (before.attempts + 1 if before else 1),
                command=command,
            )
        if lines or old:
            write_atomically(path, "".join(line.model_dump_json() + "\n" for line in lines.values()))
