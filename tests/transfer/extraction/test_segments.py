"""A segment's row is what the encoder would say of the segment if it had been cut out of its video."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_videos import numbered_video
from torch import Tensor, nn

from hico_core.base.errors import BadVideo, HicoError, UsageError
from hico_core.corpus.clips.probe import frame_times
from hico_core.corpus.sources.ids import Source
from hico_core.data.clock import clock_of_times
from hico_core.data.decode import decode_frames
from hico_core.encoding.lanes import WholeVideo
from hico_core.encoding.windows import Grid, Spans
from hico_core.model.pooling import PooledEncoder
from hico_core.transfer.extraction.jobs import FeatureJob, jobs_of_files
from hico_core.transfer.extraction.segments import jobs_of_segments
from hico_core.transfer.features import FeatureExtractor, Features

pytestmark = pytest.mark.videos

SPANS = ((2.5, 4.0), (0.0, 1.0), (0.2, 0.4), (0.9, 3.1), (4.5, 7.0))  # overlapping; the last one ends with the video


class MeanColour(nn.Module):
    """An encoder whose features tell which frames a window has."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(dim=(2, 3, 4), keepdim=True)


@pytest.mark.parametrize("keep", ["1", "not(between(t,1.4,2.2))"])
@pytest.mark.parametrize("num_windows", [None, 2])
def test_rows_are_means_of_windows(tmp_path: Path, keep: str, num_windows: int | None) -> None:
    video = tmp_path / "a.mp4"
    numbered_video(video, seconds=5, keep=keep)
    grid = Grid(fps=10.0, window=8, stride=8)
    extractor = FeatureExtractor(PooledEncoder(MeanColour()), grid=grid, device=torch.device("cpu"))
    (found,) = extractor.extract_all([WholeVideo(video, [], Spans(SPANS, num_windows))], workers=0)
    assert isinstance(found, Features)
    assert found.times.tolist() == [list(span) for span in SPANS]
    clock = clock_of_times(frame_times(video))
    for row, (start, end) in zip(found.array, SPANS, strict=True):
        shown = clock.shown_at([start + point / 10 for point in range(round((min(end, 5.0) - start) * 10))]).tolist()
        if num_windows is None:
            firsts = list(range(0, len(shown), 8))
        else:
            room = max(len(shown) - 8, 0)
            firsts = [round(room / 4), round(room * 3 / 4)]
        numbers = [shown[min(first + step, len(shown) - 1)] for first in firsts for step in range(8)]
        pictures = decode_frames(video, sorted(set(numbers)))[:, 7:112, 27:132].numpy() / 255
        mean_of = dict(zip(sorted(set(numbers)), pictures.mean(axis=(1, 2, 3)), strict=True))
        expected = (np.mean([mean_of[number] for number in numbers]) - 0.45) / 0.225
        assert row.mean() == pytest.approx(expected, abs=0.02)


def test_a_segment_behind_the_end_is_said(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=2)
    extractor = FeatureExtractor(PooledEncoder(MeanColour()), device=torch.device("cpu"))
    (found,) = extractor.extract_all([WholeVideo(tmp_path / "a.mp4", [], Spans(((0.0, 1.0), (3.0, 4.0))))], workers=0)
    assert isinstance(found, BadVideo)
    assert found.reason == "has a segment that begins at 3 s, but is only 2.000 s long"


@pytest.fixture
def jobs(tmp_path: Path) -> list[FeatureJob]:
    """Two videos of 2 and 4 s."""
    for name, seconds in (("a", 2), ("b", 4)):
        numbered_video(tmp_path / f"{name}.mp4", seconds=seconds)
    return jobs_of_files([Source(video_id=name, path=tmp_path / f"{name}.mp4") for name in "ab"])


def segments_file(folder: Path, *rows: str) -> Path:
    file = folder / "segments.csv"
    file.write_text("video,start,end,label\n" + "\n".join(rows))
    return file


def test_videos_are_limited_to_their_segments(tmp_path: Path, jobs: list[FeatureJob]) -> None:
    file = segments_file(
        tmp_path, "v_b,1,2,run", "v_b,0,9,bow", "b2,0,1,run", "v_b,7,8,run", "v_b,1,1,run", "v_b,1,2,run"
    )
    found = jobs_of_segments(jobs, file, num_windows=3)
    ((source, video, _, labels),) = found.jobs
    assert (source.video_id, labels) == ("b", ("run", "bow"))
    assert video.spans == Spans(((1.0, 2.0), (0.0, 4.0)), 3)
    assert found.remarks == [
        "left out 3 segments: 1 empty or ending before they start, 1 given twice, 1 outside their video",
        "cut 1 segment to the length of the video",
        "left out the segments of 1 video not among the inputs, such as 'b2'",
    ]


@pytest.mark.parametrize(
    ("rows", "error", "said"),
    [
        (
            ["x,0,1,run", "y,0,1,run"],
            UsageError,
            "has no segments of the 2 videos; its first video is 'x', the first of the inputs, by name,",
        ),
        (["a,0,1500,run", "b,1000,3900,run"], HicoError, "look like milliseconds; divide them by 1000"),
        (["a,0,1,run", "a,5,6,run", "b,0,0,run"], None, ""),
        (["a,-2,-1,run"], HicoError, "no segment lies within its video"),
    ],
)
def test_what_cannot_be_used_is_said(
    tmp_path: Path, jobs: list[FeatureJob], rows: list[str], error: type[HicoError] | None, said: str
) -> None:
    file = segments_file(tmp_path, *rows)
    if error is None:
        assert len(jobs_of_segments(jobs, file, num_windows=None).jobs) == 1
        return
    with pytest.raises(error, match=said):
        jobs_of_segments(jobs, file, num_windows=None)
