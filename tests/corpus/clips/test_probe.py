"""Frame rates and durations, from timestamps alone."""

from fractions import Fraction
from pathlib import Path

import pytest
from made_videos import numbered_video, run_ffmpeg

from hico_core.base.errors import BadVideo
from hico_core.corpus.clips.probe import (
    Keyframe,
    VideoInfo,
    frame_rate,
    largest_keyframe_interval,
    open_video,
    probe,
    rate_of,
    video_duration,
)


@pytest.mark.parametrize(
    ("times", "fps", "variable"),
    [
        ([k / 30 for k in range(90)], 30.0, False),
        ([round(k / 30, 3) for k in range(90)], 30.0, False),  # Matroska counts milliseconds
        ([0.0, 0.1, 0.2, 0.5, 0.6], 4 / 0.6, True),  # frames were dropped
        ([(k + 0.2 * (k == 45)) / 30 for k in range(90)], 30.0, False),
        ([(k + 0.3 * (k == 45)) / 30 for k in range(90)], 30.0, True),  # rounding could find its neighbour
        ([0.0], 1.0, False),
        ([0.0, 0.25], 4.0, False),
    ],
)
def test_frame_rate(times: list[float], fps: float, variable: bool) -> None:
    rate = frame_rate(times)
    assert rate.fps == pytest.approx(fps, rel=1e-3)
    assert rate.variable == variable


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        *((25.0, "25"), (30.0, "30"), (7.5, "15/2"), (0.1, "1/10"), (1.0, "1"), (14.99, "1499/100")),
        *((30000 / 1001, "30000/1001"), (24000 / 1001, "24000/1001")),
        *((29.97, "30000/1001"), (23.976, "24000/1001"), (23.98, "24000/1001"), (59.94, "60000/1001")),
    ],
)
def test_rates_are_those_of_cameras(fps: float, expected: str) -> None:
    assert str(rate_of(fps)) == expected


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        ([0.0, 0.1, 0.2], 0.3),  # the last frame lasts as long as the others
        ([0.0, 0.1, 0.2, 5.2], 5.3),  # and not as long as a hole
        ([0.0], 1.0),
    ],
)
def test_video_duration(times: list[float], seconds: float) -> None:
    assert video_duration(times) == pytest.approx(seconds)


def test_largest_keyframe_interval() -> None:
    def info(keyframes: list[int]) -> VideoInfo:
        return VideoInfo(
            width=1,
            height=1,
            codec="h264",
            time_base=Fraction(1, 30),
            timestamps=list(range(10)),
            keyframes=[Keyframe(k, k) for k in keyframes],
            start_tick=0,
            file_start_tick=0,
        )

    assert largest_keyframe_interval(info([0, 4, 5])) == 5
    assert largest_keyframe_interval(info([0, 6])) == 6


@pytest.mark.videos
def test_probe_counts_packets_in_order_of_showing(tmp_path: Path) -> None:
    numbered_video(
        tmp_path / "a.mp4",
        seconds=2,
        output=("-c:v", "libx264", "-g", "25", "-bf", "3", "-sc_threshold", "0"),
    )
    info = probe(tmp_path / "a.mp4")
    assert (info.width, info.height, info.codec) == (160, 120, "h264")
    assert len(info.timestamps) == 60 and info.timestamps == sorted(info.timestamps)
    assert [keyframe.position for keyframe in info.keyframes] == [0, 25, 50]


@pytest.mark.videos
def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x64:d=0.04", "-frames:v", "1", tmp_path / "cover.png")
    run_ffmpeg(
        *("-f", "lavfi", "-i", "sine=d=1", "-i", tmp_path / "cover.png", "-map", "0", "-map", "1"),
        *("-c:v", "png", "-disposition:v", "attached_pic", tmp_path / "song.mp4"),
    )
    with pytest.raises(BadVideo, match="no video stream"), open_video(tmp_path / "song.mp4"):
        pass


@pytest.mark.videos
def test_a_raw_stream_has_no_times(tmp_path: Path) -> None:
    """The remedy is another one than for a video without frames, and keeps all of them, which copying would not."""
    numbered_video(tmp_path / "a.mp4", seconds=1)
    run_ffmpeg("-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "a.h264")
    with pytest.raises(BadVideo, match=r"has frames without times, .*; re-encode it .* `ffmpeg -i FILE NEW\.mp4`"):
        probe(tmp_path / "a.h264")
    run_ffmpeg("-i", tmp_path / "a.h264", tmp_path / "new.mp4")
    assert len(probe(tmp_path / "new.mp4").timestamps) == 30


def test_a_playlist_cannot_reach_other_hosts(tmp_path: Path) -> None:
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n"
    (tmp_path / "x.mp4").write_text(playlist)
    with pytest.raises(BadVideo, match=r"x\.mp4"):
        probe(tmp_path / "x.mp4")
