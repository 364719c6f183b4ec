"""One video -> its clips as files in a folder, checked: what ffmpeg is told, and whether it did it.

probe        read the packets' times, decode nothing
plan         which frames each clip has
ffmpeg       decode once, scale, encode; a keyframe and a new file at each planned frame
check        what ffmpeg decoded against the plan, what it wrote against both
"""

import errno
import logging
import os
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import ffmpeg

from hico_core.corpus.ffmpeg import INPUT_PROTOCOLS, Ffmpeg, passthrough_arguments
from hico_core.corpus.plan import BORDER_TOLERANCE, PlannedClip, plan_clips
from hico_core.corpus.probe import (
    VideoInfo,
    damaged_timestamps,
    frame_rate,
    largest_keyframe_interval,
    open_video,
    packets_in_order,
    probe,
    seconds_from_first,
)
from hico_core.corpus.records import ClipRecord, Failure, SplitOptions, Verification, sha256_of
from hico_core.errors import BadVideo, HicoError

logger = logging.getLogger(__name__)

OnCorrupt = Literal["keep-good", "skip", "fail"]

# How far a clip's frame may lie from its place in the source: rounding of the container's time bases.
_CLOCK_TOLERANCE_SECONDS = 0.002

# How far a clip's longer side may be from the source's proportions, in pixels: sides are even.
_SIZE_TOLERANCE = 2

_STDERR_TAIL = 20
_DISK_FULL = os.strerror(errno.ENOSPC)


class SplitFailed(BadVideo):
    """A video that cannot be split, with what ffmpeg said."""

    def __init__(self, path: Path, stage: str, reason: str, stderr_lines: Sequence[str] = ()) -> None:
        super().__init__(path, reason)
        self.failure = Failure(stage=stage, error=reason, stderr_tail=list(stderr_lines[-_STDERR_TAIL:]))


class MadeClips(NamedTuple):
    """The clips of a video that are good, and what is known of the video."""

    plan: list[PlannedClip]  # of the clips that are kept, in order
    files: list[Path]
    frame_seconds: list[float]  # of all frames, from the first one's
    num_decode_errors: int
    num_damaged: int  # clips that are left out


def encoder_arguments(options: SplitOptions) -> dict[str, Any]:
    """ffmpeg's options for the encoder, with the same meaning for each of them as far as it can be had."""
    chosen: dict[str, Any] = {"c:v": options.encoder, "g": options.gop}
    if options.encoder == "h264_nvenc":
        return {**chosen, "cq": options.crf, "bf": 3, "b_ref_mode": "disabled", "no-scenecut": 1, "forced-idr": 1}
    if options.encoder == "libopenh264":  # knows no constant quality; has no B frames
        return {**chosen, "b:v": "2M", "threads": 1}
    chosen |= {"preset": options.preset, "crf": options.crf, "threads": 1}
    settings: dict[str, int | str] = {"scenecut": 0}
    if options.encoder == "libx265":
        settings |= {"open-gop": 0, "pools": "none", "frame-threads": 1, "log-level": "error"}
        chosen["forced-idr"] = 1  # else a forced keyframe is none that a decoder can begin at
    if options.fast_decode:
        # Three B frames between two others, and none that another one refers to: whoever wants only some frames of
        # a clip need not decode those.
        settings |= {"keyint": options.gop, "min-keyint": 1, "b-adapt": 0, "b-pyramid": 0}
        chosen |= {"tune": "fastdecode", "bf": 3}
    name = options.encoder.removeprefix("lib")
    return {**chosen, f"{name}-params": ":".join(f"{key}={value}" for key, value in settings.items())}


def scale_filter(short_side: int | None) -> str:
    """Make the shorter side this long, never longer than it is, and both sides even; None only makes them even."""
    if short_side is None:
        return "crop=floor(iw/2)*2:floor(ih/2)*2:0:0"
    side = f"floor(min(min(iw,ih),{short_side})/2)*2"
    return f"scale='if(gt(iw,ih),-2,{side})':'if(gt(iw,ih),{side},-2)':flags=bicubic"


