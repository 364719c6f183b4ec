"""What to extract: the videos of an index or of files, the encoder to use, and the name for the result."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from hico_core.base.addresses import Location, is_local, locate
from hico_core.base.cache import LocalCache
from hico_core.base.choices import ReadFrom
from hico_core.base.errors import BadVideo, HicoError, UsageError
from hico_core.checkpoints.frozen import FrozenEncoder
from hico_core.corpus.clips.probe import header_facts
from hico_core.corpus.index import read_index_table
from hico_core.corpus.sources.finding import Videos, sources_of
from hico_core.corpus.sources.frame_folders import files_at
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.workspace.access import Shard
from hico_core.corpus.workspace.records import sha256_of
from hico_core.data.videos import COLUMNS, IndexedVideos, Piece
from hico_core.encoding.lanes import WholeVideo
from hico_core.transfer.features import FeatureExtractor
from hico_core.transfer.localisation.annotations import VideoLength


class FeatureJob(NamedTuple):
    """A video to extract."""

    source: Source  # its clips, if it was split, are read instead
    video: WholeVideo
    duration_seconds: float | None = None  # if an index gives it
    labels: tuple[str, ...] = ()  # of the video's spans


def part_of(jobs: Sequence[FeatureJob], shard: Shard | None) -> list[FeatureJob]:
    """The jobs of a shard; every job is in exactly one shard."""
    return [job for job in jobs if shard is None or shard.has(job.source.video_id)]


def jobs_of_files(sources: Sequence[Source]) -> list[FeatureJob]:
    """Jobs for videos that are read from their own files."""
    return [_job_of_file(source) for source in sources]


def _job_of_file(source: Source) -> FeatureJob:
    if source.frame_rate is None or source.obstacle:
        return FeatureJob(source, WholeVideo(source.path, []))
    # Everything is known about a frame folder: its file names give the number of frames.
    num_frames = len(files_at(source.path))
    piece = Piece(path=source.path, start_seconds=0.0, num_frames=num_frames, fps=source.frame_rate, variable_fps=False)
    return FeatureJob(source, WholeVideo(source.path, [piece]), num_frames / source.frame_rate)


def known_length(job: FeatureJob) -> VideoLength | None:
    """A video's length from its index or its file's header; None if it lies in a bucket or cannot be opened."""
    if job.duration_seconds is not None and job.video.pieces:
        return VideoLength(job.duration_seconds, job.video.pieces[0].fps)
    if not is_local(job.source.path):
        return None
    try:
        return VideoLength(*header_facts(job.source.path))
    except BadVideo:
        return None


def jobs_of_index(videos: IndexedVideos, *, read: ReadFrom = "clips") -> list[FeatureJob]:
    """One job per video of an index, read from its clips, or from its own file if requested or if it was not split."""
    return [_indexed_job(videos, number, read) for number in range(len(videos))]


def _indexed_job(videos: IndexedVideos, number: int, read: ReadFrom) -> FeatureJob:
    path, pieces = locate(videos.source(number)), videos.pieces(number)
    in_place = videos.is_in_place(number)
    clips = () if in_place or read == "sources" else tuple(piece.path for piece in pieces)
    source = Source(video_id=videos.video_id(number), path=path, clips=clips)
    if not clips and is_local(path) and path.is_dir():
        known = "is a folder of pictures of unknown frame rate; name it as INPUTS, with --frame-rate N"
        source = replace(source, frame_rate=pieces[0].fps if in_place else None, obstacle=None if in_place else known)
    video = WholeVideo(path, pieces if clips or in_place else [])
    return FeatureJob(source, video, videos.duration_seconds(number))


def newest_encoder(root: Path, warn: Callable[[str], None] = lambda text: None) -> Path:
    """The most recently written export among the runs of a workspace.

    Args:
        root: the workspace.
        warn: called with the choice if there are several.

    Raises:
        HicoError: there is no export.

    """
    exports = list((root / "runs").glob("*/export/encoder.safetensors"))
    if not exports:
        raise HicoError(f"{root / 'runs'}: no run has exported an encoder; run `hico pretrain`, or use --encoder")
    newest = max(exports, key=lambda path: path.stat().st_mtime)
    if len(exports) > 1:
        warn(f"using the encoder of {newest.parents[1]}, the newest of {len(exports)} runs; choose with --encoder")
    return newest


def encoder_named(name: str | None, root: Path, warn: Callable[[str], None] = lambda text: None) -> str:
    """Turn the name that a user gave into one that `load_frozen` accepts.

    Args:
        name: such a name, or the name of one of the workspace's runs; None: `newest_encoder`.
        root: the workspace.
        warn: see `newest_encoder`.

    """
    if name is None:
        return str(newest_encoder(root, warn))
    return str(root / "runs" / name) if "/" not in name and (root / "runs" / name).is_dir() else name


def encoder_of_runs(root: Path, sha256: str) -> Path | None:
    """The file with this SHA-256 among the exports and checkpoints of a workspace's runs; None if there is none."""
    kept = ("export/encoder.safetensors", "checkpoints/*.pt")
    files = (path for pattern in kept for path in sorted(root.glob(f"runs/*/{pattern}")))
    return next((path for path in files if sha256_of(path) == sha256), None)


def frozen_of(extractor: FeatureExtractor) -> FrozenEncoder:
    """The encoder of an extractor, as manifests name it.

    Raises:
        UsageError: the encoder has no name.

    """
    if extractor.frozen is None:
        raise UsageError("the manifest names the encoder: make the extractor with FeatureExtractor.from_checkpoint")
    return extractor.frozen


def features_folder(root: Location, extractor: FeatureExtractor, name: str | None = None) -> Location:
    """The folder for the features of a workspace's videos: features/NAME, by default named after the encoder's run."""
    return root / "features" / (name or frozen_of(extractor).folder_name)


def jobs_of(
    videos: Videos | Sequence[FeatureJob] | None,
    root: Location,
    *,
    read: ReadFrom = "clips",
    cache: LocalCache | None = None,
) -> list[FeatureJob]:
    """Jobs for the videos that a caller names.

    Args:
        videos: None: those of the index.
        root: the workspace.
        read: whether clips or sources are read, for videos of the index.
        cache: cache for files in buckets; None: the jobs' own, else the usual one.

    """
    if videos is None:
        table = read_index_table(root, columns=COLUMNS)
        jobs = jobs_of_index(IndexedVideos(table, root=root, cache=cache), read=read)
    elif isinstance(videos, Source | str | Path):
        jobs = jobs_of_files(sources_of(videos))
    else:
        jobs = [video for video in videos if isinstance(video, FeatureJob)]
        jobs += jobs_of_files(sources_of([video for video in videos if not isinstance(video, FeatureJob)]))
    return jobs if cache is None else [job._replace(video=job.video.read_through(cache)) for job in jobs]
