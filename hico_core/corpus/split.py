"""Untrimmed videos -> exact 5 s clips.

Each frame of a video goes to the clip in whose interval its time, counted from the video's first frame, falls:
no frame lost, none doubled, none invented, at any frame rate, constant or not. One ffmpeg process decodes a
video once and writes all its clips:

    probe        read the packets' times, decode nothing
    plan         which frames each clip has
    ffmpeg       decode, scale, encode; a keyframe and a new file at each planned frame
    check        what ffmpeg decoded against the plan, what it wrote against both
    commit       clips to their final names, then the record
"""

import logging
import os
import shutil
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from math import floor
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ffmpeg

from hico_core import __version__
from hico_core.corpus.engine import run_on_threads
from hico_core.corpus.ffmpeg import INPUT_PROTOCOLS, Ffmpeg, find_ffmpeg, passthrough_arguments
from hico_core.corpus.ids import Source, clip_name
from hico_core.corpus.probe import frame_rate, largest_keyframe_interval, probe, video_duration
from hico_core.corpus.records import (
    ClipRecord,
    Failure,
    SourceFile,
    SplitOptions,
    VideoRecord,
    read_record,
    remove_record,
    sha256_of,
    source_file,
    update_failures,
    write_record,
)
from hico_core.errors import BadVideo, HicoError

logger = logging.getLogger(__name__)

# A time on a border belongs to the later clip even where seconds in floating point fall short of it. Real frames
# lie further apart than this fraction of a clip (5 ns of 5 s) at any time base in use.
_BORDER_TOLERANCE = 1e-9

# How far a clip's frame may lie from its place in the source: rounding of the container's time bases.
_CLOCK_TOLERANCE_SECONDS = 0.002

_STDERR_TAIL = 20


class Segment(NamedTuple):
    """The interval [start, end) of a clip as planned, in milliseconds from the video's first frame."""

    start_ms: int
    end_ms: int


class PlannedClip(NamedTuple):
    """A segment and the frames of the source, in presentation order, that fall into it."""

    segment: Segment
    first_frame: int
    num_frames: int


def plan_segments(*, duration_seconds: float, segment_seconds: float = 5.0) -> list[Segment]:
    """Cut [0, duration) into consecutive segments; only the last may be shorter.

    duration 12, segment 5  ->  |0    5|5    10|10 12|

    Raises:
        ValueError: a length is not positive.

    """
    if duration_seconds <= 0 or segment_seconds <= 0:
        raise ValueError(f"lengths must be positive: {duration_seconds = }, {segment_seconds = }")
    end_ms = max(round(duration_seconds * 1000), 1)
    step_ms = round(segment_seconds * 1000)
    return [Segment(start, min(start + step_ms, end_ms)) for start in range(0, end_ms, step_ms)]


def _segment_number(seconds: float, segment_seconds: float) -> int:
    return floor(seconds / segment_seconds + _BORDER_TOLERANCE)


def plan_clips(frame_seconds: Sequence[float], *, segment_seconds: float = 5.0) -> list[PlannedClip]:
    """Which frames each clip gets. A segment in which no frame falls (a hole in the source) has no clip.

    Args:
        frame_seconds: time of each frame from the first one's, ascending.
        segment_seconds: length of a segment.

    """
    segments = plan_segments(duration_seconds=video_duration(frame_seconds), segment_seconds=segment_seconds)
    numbers = [_segment_number(seconds, segment_seconds) for seconds in frame_seconds]
    # The last frame may begin within the last millisecond's rounding and so after the last planned segment.
    step_ms = round(segment_seconds * 1000)
    while len(segments) <= numbers[-1]:
        start_ms = len(segments) * step_ms
        segments.append(Segment(start_ms, start_ms + 1))
    clips: list[PlannedClip] = []
    for frame, number in enumerate(numbers):
        if frame == 0 or number != numbers[frame - 1]:
            clips.append(PlannedClip(segments[number], frame, 1))
        else:
            clips[-1] = clips[-1]._replace(num_frames=clips[-1].num_frames + 1)
    return clips