def require_encoder(program: Ffmpeg, options: SplitOptions, *, folder: Path) -> None:
    """Encode one picture, so that an encoder that is not there is told before any work.

    Raises:
        HicoError: it cannot be encoded.

    """
    picture = ffmpeg.input("color=black:size=256x256:rate=25", f="lavfi")
    output = ffmpeg.output(
        picture, "-", **{"frames:v": 1, "f": "null", "pix_fmt": "yuv420p"}, **encoder_arguments(options)
    )
    finished = program.run(output.global_args("-nostdin", "-v", "error").get_args(), cwd=folder)
    if finished.exit_code != 0:
        said = next((line for line in finished.stderr_lines if options.encoder in line), "it gave no reason")
        raise HicoError(
            f"{program.program}: cannot encode with {options.encoder} ({said.strip()}); take another --encoder, or "
            "name another ffmpeg in HICO_FFMPEG"
        )


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
        time_base: seconds per tick of the frames' times.
        options: size, quality, length.
        passthrough: the option that keeps frames at their own times, by the ffmpeg's version.

    """
    number = f"floor({{}}/{options.segment_seconds}+{BORDER_TOLERANCE})"
    new_segment = f"gt({number.format('t')},{number.format('prev_forced_t')})"
    filters = [
        *([f"fps={_rate_of(options.fps)}"] if options.fps else []),
        "metadata=add:key=hico:value=1,metadata=print:file=frames.txt",
        "setpts=PTS-STARTPTS",
        scale_filter(options.short_side),
        "format=yuv420p",
    ]
    opened = ffmpeg.input(str(source), protocol_whitelist=INPUT_PROTOCOLS, threads=1)
    streams = [opened["V:0"], *([opened["a:0?"]] if options.audio == "keep" else [])]
    sound = {"c:a": "aac", "shortest": None} if options.audio == "keep" else {"an": None}
    output = ffmpeg.output(
        *streams,
        "%05d.mp4",
        **{"vf": ",".join(filters), **sound, "sn": None, "dn": None, "map_metadata": -1, "map_chapters": -1},
        **encoder_arguments(options),
        **{"enc_time_base:v": f"{time_base.numerator}/{time_base.denominator}"},
        **{"force_key_frames": f"expr:if(isnan(prev_forced_t),1,{new_segment})"},
        **passthrough,
        **{"f": "segment", "segment_format": "mp4", "reset_timestamps": 1},
        **{"segment_frames": ",".join(map(str, accumulate(clip_frames)))},
    )
    arguments: list[str] = output.global_args("-nostdin", "-v", "error", "-filter_threads", "1").get_args()
    return arguments


def _rate_of(fps: float) -> Fraction:
    """29.97 -> 30000/1001, 25.0 -> 25."""
    return Fraction(fps).limit_denominator(1001)


def read_frame_ticks(text: str) -> list[int]:
    """The timestamps in what ffmpeg's `metadata=print` filter wrote."""
    return [int(line.split("pts:")[1].split()[0]) for line in text.splitlines() if line.startswith("frame:")]


class _Encoded(NamedTuple):
    """What one run of ffmpeg decoded."""

    ticks: list[int]
    frame_seconds: list[float]  # from the first one's
    stderr_lines: list[str]


def _require_success(
    source: Path, program: Ffmpeg, arguments: list[str], *, folder: Path, deadline: float | None
) -> list[str]:
    """Run ffmpeg; return the lines it wrote.

    Raises:
        SplitFailed: it ended with an error or took too long.
        HicoError: the disk is full.

    """
    finished = program.run(arguments, cwd=folder, deadline=deadline)
    if finished.timed_out:
        raise SplitFailed(source, "timeout", "took longer than --timeout allows", finished.stderr_lines)
    if any(_DISK_FULL in line for line in finished.stderr_lines):
        raise HicoError(f"{folder.parent}: the disk is full; free some space, and the same command goes on")
    if finished.exit_code != 0:
        said = finished.stderr_lines[-1] if finished.stderr_lines else "nothing"
        reason = f"ffmpeg ended with {finished.exit_code}; it said: {said}"
        raise SplitFailed(source, "split", reason, finished.stderr_lines)
    return finished.stderr_lines


