"""Annotated segments of videos as extraction jobs: one row per segment, with its class."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hico_core.base.errors import HicoError, UsageError, counted
from hico_core.encoding.windows import Spans
from hico_core.transfer.extraction.jobs import FeatureJob, known_length
from hico_core.transfer.localisation.annotations import Segment, ids_of, read_segments, require_seconds
from hico_core.transfer.localisation.fitting import by_video, cut_to_video


class SegmentJobs(NamedTuple):
    """The videos that have segments, and remarks on those that cannot be used."""

    jobs: list[FeatureJob]  # with the spans and classes of their segments
    remarks: list[str]  # one sentence each


def jobs_of_segments(jobs: Sequence[FeatureJob], file: Path, *, num_windows: int | None) -> SegmentJobs:
    """Keep only the videos that have segments, and read only these segments.

    Segments are cut to the length of their video if it is known; otherwise, parts beyond its end are found on reading.

    Args:
        jobs: videos.
        file: of segments, see `read_segments`.
        num_windows: number of windows spread over each segment; None: those of the grid.

    Raises:
        UsageError: there are no segments of these videos.
        HicoError: the file is not one of segments, or its times are not in seconds.

    """
    found = read_segments(file)
    job_of = {job.source.video_id: job for job in jobs}
    segments_of = by_video(found.segments)
    ids = ids_of(found.videos, job_of)
    if not segments_of:
        raise UsageError("has no segments", subject=file)
    if not ids:
        raise UsageError(
            f"{file}: has no segments of the {counted(len(jobs), 'video')}; its first video is "
            f"{next(iter(found.videos))!r}, the first of the inputs, by name, is {min(job_of, default=None)!r}"
        )
    lengths = {name: known_length(job_of[video_id]) for name, video_id in ids.items()}
    known = {name: length for name, length in lengths.items() if length is not None}
    require_seconds(found.segments, known, origin=file)
    left_out, num_cut, kept_of = Counter(found.left_out), 0, dict[str, list[Segment]]()
    for name, video_id in ids.items():
        duration_seconds = known[name].duration_seconds if name in known else float("inf")
        kept, reasons, cut = cut_to_video(segments_of.get(name, []), duration_seconds=duration_seconds)
        left_out, num_cut = left_out + reasons, num_cut + cut
        if kept:
            kept_of.setdefault(video_id, []).extend(kept)  # two names may stand for one video
    if not kept_of:
        raise HicoError("no segment lies within its video", subject=file)
    limited = [_limited(job_of[video_id], kept, num_windows) for video_id, kept in kept_of.items()]
    missing = sorted(segments_of.keys() - ids.keys())
    return SegmentJobs(limited, _remarks(left_out, num_cut, missing, found.problems))


def _limited(job: FeatureJob, segments: Sequence[Segment], num_windows: int | None) -> FeatureJob:
    spans = Spans(tuple((segment.start_seconds, segment.end_seconds) for segment in segments), num_windows)
    return job._replace(video=job.video._replace(spans=spans), labels=tuple(segment.label for segment in segments))


def _remarks(left_out: Counter[str], num_cut: int, missing: Sequence[str], problems: dict[str, str]) -> list[str]:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
    lines = {f"entry {name!r} {problem}; left out": True for name, problem in problems.items()}
    of_others = (
        f"the segments of {counted(len(missing), 'video')} not among the inputs, such as {next(iter(missing), None)!r}"
    )
    lines |= {
        f"left out {counted(left_out.total(), 'segment')}: {reasons}": bool(left_out),
        f"cut {counted(num_cut, 'segment')} to the length of the video": bool(num_cut),
        f"left out {of_others}": bool(missing),
    }
    return [line for line, there_is in lines.items() if there_is]
