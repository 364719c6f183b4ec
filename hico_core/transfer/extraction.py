"""Videos -> a folder of features: who is to do, who is done, and what is written of each."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hico_core.corpus.addresses import DEFAULT_ROOT, Location, absolute, local_part, locate
from hico_core.corpus.cache import LocalCache
from hico_core.corpus.engine import run_on_ray
from hico_core.corpus.events import Summary, Tally, VideoEvent
from hico_core.corpus.failures import update_failures
from hico_core.corpus.files import lock, remove_abandoned, write_text, written_beside
from hico_core.corpus.finding import Videos
from hico_core.corpus.ids import Source
from hico_core.corpus.intake import is_same_file, other_file
from hico_core.corpus.records import Failure, SourceFile, sha256_of, source_file
from hico_core.corpus.workspace import Shard, sole_writer
from hico_core.data.lanes import WholeVideo
from hico_core.errors import BadVideo, HicoError, UsageError
from hico_core.training.checkpoint import EncoderOrigin
from hico_core.training.encoder import Meter
from hico_core.transfer.feature_files import DType, FileFormat, read_array, write_array
from hico_core.transfer.features import FeatureExtractor, Features
from hico_core.transfer.jobs import FeatureJob, features_name, jobs_of, newest_encoder, part_of
from hico_core.transfer.manifest import MANIFEST, ManifestRow, Settings, manifest_line, read_manifest

logger = logging.getLogger(__name__)

# Rows of different videos that are more alike than this tell nothing apart.
_ALIKE = 0.9999

# How often the manifest in a bucket is written again: what came since is extracted again after a kill.
_UPLOAD_SECONDS = 60.0

# How long a writer waits for another's line to be in the manifest.
_PATIENCE_SECONDS = 60.0


class Files(NamedTuple):
    """How the files of a folder are named, and what they are."""

    prefix: str = ""
    suffix: str = ""
    file_format: FileFormat = "npy"
    dtype: DType = "float32"

    def name(self, video_id: str) -> str:
        """The file of a video."""
        return f"{self.prefix}{video_id}{self.suffix}.{self.file_format}"


NPY_FILES = Files()


def extract_features(
    videos: Videos | Sequence[FeatureJob] | None = None,
    *,
    extractor: FeatureExtractor | None = None,
    checkpoint: Path | None = None,
    root: "Location | str" = DEFAULT_ROOT,
    folder: "Location | None" = None,
    cache: LocalCache | None = None,
    files: Files = NPY_FILES,
    checksum: bool = False,
    workers: int | None = None,
    shard: Shard | None = None,
    ray_address: str | None = None,
    meter: Meter | None = None,
    on_event: Callable[[VideoEvent], None] = lambda event: None,
) -> Summary:
    """Write `[prefix]<id>[suffix].<format>` for each video that has none, and a line for it in manifest.jsonl.

    A video that cannot be decoded becomes a line of `<root>/failures.jsonl`.

    Args:
        videos: of all shards: files, folders, patterns, lists, or jobs; None: those of the index.
        extractor: encoder, grid and picture, from `FeatureExtractor.from_checkpoint`; None: that of `checkpoint`.
        checkpoint: the file to make an extractor of, where none is given; None: `newest_encoder`.
        root: the workspace.
        folder: where the files go, made if missing; None: features/NAME in the workspace, named as the run.
        cache: for videos in buckets.
        files: their names and format.
        checksum: tell sources apart by their bytes, not by their time.
        workers: processes that read; None: one a core.
        shard: take only this part of the videos; other calls may write the other parts at the same time.
        ray_address: extract on this Ray cluster, see `run_on_ray`; each process computes in one thread.
        meter: told of rows and waiting.
        on_event: told of each video.

    Raises:
        UsageError: the extractor was not loaded from a file, or there are both it and a checkpoint.
        HicoError: the folder has features of other settings or of another video of an id, or is being written to.

    """
    root = locate(root)
    if extractor is None:
        extractor = FeatureExtractor.from_checkpoint(checkpoint or newest_encoder(local_part(root)))
    elif checkpoint is not None:
        raise UsageError("give an extractor or the checkpoint to make one of, not both")
    origin = extractor.origin
    if origin is None:
        raise UsageError(
            "the manifest names the encoder's file: make the extractor with FeatureExtractor.from_checkpoint"
        )
    folder = folder or root / "features" / features_name(Path(origin.path))
    cache, meter = cache or LocalCache(), meter or Meter()
    jobs = part_of(jobs_of(videos, root), shard)
    settings = _settings(extractor, origin, files.dtype)
    tally, likeness = Tally(len(jobs)), Likeness()
    with opened_folder(folder, shard), closing(_manifest_writer(folder, shard)) as manifest:
        rows = _rows_with(settings, folder)
        todo: list[FeatureJob] = []
        for planned in _plan(jobs, files, rows, folder, tally, checksum=checksum):
            todo.append(planned) if isinstance(planned, FeatureJob) else on_event(planned)
        # Taken before anything is read, so that a video which changes meanwhile is extracted again.
        identities = {job.source.video_id: source_file(job.source) for job in todo}
        try:
            if ray_address is None:
                extracted = _extracted_here(todo, extractor, cache, workers=workers, meter=meter)
            else:
                extracted = _extracted_on_ray(todo, extractor, origin, cache, address=ray_address, meter=meter)
            for job, found in extracted:
                features = _storable(found, files.dtype, job.source)
                if not isinstance(features, BadVideo):
                    likeness.add(features.array)
                    read = identities[job.source.video_id]
                    read = _with_hash(read, job.source) if checksum else read
                    manifest.add(_write(folder, job.source, features, read, files, settings, extractor, origin))
                on_event(_count(job, features, tally))
        finally:
            update_failures(root, command="extract-features", fine=tally.fine, failed=tally.failed)
    if likeness.num_videos > 1 and likeness.mean_similarity > _ALIKE:
        logger.warning(
            "the features of %d videos are nearly alike (mean cosine similarity %.5f): the encoder of %s has hardly "
            "learnt anything, or has collapsed; look at its loss with `hico report`, and train it for longer",
            likeness.num_videos,
            likeness.mean_similarity,
            origin.path,
        )
    return tally.summary()


class Likeness:
    """How alike rows are, without keeping them."""

    def __init__(self) -> None:
        self.num_videos = 0
        self._num_rows = 0
        self._sum = np.zeros(1)

    def add(self, rows: np.ndarray) -> None:
        """Take a video's rows (T, ...)."""
        flat = rows.reshape(len(rows), -1).astype(np.float64)
        self._sum = self._sum + (flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-12)).sum(axis=0)
        self._num_rows += len(rows)
        self.num_videos += 1

    @property
    def mean_similarity(self) -> float:
        """Mean cosine similarity of two different rows.

        The square of the sum of n unit vectors is n, for each with itself, and the similarities of all n (n - 1) pairs.
        """
        n = self._num_rows
        return float((self._sum @ self._sum - n) / max(n * (n - 1), 1))


