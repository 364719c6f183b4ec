"""Sources that decode with errors: find the frames that cannot be trusted, and the clips without such frames."""

from collections.abc import Container, Sequence

import ffmpeg

from hico_core.base.errors import BadVideo
from hico_core.corpus.clips.encode import PRINT_FRAMES, Encoded, Job, read_frame_ticks, require_run_to_end
from hico_core.corpus.clips.ffmpeg import INPUT_OPTIONS, passthrough_arguments
from hico_core.corpus.clips.plan import BORDER_TOLERANCE, PlannedClip, number_of
from hico_core.corpus.clips.probe import Packet, VideoInfo, open_video, packets_in_order
from hico_core.corpus.workspace.records import SplitOptions


def damaged_timestamps(packets: Sequence[Packet], decoded: Container[int]) -> set[int]:
    """Timestamps of the frames that cannot be trusted because some packets failed to decode.

    A frame depends on frames decoded before it, back to a keyframe. After a packet that fails, all frames up to the
    next keyframe are therefore suspect, as are the frames decoded after that keyframe but shown before it.

    Args:
        packets: of the whole video, in decoding order.
        decoded: timestamps of the frames from a decoder that leaves out frames it cannot decode.

    """
    damaged: set[int] = set()
    suspect = lead = False
    keyframe_pts = packets[0].pts
    for packet in packets:
        if packet.is_keyframe:
            lead = suspect  # whether frames shown before this keyframe depend on suspect ones
            suspect = False
            keyframe_pts = packet.pts
        elif packet.pts > keyframe_pts:
            lead = False
        if packet.pts not in decoded:
            suspect = True
        if suspect or (packet.pts < keyframe_pts and lead):
            damaged.add(packet.pts)
    return damaged


def damaged_seconds(job: Job, info: VideoInfo, encoded: Encoded) -> list[float]:
    """Times of the untrustworthy frames, found by decoding the video once more.

    They count in seconds from the first frame of the clips; packets that could not be decoded may lie before it.

    Raises:
        BadVideo: the errors that ffmpeg reported cannot be located, or locating them took too long.
        HicoError: it was stopped with the whole run.

    """
    source = job.source
    strict = ffmpeg.input(str(source), **INPUT_OPTIONS, threads=1, err_detect="explode")["V:0"]
    output = ffmpeg.output(strict, "-", vf=PRINT_FRAMES, f="null", **passthrough_arguments(job.program.version))
    arguments = output.global_args("-nostdin", "-v", "error").get_args()
    written = job.folder / "whole.txt"
    finished = job.run(arguments, output=written)
    # If this pass were interrupted, all later frames would look lost.
    require_run_to_end(job, finished)
    ticks = read_frame_ticks(written.read_text())
    is_comparable = encoded.time_base == info.time_base
    first = encoded.ticks[0] if is_comparable or not ticks else ticks[0]
    start = _start_of_clock(ticks, info, first=first)
    whole = {tick + start for tick in ticks}
    with open_video(source) as (container, stream):
        packets = packets_in_order(container, stream, path=source)
    damaged = damaged_timestamps(packets, whole)
    if not damaged or len(damaged) == len(packets):
        raise BadVideo(
            source,
            "is damaged, and ffmpeg cannot tell which of its frames are intact",
            stage="decode",
            stderr_lines=encoded.stderr_lines,
        )
    if is_comparable:  # another clock, if sound is read, too
        start = _start_of_clock(encoded.ticks, info, first=first)
    begins = start * info.time_base + encoded.ticks[0] * encoded.time_base
    return [float(tick * info.time_base - begins) for tick in sorted(damaged)]


def _start_of_clock(ticks: Sequence[int], info: VideoInfo, *, first: int) -> int:
    """Where ffmpeg's clock begins, by that of the packets: where most of its frames have the times of packets.

    That is where the file starts; in some containers, such as MPEG-TS, where those of its streams start that are read.
    If frames have other times than packets, as in AVI, the first frame is taken to be that of the first packet.

    Args:
        ticks: of the frames, by ffmpeg's clock.
        info: the packets.
        first: tick of the first frame that can be decoded.

    """
    there = set(info.timestamps)
    starts = (info.file_start_tick, info.start_tick or 0, info.timestamps[0] - first)
    return max(starts, key=lambda start: sum(tick + start in there for tick in ticks))


def good_clips(
    plan: Sequence[PlannedClip], damaged_seconds: Sequence[float], *, options: SplitOptions
) -> list[PlannedClip]:
    """The clips whose intervals contain no damaged frame."""
    # After a change of frame rate, a clip's first or last picture may come from a frame just across the border.
    margin = 1 / options.fps if options.fps else 0.0
    step = options.segment_seconds
    good = []
    for clip in plan:
        start = number_of(clip.segment, segment_seconds=step) * step
        if not any(start - margin <= moment + BORDER_TOLERANCE < start + step + margin for moment in damaged_seconds):
            good.append(clip)
    return good