def ffmpeg_arguments(
    source: Path,
    clip_frames: Sequence[int],
    *,
    time_base: Fraction,
    options: SplitOptions,
    passthrough: dict[str, str],
) -> list[str]:
    """Decode once, write `00000.mp4`, `00001.mp4`, ... and `frames.txt` (a `pts:` a frame) in the working folder.

    Files are cut by counting frames, not by comparing times, which differ by the encoder's delay. A keyframe is
    forced wherever the segment number of a frame differs from that of the last forced one, which holds across
    holes of any length. Frames keep their times to the tick (`enc_time_base`).

    Args:
        source: the video, absolute.
        clip_frames: how many frames each clip has.
        time_base: seconds per tick of the source's timestamps.
        options: size, quality, length.
        passthrough: the option that keeps frames at their own times, by the ffmpeg's version.

    """
    number = f"floor({{}}/{options.segment_seconds}+{_BORDER_TOLERANCE})"
    new_segment = f"gt({number.format('t')},{number.format('prev_forced_t')})"
    side = options.short_side
    filters = [
        "setpts=PTS-STARTPTS",
        "metadata=add:key=hico:value=1,metadata=print:file=frames.txt",
        f"scale='if(gt(iw,ih),-2,{side})':'if(gt(iw,ih),{side},-2)':flags=bicubic",
        "format=yuv420p",
    ]
    video = ffmpeg.input(str(source), protocol_whitelist=INPUT_PROTOCOLS, threads=1)["V:0"]
    output = ffmpeg.output(
        video,
        "%05d.mp4",
        **{"vf": ",".join(filters), "an": None, "sn": None, "dn": None, "map_metadata": -1, "map_chapters": -1},
        **{"c:v": "libx264", "preset": options.preset, "crf": options.crf, "g": options.gop, "threads": 1},
        **{"x264-params": "scenecut=0", "enc_time_base": f"{time_base.numerator}/{time_base.denominator}"},
        **{"force_key_frames": f"expr:if(isnan(prev_forced_t),1,{new_segment})"},
        **passthrough,
        **{"f": "segment", "segment_format": "mp4", "reset_timestamps": 1},
        **{"segment_frames": ",".join(map(str, accumulate(clip_frames)))},
    )
    arguments: list[str] = output.global_args("-nostdin", "-v", "error", "-filter_threads", "1").get_args()
    return arguments


def read_frame_ticks(text: str) -> list[int]:
    """The timestamps in what ffmpeg's `metadata=print` filter wrote."""
    return [int(line.split("pts:")[1].split()[0]) for line in text.splitlines() if line.startswith("frame:")]


class SplitFailed(BadVideo):
    """A video that cannot be split, with what ffmpeg said."""

    def __init__(self, path: Path, stage: str, reason: str, stderr_lines: Sequence[str] = ()) -> None:
        super().__init__(path, reason)
        self.failure = Failure(stage=stage, error=reason, stderr_tail=list(stderr_lines[-_STDERR_TAIL:]))


def _encode(
    source: Path,
    plan: Sequence[PlannedClip],
    time_base: Fraction,
    options: SplitOptions,
    program: Ffmpeg,
    folder: Path,
) -> list[float]:
    """Run ffmpeg once. Returns the time of each decoded frame in seconds from the first one's."""
    arguments = ffmpeg_arguments(
        source,
        [clip.num_frames for clip in plan],
        time_base=time_base,
        options=options,
        passthrough=passthrough_arguments(program.version),
    )
    finished = program.run(arguments, cwd=folder)
    if finished.exit_code != 0:
        said = finished.stderr_lines[-1] if finished.stderr_lines else "nothing"
        raise SplitFailed(
            source, "split", f"ffmpeg ended with {finished.exit_code}; it said: {said}", finished.stderr_lines
        )
    if finished.stderr_lines:
        # ffmpeg conceals what it cannot decode and ends with 0; the clips would hold invented pictures.
        raise SplitFailed(
            source,
            "decode",
            f"is damaged: {len(finished.stderr_lines)} errors while decoding, first: {finished.stderr_lines[0]}",
            finished.stderr_lines,
        )
    frames = folder / "frames.txt"
    ticks = read_frame_ticks(frames.read_text()) if frames.exists() else []
    if not ticks:
        raise SplitFailed(source, "decode", "no frame could be decoded")
    if any(b <= a for a, b in pairwise(ticks)):
        raise SplitFailed(source, "decode", "its frames' times do not ascend")
    return [float((tick - ticks[0]) * time_base) for tick in ticks]


