"""Build ffmpeg's command line and run it: decode once, scale, encode, and begin a new file at each border."""

import errno
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import ffmpeg

from hico_core.base.errors import BadVideo, HicoError
from hico_core.base.files import says_no_room
from hico_core.corpus.clips.ffmpeg import (
    INPUT_OPTIONS,
    Ffmpeg,
    Finished,
    ffmpeg_lacks,
    message_of,
    passthrough_arguments,
)
from hico_core.corpus.clips.plan import BORDER_TOLERANCE, PlannedClip
from hico_core.corpus.clips.probe import rate_of, seconds_from_first
from hico_core.corpus.clips.sound import sound_arguments
from hico_core.corpus.workspace.records import SplitOptions

# A border that no video reaches: ffmpeg requires at least one.
_NEVER = 2**31 - 2

# Filter that marks the first frames of new shots: those that differ from the previous frame by this many percent, and
# by this much more than that frame did from its own predecessor, so that fast motion is no cut. 10 is ffmpeg's default.
_MARK_CUTS = "scdet=threshold=10"
_MARKS_CUTS_SINCE = (4, 4)

# Filters that print the time of each frame and the metadata that other filters added to it.
PRINT_FRAMES = "metadata=add:key=hico:value=1,metadata=print:file=-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A video from which ffmpeg makes clips."""

    source: Path  # a local file, absolute
    options: SplitOptions  # format of the clips
    program: Ffmpeg
    folder: Path  # empty; ffmpeg's working folder and output
    deadline: float | None  # of `time.monotonic()`

    def run(self, arguments: list[str], *, output: Path | None = None) -> Finished:
        """Run ffmpeg; see `Ffmpeg.run`."""
        return self.program.run(arguments, cwd=self.folder, deadline=self.deadline, output=output)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Where a video is cut, and the other arguments that depend on its frames."""

    plan: Sequence[PlannedClip]
    time_base: Fraction  # seconds per tick of the frames' times
    first_tick: int | None = None  # of the first frame, by ffmpeg's clock; None: unknown, which rules out sound
    sound_seconds: float | None = None  # length of the sound to keep, from the first frame on; None: leave it out
    crop: str | None = None  # filter that hides the container's margins, if this ffmpeg does not hide them itself
    colour: str | None = None  # filter that brings all frames to one colour range and matrix, if these change
    marks_cuts: bool = True  # report cuts; not every ffmpeg can


def encoder_arguments(options: SplitOptions) -> dict[str, Any]:
    """ffmpeg's options for the encoder, as equivalent as possible between encoders."""
    chosen: dict[str, Any] = {"c:v": options.encoder, "g": options.gop}
    if options.encoder == "h264_nvenc":
        return {**chosen, "cq": options.crf, "bf": 3, "b_ref_mode": "disabled", "no-scenecut": 1, "forced-idr": 1}
    if options.encoder == "libopenh264":  # supports neither constant quality nor B frames
        return {**chosen, "b:v": "2M", "threads": 1}
    chosen |= {"preset": options.preset, "crf": options.crf, "threads": 1}
    settings: dict[str, int | str] = {"scenecut": 0}
    if options.encoder == "libx265":
        settings |= {"open-gop": 0, "pools": "none", "frame-threads": 1, "log-level": "error"}
        chosen["forced-idr"] = 1  # otherwise a decoder cannot start at a forced keyframe
    if options.fast_decode:
        # Three B frames in a row, none of which is a reference frame: a reader that needs only some frames of a clip
        # can skip them.
        settings |= {"keyint": options.gop, "min-keyint": 1, "b-adapt": 0, "b-pyramid": 0}
        chosen |= {"tune": "fastdecode", "bf": 3}
    name = options.encoder.removeprefix("lib")
    return {**chosen, f"{name}-params": ":".join(f"{key}={value}" for key, value in settings.items())}


def scale_filter(short_side: int | None) -> str:
    """Filter that scales the shorter side down to this length and makes both sides even; None: only makes them even."""
    if short_side is None:
        return "crop=floor(iw/2)*2:floor(ih/2)*2:0:0"
    side = f"floor(min(min(iw,ih),{short_side})/2)*2"
    return f"scale='if(gt(iw,ih),-2,{side})':'if(gt(iw,ih),{side},-2)':flags=bicubic"


def require_encoder(program: Ffmpeg, options: SplitOptions, *, folder: Path) -> None:
    """Encode one picture, so that a missing encoder is reported before any work.

    Raises:
        HicoError: encoding fails.

    """
    fault = encoder_fault(program, options, folder=folder)
    if fault:
        raise HicoError(
            f"cannot encode with {options.encoder} ({fault}); use another `hico split --encoder`, or set HICO_FFMPEG "
            "to another ffmpeg",
            subject=program.program,
        )


