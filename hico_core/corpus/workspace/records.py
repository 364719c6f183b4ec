"""The records of source videos: <root>/records/<id>.json.

Only its record says which clips a video has; nothing is ever inferred from listing the clips' folder. Records may come
from anywhere, so they are checked before any file that they name is read or removed.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, pairwise
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator

from hico_core.base.addresses import Location, is_local, name_from, place_named
from hico_core.base.choices import KeepOrDrop, Subset, Verification, VideoEncoder
from hico_core.base.errors import HicoError
from hico_core.base.failures import Failure
from hico_core.base.storage import storage_of
from hico_core.config.explain import first_wrong
from hico_core.corpus.sources.frame_folders import files_at
from hico_core.corpus.sources.ids import Source, clip_name

Item = TypeVar("Item")
Result = TypeVar("Result")

# A request to a bucket takes some 30 ms, nearly all of it waiting; this many at once read 1,000 records in a second.
_REQUESTS_AT_ONCE = 32


class SourceFile(BaseModel, frozen=True, extra="forbid"):
    """The file that a record describes; a different size or time means a different file."""

    # An absolute path or an address in a bucket; written relative to the root if it lies below it. For a video that
    # another tool cut, the pattern of its clips.
    path: str
    size_bytes: int
    mtime_ns: int
    sha256: str | None = None  # if requested; replaces the time in comparisons. For frame folders, see `source_file`


class SplitOptions(BaseModel, frozen=True, extra="forbid"):
    """All options that determine the clips of a video; the defaults are the profile "training"."""

    kind: Literal["split"] = "split"
    subset: Subset = "train"
    segment_seconds: float = Field(5.0, ge=0.001, le=1e6)
    tail: KeepOrDrop = "keep"
    short_side: int | None = Field(192, ge=16)  # pixels at most; None: the source's size
    fps: float | None = Field(None, ge=0.001, le=1000)  # None: each frame at its own time
    encoder: VideoEncoder = "libx264"
    preset: str = "veryfast"
    crf: int = Field(23, ge=0, le=51)  # constant quality; lower is better
    gop: int = Field(32, ge=1)  # most frames from keyframe to keyframe
    fast_decode: bool = True  # cheaper to read: simpler coding; three of every four frames are non-reference frames
    audio: KeepOrDrop = "drop"


PROFILES = {
    # The fastest to load; docs/benchmarks-cpu.md has the measurements behind the choice.
    "training": SplitOptions(),
    # Close to the source at a smaller size, for viewing and for other tools.
    "archive": SplitOptions(short_side=256, preset="medium", crf=18, gop=250, fast_decode=False),
    # The source's size, with hardly any visible loss.
    "source": SplitOptions(short_side=None, preset="medium", crf=17, gop=250, fast_decode=False),
}


class UntrimmedOptions(BaseModel, frozen=True, extra="forbid"):
    """Options of a video that is read in place, in rows of a fixed length."""

    kind: Literal["untrimmed"] = "untrimmed"
    subset: Subset = "train"
    label: int | None = None  # class of the video
    class_name: str | None = None  # name of that class
    segment_seconds: float = Field(5.0, ge=0.001, allow_inf_nan=False)


class AdoptedOptions(BaseModel, frozen=True, extra="forbid"):
    """Options of a video whose clips another tool cut."""

    kind: Literal["adopted"] = "adopted"
    subset: Subset = "train"


Options = SplitOptions | UntrimmedOptions | AdoptedOptions


class ClipRecord(BaseModel, frozen=True, extra="forbid"):
    """One clip; its fields are columns of index.parquet."""

    path: str  # relative to the root, /-separated; for an untrimmed video, the same as `SourceFile.path`
    first_frame: int = 0  # number of the first frame in that file
    start_ms: int  # as planned
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
    cuts: list[float] | None = None  # starts of new shots in it, from the source's first frame; None: not known


class VideoRecord(BaseModel, frozen=True, extra="forbid"):
    """The state of one source video, which has either clips or a failure."""

    schema_version: Literal[1] = 1
    hico_version: str
    video_id: str
    source: SourceFile
    options: Annotated[Options, Field(discriminator="kind")]
    attempts: int
    verified: Verification = "fast"
    num_decode_errors: int = 0  # lines that ffmpeg wrote about the source
    num_damaged_clips: int = 0  # these are left out
    fps: float | None = None  # average
    variable_fps: bool | None = None
    clips: list[ClipRecord] = []
    failure: Failure | None = None

    @model_validator(mode="after")
    def _clips_lie_where_they_may(self) -> "VideoRecord":
        for clip in self.clips:
            name = clip_name(self.video_id, start_ms=clip.start_ms, end_ms=clip.end_ms)
            inside = f"{self.options.subset}/{name}"
            # Files that were not made here may lie anywhere: hico reads them in place and never removes them.
            may_be = {
                "split": clip.path == inside,
                "untrimmed": clip.path == self.source.path,
                "adopted": clip.path.rsplit("/", 1)[-1] == name,
            }[self.options.kind]
            if not may_be or ".." in clip.path.split("/"):
                raise ValueError(f"{clip.path!r} is not a possible path for a clip of {self.video_id!r}")
        return self


# Smallest valid values of a clip's fields.
LEAST = {
    "num_frames": 1,
    "width": 1,
    "height": 1,
    "first_frame": 0,
    "start_ms": 0,
    "start_seconds": 0,
    "size_bytes": 0,
}

# No video lasts longer than this: a year, in seconds.
LONGEST_SECONDS = 366 * 24 * 3600.0


def fault_in_record(record: VideoRecord) -> str | None:
    """Why the index would reject the rows of a video, in words, by the rules of `index_check`; None if it would not."""
    if record.clips and not 1e-6 <= (record.fps or 0.0) <= LONGEST_SECONDS:
        return f"has {record.fps} frames per second"
    for clip in record.clips:
        for name, least in LEAST.items():
            if getattr(clip, name) < least:
                return f"has a clip at {clip.start_seconds:g} s whose {name} is {getattr(clip, name)}"
        if not clip.start_seconds <= clip.end_seconds <= LONGEST_SECONDS:  # also true for NaN
            return f"has a clip that lasts from {clip.start_seconds:g} to {clip.end_seconds:g} s"
    for earlier, later in pairwise(record.clips):
        if later.start_seconds < earlier.start_seconds:
            return f"has a clip at {later.start_seconds:g} s after one at {earlier.start_seconds:g} s"
    return None


def sha256_of(path: Location) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def source_file(source: Source) -> SourceFile:
    """The identity of a video's file, or of all its clips together; a missing file has size and time 0.

    A frame folder is identified by a hash of its frame rate and of the names, sizes and times of its pictures.
    """
    sizes, times = [], []
    files = source.clips or ((source.path,) if source.frame_rate is None else files_at(source.path))
    for location in files:
        try:
            stat = location.stat()
        except OSError:
            continue
        sizes.append(stat.st_size)
        times.append(storage_of(location).modified_ns(stat))
    sha256 = None
    if source.frame_rate is not None:
        listing = [source.frame_rate, [file.name for file in files], sizes, times]
        sha256 = hashlib.sha256(repr(listing).encode("utf-8", "surrogateescape")).hexdigest()
    return SourceFile(path=str(source.path), size_bytes=sum(sizes), mtime_ns=max(times, default=0), sha256=sha256)


def record_path(root: Location, video_id: str) -> Location:
    """The location of a video's record."""
    return root / "records" / f"{video_id}.json"