def _settings(extractor: FeatureExtractor, origin: EncoderOrigin, dtype: DType) -> Settings:
    """What all features of a folder have in common."""
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
        checkpoint_sha256=origin.sha256,
        picture=extractor.picture._asdict(),
        precision=extractor.precision.name,
    )


@contextmanager
def opened_folder(folder: Location, shard: Shard | None) -> Iterator[None]:
    """Let only one command at a time write a video's file. Nothing can be locked in a bucket.

    Raises:
        HicoError: another one writes here.

    """
    if not isinstance(folder, Path):
        yield
        return
    busy = f"{folder}: another hico command is writing features here; wait for it to end, or give another --name"
    with sole_writer(folder, shard=shard, busy=busy):
        if shard is None:
            remove_abandoned(folder)
        yield


class _LocalManifest:
    """Adds lines to manifest.jsonl, as several processes may do at once."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / MANIFEST

    def add(self, row: ManifestRow) -> None:
        """Append a line; after one that a killed writer cut short, on a line of its own."""
        refusal = f"{self._path}: another process keeps it locked"
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
        """All lines are written already."""


class _BucketManifest:
    """Keeps this shard's lines and writes them now and then: an object can only be written as a whole.

    A command that writes all videos takes in the lines of shards before it, so that none of theirs counts later.
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
        """Take a line."""
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
    return _LocalManifest(folder) if isinstance(folder, Path) else _BucketManifest(folder, shard)


