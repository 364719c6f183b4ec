"""One video -> its clips as files in a folder, checked.

probe        read the packets' times, decode nothing
plan         which frames each clip has
encode       ffmpeg decodes once, scales, encodes; a keyframe and a new file at each planned frame
damage       where it reports errors in the source: which clips hold none of the frames concerned
verify       what ffmpeg wrote against the plan and the source
"""

import logging
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal, NamedTuple

from hico_core.corpus.damage import damaged_seconds, good_clips
from hico_core.corpus.encode import Encoded, encode, rate_of
from hico_core.corpus.ffmpeg import Ffmpeg
from hico_core.corpus.plan import PlannedClip, plan_clips
from hico_core.corpus.probe import VideoInfo, probe
from hico_core.corpus.records import ClipRecord, SplitOptions, Verification
from hico_core.corpus.verify import check_clips, decode_fully
from hico_core.errors import BadVideo

logger = logging.getLogger(__name__)

OnCorrupt = Literal["keep-good", "skip", "fail"]


class MadeClips(NamedTuple):
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
    plan, encoded = _encode_by_true_plan(source, info, options, program, folder=folder, deadline=deadline)
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
    records = check_clips(source, good, files, frame_seconds=seconds, info=info, options=options)
    if verify == "full":
        for clip, file in zip(good, files, strict=True):
            decode_fully(source, file, clip, program, folder=folder, deadline=deadline)
    return MadeClips(good, files, records, seconds, len(encoded.stderr_lines), len(kept) - len(good))


def _encode_by_true_plan(
    source: Path, info: VideoInfo, options: SplitOptions, program: Ffmpeg, *, folder: Path, deadline: float | None
) -> tuple[list[PlannedClip], Encoded]:
    """Encode by what the packets say, and once more where decoding shows that they are not the frames."""
    expected_seconds, time_base = _expected_times(info, options)
    plan = plan_clips(expected_seconds, segment_seconds=options.segment_seconds)
    encoded = encode(source, plan, time_base, options, program, folder=folder, deadline=deadline)
    true_plan = plan_clips(encoded.frame_seconds, segment_seconds=options.segment_seconds)
    if _borders(true_plan) != _borders(plan):
        # Some packets are no frames of their own (hidden VP8 frames, fields) or carry no times. What ffmpeg has just
        # decoded is the truth, and a second run cuts by it.
        logger.warning("%s: packets and frames differ; splitting again by its decoded frames", source)
        again = encode(source, true_plan, time_base, options, program, folder=folder, deadline=deadline)
        if again.ticks != encoded.ticks:
            raise BadVideo(source, "decodes differently each time", stage="decode")
    return true_plan, encoded


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
