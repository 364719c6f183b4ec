"""Extracts videos into a folder of features: which videos are still to be done, and what is written for each."""

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from hico_core.base.addresses import DEFAULT_ROOT, Location, absolute, is_local, local_part, locate
from hico_core.base.choices import DType, FileFormat
from hico_core.base.engine import Plan, Runner, Work, run_here, run_on_ray, run_restartable
from hico_core.base.errors import BadVideo, HicoError, UsageError
from hico_core.base.files import lock, remove_abandoned
from hico_core.base.processes import run_on_processes
from hico_core.base.storage import write_text, written_beside
from hico_core.base.tally import Outcome, Summary, VideoEvent, VideoOutcome
from hico_core.checkpoints.frozen import FrozenEncoder
from hico_core.corpus.intake import failed_outcome, is_same_file, other_file
from hico_core.corpus.sources.finding import Videos
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.workspace.access import Shard, sole_writer
from hico_core.corpus.workspace.records import SourceFile, sha256_of, source_file
from hico_core.data.workers import num_workers
from hico_core.encoding.encoder import Meter
from hico_core.encoding.lanes import WholeVideo
from hico_core.transfer.extraction.feature_files import read_array, write_array
from hico_core.transfer.extraction.jobs import FeatureJob, features_folder, frozen_of, jobs_of, newest_encoder, part_of
from hico_core.transfer.extraction.manifest import (
    MANIFEST,
    ManifestRow,
    Settings,
    manifest_line,
    pack_into_hdf5,
    read_manifest,
    require_hdf5,
)
from hico_core.transfer.features import FeatureExtractor, Features

logger = logging.getLogger(__name__)

# Above this mean similarity, rows of different videos are hardly distinguishable.
ALIKE = 0.9999

# Interval of rewriting the manifest in a bucket; after a kill, videos finished since then are extracted again.
_UPLOAD_SECONDS = 60.0

# How long a writer waits until another writer's line is in the manifest.
_PATIENCE_SECONDS = 60.0


class Files(NamedTuple):
    """Where a command's features go, their file names and their format."""

    folder: "Location | None" = None  # made if missing; None: see `features_folder`
    prefix: str = ""
    file_format: FileFormat | Literal["hdf5"] = "npy"  # hdf5: .npy files, and all of them again in features.hdf5
    dtype: DType = "float32"

    @property
    def format_of_one(self) -> FileFormat:
        """Format of a video's own file."""
        return "npy" if self.file_format == "hdf5" else self.file_format

    def name(self, video_id: str) -> str:
        """File name for a video."""
        return f"{self.prefix}{video_id}.{self.format_of_one}"


NPY_FILES = Files()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionPolicy:
    """How and where videos are processed, apart from the settings of their features."""

    checksum: bool = False  # identify sources by their bytes, not by their time
    workers: int | None = None  # reading processes for each encoding one; None: one per core
    processes: int = 1  # encoding processes on this machine, on the GPUs in turn
    shard: Shard | None = None  # this part of the videos only; other calls may write the other parts at the same time
    ray_address: str | None = None  # run on this Ray cluster, see `run_on_ray`; each process computes in one thread

    def __post_init__(self) -> None:
        if self.processes > 1 and self.ray_address:
            raise UsageError(f"--nproc {self.processes}: cannot be combined with --ray-address; leave out one of them")


def extract_features(
    videos: Videos | Sequence[FeatureJob] | None = None,
    *,
    encoder: FeatureExtractor | Path | str | None = None,
    root: "Location | str" = DEFAULT_ROOT,
    files: Files = NPY_FILES,
    policy: ExtractionPolicy = ExtractionPolicy(),
    meter: Meter | None = None,
    on_event: Callable[[VideoEvent], None] = lambda event: None,
) -> Summary:
    """Extract the features of videos that have none yet: `[prefix]<id>.<format>` and a line in manifest.jsonl.

    A video that cannot be decoded becomes a line in `<root>/failures.jsonl`.

    Args:
        videos: over all shards: files, folders, patterns, lists, or jobs; None: those of the index.
        encoder: an extractor from `FeatureExtractor.from_checkpoint`, with its grid and picture, or what to make one
            from; None: `newest_encoder`.
        root: the workspace.
        files: their folder, names and format.
        policy: how and where videos are processed.
        meter: counts rows and waiting time.
        on_event: called for each video.

    Raises:
        UsageError: the extractor was not loaded from a file, or a shard is to be packed.
        HicoError: the folder has features with other settings or of another video with the same id, or is in use.

    """
    if files.file_format == "hdf5":
        require_hdf5()
        if policy.shard:
            raise UsageError("--format hdf5: needs all videos; run the command once more without --shard")
    root = locate(root)
    if not isinstance(encoder, FeatureExtractor):
        encoder = FeatureExtractor.from_checkpoint(encoder or newest_encoder(local_part(root)))
    files = files._replace(folder=files.folder or features_folder(root, encoder))
    summary = _extract(jobs_of(videos, root), encoder, root, files, policy, meter=meter or Meter(), on_event=on_event)
    assert files.folder is not None
    if files.file_format == "hdf5" and read_manifest(files.folder):  # if all videos failed, there is nothing to pack
        pack_into_hdf5(files.folder)
    return summary