def _check_clip(file: Path, clip: PlannedClip, frame_seconds: Sequence[float], *, path: str) -> ClipRecord:
    """Compare a written clip with its frames in the source; return what the index says of it.

    Raises:
        BadVideo: it has other frames, or they lie elsewhere in time.

    """
    info = probe(file)
    if len(info.timestamps) != clip.num_frames:
        raise BadVideo(file, f"has {len(info.timestamps)} frames instead of {clip.num_frames}")
    times = frame_seconds[clip.first_frame : clip.first_frame + clip.num_frames]
    for timestamp, expected in zip(info.timestamps, times, strict=True):
        moment = float((timestamp - info.timestamps[0]) * info.time_base)
        if abs(moment - (expected - times[0])) > _CLOCK_TOLERANCE_SECONDS:
            raise BadVideo(file, f"shows a frame at {moment:.3f} s that belongs at {expected - times[0]:.3f} s")
    return ClipRecord(
        path=path,
        start_ms=clip.segment.start_ms,
        end_ms=clip.segment.end_ms,
        start_seconds=times[0],
        end_seconds=times[-1] + 1 / frame_rate(frame_seconds).fps,
        num_frames=clip.num_frames,
        width=info.width,
        height=info.height,
        codec=info.codec,
        keyframe_interval=largest_keyframe_interval(info),
        size_bytes=file.stat().st_size,
        sha256=sha256_of(file),
    )


def _encode_exactly(
    source: Path, options: SplitOptions, program: Ffmpeg, folder: Path
) -> tuple[list[PlannedClip], list[float]]:
    """Plan and encode; a second time where the frames that decode are not the packets that were counted.

    Returns the plan and the time of each frame.

    Raises:
        BadVideo: the video cannot be used.

    """
    info = probe(source)
    packet_seconds = [float((t - info.timestamps[0]) * info.time_base) for t in info.timestamps]
    plan = plan_clips(packet_seconds, segment_seconds=options.segment_seconds)
    frame_seconds = _encode(source, plan, info.time_base, options, program, folder)
    true_plan = plan_clips(frame_seconds, segment_seconds=options.segment_seconds)
    if true_plan == plan:
        return plan, frame_seconds
    # Some packets are no frames of their own (hidden VP8 frames, fields) or carry no times. What ffmpeg has just
    # decoded is the truth, and a second run cuts by it.
    logger.warning("%s: packets and frames differ; splitting again by its decoded frames", source)
    if _encode(source, true_plan, info.time_base, options, program, folder) != frame_seconds:
        raise SplitFailed(source, "decode", "decodes differently each time")
    return true_plan, frame_seconds


def _keep(plan: Sequence[PlannedClip], options: SplitOptions) -> list[PlannedClip]:
    """The clips that are kept: all, or all but a last one that is shorter than a segment."""
    last = plan[-1].segment
    short = last.end_ms - last.start_ms < round(options.segment_seconds * 1000)
    return list(plan[:-1] if options.tail == "drop" and short else plan)


def split_video(
    source: Source, *, root: Path, options: SplitOptions, program: Ffmpeg, before: VideoRecord | None
) -> VideoRecord:
    """Split one video and commit the result, good or bad.

    Clips are made in a temporary folder of the root and take their final names only when all are checked. The
    record is written after them; killed in between, the same call does the video again.

    Args:
        source: the video.
        root: the workspace.
        options: what the clips are to be.
        program: the ffmpeg to run.
        before: the video's record so far; what it committed is replaced.

    """
    record = VideoRecord(
        hico_version=__version__,
        video_id=source.video_id,
        source=source_file(source.path),
        options=options,
        attempts=before.attempts + 1 if before else 1,
    )
    folder = Path(tempfile.mkdtemp(prefix=_temporary_prefix(os.getpid()), dir=root / ".tmp"))
    try:
        record = record.model_copy(update=_make_clips(folder, source, options, program))
        _commit(root, record, folder, before)
    except BadVideo as bad:
        failure = bad.failure if isinstance(bad, SplitFailed) else Failure(stage="probe", error=bad.reason)
        record = record.model_copy(update={"failure": failure})
        if not program.stopped:
            _commit(root, record, folder, before)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return record


def _make_clips(folder: Path, source: Source, options: SplitOptions, program: Ffmpeg) -> dict[str, Any]:
    """Write and check a video's clips in `folder`, under their final names. Returns fields of its record.

    Raises:
        BadVideo: the video cannot be used.

    """
    plan, frame_seconds = _encode_exactly(source.path, options, program, folder)
    clips = []
    for number, clip in enumerate(_keep(plan, options)):
        name = clip_name(source.video_id, start_ms=clip.segment.start_ms, end_ms=clip.segment.end_ms)
        made = folder / f"{number:05d}.mp4"
        try:
            clips.append(_check_clip(made, clip, frame_seconds, path=f"{options.subset}/{name}"))
        except BadVideo as bad:
            raise SplitFailed(source.path, "verify", f"its clip {name} {bad.reason}") from bad
        made.rename(folder / name)
    if not clips:
        raise SplitFailed(source.path, "plan", "is shorter than one clip, and --tail drop leaves nothing of it")
    rate = frame_rate(frame_seconds)
    return {"fps": rate.fps, "variable_fps": rate.variable, "clips": clips}