def _encode(
    source: Path,
    plan: Sequence[PlannedClip],
    time_base: Fraction,
    options: SplitOptions,
    program: Ffmpeg,
    *,
    folder: Path,
    deadline: float | None,
) -> _Encoded:
    """Run ffmpeg once over the video."""
    arguments = ffmpeg_arguments(
        source,
        [clip.num_frames for clip in plan],
        time_base=time_base,
        options=options,
        passthrough=passthrough_arguments(program.version),
    )
    stderr_lines = _require_success(source, program, arguments, folder=folder, deadline=deadline)
    frames = folder / "frames.txt"
    ticks = read_frame_ticks(frames.read_text()) if frames.exists() else []
    if not ticks:
        raise SplitFailed(source, "decode", "no frame could be decoded", stderr_lines)
    if any(b <= a for a, b in pairwise(ticks)):
        raise SplitFailed(source, "decode", "its frames' times do not ascend", stderr_lines)
    return _Encoded(ticks, seconds_from_first(ticks, time_base), stderr_lines)


def _expected_times(info: VideoInfo, options: SplitOptions) -> tuple[list[float], Fraction]:
    """When frames should come, in seconds from the first, and the clock they are counted by."""
    seconds = info.frame_seconds
    if options.fps is None:
        return seconds, info.time_base
    period = 1 / _rate_of(options.fps)
    return [float(i * period) for i in range(round(seconds[-1] / period) + 1)], period


def _borders(plan: Sequence[PlannedClip]) -> list[int]:
    """Where files are cut: all that ffmpeg needs to know of a plan."""
    return [clip.first_frame for clip in plan]


def _damaged_seconds(
    source: Path, info: VideoInfo, encoded: _Encoded, program: Ffmpeg, *, folder: Path, deadline: float | None
) -> list[float]:
    """When, from the first frame, the frames are shown that cannot be trusted; from decoding the video once more.

    Raises:
        BadVideo: the errors that ffmpeg reported cannot be located.

    """
    strict = ffmpeg.input(str(source), protocol_whitelist=INPUT_PROTOCOLS, threads=1, err_detect="explode")["V:0"]
    print_frames = "metadata=add:key=hico:value=1,metadata=print:file=whole.txt"
    output = ffmpeg.output(strict, "-", vf=print_frames, f="null", **passthrough_arguments(program.version))
    program.run(output.global_args("-nostdin", "-v", "error").get_args(), cwd=folder, deadline=deadline)
    written = folder / "whole.txt"
    # ffmpeg counts from the start of the file, packets from wherever their clock began.
    shift = info.timestamps[0] - encoded.ticks[0]
    whole = {tick + shift for tick in read_frame_ticks(written.read_text())} if written.exists() else set()
    with open_video(source) as (container, stream):
        packets = packets_in_order(container, stream, path=source)
    damaged = damaged_timestamps(packets, whole)
    if not damaged or len(damaged) == len(packets):
        raise SplitFailed(
            source, "decode", "is damaged, and ffmpeg cannot tell which of its frames are good", encoded.stderr_lines
        )
    return [float((tick - info.timestamps[0]) * info.time_base) for tick in sorted(damaged)]


def _good_clips(
    plan: Sequence[PlannedClip], damaged_seconds: Sequence[float], *, options: SplitOptions
) -> list[PlannedClip]:
    """The clips in whose interval no damaged frame is shown."""
    # At a new frame rate, a clip's first or last picture may come from a frame just across the border.
    margin = 1 / options.fps if options.fps else 0.0
    step = options.segment_seconds
    good = []
    for clip in plan:
        start = clip.segment.start_ms / 1000
        if not any(start - margin <= moment + BORDER_TOLERANCE < start + step + margin for moment in damaged_seconds):
            good.append(clip)
    return good


