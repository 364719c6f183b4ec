"""One video -> its clips as files in a folder, checked.

probe        read the packets' times, decode nothing
plan         which frames each clip has
encode       ffmpeg decodes once, scales, encodes; a keyframe and a new file at each planned frame
damage       where it reports errors in the source: which clips hold none of the frames concerned
verify       what ffmpeg wrote against the plan and the source
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from pathlib import Path

import av
from av import VideoFrame

from hico_core.base.choices import OnCorrupt, Verification
from hico_core.base.errors import BadVideo
from hico_core.corpus.clips.damage import damaged_seconds, good_clips
from hico_core.corpus.clips.encode import Encoded, encode, rate_of
from hico_core.corpus.clips.ffmpeg import Ffmpeg, ffmpeg_lacks
from hico_core.corpus.clips.picture import (
    CROPS_SINCE,
    MIRRORS_SINCE,
    PLAIN_TURNS,
    colour_filter,
    crop_filter,
    margins_of,
    require_known_turn,
    require_one_size,
    turn_of,
)
from hico_core.corpus.clips.plan import PlannedClip, plan_clips
from hico_core.corpus.clips.probe import VideoInfo, open_video, probe, video_duration
from hico_core.corpus.clips.sound import Sound, sound_of
from hico_core.corpus.clips.verify import check_clips, decode_fully
from hico_core.corpus.workspace.records import ClipRecord, SplitOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeClips:
    """The clips of a video that are good, and what is known of the video."""

    plan: list[PlannedClip]  # of the clips that are kept, in order
    files: list[Path]
    records: list[ClipRecord]  # their `path` is still the file's name
    frame_seconds: list[float]  # of all frames, from the first one's
    num_decode_errors: int
    num_damaged: int  # clips that are left out

    @property
    def kept_frame_seconds(self) -> list[float]:
        """Times of the frames that are in clips. Where clips were left out, they show a hole."""
        seconds = self.frame_seconds
        return [t for clip in self.plan for t in seconds[clip.first_frame : clip.first_frame + clip.num_frames]]


def make_clips(
    source: Path,
    options: SplitOptions,
    *,
    program: Ffmpeg,
    folder: Path,
    on_corrupt: OnCorrupt,
    verify: Verification,
    deadline: float | None,
) -> MadeClips:
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

    Raises:
        BadVideo: the video cannot be used.
        HicoError: the disk is full, or the whole run was stopped.

    """
    info = probe(source)
    sound = sound_of(source, info) if options.audio == "keep" else None
    plan, encoded = _encode_by_true_plan(source, info, sound, options, program, folder=folder, deadline=deadline)
    kept = _keep(plan, options)
    if not kept:
        raise BadVideo(source, "is shorter than one clip, and --tail drop leaves nothing of it", stage="plan")
    good = kept
    if encoded.stderr_lines:
        # ffmpeg conceals what it cannot decode and ends with 0; the clips hold invented pictures.
        errors = f"{len(encoded.stderr_lines)} errors while decoding, first: {encoded.stderr_lines[0]}"
        if on_corrupt != "keep-good":
            raise BadVideo(source, f"is damaged: {errors}", stage="decode", stderr_lines=encoded.stderr_lines)
        moments = damaged_seconds(source, info, encoded, program, folder=folder, deadline=deadline)
        good = good_clips(kept, moments, options=options)
        if not good:
            raise BadVideo(
                source, f"no clip of it is whole: {errors}", stage="decode", stderr_lines=encoded.stderr_lines
            )
        logger.warning("%s: is damaged; %d of %d clips are good and kept", source, len(good), len(kept))
    # ffmpeg numbers its files as the plan does, the clips that are not kept included.
    number_of = {clip: number for number, clip in enumerate(plan)}
    files = [folder / f"{number_of[clip]:05d}.mp4" for clip in good]
    seconds = encoded.frame_seconds
    records = check_clips(source, good, files, frame_seconds=seconds, info=info, sound=sound, options=options)
    if verify == "full":
        for clip, file in zip(good, files, strict=True):
            decode_fully(source, file, clip, program, folder=folder, deadline=deadline)
    return MadeClips(
        plan=good,
        files=files,
        records=records,
        frame_seconds=seconds,
        num_decode_errors=len(encoded.stderr_lines),
        num_damaged=len(kept) - len(good),
    )


