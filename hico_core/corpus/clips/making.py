"""One video -> its clips as checked files in a folder.

probe        read the packets' times without decoding
plan         decide which frames each clip has
encode       ffmpeg decodes once, scales and encodes, with a keyframe and a new file at each planned frame
damage       if ffmpeg reports errors in the source, find the clips that contain no affected frame
verify       compare ffmpeg's output with the plan and the source
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from pathlib import Path

import av
from av import VideoFrame

from hico_core.base.choices import OnCorrupt, Verification
from hico_core.base.errors import BadVideo, counted
from hico_core.corpus.clips.damage import damaged_seconds, good_clips
from hico_core.corpus.clips.encode import Cut, Encoded, Job, can_mark_cuts, encode
from hico_core.corpus.clips.ffmpeg import Ffmpeg, ffmpeg_lacks, message_of
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
from hico_core.corpus.clips.plan import PlannedClip, is_whole, moments_within, plan_clips
from hico_core.corpus.clips.probe import VideoInfo, open_video, probe, rate_of, video_duration
from hico_core.corpus.clips.sound import Sound, sound_of
from hico_core.corpus.clips.verify import check_clips, decode_fully
from hico_core.corpus.workspace.records import ClipRecord, SplitOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeClips:
    """The good clips of a video, and facts about the video."""

    plan: list[PlannedClip]  # of the clips that are kept, in order
    files: list[Path]
    records: list[ClipRecord]  # their `path` is still the file's name
    frame_seconds: list[float]  # of all frames, in seconds from the first one
    num_decode_errors: int
    num_damaged: int  # clips that are left out

    @property
    def kept_frame_seconds(self) -> list[float]:
        """Times of the frames in the kept clips; clips that were left out leave gaps."""
        seconds = self.frame_seconds
        return [t for clip in self.plan for t in seconds[clip.first_frame : clip.first_frame + clip.num_frames]]


def make_clips(job: Job, *, on_corrupt: OnCorrupt, verify: Verification) -> MadeClips:
    """Write and check the clips of one video.

    Args:
        job: the video, and the format of its clips.
        on_corrupt: what to do if ffmpeg reports errors in the source: keep the clips without affected frames, or
            reject the video ("skip" and "fail", between which the caller distinguishes).
        verify: "fast" compares counts, times and sizes; "full" decodes each clip as well.

    Raises:
        BadVideo: the video cannot be used.
        HicoError: the disk is full, or the whole run was stopped.

    """
    info = probe(job.source)
    sound = sound_of(job.source, info) if job.options.audio == "keep" else None
    plan, encoded = _encode_by_true_plan(job, info, sound)
    kept = _keep(plan, job.options)
    if not kept:
        raise BadVideo(job.source, "is shorter than one clip, and --tail drop leaves nothing of it", stage="plan")
    good = _good_ones(kept, job, info, encoded, on_corrupt=on_corrupt) if encoded.stderr_lines else kept
    # ffmpeg numbers its files like the plan, including clips that are not kept.
    number_of = {clip: number for number, clip in enumerate(plan)}
    files = [job.folder / f"{number_of[clip]:05d}.mp4" for clip in good]
    seconds = encoded.frame_seconds
    records = check_clips(job.source, good, files, frame_seconds=seconds, info=info, sound=sound, options=job.options)
    if verify == "full":
        for clip, file in zip(good, files, strict=True):
            decode_fully(job, file, clip)
    return MadeClips(
        plan=good,
        files=files,
        records=_with_cuts(records, good, encoded, segment_seconds=job.options.segment_seconds),
        frame_seconds=seconds,
        num_decode_errors=len(encoded.stderr_lines),
        num_damaged=len(kept) - len(good),
    )


def _with_cuts(
    records: list[ClipRecord], clips: Sequence[PlannedClip], encoded: Encoded, *, segment_seconds: float
) -> list[ClipRecord]:
    """The records of clips, with the times of the cuts in each; a cut on a clip's first frame belongs to that clip."""
    if encoded.cuts is None:
        return records
    moments = [encoded.frame_seconds[number] for number in encoded.cuts]
    return [
        record.model_copy(update={"cuts": moments_within(moments, clip, segment_seconds=segment_seconds)})
        for record, clip in zip(records, clips, strict=True)
    ]


def _good_ones(
    kept: list[PlannedClip], job: Job, info: VideoInfo, encoded: Encoded, *, on_corrupt: OnCorrupt
) -> list[PlannedClip]:
    """The clips of a damaged video that contain no damaged frame.

    ffmpeg conceals damage and exits with 0, so damaged clips contain invented pictures.

    Raises:
        BadVideo: no clip is good, or damaged videos are to be rejected.

    """
    lines = encoded.stderr_lines
    errors = f"{counted(len(lines), 'decoding error')}, first: {message_of(lines[0])}"
    if on_corrupt != "keep-good":
        reason = f"is damaged: {errors}; --on-corrupt keep-good keeps its intact clips"
        raise BadVideo(job.source, reason, stage="decode", stderr_lines=lines)
    good = good_clips(kept, damaged_seconds(job, info, encoded), options=job.options)
    if not good:
        raise BadVideo(job.source, f"has no intact clip: {errors}", stage="decode", stderr_lines=lines)
    logger.warning("%s: is damaged; kept the %d intact clips of %d", job.source, len(good), len(kept))
    return good