def _keep(plan: Sequence[PlannedClip], options: SplitOptions) -> list[PlannedClip]:
    """The clips that are kept: all, or all but a last one that is shorter than a segment."""
    last = plan[-1].segment
    short = last.end_ms - last.start_ms < round(options.segment_seconds * 1000)
    return list(plan[:-1] if options.tail == "drop" and short else plan)


def make_clips(
    source: Path,
    options: SplitOptions,
    *,
    program: Ffmpeg,
    folder: Path,
    on_corrupt: OnCorrupt,
    verify: Verification,
    deadline: float | None,
) -> tuple[MadeClips, list[ClipRecord]]:
    """Write and check the clips of one video.

    Args:
        source: a local video file, absolute.
        options: what the clips are to be.
        program: the ffmpeg to run.
        folder: where it writes; empty.
        on_corrupt: what to do where ffmpeg reports errors in the source: keep the clips that hold none of the
            frames concerned, or refuse the video ("skip", and "fail", which the caller tells apart).
        verify: "fast" compares counts, times and sizes; "full" decodes each clip as well.
        deadline: of `time.monotonic()`.

    Returns:
        The clips, and a record for each; its `path` is still the file's name in `folder`.

    Raises:
        BadVideo: the video cannot be used.
        HicoError: the disk is full.

    """
    info = probe(source)
    expected_seconds, time_base = _expected_times(info, options)
    plan = plan_clips(expected_seconds, segment_seconds=options.segment_seconds)
    encoded = _encode(source, plan, time_base, options, program, folder=folder, deadline=deadline)
    true_plan = plan_clips(encoded.frame_seconds, segment_seconds=options.segment_seconds)
    if _borders(true_plan) != _borders(plan):
        # Some packets are no frames of their own (hidden VP8 frames, fields) or carry no times. What ffmpeg has just
        # decoded is the truth, and a second run cuts by it.
        logger.warning("%s: packets and frames differ; splitting again by its decoded frames", source)
        again = _encode(source, true_plan, time_base, options, program, folder=folder, deadline=deadline)
        if again.ticks != encoded.ticks:
            raise SplitFailed(source, "decode", "decodes differently each time")
    kept = _keep(true_plan, options)
    if not kept:
        raise SplitFailed(source, "plan", "is shorter than one clip, and --tail drop leaves nothing of it")
    good = kept
    if encoded.stderr_lines:
        # ffmpeg conceals what it cannot decode and ends with 0; the clips hold invented pictures.
        errors = f"{len(encoded.stderr_lines)} errors while decoding, first: {encoded.stderr_lines[0]}"
        if on_corrupt != "keep-good":
            raise SplitFailed(source, "decode", f"is damaged: {errors}", encoded.stderr_lines)
        moments = _damaged_seconds(source, info, encoded, program, folder=folder, deadline=deadline)
        good = _good_clips(kept, moments, options=options)
        if not good:
            raise SplitFailed(source, "decode", f"no clip of it is whole: {errors}", encoded.stderr_lines)
        logger.warning("%s: is damaged; %d of %d clips are good and kept", source, len(good), len(kept))
    files = {clip: folder / f"{number:05d}.mp4" for number, clip in enumerate(true_plan)}
    made = MadeClips(
        good, [files[clip] for clip in good], encoded.frame_seconds, len(encoded.stderr_lines), len(kept) - len(good)
    )
    return made, _check(source, made, info, options, program, verify=verify, folder=folder, deadline=deadline)