def _rows_with(settings: Settings, folder: Location) -> dict[str, ManifestRow]:
    """The manifest of a folder, all of whose features must have these settings.

    Raises:
        HicoError: one has others.

    """
    rows = read_manifest(folder)
    for row in rows.values():
        for key, value in settings.model_dump().items():
            if getattr(row, key) != value:
                raise HicoError(
                    f"{folder}: has features with {key}={getattr(row, key)}, not {value}; give another --name, or "
                    "remove it"
                )
    return rows


def _plan(
    jobs: Sequence[FeatureJob],
    files: Files,
    rows: dict[str, ManifestRow],
    folder: Location,
    tally: Tally,
    *,
    checksum: bool,
) -> Iterator[VideoEvent | FeatureJob]:
    """Go through all videos before any work is done: those that are dealt with already, and those that are to do.

    Raises:
        HicoError: one may not have its file; see `is_finished`.

    """
    for job in jobs:
        source = job.source
        row = rows.get(files.name(source.video_id))
        if source.obstacle:
            failure = Failure(stage="name", error=source.obstacle)
            yield tally.add(source.video_id, str(source.path), "failed", failure=failure)
        elif row is not None and is_finished(row, source, folder, checksum=checksum):
            yield tally.add(source.video_id, str(source.path), "unchanged", num_parts=row.rows)
        else:
            yield job


def is_finished(row: ManifestRow, source: Source, folder: Location, *, checksum: bool) -> bool:
    """Whether a file has the features of this very source.

    Raises:
        HicoError: it has those of another video, which is still there; names both.

    """
    if row.source != str(source.path):
        other = other_file(row.source_file, source._replace(clips=()))
        if other is not None:
            raise HicoError(
                f"{source.path} and {other}, whose features are in {folder / row.file}, have one id, "
                f"{source.video_id!r}; rename one of them, or give another --name"
            )
    return is_same_file(row.source_file, source, checksum=checksum) and _is_whole(row, folder)


def _is_whole(row: ManifestRow, folder: Location) -> bool:
    """Whether a video's file is there as its row says; of one in a bucket, by its size."""
    path = folder / row.file
    try:
        if path.stat().st_size != row.size_bytes:
            return False
        return not isinstance(path, Path) or len(read_array(path)) == row.rows
    except (OSError, HicoError):
        return False


class _RemoteSettings(NamedTuple):
    """What a process on another node needs to make the same extractor."""

    checkpoint: EncoderOrigin
    settings: tuple[tuple[str, Any], ...]


def _extracted_here(
    jobs: Sequence[FeatureJob], extractor: FeatureExtractor, cache: LocalCache, *, workers: int | None, meter: Meter
) -> Iterator[tuple[FeatureJob, Features | BadVideo]]:
    """Extract each video, in order."""
    found = extractor.extract_all([job.video for job in jobs], cache=cache, workers=workers, meter=meter)
    return zip(jobs, found, strict=True)


def _extracted_on_ray(
    jobs: Sequence[FeatureJob],
    extractor: FeatureExtractor,
    origin: EncoderOrigin,
    cache: LocalCache,
    *,
    address: str,
    meter: Meter,
) -> Iterator[tuple[FeatureJob, Features | BadVideo]]:
    """Extract each video in some process of a Ray cluster, in whatever order they finish."""
    grid = extractor.grid._asdict()
    others = {"pool": extractor.pool, "layer": extractor.layer, "batch_size": extractor.batch_size}
    device = {"device": extractor.device.type}
    spec = _RemoteSettings(origin, tuple({**grid, **others, **device}.items()))
    for job, features in run_on_ray(
        partial(_extract_here, spec=spec, cache=cache),
        [job._replace(video=_seen_from_anywhere(job.video)) for job in jobs],
        address=address,
        num_gpus=1 if extractor.device.type == "cuda" else 0,
        on_lost=lambda job, reason: (job, BadVideo(str(job.source.path), reason, stage="engine")),
    ):
        meter.num_rows += 0 if isinstance(features, BadVideo) else len(features.array)
        yield job, features