def _encode_by_true_plan(job: Job, info: VideoInfo, sound: Sound | None) -> tuple[list[PlannedClip], Encoded]:
    """Encode by the packets' times, and once more if decoding shows that the packets do not match the frames."""
    source, options = job.source, job.options
    expected_seconds, time_base = _expected_times(info, options)
    first = _first_frame(source)
    if first is not None:
        require_known_turn(first, path=source)
    plan = plan_clips(expected_seconds, segment_seconds=options.segment_seconds)
    expected = Cut(
        plan=plan,
        time_base=time_base,
        first_tick=_expected_first_tick(info, time_base) if sound else None,
        sound_seconds=video_duration(expected_seconds) if sound else None,
        crop=_own_crop(source, first, job.program),
        marks_cuts=can_mark_cuts(job.program),
    )
    encoded = encode(job, expected)
    colour = _colour_to_keep(source, encoded, options) if encoded.new_beginnings else None
    seconds, first_tick = encoded.frame_seconds, encoded.ticks[0]
    true_plan = plan_clips(seconds, segment_seconds=options.segment_seconds)
    if _borders(true_plan) == _borders(plan) and expected.first_tick in {None, first_tick} and not colour:
        return true_plan, encoded
    # Some packets are not frames of their own (hidden VP8 frames, fields) or carry no times. The frames that ffmpeg has
    # just decoded are the truth, so a second run cuts by them.
    what = "its colour format changes" if colour else "packets and frames differ"
    logger.warning("%s: %s; splitting again by its decoded frames", source, what)
    sound_seconds = video_duration(seconds) if sound else None
    true = replace(expected, plan=true_plan, first_tick=first_tick, sound_seconds=sound_seconds, colour=colour)
    again = encode(job, true)
    if again.ticks != encoded.ticks:
        raise BadVideo(source, "decodes differently each time", stage="decode")
    return true_plan, again


def _colour_to_keep(source: Path, encoded: Encoded, options: SplitOptions) -> str:
    """The filter for a video in which ffmpeg reports a change of picture properties.

    Raises:
        BadVideo: the size changes, or a new frame rate is requested, which ffmpeg cannot keep across such a change.

    """
    with open_video(source) as (container, stream):
        frames = require_one_size(container.decode(stream), path=source)
        colour = colour_filter(next(frames))
        for _ in frames:
            pass
    if options.fps:
        seconds = encoded.frame_seconds[encoded.new_beginnings[0]]
        reason = f"changes its colour format at {seconds:.2f} s, which --fps cannot handle"
        raise BadVideo(source, f"{reason}; split it without --fps, or cut it there", stage="decode")
    return colour


def _first_frame(source: Path) -> VideoFrame | None:
    """The first frame that decodes; None if there is none, in which case ffmpeg's own error says more."""
    with open_video(source) as (container, stream):
        try:
            return next(container.decode(stream), None)
        except av.FFmpegError:
            return None


def _own_crop(source: Path, first: VideoFrame | None, program: Ffmpeg) -> str | None:
    """The filter that an older ffmpeg needs to show the picture that a newer one shows without it.

    Raises:
        BadVideo: the older ffmpeg would show a different picture even so.

    """
    if not ffmpeg_lacks(program.version, CROPS_SINCE):
        return None
    with open_video(source) as (container, stream):
        margins = margins_of(container, stream)
    turn = turn_of(first) if first else []
    if ffmpeg_lacks(program.version, MIRRORS_SINCE) and turn not in PLAIN_TURNS:
        raise BadVideo(source, f"is shown mirrored, but {program.program} is too old for that; use ffmpeg 5.1 or later")
    if margins and turn:
        raise BadVideo(
            source, f"is shown cropped and rotated, but {program.program} is too old for that; use ffmpeg 7.1 or later"
        )
    return crop_filter(margins) if margins else None


def _expected_first_tick(info: VideoInfo, time_base: Fraction) -> int:
    """The first frame's tick by ffmpeg's clock, which begins where the earliest stream of the file does."""
    return floor((info.timestamps[0] - info.file_start_tick) * info.time_base / time_base + Fraction(1, 2))


def _expected_times(info: VideoInfo, options: SplitOptions) -> tuple[list[float], Fraction]:
    """The expected times of the frames, in seconds from the first, and their time base."""
    seconds = info.frame_seconds
    if options.fps is None:
        return seconds, info.time_base
    period = 1 / rate_of(options.fps)
    return [float(i * period) for i in range(round(seconds[-1] / period) + 1)], period


def _borders(plan: Sequence[PlannedClip]) -> list[int]:
    """The frames at which files are cut, which is all that ffmpeg needs of a plan."""
    return [clip.first_frame for clip in plan]


def _keep(plan: Sequence[PlannedClip], options: SplitOptions) -> list[PlannedClip]:
    """The clips to keep: all, or all except a last one that is shorter than a segment."""
    whole = is_whole(plan[-1].segment, segment_seconds=options.segment_seconds)
    return list(plan if options.tail == "keep" or whole else plan[:-1])
