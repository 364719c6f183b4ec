"""Untrimmed videos, left in place -> records, so that they are indexed and read without being split.

A row represents 5 s of a video, as a clip would, but points into the video's own file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import gettempdir

import av

from hico_core.base.addresses import Location
from hico_core.base.engine import run_on_threads
from hico_core.base.errors import BadVideo, HicoError, short_reason
from hico_core.base.local_videos import local_video
from hico_core.base.tally import Summary, VideoEvent
from hico_core.corpus.clips.encode import Job, can_mark_cuts, find_cuts
from hico_core.corpus.clips.ffmpeg import Ffmpeg, find_ffmpeg
from hico_core.corpus.clips.frame_pictures import read_picture, require_pictures_of_one_size, write_as_video
from hico_core.corpus.clips.picture import (
    margins_of,
    require_known_turn,
    require_one_size,
    rgb_of,
    shown_size,
    without_margins,
)
from hico_core.corpus.clips.plan import moments_within, plan_clips
from hico_core.corpus.clips.probe import (
    frame_rate,
    has_new_descriptions,
    is_seekable,
    largest_keyframe_interval,
    open_video,
    rate_of,
    read_packets,
    times_of_opened,
)
from hico_core.corpus.intake import Candidate, Made, Rules, Workplace, take_in
from hico_core.corpus.sources.frame_folders import PICTURE_CODECS, pictures_in
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.workspace.access import scratch_folder
from hico_core.corpus.workspace.records import ClipRecord, SplitOptions, UntrimmedOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """The picture size, frame times and file facts of a video as a player shows it."""

    width: int
    height: int
    frame_seconds: list[float]  # in seconds from the first frame
    codec: str
    keyframe_interval: int  # largest, in frames
    size_bytes: int


def add_untrimmed(
    sources: Sequence[Source],
    *,
    root: Location,
    options: UntrimmedOptions,
    workers: int,
    on_event: Callable[[VideoEvent], None] = lambda event: None,
    rules: Rules = Rules(retry_failed=True),  # noqa: B008 - immutable
) -> Summary:
    """Write a record for each video, which stays where it is; known videos are left alone.

    Args:
        sources: from `hico_core.corpus.sources.finding.find_sources` or
            `hico_core.corpus.sources.lists.labelled_videos`.
        root: the workspace; created if missing.
        options: format of the rows; each source has its own label.
        workers: videos processed in parallel.
        on_event: called for each video.
        rules: when a known video is inspected again; with `cuts`, each video is decoded to find its cuts.

    Raises:
        HicoError: an id belongs to another video, another command is writing here, or cuts are requested from an ffmpeg
            that cannot find them.

    """
    program = _finder_of_cuts() if rules.cuts else None
    return take_in(
        [
            Candidate(source, options.model_copy(update={"label": source.label, "class_name": source.class_name}))
            for source in sources
        ],
        Workplace(root, scratch_folder(root, Path(gettempdir()))),
        command="index",
        rules=rules,
        make=partial(_make, program=program),
        runner=partial(run_on_threads, workers=workers, stop=program.stop if program else lambda: None),
        on_event=on_event,
    )


def _finder_of_cuts() -> Ffmpeg:
    program = Ffmpeg(find_ffmpeg())
    if not can_mark_cuts(program):
        raise HicoError(
            "is too old to find cuts; leave --cuts out, or use ffmpeg 4.4 or later", subject=program.program
        )
    return program


def _make(candidate: Candidate, folder: Path, *, program: Ffmpeg | None) -> Made:
    """Inspect a video in place; if a program is given, also find its cuts.

    Raises:
        BadVideo: it cannot be used.

    """
    source, options = candidate
    assert isinstance(options, UntrimmedOptions)
    with local_video(source.path) as local:
        shown = _look_at(local) if source.frame_rate is None else _look_at_pictures(local, source.frame_rate)
        cuts = _cuts_of(local, source.frame_rate, program, folder) if program else None
    seconds = shown.frame_seconds
    rate = frame_rate(seconds)
    clips = [
        ClipRecord(
            path=str(source.path),
            first_frame=clip.first_frame,
            start_ms=clip.segment.start_ms,
            end_ms=clip.segment.end_ms,
            start_seconds=seconds[clip.first_frame],
            end_seconds=seconds[clip.first_frame + clip.num_frames - 1] + rate.period_seconds,
            num_frames=clip.num_frames,
            width=shown.width,
            height=shown.height,
            codec=shown.codec,
            keyframe_interval=shown.keyframe_interval,
            size_bytes=shown.size_bytes,
            sha256=None,
            cuts=None if cuts is None else moments_within(cuts, clip, segment_seconds=options.segment_seconds),
        )
        for clip in plan_clips(seconds, segment_seconds=options.segment_seconds)
    ]
    return Made(clips=clips, fps=source.frame_rate or rate.fps, variable_fps=rate.variable)


def _cuts_of(path: Path, frame_rate: float | None, program: Ffmpeg, folder: Path) -> list[float]:
    """The times at which new shots begin, in seconds from the first frame.

    Raises:
        BadVideo: ffmpeg cannot decode it.

    """
    if frame_rate is not None:
        path, pictures = folder / "pictures.nut", pictures_in(path)
        write_as_video(pictures, path, frame_rate=frame_rate)
    with open_video(path) as (_, stream):
        time_base = stream.time_base
    assert time_base is not None  # otherwise nothing could have been read from it
    job = Job(source=path.absolute(), options=SplitOptions(), program=program, folder=folder, deadline=None)
    return find_cuts(job, time_base)


def _look_at(path: Path) -> _Shown:
    """Picture size and frame times as decoding gives them.

    A file is decoded completely only if its packets may not be frames, or if its pictures may change their size.

    Raises:
        BadVideo: the video cannot be used.

    """
    with open_video(path) as (container, stream):
        info = read_packets(container, stream, path=path)
        try:
            container.seek(0)
            first = next(container.decode(stream), None)
            if first is None:
                raise BadVideo(path, "has no frame that can be decoded")
            container.seek(0)
            seconds = times_of_opened(container, stream, path=path)
            container.seek(0)
            if is_seekable(container, stream) and has_new_descriptions(container, stream):
                container.seek(0)
                for _ in require_one_size(container.decode(stream), path=path):
                    pass
        except (av.FFmpegError, OSError) as error:
            raise BadVideo(path, f"cannot be decoded ({short_reason(error)})") from error
        require_known_turn(first, path=path)
        shown = without_margins(first, margins_of(container, stream))
        rgb_of(shown, None, path=path)
        width, height = shown_size(shown)
    return _Shown(
        width=width,
        height=height,
        frame_seconds=seconds,
        codec=info.codec,
        keyframe_interval=largest_keyframe_interval(info),
        size_bytes=path.stat().st_size,
    )


def _look_at_pictures(folder: Path, frame_rate: float) -> _Shown:
    """The same as `_look_at` for a frame folder.

    Raises:
        BadVideo: its pictures do not belong to one video.

    """
    pictures = pictures_in(folder)
    require_pictures_of_one_size(pictures)
    first = read_picture(pictures[0])
    require_known_turn(first, path=folder)
    rgb_of(first, None, path=folder)
    width, height = shown_size(first)
    return _Shown(
        width=width,
        height=height,
        frame_seconds=[float(number / rate_of(frame_rate)) for number in range(len(pictures))],
        codec=PICTURE_CODECS[pictures[0].suffix.lower()],
        keyframe_interval=1,
        size_bytes=sum(path.stat().st_size for path in pictures),
    )