def read_record(root: Location, video_id: str) -> VideoRecord | None:
    """The record of one video, or None if there is none.

    Raises:
        HicoError: the file exists but is not a record of this version, or is the record of another video.

    """
    path = record_path(root, video_id)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        record = VideoRecord.model_validate_json(content)
    except ValidationError as error:
        raise HicoError(
            f"{path}: not a record that this version of hico wrote ({first_wrong(error)}); `hico split --force` of "
            "its video replaces it"
        ) from error
    if record.video_id != video_id:
        raise HicoError(f"{path}: is the record of {record.video_id!r}; rename it back, or remove it")
    return _with_paths(record, lambda name: place_named(root, name))


def names_in(folder: Location) -> list[str]:
    """The names currently in a folder; none if it is missing."""
    try:
        return storage_of(folder).names_in(folder)
    except FileNotFoundError:
        return []


def record_ids(root: Location) -> list[str]:
    """The ids of all videos that have a record, sorted."""
    return sorted(name.removesuffix(".json") for name in names_in(root / "records") if name.endswith(".json"))


def read_records(root: Location) -> Iterator[VideoRecord]:
    """All records in order of their ids; only a few are held at a time."""
    for record in reading(root, partial(read_record, root), record_ids(root)):
        if record is not None:
            yield record


def reading(root: Location, read: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """What `read`, which reads a record, gives for each item, in order.

    In a bucket, where each request takes long, several items are read at once.
    """
    if is_local(root):
        yield from map(read, items)
        return
    left = iter(items)
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="hico") as threads:
        while chunk := list(islice(left, 16 * _REQUESTS_AT_ONCE)):
            yield from threads.map(read, chunk)


def record_text(record: VideoRecord, root: Location) -> str:
    """The text of a record's file; paths below the root are relative to it, so that a workspace can be moved."""
    return _with_paths(record, lambda path: name_from(root, path)).model_dump_json(indent=1) + "\n"


def _with_paths(record: VideoRecord, change: Callable[[str], str]) -> VideoRecord:
    """A record with changed paths of the files that may lie outside the workspace."""
    source = record.source.model_copy(update={"path": change(record.source.path)})
    clips = record.clips
    if record.options.kind == "untrimmed":
        clips = [clip.model_copy(update={"path": source.path}) for clip in clips]
    return record.model_copy(update={"source": source, "clips": clips})