def encoder_fault(program: Ffmpeg, options: SplitOptions, *, folder: Path) -> str | None:
    """Why ffmpeg cannot encode a picture, in ffmpeg's own words; None if it can."""
    picture = ffmpeg.input("color=black:size=256x256:rate=25", f="lavfi")
    output = ffmpeg.output(
        picture, "-", **{"frames:v": 1, "f": "null", "pix_fmt": "yuv420p"}, **encoder_arguments(options)
    )
    finished = program.run(output.global_args("-nostdin", "-v", "error").get_args(), cwd=folder)
    if finished.exit_code == 0:
        return None
    lines = finished.stderr_lines
    return next(
        (line for line in lines if options.encoder in line), lines[-1] if lines else "it gave no reason"
    ).strip()


def ffmpeg_arguments(source: Path, cut: Cut, options: SplitOptions, passthrough: dict[str, str]) -> list[str]:
    """Arguments to decode once, write `00000.mp4`, `00001.mp4`, ... to the working folder, and print `pts:` per frame.

    When properties of the pictures change, ffmpeg rebuilds its filters, which then count from 0 again. The printed
    output continues, and so does the clock if its start is given (`first_tick`).

    Args:
        source: the video, absolute.
        cut: the borders, the clock and the filters.
        options: size, quality, length.
        passthrough: the option that keeps frames at their own times, for this version of ffmpeg.

    """
    filters = [
        *([cut.crop] if cut.crop else []),
        *([f"fps={rate_of(options.fps)}"] if options.fps else []),
        scale_filter(options.short_side),
        *([cut.colour] if cut.colour else []),
        "format=yuv420p",
        *([_MARK_CUTS] if cut.marks_cuts else []),  # in the small picture, where it costs next to nothing
        PRINT_FRAMES,
        f"setpts=PTS-({'STARTPTS' if cut.first_tick is None else cut.first_tick})",
    ]
    opened = ffmpeg.input(str(source), **INPUT_OPTIONS, threads=1, flags="unaligned")
    streams, heard = [opened["V:0"]], {"an": None}
    if cut.sound_seconds is not None and cut.first_tick is not None:
        streams.append(opened["a:0"])
        heard = sound_arguments(first_frame=cut.first_tick * cut.time_base, picture_seconds=cut.sound_seconds)
    output = ffmpeg.output(
        *streams,
        "%05d.mp4",
        **{"vf": ",".join(filters), **heard, "sn": None, "dn": None, "map_metadata": -1, "map_chapters": -1},
        **encoder_arguments(options),
        **border_arguments(cut, segment_seconds=options.segment_seconds),
        **passthrough,
        **{"f": "segment", "segment_format": "mp4", "reset_timestamps": 1},
    )
    arguments: list[str] = output.global_args("-nostdin", "-v", "error", "-filter_threads", "1").get_args()
    return arguments


def border_arguments(cut: Cut, *, segment_seconds: float) -> dict[str, str]:
    """ffmpeg's options that begin a new file, with a keyframe, at each planned border.

    Files are cut by counting frames, not by comparing times, which differ by the encoder's delay. A keyframe is
    forced whenever a frame's segment number differs from that of the last forced keyframe, which works across
    gaps of any length. Frames keep their times to the tick (`enc_time_base`).

    The last clip takes all remaining frames: if its end were given and ffmpeg's rate filter made one frame more than
    planned, which happened to be a keyframe, ffmpeg would begin another file.
    """
    number = f"floor({{}}/{segment_seconds}+{BORDER_TOLERANCE})"
    new_segment = f"gt({number.format('t')},{number.format('prev_forced_t')})"
    borders = list(accumulate(clip.num_frames for clip in cut.plan))[:-1] or [_NEVER]
    return {
        "enc_time_base:v": f"{cut.time_base.numerator}/{cut.time_base.denominator}",
        "force_key_frames": f"expr:if(isnan(prev_forced_t),1,{new_segment})",
        "segment_frames": ",".join(map(str, borders)),
    }


def read_frame_ticks(text: str) -> list[int]:
    """The timestamps in the output of ffmpeg's `metadata=print` filter."""
    return [int(line.split("pts:")[1].split()[0]) for line in text.splitlines() if line.startswith("frame:")]


def read_new_beginnings(text: str) -> list[int]:
    """Numbers of the frames, except the first, at which ffmpeg's filters began to count from 0 again."""
    counted = [line.split()[0] for line in text.splitlines() if line.startswith("frame:")]
    return [number for number, count in enumerate(counted) if count == "frame:0" and number]


def read_cuts(text: str) -> list[int]:
    """Numbers of the frames with which new shots begin, according to ffmpeg's scene filter."""
    number, cuts = -1, []
    for line in text.splitlines():
        number += line.startswith("frame:")
        if line.startswith("lavfi.scd.time="):
            cuts.append(number)
    return cuts