def _seen_from_anywhere(video: WholeVideo) -> WholeVideo:
    """The same video for processes whose working folder is another."""
    pieces = [piece._replace(path=absolute(piece.path)) for piece in video.pieces]
    return WholeVideo(absolute(video.path), pieces)


def _extract_here(
    job: FeatureJob, *, spec: _RemoteSettings, cache: LocalCache
) -> tuple[FeatureJob, Features | BadVideo]:
    (features,) = _extractor_of(spec).extract_all([job.video], cache=cache, workers=0)
    return job, features


@lru_cache(maxsize=1)
def _extractor_of(spec: _RemoteSettings) -> FeatureExtractor:
    """The same extractor as where the command runs.

    Raises:
        HicoError: the file is another one by now, or on this machine.

    """
    extractor = FeatureExtractor.from_checkpoint(spec.checkpoint.path, **dict(spec.settings))
    if extractor.origin != spec.checkpoint:
        raise HicoError(
            f"{spec.checkpoint.path}: is not the file that the command began with; where a training still writes it, "
            "name a copy with --checkpoint"
        )
    return extractor


def _count(job: FeatureJob, features: Features | BadVideo, tally: Tally) -> VideoEvent:
    video_id, source = job.source.video_id, str(job.source.path)
    if isinstance(features, BadVideo):
        failure = Failure(stage=features.stage, error=features.reason)
        return tally.add(video_id, source, "failed", failure=failure)
    return tally.add(video_id, source, "done", num_parts=len(features.array))


def _with_hash(read: SourceFile, source: Source) -> SourceFile:
    """The identity of what was read, with a hash where that is one file which has not changed since."""
    if source.clips or not isinstance(source.path, Path) or not is_same_file(read, source):
        return read
    return read.model_copy(update={"sha256": sha256_of(source.path)})


def _storable(features: Features | BadVideo, dtype: DType, source: Source) -> Features | BadVideo:
    """Features in the precision of their file; what no reader would take there is the failure of the video."""
    if isinstance(features, BadVideo):
        return features
    with np.errstate(over="ignore"):  # said below
        array = np.ascontiguousarray(features.array.astype(dtype))
    if np.isfinite(array).all():
        return replace(features, array=array)
    largest = float(np.abs(features.array).max())
    reason = f"has features that {dtype} cannot hold (the largest is {largest:.4g})"
    return BadVideo(str(source.path), reason, stage="encode")


def _write(
    folder: Location,
    source: Source,
    features: Features,
    read: SourceFile,
    files: Files,
    settings: Settings,
    extractor: FeatureExtractor,
    origin: EncoderOrigin,
) -> ManifestRow:
    """Write a video's file, whole or not at all; what the manifest is to say of it."""
    video_id = source.video_id
    name = files.name(video_id)
    array = features.array
    with written_beside(folder / name) as beside:
        write_array(beside, array, features.times, video_id=video_id, file_format=files.file_format)
        size_bytes, sha256 = beside.stat().st_size, sha256_of(beside)
    start, end = features.times.T
    return ManifestRow(
        **settings.model_dump(),
        video_id=video_id,
        file=name,
        prefix=files.prefix,
        suffix=files.suffix,
        file_format=files.file_format,
        rows=len(array),
        dim=int(array[0].size),
        shape=list(array.shape[1:]),
        size_bytes=size_bytes,
        sha256=sha256,
        fps=extractor.grid.rate(features.meta.source_fps),
        checkpoint=origin.path,
        **features.meta._asdict(),
        source_size_bytes=read.size_bytes,
        source_mtime_ns=read.mtime_ns,
        source_sha256=read.sha256,
        read_from="clips" if source.clips else "sources",
        start_seconds=start.tolist(),
        end_seconds=end.tolist(),
        centre_seconds=((start + end) / 2).tolist(),
    )
