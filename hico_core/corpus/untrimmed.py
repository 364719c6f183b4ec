"""Untrimmed videos in place -> records, so that they are indexed and read without being split.

A row stands for 5 s of a video, as a clip would, but points into the video's own file.
"""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av

from hico_core import __version__
from hico_core.corpus.engine import run_on_threads
from hico_core.corpus.ids import Source
from hico_core.corpus.plan import plan_clips
from hico_core.corpus.probe import (
    VideoInfo,
    frame_rate,
    is_seekable,
    largest_keyframe_interval,
    open_video,
    read_packets,
    short_reason,
)
from hico_core.corpus.records import (
    ClipRecord,
    FailedSource,
    Failure,
    UntrimmedOptions,
    VideoRecord,
    read_record,
    source_file,
    update_failures,
    write_record,
)
from hico_core.corpus.storage import LocalCache, Location
from hico_core.errors import BadVideo, HicoError


class _Shown(NamedTuple):
    """What a player shows of a video."""

    width: int
    height: int
    frame_seconds: list[float]  # from the first frame's
    info: VideoInfo


def _look_at(path: Path) -> _Shown:
    """Size and frame times as decoding gives them. Only files whose packets may not be frames are decoded whole.

    Raises:
        BadVideo: the video cannot be used.

    """
    with open_video(path) as (container, stream):
        info = read_packets(container, stream, path=path)
        container.seek(0)
        try:
            frames = container.decode(stream)
            first = next(frames, None)
            if first is None:
                raise BadVideo(path, "has no frame that decodes")
            seconds = info.frame_seconds
            if not is_seekable(container, stream):
                shown = [first.time, *(frame.time for frame in frames)]
                if any(moment is None for moment in shown):
                    raise BadVideo(path, "has a frame without a time")
                seconds = [moment - shown[0] for moment in shown]
        except av.FFmpegError as error:
            raise BadVideo(path, f"cannot be decoded ({short_reason(error)})") from error
        sides = (first.width, first.height)
        width, height = sides if first.rotation % 180 == 0 else sides[::-1]
    return _Shown(width, height, seconds, info)


def _rows(shown: _Shown, *, path: str, size_bytes: int, segment_seconds: float) -> dict[str, Any]:
    """Fields of a video's record."""
    rate = frame_rate(shown.frame_seconds)
    seconds = shown.frame_seconds
    clips = []
    for clip in plan_clips(seconds, segment_seconds=segment_seconds):
        last = clip.first_frame + clip.num_frames - 1
        clips.append(
            ClipRecord(
                path=path,
                first_frame=clip.first_frame,
                start_ms=clip.segment.start_ms,
                end_ms=clip.segment.end_ms,
                start_seconds=seconds[clip.first_frame],
                end_seconds=seconds[last] + 1 / rate.fps,
                num_frames=clip.num_frames,
                width=shown.width,
                height=shown.height,
                codec=shown.info.codec,
                keyframe_interval=largest_keyframe_interval(shown.info),
                size_bytes=size_bytes,
                sha256=None,
            )
        )
    # Frames of a constant rate are counted from the start that the container names.
    countable = shown.info.start_tick == shown.info.timestamps[0]
    return {"fps": rate.fps, "variable_fps": rate.variable or not countable, "clips": clips}


class UntrimmedEvent(NamedTuple):
    """One video is dealt with."""

    record: VideoRecord
    num_done: int
    num_videos: int


def add_untrimmed(
    sources: Sequence[Source],
    *,
    root: Location,
    options: UntrimmedOptions,
    workers: int,
    cache: LocalCache,
    on_event: Callable[[UntrimmedEvent], None],
) -> int:
    """Write a record for each video that lies somewhere and stays there. Known ones are left alone.

    Args:
        sources: from `hico_core.corpus.ids.find_sources`.
        root: the workspace; made if missing.
        options: what a row is to be.
        workers: how many videos at a time.
        cache: for videos in buckets, which are fetched once to be looked at.
        on_event: told of each video.

    Returns:
        How many videos cannot be used; they are listed in `<root>/failures.jsonl`.

    Raises:
        HicoError: an id belongs to a video that was split here.

    """
    with tempfile.TemporaryDirectory(prefix="hico-") as folder:
        if isinstance(root, Path):
            (root / "records").mkdir(parents=True, exist_ok=True)
        work = partial(_add, root=root, options=options, cache=cache, scratch=Path(folder))
        failed = []
        for number, record in enumerate(run_on_threads(work, sources, workers=workers, stop=lambda: None), start=1):
            if record.failure:
                failed.append(FailedSource(record.source.path, record.failure, record.attempts))
            on_event(UntrimmedEvent(record, number, len(sources)))
    update_failures(root, command="index", fine=(str(source.path) for source in sources), failed=failed)
    return len(failed)


def _add(source: Source, *, root: Location, options: UntrimmedOptions, cache: LocalCache, scratch: Path) -> VideoRecord:
    """Look at one video and commit its record, good or bad."""
    options = options.model_copy(update={"label": source.label})
    before = read_record(root, source.video_id)
    file = source_file(source.path)
    if before is not None and before.options.kind != "untrimmed":
        raise HicoError(f"{source.path}: a video with id {source.video_id!r} was split here; use another --root")
    if before is not None and not before.failure and (before.source, before.options) == (file, options):
        return before
    record = VideoRecord(
        hico_version=__version__,
        video_id=source.video_id,
        source=file,
        options=options,
        attempts=before.attempts + 1 if before else 1,
    )
    try:
        with cache.local(source.path) as local:
            rows = _rows(
                _look_at(local),
                path=str(source.path),
                size_bytes=file.size_bytes,
                segment_seconds=options.segment_seconds,
            )
        record = record.model_copy(update=rows)
    except BadVideo as bad:
        record = record.model_copy(update={"failure": Failure(stage="probe", error=bad.reason)})
    own = Path(tempfile.mkdtemp(dir=scratch))
    write_record(root, record, scratch=own)
    return record