def _extract(
    jobs: Sequence[FeatureJob],
    extractor: FeatureExtractor,
    root: Location,
    files: Files,
    policy: ExtractionPolicy,
    *,
    meter: Meter,
    on_event: Callable[[VideoEvent], None],
) -> Summary:
    """Plan, extract and write into the given folder."""
    frozen, folder = frozen_of(extractor), files.folder
    assert folder is not None
    settings = _settings(extractor, frozen, files.dtype, rows=_what_rows_are(jobs))
    with opened_folder(folder, policy.shard), closing(_manifest_writer(folder, policy.shard)) as manifest:
        rows = _rows_with(settings, fps=extractor.grid.fps, folder=folder, files=files)
        plan = _plan(part_of(jobs, policy.shard), files, folder, rows, checksum=policy.checksum)
        # Looked up before anything is read, so that a video that changes meanwhile is extracted again.
        identities = {job.source.video_id: source_file(job.source) for job in plan.todo}
        writer = _Writer(
            folder=folder,
            files=files,
            extractor=extractor,
            settings=settings,
            manifest=manifest,
            identities=identities,
            checksum=policy.checksum,
        )

        def finish(extracted: Extracted) -> VideoOutcome:
            meter.num_rows += extracted.num_rows
            # Averaged over processes; on a cluster, nobody knows how many work in parallel.
            meter.waiting_seconds += 0.0 if policy.ray_address else extracted.waiting_seconds / policy.processes
            return writer.finish(extracted)

        work, runner = _work_and_runner(extractor, frozen, policy)
        summary = run_restartable(
            plan, work, runner, finish=finish, root=root, command="extract-features", on_event=on_event
        )
    _warn_of_collapse(writer.likeness, frozen)
    return summary


def _warn_of_collapse(likeness: "Likeness", frozen: FrozenEncoder) -> None:
    if likeness.num_videos > 1 and likeness.mean_similarity > ALIKE:
        logger.warning(
            "the features of %d videos are nearly alike (mean cosine similarity %.5f): the encoder of %s has hardly "
            "learnt anything, or has collapsed; look at its loss with `hico report`, and train it for longer",
            likeness.num_videos,
            likeness.mean_similarity,
            frozen.text,
        )


class Likeness:
    """Measures how similar rows are, without storing them."""

    def __init__(self) -> None:
        self.num_videos = 0
        self._num_rows = 0
        self._sum = np.zeros(1)

    def add(self, rows: np.ndarray) -> None:
        """Add a video's rows (T, ...)."""
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        self._sum = self._sum + (flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-12)).sum(axis=0)
        self._num_rows += len(rows)
        self.num_videos += 1

    @property
    def mean_similarity(self) -> float:
        """Mean cosine similarity of two different rows.

        The squared sum of n unit vectors is n, for each with itself, plus the similarities of all n (n - 1) pairs.
        """
        n = self._num_rows
        return float((self._sum @ self._sum - n) / max(n * (n - 1), 1))


def _what_rows_are(jobs: Sequence[FeatureJob]) -> dict[str, Any]:
    """Describe rows as manifests do."""
    of_windows = ("windows", None)
    found = {("segments", job.video.spans.num_windows) if job.video.spans else of_windows for job in jobs}
    if len(found) > 1:
        raise ValueError("videos with and without segments, or of other numbers of windows, belong in two folders")
    rows_of, per_segment = next(iter(found), of_windows)
    return {"rows_of": rows_of, "per_segment": per_segment}


def _settings(extractor: FeatureExtractor, frozen: FrozenEncoder, dtype: DType, *, rows: Mapping[str, Any]) -> Settings:
    """The settings that all features of a folder share."""
    grid = extractor.grid
    return Settings(
        window=grid.window,
        stride=grid.stride,
        native_fps=grid.fps is None,
        align=grid.align,
        tail=grid.tail,
        pool=extractor.pool,
        layer=extractor.layer,
        dtype=dtype,
        encoder=frozen.table_name,
        checkpoint_sha256=frozen.sha256,
        picture=extractor.picture.fields,
        precision=extractor.precision.name,
        **rows,
    )


