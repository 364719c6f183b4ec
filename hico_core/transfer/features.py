"""Dense features of whole videos: one vector per window, in the files that detection toolkits read.

Windows lie on a grid of real time (see `hico_core.data.windows.Grid`); the centre of a window is where ActionFormer and
OpenTAD put its feature.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from hico_core.config import AugmentConfig, DataConfig
from hico_core.corpus.addresses import Location, locate
from hico_core.corpus.cache import LocalCache
from hico_core.corpus.events import Summary, Tally, VideoEvent
from hico_core.corpus.failures import update_failures
from hico_core.corpus.files import cut_json_lines, json_line, lock, read_json_lines, remove_abandoned, written_beside
from hico_core.corpus.ids import Source
from hico_core.corpus.intake import is_same_file, other_file
from hico_core.corpus.records import Failure, SourceFile, sha256_of, source_file
from hico_core.data.lanes import Facts, WholeVideo
from hico_core.data.loader import num_workers
from hico_core.data.pictures import Picture, picture_for
from hico_core.data.videos import IndexedVideos
from hico_core.data.windows import Grid, window_times
from hico_core.errors import BadVideo, HicoError, UsageError
from hico_core.interop.checkpoints import load_encoder
from hico_core.training.encoder import encode_videos
from hico_core.training.hardware import DeviceName, choose_device, choose_precision

# S3D-G halves time three times.
_SHORTEST_WINDOW = 8


class FeatureSource(NamedTuple):
    """Where features come from: part of a row of the manifest."""

    source: str
    source_fps: float  # average
    duration_seconds: float
    num_frames: int  # of the source


class Features(NamedTuple):
    """The features of one video."""

    array: np.ndarray  # (T, 1024) float32
    times: np.ndarray  # (T, 2) float64: start and end of each window, in seconds
    meta: FeatureSource


class FeatureExtractor:
    """An encoder, the grid on which it looks at videos, and what it sees of their frames."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        window: int = 16,
        stride: int = 16,
        fps: float = 15.0,
        picture: Picture | None = None,
        device: torch.device,
    ) -> None:
        """Take an encoder: (N, 3, window, S, S) -> maps (N, 1024, ...).

        Raises:
            UsageError: a number is out of range.

        """
        if window < _SHORTEST_WINDOW or stride < 1 or fps <= 0:
            raise UsageError(
                f"--window {window} --stride {stride} --fps {fps}: the window must have {_SHORTEST_WINDOW} frames "
                "or more, stride and fps must be positive"
            )
        self.grid = Grid(fps, window, stride)
        self.picture = picture or picture_for(DataConfig(), AugmentConfig())
        self.precision = choose_precision("auto", device)
        self._backbone = backbone.to(device).eval()

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str,
        *,
        window: int = 16,
        stride: int = 16,
        fps: float = 15.0,
        device: DeviceName = "auto",
    ) -> "FeatureExtractor":
        """Load the encoder of our checkpoint or export, or of the authors' .pyth; it sees what it was trained on.

        Args:
            path: the checkpoint.
            window: frames in a window, at least 8.
            stride: frames from one window's start to the next one's.
            fps: rate of the grid, in frames a second.
            device: where to compute.

        Raises:
            HicoError: the file holds no S3D-G encoder, or a number is out of range.

        """
        backbone, picture = load_encoder(path)
        return cls(backbone, window=window, stride=stride, fps=fps, picture=picture, device=choose_device(device))

    def extract(self, path: Path | str, *, source: str | None = None) -> Features:
        """The features of one video file; memory does not grow with its length.

        Args:
            path: a local file.
            source: what the features are said to come from, if not from there.

        Raises:
            BadVideo: the file cannot be decoded to its end.

        """
        nothing = LocalCache(Path(), size_bytes=1)  # of no use to local files
        (found,) = self.extract_all([WholeVideo(Path(path), [])], cache=nothing, workers=0)
        if isinstance(found, BadVideo):
            raise found
        return found._replace(meta=found.meta._replace(source=source or str(path)))

    def extract_all(
        self, videos: Sequence[WholeVideo], *, cache: LocalCache, workers: int | None = None
    ) -> Iterator[Features | BadVideo]:
        """The features of many videos, in order, or why one has none.

        Args:
            videos: from their clips or their own files.
            cache: for files in buckets.
            workers: processes that read; None: one a core.

        """
        encoded = encode_videos(
            self._backbone,
            videos,
            self.grid,
            self.picture,
            precision=self.precision,
            cache=cache,
            workers=num_workers(workers),
        )
        for video, found in zip(videos, encoded, strict=True):
            if found.rows is None or found.facts is None:
                yield BadVideo(str(video.path), found.reason, stage="decode")
                continue
            array = found.rows.numpy()
            meta = _feature_source(str(video.path), found.facts)
            yield Features(array, window_times(len(array), self.grid), meta)