def find_cuts(job: Job, time_base: Fraction) -> list[float]:
    """Times of new shots in a video that is not split, in seconds from its first frame; decodes the video once.

    Raises:
        BadVideo: ffmpeg ended with an error.
        HicoError: it was stopped with the whole run.

    """
    opened = ffmpeg.input(str(job.source), **INPUT_OPTIONS, threads=1, flags="unaligned")["V:0"]
    filters = [scale_filter(job.options.short_side), "format=yuv420p", _MARK_CUTS, PRINT_FRAMES]
    output = ffmpeg.output(opened, "-", vf=",".join(filters), f="null", **passthrough_arguments(job.program.version))
    printed = job.folder / "frames.txt"
    require_success(job, job.run(output.global_args("-nostdin", "-v", "error").get_args(), output=printed))
    text = printed.read_text()
    seconds = seconds_from_first(read_frame_ticks(text), time_base)
    return [seconds[number] for number in read_cuts(text)]


def can_mark_cuts(program: Ffmpeg) -> bool:
    """Whether an ffmpeg has the scene filter."""
    return not ffmpeg_lacks(program.version, _MARKS_CUTS_SINCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """The frames that one run of ffmpeg decoded, and its error messages."""

    ticks: list[int]  # of the frames, by ffmpeg's clock
    time_base: Fraction  # seconds per tick
    frame_seconds: list[float]  # in seconds from the first frame
    new_beginnings: list[int]  # frames before which some property of the pictures changed
    cuts: list[int] | None  # frames with which a shot begins, except the first; None: not known
    stderr_lines: list[str]


def require_run_to_end(job: Job, finished: Finished) -> None:
    """Check that ffmpeg ended by itself, with or without an error, so that its output is complete.

    Raises:
        BadVideo: it took too long, or crashed.
        HicoError: the disk is full, or it was stopped with the whole run.

    """
    source, lines = job.source, finished.stderr_lines
    if job.program.stopped:
        raise HicoError(f"{source}: stopped before it was finished; the same command continues")
    if finished.timed_out:
        raise BadVideo(source, "took longer than `hico split --timeout` allows", stage="timeout", stderr_lines=lines)
    # Exceeding a file size limit ends a program with a signal instead of an error.
    if says_no_room(lines) or finished.exit_code == -signal.SIGXFSZ:
        raise HicoError(
            f"{job.folder.parent}: the disk or a quota is full; free some space, and the same command continues"
        )
    if finished.exit_code < 0:
        raise BadVideo(source, f"ffmpeg was killed by signal {-finished.exit_code}", stage="split", stderr_lines=lines)


def require_success(job: Job, finished: Finished) -> None:
    """Check that ffmpeg succeeded.

    Raises:
        BadVideo: it ended with an error or took too long.
        HicoError: the disk is full, or it was stopped with the whole run.

    """
    require_run_to_end(job, finished)
    if finished.exit_code != 0:
        said = message_of(finished.stderr_lines[-1]) if finished.stderr_lines else "nothing"
        reason = f"ffmpeg ended with exit code {finished.exit_code} and said: {said}"
        raise BadVideo(job.source, reason, stage="split", stderr_lines=finished.stderr_lines)


def encode(job: Job, cut: Cut) -> Encoded:
    """Run ffmpeg once over the video, writing `00000.mp4` and so on to the job's folder, cut by the plan.

    If properties of the pictures change and the first tick was not given, ffmpeg's clock restarts and the clips are
    unusable, whatever the exit code.

    Raises:
        BadVideo: it ended with an error, took too long, or decoded nothing that can be cut.
        HicoError: the disk is full, or it was stopped with the whole run.

    """
    source, frames = job.source, job.folder / "frames.txt"
    arguments = ffmpeg_arguments(source, cut, job.options, passthrough_arguments(job.program.version))
    try:
        finished = job.run(arguments, output=frames)
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        reason = f"has {len(cut.plan)} clips, more than fit into ffmpeg's command line"
        raise BadVideo(source, f"{reason}; use a longer `hico split --segment-seconds`", stage="plan") from error
    require_run_to_end(job, finished)
    printed = frames.read_text()
    ticks, new_beginnings = read_frame_ticks(printed), read_new_beginnings(printed)
    if cut.first_tick is not None or not new_beginnings:
        require_success(job, finished)
    stderr_lines = finished.stderr_lines
    if not ticks:
        raise BadVideo(source, "has no frame that can be decoded", stage="decode", stderr_lines=stderr_lines)
    seconds = seconds_from_first(ticks, cut.time_base)
    for earlier, later in pairwise(seconds):
        if later <= earlier:
            reason = f"its frame times do not increase: {earlier:.3f} s is followed by {later:.3f} s"
            raise BadVideo(source, f"{reason}; re-encode it", stage="decode", stderr_lines=stderr_lines)
    return Encoded(
        ticks=ticks,
        time_base=cut.time_base,
        frame_seconds=seconds,
        new_beginnings=new_beginnings,
        cuts=read_cuts(printed) if cut.marks_cuts else None,
        stderr_lines=stderr_lines,
    )
