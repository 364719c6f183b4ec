"""Clips that another tool cut and named as the authors do -> records, so that they are indexed as they are."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import NamedTuple, get_args

from hico_core.base.addresses import Location, is_local, name_from
from hico_core.base.choices import Subset
from hico_core.base.engine import run_on_threads
from hico_core.base.errors import BadVideo, HicoError, UsageError
from hico_core.base.local_videos import local_video
from hico_core.base.tally import Summary, VideoEvent
from hico_core.corpus.clips.probe import VideoInfo, frame_rate, largest_keyframe_interval, probe, shown_size_of
from hico_core.corpus.intake import Candidate, Made, Rules, Workplace, take_in
from hico_core.corpus.sources.ids import ClipName, parse_clip_name
from hico_core.corpus.sources.lists import clips_source
from hico_core.corpus.workspace.access import scratch_folder
from hico_core.corpus.workspace.records import AdoptedOptions, ClipRecord, read_record, sha256_of


class Gap(NamedTuple):
    """A part of a video, in milliseconds, that no clip covers."""

    start_ms: int
    end_ms: int


def find_clips(root: Path) -> list[Candidate]:
    """The clips in the folders train, val and test that no record of a split lists, grouped by video.

    Files not named like a clip are ignored.

    Raises:
        UsageError: there are no such clips.

    """
    found: list[Candidate] = []
    for subset in get_args(Subset):
        names = [(parsed, path) for path in (root / subset).glob("v_*.mp4") if (parsed := parse_clip_name(path.name))]
        for video_id, group in groupby(sorted(names), key=lambda pair: pair[0].video_id):
            source = clips_source(video_id, [path for _, path in group])
            if source.obstacle or not _was_split_here(root, video_id):
                found.append(Candidate(source, AdoptedOptions(subset=subset)))
    if not found:
        raise UsageError(f"{root}: no clips without a record in train/, val/ or test/ (v_<id>_<start>_<end>.mp4)")
    return found


def _was_split_here(root: Path, video_id: str) -> bool:
    try:
        record = read_record(root, video_id)
    except HicoError:  # the intake reports it as a failure of this video alone
        return False
    return record is not None and not record.failure and record.options.kind == "split"


def find_gaps(names: Sequence[ClipName]) -> list[Gap]:
    """The gaps between consecutive clips, which are given in time order.

    Raises:
        ValueError: two clips overlap.

    """
    for a, b in pairwise(names):
        if b.start_ms < a.end_ms:
            raise ValueError(f"the clips at {a.start_ms} and {b.start_ms} ms overlap")
    borders = [0, *(name.end_ms for name in names)]
    return [Gap(end, name.start_ms) for end, name in zip(borders, names, strict=False) if end < name.start_ms]


def adopt_clips(
    root: Location,
    *,
    videos: Iterable[Candidate] | None = None,
    workers: int,
    on_event: Callable[[VideoEvent], None] = lambda event: None,
    rules: Rules = Rules(retry_failed=True),  # noqa: B008 - immutable
) -> Summary:
    """Write a record for each video whose clips another tool cut.

    Times come from the names, sizes and frames from the files. Videos with overlapping clips are rejected.

    Args:
        root: the workspace, local.
        videos: the clips, wherever they lie; None: those in the workspace.
        workers: videos processed in parallel.
        on_event: called for each video; the event's note names the gaps between the clips.
        rules: when a known video is inspected again.

    Raises:
        UsageError: the workspace lies in a bucket, or there are no such clips.
        HicoError: an id belongs to another video, or another command is writing here.

    """
    if not is_local(root):
        raise UsageError(f"{root}: clips cut by another tool can only be adopted in a local workspace")
    return take_in(
        find_clips(root) if videos is None else list(videos),
        Workplace(root, scratch_folder(root, root)),
        command="index",
        rules=rules,
        make=partial(_make, root=root),
        runner=partial(run_on_threads, workers=workers),
        on_event=on_event,
    )


def _make(candidate: Candidate, folder: Path, *, root: Path) -> Made:
    """Inspect the clips of one video.

    Raises:
        BadVideo: they cannot be used.

    """
    source = candidate.source
    names = [name for path in source.clips if (name := parse_clip_name(path.name))]
    try:
        gaps = find_gaps(names)
    except ValueError as overlap:
        raise BadVideo(str(source.path), str(overlap), stage="adopt") from overlap
    looked_at = [_look_at(path) for path in source.clips]
    infos = [info for info, _ in looked_at]
    clips = [
        _clip_record(path, name, info, row_path=name_from(root, path), sha256=sha256)
        for path, name, (info, sha256) in zip(source.clips, names, looked_at, strict=True)
    ]
    seconds = [
        clip.start_seconds + moment for clip, info in zip(clips, infos, strict=True) for moment in info.frame_seconds
    ]
    rate = frame_rate(sorted(seconds))
    missing = ", ".join(f"{gap.start_ms / 1000:g} to {gap.end_ms / 1000:g} s" for gap in gaps)
    note = f"has no clip of {missing}; adopted with the gaps" if gaps else ""
    return Made(clips=clips, fps=rate.fps, variable_fps=rate.variable, note=note)


def _look_at(path: Location) -> tuple[VideoInfo, str]:
    """Facts read from a clip's packets, and its checksum.

    Raises:
        BadVideo: the clip is missing, or is not a video.

    """
    try:
        with local_video(path) as local:
            width, height = shown_size_of(local)
            info, sha256 = replace(probe(local), width=width, height=height), sha256_of(local)
    except BadVideo as bad:
        raise BadVideo(str(path), f"its clip {path.name} {bad.reason}", stage=bad.stage) from bad
    return info, sha256


def _clip_record(path: Location, name: ClipName, info: VideoInfo, *, row_path: str, sha256: str) -> ClipRecord:
    """The record of a clip of which only the file is known."""
    seconds = info.frame_seconds
    start = name.start_ms / 1000
    return ClipRecord(
        path=row_path,
        start_ms=name.start_ms,
        end_ms=name.end_ms,
        start_seconds=start,
        end_seconds=start + seconds[-1] + frame_rate(seconds).period_seconds,
        num_frames=len(seconds),
        width=info.width,
        height=info.height,
        codec=info.codec,
        keyframe_interval=largest_keyframe_interval(info),
        size_bytes=path.stat().st_size,
        sha256=sha256,
    )