def _commit(root: Path, record: VideoRecord, folder: Path, before: VideoRecord | None) -> None:
    """Take back what the video's last record committed, move its new clips into place, then write the record."""
    if before:
        remove_record(root, before)
    for clip in record.clips:
        (folder / Path(clip.path).name).replace(root / clip.path)
    write_record(root, record)


def _temporary_prefix(process_id: int) -> str:
    """Temporary folders are named by who made them, so that those of the dead can be swept."""
    return f"split-{socket.gethostname()}-{process_id}-"


def _sweep(temporary: Path) -> None:
    """Remove what killed runs on this machine left behind."""
    mine = f"split-{socket.gethostname()}-"
    for folder in temporary.glob(f"{mine}*"):
        process_id = folder.name.removeprefix(mine).split("-")[0]
        if process_id.isdigit() and not _is_alive(int(process_id)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class SplitEvent(NamedTuple):
    """One video is dealt with."""

    record: VideoRecord
    outcome: Literal["split", "unchanged", "failed"]
    num_done: int
    num_videos: int


class SplitSummary(NamedTuple):
    """What became of the videos of one call."""

    num_split: int
    num_unchanged: int
    num_failed: int
    num_clips: int  # of the videos that are in order now


def _is_finished(before: VideoRecord | None, source: SourceFile, options: SplitOptions) -> bool:
    """Whether a video was split from this very file in this very way."""
    return (
        before is not None
        and before.failure is None
        and before.options == options
        and (before.source.size_bytes, before.source.mtime_ns) == (source.size_bytes, source.mtime_ns)
    )


def _refuse_other_video(before: VideoRecord | None, source: Source) -> None:
    """An id of the root that belongs to another file, still there, is not taken from it.

    Raises:
        HicoError: names both files.

    """
    if before is None or before.failure is not None or before.source.path == str(source.path):
        return
    other = Path(before.source.path)
    if other.exists() and not other.samefile(source.path):
        raise HicoError(
            f"{source.path} and {other}, split before, have one id, {source.video_id!r}: "
            "rename one of them, or use another --root"
        )


def split_videos(
    sources: Sequence[Source],
    *,
    root: Path,
    options: SplitOptions,
    workers: int,
    on_event: Callable[[SplitEvent], None],
) -> SplitSummary:
    """Split videos into `<root>/<subset>/`, several at a time, leaving out those that are finished.

    A video that cannot be split becomes a line of `<root>/failures.jsonl`; the others are done all the same,
    and the next call tries it again.

    Args:
        sources: from `hico_core.corpus.ids.find_sources`.
        root: the workspace; made if missing.
        options: what the clips are to be.
        workers: how many videos at a time, each with one thread of ffmpeg.
        on_event: told of each video, in the order in which they end.

    Raises:
        HicoError: there is no usable ffmpeg, or an id belongs to another file.

    """
    program = Ffmpeg(find_ffmpeg())
    temporary = root / ".tmp"
    for folder in (root / options.subset, root / "records", temporary):
        folder.mkdir(parents=True, exist_ok=True)
    _sweep(temporary)

    def work(source: Source) -> tuple[VideoRecord, Literal["split", "unchanged", "failed"]]:
        before = read_record(root, source.video_id)
        if before is not None and _is_finished(before, source_file(source.path), options):
            return before, "unchanged"
        _refuse_other_video(before, source)
        record = split_video(source, root=root, options=options, program=program, before=before)
        return record, "failed" if record.failure else "split"

    counts = Counter[str]()
    num_clips = 0
    fine: list[str] = []
    failed: list[tuple[str, Failure]] = []
    for record, outcome in run_on_threads(work, sources, workers=workers, stop=program.stop):
        counts[outcome] += 1
        num_clips += len(record.clips)
        if record.failure:
            failed.append((record.source.path, record.failure))
        else:
            fine.append(record.source.path)
        on_event(SplitEvent(record, outcome, counts.total(), len(sources)))
    update_failures(root, command="split", fine=fine, failed=failed)
    if not any(temporary.iterdir()):
        temporary.rmdir()
    return SplitSummary(counts["split"], counts["unchanged"], counts["failed"], num_clips)
