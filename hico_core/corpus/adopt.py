"""Clips that another tool cut in the authors' naming -> records, so that they are indexed as they are."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple, get_args

from hico_core import __version__
from hico_core.corpus.engine import run_on_threads
from hico_core.corpus.ids import ClipName, parse_clip_name
from hico_core.corpus.probe import VideoInfo, frame_rate, largest_keyframe_interval, probe
from hico_core.corpus.records import (
    AdoptedOptions,
    ClipRecord,
    FailedSource,
    Failure,
    SourceFile,
    Subset,
    VideoRecord,
    read_record,
    sha256_of,
    update_failures,
    write_record,
)
from hico_core.corpus.storage import LocalCache, Location
from hico_core.errors import BadVideo, UsageError


class FoundVideo(NamedTuple):
    """The clips of one video in a folder, in time order."""

    video_id: str
    subset: Subset
    files: Sequence[Location]


class Gap(NamedTuple):
    """A part of a video, in milliseconds, of which there is no clip."""

    start_ms: int
    end_ms: int


def find_clips(root: Path) -> Iterator[FoundVideo]:
    """The clips in the folders train, val and test, by video. A name that is no clip's is passed over."""
    for subset in get_args(Subset):
        names = [(parsed, path) for path in (root / subset).glob("v_*.mp4") if (parsed := parse_clip_name(path.name))]
        for video_id, group in groupby(sorted(names), key=lambda pair: pair[0].video_id):
            yield FoundVideo(video_id, subset, [path for _, path in group])


def find_gaps(names: Sequence[ClipName]) -> list[Gap]:
    """Where clips in time order do not follow each other.

    Raises:
        ValueError: two of them overlap.

    """
    for a, b in pairwise(names):
        if b.start_ms < a.end_ms:
            raise ValueError(f"the clips at {a.start_ms} and {b.start_ms} ms overlap")
    borders = [0, *(name.end_ms for name in names)]
    return [Gap(end, name.start_ms) for end, name in zip(borders, names, strict=False) if end < name.start_ms]


class AdoptEvent(NamedTuple):
    """The clips of one video are dealt with."""

    record: VideoRecord
    gaps: list[Gap]
    folder: Location  # of the clips


def adopt_clips(
    root: Location,
    *,
    videos: Iterable[FoundVideo] | None = None,
    workers: int,
    cache: LocalCache,
    on_event: Callable[[AdoptEvent], None],
) -> int:
    """Write a record for each video whose clips another tool cut, and that has none.

    Times are taken from the names; sizes and frames from the files. Videos with overlapping clips are refused.

    Args:
        root: the workspace, local.
        videos: the clips, wherever they lie; None: those in the workspace.
        workers: how many videos at a time.
        cache: for clips in buckets, which are fetched once to be looked at.
        on_event: told of each video, and of the gaps between its clips.

    Returns:
        How many videos cannot be used; they are listed in `<root>/failures.jsonl`.

    Raises:
        UsageError: the workspace lies in a bucket, or there are no such clips.

    """
    if not isinstance(root, Path):
        raise UsageError(f"{root}: records of clips that another tool cut need a local workspace")
    if videos is None:
        videos = [video for video in find_clips(root) if not _is_ours(root, video)]
        if not videos:
            raise UsageError(f"{root}: no clips without a record in train/, val/ or test/ (v_<id>_<start>_<end>.mp4)")
    else:
        videos = [video for video in videos if not _is_ours(root, video)]
    (root / "records").mkdir(parents=True, exist_ok=True)
    failed: list[FailedSource] = []
    fine: list[str] = []
    with tempfile.TemporaryDirectory(prefix=".adopt-", dir=root) as folder:
        work = partial(_adopt, root=root, cache=cache, scratch=Path(folder))
        for event in run_on_threads(work, videos, workers=workers, stop=lambda: None):
            name = f"{event.folder}/v_{event.record.video_id}_*.mp4"
            if event.record.failure:
                failed.append(FailedSource(name, event.record.failure))
            else:
                fine.append(name)
            on_event(event)
    update_failures(root, command="index", fine=fine, failed=failed)
    return len(failed)


def _is_ours(root: Path, video: FoundVideo) -> bool:
    """Whether a video's clips are just those of a record that is not a failure."""
    record = read_record(root, video.video_id)
    if record is None or record.failure:
        return False
    if record.options.kind == "split":
        return True
    return [clip.path for clip in record.clips] == [_row_path(path, root) for path in video.files]


def _row_path(path: Location, root: Path) -> str:
    """How the index names a file: from the root, if it lies below it."""
    if isinstance(path, Path) and path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return str(path)


def _adopt(video: FoundVideo, *, root: Path, cache: LocalCache, scratch: Path) -> AdoptEvent:
    """Look at the clips of one video and commit its record, good or bad."""
    record = VideoRecord(
        hico_version=__version__,
        video_id=video.video_id,
        source=SourceFile(path="", size_bytes=0, mtime_ns=0),
        options=AdoptedOptions(subset=video.subset),
        attempts=1,
    )
    gaps: list[Gap] = []
    try:
        names = [parse_clip_name(path.name) for path in video.files]
        gaps = find_gaps([name for name in names if name])
        looked_at = [_look_at(path, cache) for path in video.files]
    except BadVideo as bad:
        record = record.model_copy(update={"failure": Failure(stage="probe", error=str(bad))})
    except ValueError as overlap:
        record = record.model_copy(update={"failure": Failure(stage="adopt", error=str(overlap))})
    else:
        infos = [info for info, _ in looked_at]
        clips = [
            _clip_record(path, info, row_path=_row_path(path, root), sha256=sha256)
            for path, (info, sha256) in zip(video.files, looked_at, strict=True)
        ]
        seconds = [
            clip.start_seconds + moment
            for clip, info in zip(clips, infos, strict=True)
            for moment in info.frame_seconds
        ]
        # Frames of a constant rate are counted from the start that the container names.
        countable = all(info.start_tick == info.timestamps[0] for info in infos)
        variable = frame_rate(sorted(seconds)).variable or not countable
        record = record.model_copy(
            update={"fps": frame_rate(infos[0].frame_seconds).fps, "variable_fps": variable, "clips": clips}
        )
    own = Path(tempfile.mkdtemp(dir=scratch))
    write_record(root, record, scratch=own)
    return AdoptEvent(record, gaps, video.files[0].parent)


def _look_at(path: Location, cache: LocalCache) -> tuple[VideoInfo, str]:
    """What a clip's packets say, and its checksum.

    Raises:
        BadVideo: it is missing, or no video.

    """
    try:
        with cache.local(path) as local:
            return probe(local), sha256_of(local)
    except FileNotFoundError:
        raise BadVideo(str(path), "no such file") from None


def _clip_record(path: Location, info: VideoInfo, *, row_path: str, sha256: str) -> ClipRecord:
    """What the index says of a clip of which only the file is known."""
    name = parse_clip_name(path.name)
    assert name is not None
    seconds = info.frame_seconds
    start = name.start_ms / 1000
    return ClipRecord(
        path=row_path,
        start_ms=name.start_ms,
        end_ms=name.end_ms,
        start_seconds=start,
        end_seconds=start + seconds[-1] + 1 / frame_rate(seconds).fps,
        num_frames=len(seconds),
        width=info.width,
        height=info.height,
        codec=info.codec,
        keyframe_interval=largest_keyframe_interval(info),
        size_bytes=path.stat().st_size,
        sha256=sha256,
    )