@contextmanager
def opened_folder(folder: Location, shard: Shard | None) -> Iterator[None]:
    """Let only one command at a time write to a local folder; a bucket cannot be locked.

    Raises:
        HicoError: another command is writing here.

    """
    busy = f"{folder}: another hico command is writing features here; wait for it to end, or use another --name"
    with sole_writer(folder, shard=shard, busy=busy):
        if shard is None and is_local(folder):
            remove_abandoned(folder)
        yield


class _LocalManifest:
    """Adds lines to manifest.jsonl, which several processes may do at the same time."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / MANIFEST

    def add(self, row: ManifestRow) -> None:
        """Append a line; start a new line if a killed writer left an incomplete one."""
        refusal = f"{self._path}: locked by another process; try again later"
        with (
            lock(self._path.with_name(".manifest.lock"), refusal=refusal, wait_seconds=_PATIENCE_SECONDS),
            self._path.open("a+b") as opened,
        ):
            if opened.tell():
                opened.seek(-1, 2)
                if opened.read() != b"\n":
                    opened.write(b"\n")
            opened.write(manifest_line(row, self._folder))

    def close(self) -> None:
        """Nothing is left to write."""


class _BucketManifest:
    """Keeps this shard's lines and writes them at intervals: an object can only be written as a whole.

    A command that writes all videos takes over the lines of earlier shards, so that none of them overrides its own.
    """

    def __init__(self, folder: Location, shard: Shard | None) -> None:
        name = MANIFEST if shard is None else f"manifest-{shard.number}-of-{shard.total}.jsonl"
        self._folder, self._path = folder, folder / name
        self._taken_in: list[Location] = [] if shard else list(folder.glob("manifest-*.jsonl"))
        before = [path for path in (self._path, *self._taken_in) if path.exists()]
        self._lines = [line for path in before for line in path.read_bytes().splitlines(keepends=True)]
        self._written = time.monotonic()
        self._is_new = False

    def add(self, row: ManifestRow) -> None:
        """Add a line, to be written later."""
        self._lines.append(manifest_line(row, self._folder))
        self._is_new = True
        if time.monotonic() - self._written > _UPLOAD_SECONDS:
            self.close()

    def close(self) -> None:
        """Write all lines."""
        if self._is_new:
            write_text(self._path, b"".join(self._lines).decode())
            while self._taken_in:
                self._taken_in.pop().unlink(missing_ok=True)
        self._written, self._is_new = time.monotonic(), False


def _manifest_writer(folder: Location, shard: Shard | None) -> _LocalManifest | _BucketManifest:
    return _LocalManifest(folder) if is_local(folder) else _BucketManifest(folder, shard)


def _rows_with(settings: Settings, *, fps: float | None, folder: Location, files: Files) -> dict[str, ManifestRow]:
    """The manifest of a folder, all of whose features must have these settings and names of this kind.

    Raises:
        HicoError: a file of features has other settings, or another prefix or format, which would add its video twice.

    """
    rows = read_manifest(folder)
    wanted = settings.model_dump() | ({} if fps is None else {"fps": fps})
    for row in rows.values():
        for key, value in wanted.items():
            if getattr(row, key) != value:
                raise HicoError(
                    f"{folder}: has features with {key}={getattr(row, key)}, not {value}; use another --name, or "
                    "remove the folder"
                )
        if (row.prefix, row.file_format) != (files.prefix, files.format_of_one):
            raise HicoError(
                f"{folder}: has files such as {row.file}, not {files.name(row.video_id)} (--prefix, --format); use "
                "another --name"
            )
    return rows


def _plan(
    jobs: Sequence[FeatureJob], files: Files, folder: Location, rows: dict[str, ManifestRow], *, checksum: bool
) -> Plan[FeatureJob]:
    """Go through all videos before any work is done, and separate the finished from the unfinished ones.

    Raises:
        HicoError: a file would replace that of another video; see `is_finished`.

    """
    todo: list[FeatureJob] = []
    dealt_with: list[VideoOutcome] = []
    for job in jobs:
        source = job.source
        row = rows.get(files.name(source.video_id))
        if source.obstacle:
            dealt_with.append(failed_outcome(source, stage="name", error=source.obstacle))
        elif row is not None and is_finished(row, source, folder, checksum=checksum) and _has_segments_of(job, row):
            dealt_with.append(_outcome(source, "unchanged", num_rows=row.rows))
        else:
            todo.append(job)
    return Plan(todo, dealt_with)


def _has_segments_of(job: FeatureJob, row: ManifestRow) -> bool:
    """Whether the rows of a file are those of the requested segments, if any are requested."""
    spans = list(zip(row.start_seconds, row.end_seconds, strict=True))
    return job.video.spans is None or (list(job.video.spans.seconds), list(job.labels)) == (spans, row.labels)


def _outcome(source: Source, outcome: Outcome, *, num_rows: int) -> VideoOutcome:
    return VideoOutcome(video_id=source.video_id, source=str(source.path), outcome=outcome, num_parts=num_rows)


def is_finished(row: ManifestRow, source: Source, folder: Location, *, checksum: bool) -> bool:
    """Whether a file has the features of exactly this source.

    Raises:
        HicoError: it has the features of another video that still exists; names both.

    """
    if row.source != str(source.path):
        other = other_file(row.source_file, replace(source, clips=()))
        if other is not None:
            raise HicoError(
                f"{source.path} and {other}, whose features are in {folder / row.file}, have the same id, "
                f"{source.video_id!r}; rename one of them, or use another --name"
            )
    return is_same_file(row.source_file, source, checksum=checksum) and _is_whole(row, folder)


def _is_whole(row: ManifestRow, folder: Location) -> bool:
    """Whether a video's file is there as its row describes it; in a bucket, only the size is checked."""
    path = folder / row.file
    try:
        if path.stat().st_size != row.size_bytes:
            return False
        return not is_local(path) or read_array(path).shape[:1] == (row.rows,)
    except (OSError, HicoError):
        return False