def _check(
    source: Path,
    made: MadeClips,
    info: VideoInfo,
    options: SplitOptions,
    program: Ffmpeg,
    *,
    verify: Verification,
    folder: Path,
    deadline: float | None,
) -> list[ClipRecord]:
    """Compare each clip with the plan and the source; return what the index says of them."""
    records = []
    for clip, file in zip(made.plan, made.files, strict=True):
        try:
            record = _check_clip(file, clip, made.frame_seconds)
            _check_size(record, info, short_side=options.short_side)
        except BadVideo as bad:
            start = clip.segment.start_ms / 1000
            raise SplitFailed(source, "verify", f"its clip at {start:g} s {bad.reason}") from bad
        records.append(record)
    if verify == "full":
        for clip, file in zip(made.plan, made.files, strict=True):
            _decode_fully(source, file, clip, program, folder=folder, deadline=deadline)
    return records


def _check_clip(file: Path, clip: PlannedClip, frame_seconds: Sequence[float]) -> ClipRecord:
    """Compare a written clip with its frames in the source.

    Raises:
        BadVideo: it has other frames, or they lie elsewhere in time.

    """
    info = probe(file)
    if len(info.timestamps) != clip.num_frames:
        raise BadVideo(file, f"has {len(info.timestamps)} frames instead of {clip.num_frames}")
    if info.start_tick != info.timestamps[0]:
        raise BadVideo(file, f"says that it starts at tick {info.start_tick}, and starts at {info.timestamps[0]}")
    times = frame_seconds[clip.first_frame : clip.first_frame + clip.num_frames]
    for moment, expected in zip(info.frame_seconds, times, strict=True):
        if abs(moment - (expected - times[0])) > _CLOCK_TOLERANCE_SECONDS:
            raise BadVideo(file, f"shows a frame at {moment:.3f} s that belongs at {expected - times[0]:.3f} s")
    return ClipRecord(
        path=file.name,
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


def clip_sides(width: int, height: int, *, short_side: int | None) -> tuple[int, float]:
    """The shorter and the longer side that a clip of a video of this size has, the longer before rounding."""
    short, long = sorted((width, height))
    side = short if short_side is None else min(short, short_side)
    even = side // 2 * 2
    return even, long if short_side is None else even * long / short


def _check_size(clip: ClipRecord, info: VideoInfo, *, short_side: int | None) -> None:
    """Compare a clip's size with the source's, which may lie on its side."""
    short, long = clip_sides(info.width, info.height, short_side=short_side)
    found_short, found_long = sorted((clip.width, clip.height))
    if found_short != short or abs(found_long - long) > _SIZE_TOLERANCE:
        raise BadVideo(clip.path, f"has {clip.width}x{clip.height} pixels; expected sides of {short} and {long:.0f}")


def _decode_fully(
    source: Path, file: Path, clip: PlannedClip, program: Ffmpeg, *, folder: Path, deadline: float | None
) -> None:
    """Decode a whole clip, and let any error end it."""
    opened = ffmpeg.input(str(file), protocol_whitelist=INPUT_PROTOCOLS, threads=1, err_detect="explode")["V:0"]
    output = ffmpeg.output(opened, "decoded.crc", f="framecrc", **passthrough_arguments(program.version))
    arguments = output.global_args("-nostdin", "-v", "error", "-xerror", "-y").get_args()
    start = clip.segment.start_ms / 1000
    try:
        said = _require_success(source, program, arguments, folder=folder, deadline=deadline)
    except SplitFailed as failed:
        raise SplitFailed(source, "verify", f"its clip at {start:g} s does not decode: {failed.reason}") from failed
    lines = (folder / "decoded.crc").read_text().splitlines()
    num_frames = sum(not line.startswith("#") for line in lines)
    if said or num_frames != clip.num_frames:
        raise SplitFailed(source, "verify", f"its clip at {start:g} s decodes to {num_frames} frames", said)


def kept_frame_seconds(made: MadeClips) -> list[float]:
    """Times of the frames that are in clips. Where clips were left out, they show a hole."""
    seconds = made.frame_seconds
    return [t for clip in made.plan for t in seconds[clip.first_frame : clip.first_frame + clip.num_frames]]
