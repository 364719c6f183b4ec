"""Check ffmpeg's work: compare each written clip with the plan and the source."""

from collections.abc import Sequence
from pathlib import Path

import ffmpeg

from hico_core.base.errors import BadVideo
from hico_core.corpus.clips.encode import Job, require_success
from hico_core.corpus.clips.ffmpeg import INPUT_OPTIONS, passthrough_arguments
from hico_core.corpus.clips.plan import PlannedClip
from hico_core.corpus.clips.probe import VideoInfo, frame_rate, largest_keyframe_interval, probe
from hico_core.corpus.clips.sound import Sound, check_sound
from hico_core.corpus.workspace.records import ClipRecord, SplitOptions, sha256_of

# Tolerance for the times of a clip's frames: containers' time bases round them.
_CLOCK_TOLERANCE_SECONDS = 0.002

# Tolerance for the length of a clip's longer side, in pixels: sides are rounded to even numbers.
_SIZE_TOLERANCE = 2


def check_clips(
    source: Path,
    plan: Sequence[PlannedClip],
    files: Sequence[Path],
    *,
    frame_seconds: Sequence[float],
    info: VideoInfo,
    sound: Sound | None,
    options: SplitOptions,
) -> list[ClipRecord]:
    """Compare each clip with the plan and the source, by counts, times, sizes and sound.

    Args:
        source: the video.
        plan: plan of the clips that are kept.
        files: the clips, one per entry of the plan.
        frame_seconds: times of all frames of the source, in seconds from the first one.
        info: the source as its container describes it.
        sound: the source's sound, if the clips should have it.
        options: the requested format of the clips.

    Returns:
        The record of each clip; its `path` is still the file's name.

    Raises:
        BadVideo: a clip does not match the plan.

    """
    records = []
    period_seconds = frame_rate(frame_seconds).period_seconds
    for clip, file in zip(plan, files, strict=True):
        try:
            record = _check_clip(file, clip, frame_seconds, period_seconds=period_seconds)
            _check_size(record, info, short_side=options.short_side)
            if sound is not None:
                check_sound(file, record, sound)
        except BadVideo as bad:
            start = clip.segment.start_ms / 1000
            raise BadVideo(source, f"its clip at {start:g} s {bad.reason}", stage="verify") from bad
        records.append(record)
    return records


def _check_clip(file: Path, clip: PlannedClip, frame_seconds: Sequence[float], *, period_seconds: float) -> ClipRecord:
    """Compare a written clip with its frames in the source.

    Raises:
        BadVideo: its frames differ in number or time.

    """
    info = probe(file)
    if len(info.timestamps) != clip.num_frames:
        raise BadVideo(file, f"has {len(info.timestamps)} frames instead of {clip.num_frames}")
    if info.start_tick != info.timestamps[0]:
        raise BadVideo(file, f"claims to start at tick {info.start_tick}, but starts at {info.timestamps[0]}")
    times = frame_seconds[clip.first_frame : clip.first_frame + clip.num_frames]
    for moment, expected in zip(info.frame_seconds, times, strict=True):
        if abs(moment - (expected - times[0])) > _CLOCK_TOLERANCE_SECONDS:
            raise BadVideo(file, f"has a frame at {moment:.3f} s that belongs at {expected - times[0]:.3f} s")
    return ClipRecord(
        path=file.name,
        start_ms=clip.segment.start_ms,
        end_ms=clip.segment.end_ms,
        start_seconds=times[0],
        end_seconds=times[-1] + period_seconds,
        num_frames=clip.num_frames,
        width=info.width,
        height=info.height,
        codec=info.codec,
        keyframe_interval=largest_keyframe_interval(info),
        size_bytes=file.stat().st_size,
        sha256=sha256_of(file),
    )


def clip_sides(width: int, height: int, *, short_side: int | None) -> tuple[int, float]:
    """The shorter and longer sides of a clip made from a video of this size, the longer one before rounding."""
    short, long = sorted((width, height))
    side = short if short_side is None else min(short, short_side)
    even = side // 2 * 2
    return even, long if short_side is None else even * long / short


def _check_size(clip: ClipRecord, info: VideoInfo, *, short_side: int | None) -> None:
    """Compare a clip's size with the source's, which may be turned by 90 degrees."""
    short, long = clip_sides(info.width, info.height, short_side=short_side)
    found_short, found_long = sorted((clip.width, clip.height))
    if found_short != short or abs(found_long - long) > _SIZE_TOLERANCE:
        raise BadVideo(clip.path, f"has {clip.width}x{clip.height} pixels; expected sides of {short} and {long:.0f}")


def decode_fully(job: Job, file: Path, clip: PlannedClip) -> None:
    """Decode a whole clip, stopping at the first error.

    Raises:
        BadVideo: it does not decode to the planned number of frames.

    """
    opened = ffmpeg.input(str(file), **INPUT_OPTIONS, threads=1, err_detect="explode")["V:0"]
    output = ffmpeg.output(opened, "decoded.crc", f="framecrc", **passthrough_arguments(job.program.version))
    arguments = output.global_args("-nostdin", "-v", "error", "-xerror", "-y").get_args()
    start = clip.segment.start_ms / 1000
    try:
        finished = job.run(arguments)
        require_success(job, finished)
    except BadVideo as failed:
        reason = f"its clip at {start:g} s cannot be decoded: {failed.reason}"
        raise BadVideo(job.source, reason, stage="verify") from failed
    lines = (job.folder / "decoded.crc").read_text().splitlines()
    num_frames = sum(not line.startswith("#") for line in lines)
    if finished.stderr_lines or num_frames != clip.num_frames:
        reason = f"its clip at {start:g} s decodes to {num_frames} frames"
        raise BadVideo(job.source, reason, stage="verify", stderr_lines=finished.stderr_lines)