def _feature_source(source: str, facts: Facts) -> FeatureSource:
    return FeatureSource(source, facts.fps, facts.duration_seconds, facts.num_frames)


class FeatureJob(NamedTuple):
    """A video to extract."""

    source: Source  # its clips, if it was split, are what is read
    video: WholeVideo


def jobs_of_files(sources: Sequence[Source]) -> list[FeatureJob]:
    """Jobs for videos that are read from their own files."""
    return [FeatureJob(source, WholeVideo(source.path, [])) for source in sources]


def jobs_of_index(videos: IndexedVideos) -> list[FeatureJob]:
    """A job for each video of an index, to be read from its clips, or from its own file if it was not split."""
    return [_indexed_job(videos, number) for number in range(len(videos))]


def _indexed_job(videos: IndexedVideos, number: int) -> FeatureJob:
    path, pieces = locate(videos.source(number)), videos.pieces(number)
    in_place = all(str(piece.path) == str(path) for piece in pieces)
    clips = () if in_place else tuple(piece.path for piece in pieces)
    return FeatureJob(Source(videos.video_id(number), path, clips=clips), WholeVideo(path, pieces))


class _Row(NamedTuple):
    """What the manifest says of a file."""

    fields: dict[str, Any]
    source: SourceFile  # what was read for it


def _read_manifest(path: Path) -> dict[str, _Row]:
    """File name -> row; the later of two counts. Lines that are not whole are left out."""
    rows: dict[str, _Row] = {}
    for fields in read_json_lines(path).rows:
        try:
            source = SourceFile(
                path=fields["source"],
                size_bytes=fields["source_size_bytes"],
                mtime_ns=fields["source_mtime_ns"],
                sha256=fields["source_sha256"],
            )
            rows[str(fields["file"])] = _Row(fields, source)
        except (KeyError, ValueError):
            continue  # of an older hico: it does not say what was read, so it is read again
    return rows


def _is_whole(row: _Row, folder: Path) -> bool:
    """Whether a video's file is there as its row says."""
    try:
        array = np.load(folder / row.fields["file"], mmap_mode="r")
    except (OSError, ValueError):
        return False
    return bool(array.shape == (row.fields["rows"], row.fields["dim"]) and array.dtype == np.float32)


def is_finished(row: _Row, source: Source, folder: Path, *, checksum: bool) -> bool:
    """Whether a file has the features of this very source.

    Raises:
        HicoError: it has those of another video, which is still there; names both.

    """
    if row.source.path != str(source.path):
        other = other_file(row.source, source._replace(clips=()))
        if other is not None:
            raise HicoError(
                f"{source.path} and {other}, whose features are in {folder / row.fields['file']}, have one id, "
                f"{source.video_id!r}; rename one of them, or give another --name"
            )
    return is_same_file(row.source, source, checksum=checksum) and _is_whole(row, folder)