def _encode_by_true_plan(
    source: Path,
    info: VideoInfo,
    sound: Sound | None,
    options: SplitOptions,
    program: Ffmpeg,
    *,
    folder: Path,
    deadline: float | None,
) -> tuple[list[PlannedClip], Encoded]:
    """Encode by what the packets say, and once more where decoding shows that they are not the frames."""
    expected_seconds, time_base = _expected_times(info, options)
    first = _first_frame(source)
    if first is not None:
        require_known_turn(first, path=source)
    crop = _own_crop(source, first, program)

    def encode_by(
        seconds: list[float], first_tick: int | None, *, colour: str | None = None
    ) -> tuple[list[PlannedClip], Encoded]:
        plan = plan_clips(seconds, segment_seconds=options.segment_seconds)
        encoded = encode(
            source,
            plan,
            time_base,
            options,
            program,
            first_tick=first_tick,
            sound_seconds=video_duration(seconds) if sound else None,
            crop=crop,
            colour=colour,
            folder=folder,
            deadline=deadline,
        )
        return plan, encoded

    expected_tick = _expected_first_tick(info, time_base) if sound else None
    plan, encoded = encode_by(expected_seconds, expected_tick)
    colour = _colour_to_keep(source, encoded, options) if encoded.new_beginnings else None
    true_plan = plan_clips(encoded.frame_seconds, segment_seconds=options.segment_seconds)
    other_clock = expected_tick is not None and expected_tick != encoded.ticks[0]
    if _borders(true_plan) != _borders(plan) or other_clock or colour:
        # Some packets are no frames of their own (hidden VP8 frames, fields) or carry no times. What ffmpeg has just
        # decoded is the truth, and a second run cuts by it.
        what = "its colours change in the middle" if colour else "packets and frames differ"
        logger.warning("%s: %s; splitting again by its decoded frames", source, what)
        true_plan, again = encode_by(encoded.frame_seconds, encoded.ticks[0], colour=colour)
        if again.ticks != encoded.ticks:
            raise BadVideo(source, "decodes differently each time", stage="decode")
    return true_plan, encoded


def _colour_to_keep(source: Path, encoded: Encoded, options: SplitOptions) -> str:
    """The filter for a video of whose pictures ffmpeg says that something changes in the middle.

    Raises:
        BadVideo: it is their size, or something over which ffmpeg cannot go on counting at a new rate.

    """
    with open_video(source) as (container, stream):
        frames = require_one_size(container.decode(stream), path=source)
        colour = colour_filter(next(frames))
        for _ in frames:
            pass
    if options.fps:
        seconds = encoded.frame_seconds[encoded.new_beginnings[0]]
        reason = f"changes its colours at {seconds:.2f} s, and --fps cannot count across that"
        raise BadVideo(source, f"{reason}; split it without --fps, or cut it there", stage="decode")
    return colour


def _first_frame(source: Path) -> VideoFrame | None:
    """The first frame that decodes; None where none does, of which ffmpeg says more."""
    with open_video(source) as (container, stream):
        try:
            return next(container.decode(stream), None)
        except av.FFmpegError:
            return None


def _own_crop(source: Path, first: VideoFrame | None, program: Ffmpeg) -> str | None:
    """The filter that an older ffmpeg needs to show what a newer one shows by itself.

    Raises:
        BadVideo: it would show another picture.

    """
    if not ffmpeg_lacks(program.version, CROPS_SINCE):
        return None
    with open_video(source) as (container, stream):
        margins = margins_of(container, stream)
    turn = turn_of(first) if first else []
    if ffmpeg_lacks(program.version, MIRRORS_SINCE) and turn not in PLAIN_TURNS:
        raise BadVideo(source, f"is shown mirrored, which {program.program} is too old for; use ffmpeg 5.1 or later")
    if margins and turn:
        raise BadVideo(
            source, f"is shown cut and turned, which {program.program} is too old for; use ffmpeg 7.1 or later"
        )
    return crop_filter(margins) if margins else None


def _expected_first_tick(info: VideoInfo, time_base: Fraction) -> int:
    """When ffmpeg should show the first frame: its clock begins where the first stream of a file does."""
    return floor((info.timestamps[0] - info.file_start_tick) * info.time_base / time_base + Fraction(1, 2))


def _expected_times(info: VideoInfo, options: SplitOptions) -> tuple[list[float], Fraction]:
    """When frames should come, in seconds from the first, and the clock they are counted by."""
    seconds = info.frame_seconds
    if options.fps is None:
        return seconds, info.time_base
    period = 1 / rate_of(options.fps)
    return [float(i * period) for i in range(round(seconds[-1] / period) + 1)], period


def _borders(plan: Sequence[PlannedClip]) -> list[int]:
    """Where files are cut: all that ffmpeg needs to know of a plan."""
    return [clip.first_frame for clip in plan]


def _keep(plan: Sequence[PlannedClip], options: SplitOptions) -> list[PlannedClip]:
    """The clips that are kept: all, or all but a last one that is shorter than a segment."""
    last = plan[-1].segment
    short = last.end_ms - last.start_ms < round(options.segment_seconds * 1000)
    return list(plan[:-1] if options.tail == "drop" and short else plan)