class Extracted(NamedTuple):
    """The result for one video."""

    job: FeatureJob
    features: Features | BadVideo
    waiting_seconds: float  # waiting for frames, since the previous video

    @property
    def num_rows(self) -> int:
        """Number of rows of features."""
        return 0 if isinstance(self.features, BadVideo) else len(self.features.array)


class _Description(NamedTuple):
    """What a process on any machine needs to make the same extractor."""

    encoder: str  # as `load_frozen` accepts it
    sha256: str  # of its weights
    settings: tuple[tuple[str, Any], ...]  # of `FeatureExtractor.from_checkpoint`


def _work_and_runner(
    extractor: FeatureExtractor, frozen: FrozenEncoder, policy: ExtractionPolicy
) -> tuple[Work[FeatureJob, Extracted], Runner[FeatureJob, Extracted]]:
    """The function that extracts videos, and the runner for it."""
    if policy.ray_address is None and policy.processes == 1:
        return partial(_extract_each, extractor=extractor, workers=policy.workers), run_here
    description = _description_of(extractor, frozen)
    on_gpu = extractor.device.type == "cuda"
    if policy.ray_address is None:
        workers = num_workers(policy.workers, processes=policy.processes)
        num_gpus = torch.cuda.device_count() if on_gpu else 0
        work = partial(_extract_as_described, description=description, workers=workers)
        return work, partial(run_on_processes, processes=policy.processes, num_gpus=num_gpus)
    work = partial(_extract_as_described, description=description, workers=0)
    return work, partial(_on_cluster, address=policy.ray_address, num_gpus=int(on_gpu))


def _description_of(extractor: FeatureExtractor, frozen: FrozenEncoder) -> _Description:
    others = {"pool": extractor.pool, "layer": extractor.layer, "batch_size": extractor.batch_size}
    device = {"device": extractor.device.type}
    return _Description(frozen.text, frozen.sha256, tuple({**asdict(extractor.grid), **others, **device}.items()))


def _on_cluster(
    work: Work[FeatureJob, Extracted], jobs: Sequence[FeatureJob], *, address: str, num_gpus: int
) -> Generator[Extracted, None, None]:
    def lost(job: FeatureJob, reason: str) -> Extracted:
        return Extracted(job, BadVideo(str(job.source.path), reason, stage="engine"), 0.0)

    anywhere = [job._replace(video=_seen_from_anywhere(job.video)) for job in jobs]
    return run_on_ray(work, anywhere, address=address, num_gpus=num_gpus, on_lost=lost)


def _seen_from_anywhere(video: WholeVideo) -> WholeVideo:
    """The same video with paths that do not depend on the working folder."""
    pieces = [replace(piece, path=absolute(piece.path)) for piece in video.pieces]
    return video._replace(path=absolute(video.path), pieces=pieces)