def extract_features(
    jobs: Sequence[FeatureJob],
    *,
    extractor: FeatureExtractor,
    checkpoint: Path,
    root: Location,
    folder: Path,
    cache: LocalCache,
    prefix: str = "",
    suffix: str = "",
    checksum: bool = False,
    workers: int | None = None,
    on_event: Callable[[VideoEvent], None],
) -> Summary:
    """Write `[prefix]<id>[suffix].npy` for each video and a line for it in manifest.jsonl.

    Videos that have their file already are left out, so a run that was ended goes on. One that cannot be decoded
    becomes a line of `<root>/failures.jsonl`.

    Args:
        jobs: the videos.
        extractor: encoder, grid and picture.
        checkpoint: the file from which the encoder was loaded; the manifest has its hash.
        root: the workspace.
        folder: where the files go; made if missing.
        cache: for videos in buckets.
        prefix: put before each id.
        suffix: put after each id.
        checksum: tell sources apart by their bytes, not by their time.
        workers: processes that read; None: one a core.
        on_event: told of each video.

    Raises:
        HicoError: the folder holds features of another checkpoint or grid, or of another video of the same id; or
            another command is writing there.

    """
    settings = _settings(extractor, checkpoint)
    names = {job.source.video_id: f"{prefix}{job.source.video_id}{suffix}.npy" for job in jobs}
    tally = Tally(len(jobs))
    busy = f"{folder}: another hico command is writing features here; wait for it to end, or give another --name"
    with lock(folder / ".lock", refusal=busy):
        remove_abandoned(folder)
        rows = _read_manifest(folder / "manifest.jsonl")
        _require_same_settings(rows, settings, folder)
        cut_json_lines(folder / "manifest.jsonl", lambda row: True)  # what follows is appended
        todo: list[FeatureJob] = []
        for planned in _plan(jobs, names, rows, folder, tally, checksum=checksum):
            todo.append(planned) if isinstance(planned, FeatureJob) else on_event(planned)
        try:
            extracted = extractor.extract_all([job.video for job in todo], cache=cache, workers=workers)
            for job, features in zip(todo, extracted, strict=True):
                if not isinstance(features, BadVideo):
                    read = _what_was_read(job.source, checksum=checksum)
                    _write(folder, names[job.source.video_id], job.source.video_id, features, read, settings)
                on_event(_count(job, features, tally))
        finally:
            update_failures(root, command="extract-features", fine=tally.fine, failed=tally.failed)
    return tally.summary()


def _settings(extractor: FeatureExtractor, checkpoint: Path) -> dict[str, Any]:
    """What all features of a folder have in common."""
    return {
        **extractor.grid._asdict(),
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256_of(checkpoint),
        "picture": extractor.picture._asdict(),
        "precision": extractor.precision.name,
    }


def _count(job: FeatureJob, features: Features | BadVideo, tally: Tally) -> VideoEvent:
    video_id, source = job.source.video_id, str(job.source.path)
    if isinstance(features, BadVideo):
        failure = Failure(stage=features.stage, error=features.reason)
        return tally.add(video_id, source, "failed", failure=failure)
    return tally.add(video_id, source, "done", num_parts=len(features.array))


def _plan(
    jobs: Sequence[FeatureJob],
    names: dict[str, str],
    rows: dict[str, _Row],
    folder: Path,
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
        row = rows.get(names[source.video_id])
        if source.obstacle:
            failure = Failure(stage="name", error=source.obstacle)
            yield tally.add(source.video_id, str(source.path), "failed", failure=failure)
        elif row is not None and is_finished(row, source, folder, checksum=checksum):
            yield tally.add(source.video_id, str(source.path), "unchanged", num_parts=row.fields["rows"])
        else:
            yield job


def _require_same_settings(rows: dict[str, _Row], settings: dict[str, Any], folder: Path) -> None:
    for row in rows.values():
        for key, value in settings.items():
            if key != "checkpoint" and row.fields.get(key) != value:  # its hash tells, not its name
                raise HicoError(
                    f"{folder}: has features with {key}={row.fields.get(key)}, not {value}; give another --name, or "
                    "remove it"
                )


def _what_was_read(source: Source, *, checksum: bool) -> SourceFile:
    """The identity of a video's file or clips, with a hash if sources are told apart by it."""
    found = source_file(source)
    if checksum and not source.clips and isinstance(source.path, Path):
        return found.model_copy(update={"sha256": sha256_of(source.path)})
    return found


def _write(
    folder: Path, name: str, video_id: str, features: Features, read: SourceFile, settings: dict[str, Any]
) -> None:
    """Write a video's file, whole or not at all, and then its line."""
    with written_beside(folder / name) as beside, beside.open("wb") as opened:
        np.save(opened, features.array)
    with (folder / "manifest.jsonl").open("ab") as manifest:
        manifest.write(json_line(_manifest_row(video_id, name, features, read, settings)))


def _manifest_row(
    video_id: str, name: str, features: Features, read: SourceFile, settings: dict[str, Any]
) -> dict[str, Any]:
    """A line of manifest.jsonl. All times are in seconds from the video's first frame."""
    start, end = features.times.T
    return {
        "video_id": video_id,
        "file": name,
        "rows": features.array.shape[0],
        "dim": features.array.shape[1],
        **settings,
        **features.meta._asdict(),
        "source_size_bytes": read.size_bytes,
        "source_mtime_ns": read.mtime_ns,
        "source_sha256": read.sha256,
        "start_seconds": start.tolist(),
        "end_seconds": end.tolist(),
        "centre_seconds": ((start + end) / 2).tolist(),
    }
