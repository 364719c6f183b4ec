"""Estimates what extracting features would take, from a few measured batches; nothing is written."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from hico_core.base.errors import BadVideo, HicoError
from hico_core.data.clock import num_grid_points
from hico_core.data.pictures import normalised
from hico_core.data.reading import errors_of_video
from hico_core.data.workers import num_workers
from hico_core.encoding.encoder import WindowEncoder
from hico_core.encoding.lanes import parts_of_video
from hico_core.encoding.windows import window_starts, windows_in_spans
from hico_core.transfer.extraction.extract import Files
from hico_core.transfer.extraction.jobs import FeatureJob, known_length
from hico_core.transfer.features import FeatureExtractor

# Enough to measure the speed of most encoders.
_MEASURED_BATCHES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionPlan:
    """Size and time of an extraction; rows and hours leave out videos of unknown length."""

    num_videos: int
    num_unknown: int  # in buckets and not in the index, or unreadable
    num_rows: int
    num_bytes: int
    rows_per_second: float
    hours: float
    reading_seconds: float  # per window, in one process
    encoding_seconds: float  # per window


def dry_run_extraction(
    jobs: Sequence[FeatureJob],
    *,
    extractor: FeatureExtractor,
    files: Files,
    workers: int | None = None,
    num_batches: int = _MEASURED_BATCHES,
) -> ExtractionPlan:
    """Count the rows of all videos, and measure how long a few take.

    Args:
        jobs: the videos to extract.
        extractor: encoder, grid and picture.
        files: the files that would be written.
        workers: number of reading processes; None: one per core.
        num_batches: number of measured batches, after one to warm up.

    Raises:
        HicoError: there is no video, or none can be read.

    """
    if not jobs:
        raise HicoError("there are no videos to measure; name others, or another --shard")
    num_windows = [_num_windows(job, extractor) for job in jobs]
    known = [count for count in num_windows if count is not None]
    num_rows = sum(
        len(job.video.spans.seconds) if job.video.spans else count or 0
        for job, count in zip(jobs, num_windows, strict=True)
    )
    reading_seconds, encoding_seconds, width = _measure(_clips(jobs, extractor), extractor, num_batches)
    # Reading overlaps with encoding unless the encoding process does the reading.
    readers = num_workers(workers)
    together = max(reading_seconds / readers, encoding_seconds) if readers else reading_seconds + encoding_seconds
    return ExtractionPlan(
        num_videos=len(jobs),
        num_unknown=len(jobs) - len(known),
        num_rows=num_rows,
        num_bytes=num_rows * width * np.dtype(files.dtype).itemsize,
        rows_per_second=1 / together,
        hours=sum(known) * together / 3600,
        reading_seconds=reading_seconds,
        encoding_seconds=encoding_seconds,
    )


def _measure(clips: Iterator[Tensor], extractor: FeatureExtractor, num_batches: int) -> tuple[float, float, int]:
    """Seconds to read and to encode a window, and the size of a row.

    Raises:
        HicoError: there is no window.

    """
    reading, encoding = [], []
    width = 0
    encoder = WindowEncoder(extractor.encoder, batch_size=extractor.batch_size, precision=extractor.precision)
    for _ in range(1 + num_batches):
        began = time.monotonic()
        batch = list(islice(clips, extractor.batch_size))
        if not batch:
            break
        read = time.monotonic()
        pictures = normalised(torch.stack(batch).to(extractor.device), extractor.picture)
        encoded = encoder.encode(list(pictures))
        reading.append((read - began) / len(batch))
        encoding.append((time.monotonic() - read) / len(batch))
        width = encoded[0].numel()
    if not encoding:
        raise HicoError("none of the videos can be read")
    measured = slice(1, None) if len(encoding) > 1 else slice(None)
    return float(np.median(reading[measured])), float(np.median(encoding[measured])), width


def _num_windows(job: FeatureJob, extractor: FeatureExtractor) -> int | None:
    """Number of windows to encode, as far as the index or the file's header gives the video's length."""
    length, grid, spans = known_length(job), extractor.grid, job.video.spans
    if length is None:
        return None
    if spans is not None:
        found = windows_in_spans(spans, grid, duration_seconds=length.duration_seconds, source_fps=length.fps)
        return len(found.span_W)
    return len(window_starts(num_grid_points(length.duration_seconds, fps=grid.rate(length.fps)), grid))


def _clips(jobs: Sequence[FeatureJob], extractor: FeatureExtractor) -> Iterator[Tensor]:
    """Windows of the readable videos, one video after the other."""
    for number, job in enumerate(jobs):
        try:
            with errors_of_video(job.video.path):
                for part in parts_of_video(number, job.video, extractor.reading):
                    if part.clips is not None:
                        yield from part.clips
        except BadVideo:
            continue