def _extract_each(
    jobs: Sequence[FeatureJob], *, extractor: FeatureExtractor, workers: int | None
) -> Iterator[Extracted]:
    """Extract each video, in order."""
    meter, before = Meter(), 0.0
    found = extractor.extract_all([job.video for job in jobs], workers=workers, meter=meter)
    for job, features in zip(jobs, found, strict=True):
        yield Extracted(job, features, meter.waiting_seconds - before)
        before = meter.waiting_seconds


def _extract_as_described(
    jobs: Sequence[FeatureJob], *, description: _Description, workers: int
) -> Iterator[Extracted]:
    """The same, with an extractor that is made here, in a process that may receive further videos later."""
    return _extract_each(jobs, extractor=_extractor_of(description), workers=workers)


@lru_cache(maxsize=1)
def _extractor_of(description: _Description) -> FeatureExtractor:
    """The same extractor as in the process of the command.

    Raises:
        HicoError: the file has changed since, or differs on this machine.

    """
    extractor = FeatureExtractor.from_checkpoint(description.encoder, **dict(description.settings))
    if frozen_of(extractor).sha256 != description.sha256:
        raise HicoError(
            f"{description.encoder}: has changed since the command began; if a training still writes it, "
            "name a copy with --encoder"
        )
    return extractor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Writes the features of one video after the other, with a line of the manifest for each."""

    folder: Location
    files: Files
    extractor: FeatureExtractor
    settings: Settings
    manifest: _LocalManifest | _BucketManifest
    identities: Mapping[str, SourceFile]  # by id: the state of a video's file before anything was read
    checksum: bool
    likeness: Likeness = field(default_factory=Likeness)

    def finish(self, extracted: Extracted) -> VideoOutcome:
        """Write a video's features if they are valid; return the video's outcome."""
        source = extracted.job.source
        features = _storable(extracted.features, self.files.dtype, source)
        if isinstance(features, BadVideo):
            return failed_outcome(source, stage=features.stage, error=features.reason)
        self.likeness.add(features.array)
        labels = list(extracted.job.labels) if extracted.job.video.spans else None
        self.manifest.add(self._write(source, features, labels))
        return _outcome(source, "done", num_rows=len(features.array))

    def _write(self, source: Source, features: Features, labels: list[str] | None) -> ManifestRow:
        """Write a video's file, whole or not at all; return its row of the manifest."""
        read = self.identities[source.video_id]
        read = _with_hash(read, source) if self.checksum else read
        name, file_format = self.files.name(source.video_id), self.files.format_of_one
        array = features.array
        with written_beside(self.folder / name) as beside:
            write_array(beside, array, features.times, video_id=source.video_id, file_format=file_format)
            size_bytes, sha256 = beside.stat().st_size, sha256_of(beside)
        start, end = features.times.T
        return ManifestRow(
            **self.settings.model_dump(),
            video_id=source.video_id,
            file=name,
            prefix=self.files.prefix,
            suffix="",
            file_format=file_format,
            rows=len(array),
            dim=int(array[0].size),
            shape=list(array.shape[1:]),
            size_bytes=size_bytes,
            sha256=sha256,
            fps=self.extractor.grid.rate(features.meta.source_fps),
            checkpoint=frozen_of(self.extractor).weights,
            **features.meta._asdict(),
            source_size_bytes=read.size_bytes,
            source_mtime_ns=read.mtime_ns,
            source_sha256=read.sha256,
            read_from="clips" if source.clips else "sources",
            start_seconds=start.tolist(),
            end_seconds=end.tolist(),
            centre_seconds=((start + end) / 2).tolist(),
            labels=labels,
        )


def _with_hash(read: SourceFile, source: Source) -> SourceFile:
    """The identity of the source, with a hash if it is one local file that has not changed since."""
    if source.clips or read.sha256 or not is_local(source.path) or not is_same_file(read, source):
        return read
    return read.model_copy(update={"sha256": sha256_of(source.path)})


def _storable(features: Features | BadVideo, dtype: DType, source: Source) -> Features | BadVideo:
    """Convert features to the dtype of their file; values that overflow it make the video a failure."""
    if isinstance(features, BadVideo):
        return features
    with np.errstate(over="ignore"):  # reported below
        array = np.ascontiguousarray(features.array.astype(dtype))
    if np.isfinite(array).all():
        return replace(features, array=array)
    if np.isfinite(features.array).all():
        reason = f"has features that {dtype} cannot hold (the largest is {np.abs(features.array).max():.4g})"
    else:
        reason = "has features that are not finite (NaN or infinite); its encoder is broken"
    return BadVideo(str(source.path), reason, stage="encode")
