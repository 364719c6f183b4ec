"""Every frame of a source is in exactly one clip, the right one, in order, whatever the frame rate."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import pytest
from commands import running
from made_videos import (
    numbered_video,
    painted_number,
    run_ffmpeg,
    turned_copy,
    video_of_shots,
    video_with_hidden_frames,
)
from trees import tree

from hico_core.base.errors import HicoError
from hico_core.base.tally import Summary, VideoEvent
from hico_core.corpus.clips.probe import probe, rate_of
from hico_core.corpus.intake import Rules
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.sources.ids import parse_clip_name
from hico_core.corpus.split import SplitPolicy, split_videos
from hico_core.corpus.workspace.records import SplitOptions, read_record

pytestmark = pytest.mark.videos

SMALL = SplitOptions(short_side=96, preset="ultrafast", crf=10)
RETRY = SplitPolicy(rules=Rules(retry_failed=True))


def split(
    inputs: Path | list[Path],
    root: Path,
    options: SplitOptions = SMALL,
    policy: SplitPolicy = SplitPolicy(),  # noqa: B008 - immutable
) -> tuple[Summary, list[VideoEvent]]:
    events: list[VideoEvent] = []
    given = [str(path) for path in (inputs if isinstance(inputs, list) else [inputs])]
    summary = split_videos(
        find_sources(given), root=root, options=options, workers=2, on_event=events.append, policy=policy
    )
    return summary, events


def numbers_in(path: Path) -> list[int]:
    """The painted numbers of all frames of a file, decoded from its beginning."""
    with av.open(str(path)) as container:
        return [painted_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def expected_numbers(source: Path, segment_seconds: float = 5.0) -> dict[int, list[int]]:
    """Segment -> painted numbers, from the source itself: decode all, take each frame's time from the first's."""
    segments: dict[int, list[int]] = {}
    with av.open(str(source)) as container:
        first = None
        for frame in container.decode(video=0):
            assert frame.pts is not None and frame.time_base is not None
            first = frame.pts if first is None else first
            number = int((frame.pts - first) * frame.time_base / segment_seconds)  # exact: a Fraction
            segments.setdefault(number, []).append(painted_number(frame.to_ndarray(format="rgb24")))
    return segments


# name: (file, how it is made)
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "30 fps": ("a.mp4", {"seconds": 11.5}),
    "29.97 fps": ("a.mp4", {"seconds": 11, "fps": "30000/1001"}),
    "25 fps in Matroska": ("a.mkv", {"seconds": 7, "fps": "25"}),
    "19.62 fps": ("a.mp4", {"seconds": 11, "fps": "19.62"}),
    "60 fps": ("a.mp4", {"seconds": 6, "fps": "60"}),
    "exactly one clip": ("a.mp4", {"seconds": 5}),
    "one frame": ("a.mp4", {"seconds": 0.03}),
    "frames dropped": ("a.mkv", {"seconds": 12, "keep": "gt(random(7),0.3)"}),
    "a hole over a border": ("a.mp4", {"seconds": 12, "keep": "not(between(t,4.5,5.6))"}),
    "a hole longer than a clip": ("a.mp4", {"seconds": 20, "keep": "not(between(t,4,10.7))"}),
    "MPEG-TS with a start time": (
        "a.ts",
        {
            "seconds": 11,
            "output": ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-output_ts_offset", "7.7"),
        },
    ),
    "VP8": (
        "a.webm",
        {"seconds": 6, "output": ("-c:v", "libvpx", "-crf", "4", "-b:v", "4M", "-auto-alt-ref", "1")},
    ),
    "MPEG-4 in AVI": ("a.avi", {"seconds": 6, "output": ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2")}),
    "odd size": (
        "a.webm",
        {"seconds": 6, "size": "427x241", "output": ("-c:v", "libvpx", "-crf", "4", "-b:v", "4M")},
    ),
    "4:4:4 with 10 bits": (
        "a.mkv",
        {
            "seconds": 6,
            "output": ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-pix_fmt", "yuv444p10le"),
        },
    ),
    "sound longer than picture": (
        "a.mp4",
        {
            "seconds": 6,
            "before": ("-f", "lavfi", "-i", "sine=d=9"),
            "output": ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-map", "0:v", "-map", "1:a"),
        },
    ),
}


@pytest.mark.parametrize("name", SOURCES)
def test_clips_partition_the_frames(tmp_path: Path, name: str) -> None:
    file, how = SOURCES[name]
    source = tmp_path / file
    numbered_video(source, **how)
    expected = expected_numbers(source)
    summary, _ = split(source, tmp_path / "root")
    assert summary.num_failed == 0, (tmp_path / "root" / "failures.jsonl").read_text()

    clips = sorted((tmp_path / "root" / "train").iterdir())
    starts = [parsed.start_ms // 5000 for clip in clips if (parsed := parse_clip_name(clip.name))]
    assert starts == sorted(expected)
    for start, clip in zip(starts, clips, strict=True):
        assert numbers_in(clip) == expected[start]

    record = read_record(tmp_path / "root", "a")
    assert record is not None
    assert [c.num_frames for c in record.clips] == [len(expected[start]) for start in starts]
    assert min(record.clips[0].width, record.clips[0].height) == SMALL.short_side
    assert all(c.keyframe_interval <= SMALL.gop for c in record.clips)
    assert all(c.size_bytes == (tmp_path / "root" / c.path).stat().st_size for c in record.clips)


def test_times_are_those_of_the_source(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    numbered_video(source, seconds=12, keep="not(between(t,4.5,6.2))*gt(random(3),0.2)")
    info = probe(source)
    times = [float((t - info.timestamps[0]) * info.time_base) for t in info.timestamps]
    split(source, tmp_path / "root")
    record = read_record(tmp_path / "root", "a")
    assert record is not None and record.variable_fps
    for clip in record.clips:
        of_clip = [t for t in times if clip.start_ms <= t * 1000 + 1e-6 < clip.start_ms + 5000]
        assert clip.start_seconds == pytest.approx(of_clip[0], abs=1e-9)
        assert of_clip[-1] < clip.end_seconds < of_clip[-1] + 0.1


def test_rotation_is_baked_in(tmp_path: Path) -> None:
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x120:d=1", "-c:v", "libx264", tmp_path / "flat.mp4")
    turned_copy(tmp_path / "flat.mp4", tmp_path / "turned.mp4", degrees=90)
    split(tmp_path / "turned.mp4", tmp_path / "root")
    with av.open(str(next((tmp_path / "root/train").iterdir()))) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == (96, 128)
    assert frame.rotation == 0


@pytest.mark.parametrize("fps", [60, 30, 29.97, 12.5, 10])
@pytest.mark.parametrize("num_frames", [2, 14, 54, 75])
def test_any_rate_of_any_number_of_frames(fps: float, num_frames: int, tmp_path: Path) -> None:
    """ffmpeg's rate filter sometimes gives one frame more than arithmetic; wherever keyframes lie, all are in clips."""
    source = tmp_path / "a.mp4"
    numbered_video(source, seconds=num_frames / 25, fps="25")
    run_ffmpeg("-i", source, "-vf", f"fps={rate_of(fps)}", "-c:v", "ffv1", tmp_path / "resampled.nut")
    expected = numbers_in(tmp_path / "resampled.nut")
    for gop in (1, 32):
        root = tmp_path / str(gop)
        split(source, root, SMALL.model_copy(update={"fps": fps, "gop": gop, "segment_seconds": 1.0}))
        record = read_record(root, "a")
        assert record is not None and record.failure is None, record
        assert [number for clip in record.clips for number in numbers_in(root / clip.path)] == expected
        assert {clip.num_frames for clip in record.clips[:-1]} <= {int(fps), int(fps) + 1}


def test_packets_that_are_no_frames(tmp_path: Path) -> None:
    """Counted by packets, a border would lie some frames too early, though there are as many clips."""
    video_with_hidden_frames(tmp_path / "a.webm", seconds=7)
    assert len(probe(tmp_path / "a.webm").timestamps) > 210
    split(tmp_path / "a.webm", tmp_path / "root", policy=SplitPolicy(rules=Rules(verify="full")))
    clips = sorted((tmp_path / "root/train").iterdir())
    assert [numbers_in(clip) for clip in clips] == list(expected_numbers(tmp_path / "a.webm").values())


def test_what_a_source_says_of_itself_is_in_no_clip(tmp_path: Path) -> None:
    numbered_video(tmp_path / "plain.mp4", seconds=2)
    run_ffmpeg("-i", tmp_path / "plain.mp4", "-c", "copy", "-metadata", "title=where I live", tmp_path / "a.mp4")
    split(tmp_path / "a.mp4", tmp_path / "root")
    (clip,) = (tmp_path / "root/train").iterdir()
    with av.open(str(clip)) as container:
        assert "title" not in container.metadata


def test_tail_can_be_dropped(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=7)
    numbered_video(tmp_path / "b.mp4", seconds=2)
    summary, events = split(
        [tmp_path / "a.mp4", tmp_path / "b.mp4"], tmp_path / "root", SMALL.model_copy(update={"tail": "drop"})
    )
    assert [path.name for path in (tmp_path / "root/train").iterdir()] == ["v_a_0000000_0005000.mp4"]
    assert summary.num_failed == 1
    (failed,) = [event for event in events if event.outcome == "failed"]
    assert "shorter than one clip" in failed.note


@pytest.fixture(scope="module")
def bad_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    numbered_video(folder / "good.mp4", seconds=6)
    (folder / "text.mp4").write_text("I am no video\n")
    (folder / "empty.mp4").write_bytes(b"")
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=2", folder / "sound.mp4")
    whole = (folder / "good.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    # Noise in the middle of the pictures. The container stays whole, and ffmpeg ends with 0.
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:d=6", "-c:v", "libx264", folder / "noise.mp4")
    noisy = bytearray((folder / "noise.mp4").read_bytes())
    middle = len(noisy) // 2
    noisy[middle : middle + 60_000] = bytes((i * i * 7 + 13 * i) % 251 for i in range(60_000))
    (folder / "noise.mp4").write_bytes(noisy)
    return folder


def test_what_cannot_be_decoded_is_one_line_and_the_others_are_done(tmp_path: Path, bad_videos: Path) -> None:
    summary, _ = split(bad_videos, tmp_path)
    assert (summary.num_done, summary.num_failed) == (1, 5)
    lines = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert Counter(Path(line["source"]).name for line in lines) == {
        "text.mp4": 1,
        "empty.mp4": 1,
        "sound.mp4": 1,
        "cut.mp4": 1,
        "noise.mp4": 1,
    }
    errors = {Path(line["source"]).stem: line["error"] for line in lines}
    assert "no video stream" in errors["sound"]
    assert "decoding error" in errors["noise"] and " @ 0x" not in errors["noise"]
    assert errors["noise"].endswith("; --on-corrupt keep-good keeps its intact clips")
    assert {line["attempts"] for line in lines} == {1}
    assert {parse_clip_name(p.name)[0] for p in (tmp_path / "train").iterdir()} == {"good"}  # type: ignore[index]
    assert not (tmp_path / ".tmp").exists()

    # Failures are remembered, and tried again if asked for.
    summary, events = split(bad_videos, tmp_path)
    assert (summary.num_done, summary.num_unchanged, summary.num_failed) == (0, 1, 5)
    assert Counter(event.outcome for event in events) == {"unchanged": 1, "failed before": 5}
    assert [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()] == lines
    summary, events = split(bad_videos, tmp_path, policy=RETRY)
    assert Counter(event.outcome for event in events) == {"unchanged": 1, "failed": 5}
    lines = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    assert {line["attempts"] for line in lines} == {2}


def test_finished_videos_are_left_alone_and_changed_ones_redone(tmp_path: Path) -> None:
    source, root = tmp_path / "a.mp4", tmp_path / "root"
    numbered_video(source, seconds=6)
    split(source, root)
    before = tree(root)
    summary, _ = split(source, root)
    assert summary == Summary(num_done=0, num_unchanged=1, num_failed=0, num_parts=2)
    assert tree(root) == before

    split(source, root, SMALL.model_copy(update={"segment_seconds": 2.0}))
    names = sorted(p.name for p in (root / "train").iterdir())
    assert names == [f"v_a_000{k}000_000{k + 2}000.mp4" for k in (0, 2, 4)], "clips of the old options are gone"

    numbered_video(source, seconds=3)
    summary, _ = split(source, root)
    assert summary.num_done == 1
    assert [p.name for p in (root / "train").iterdir()] == ["v_a_0000000_0003000.mp4"]
    record = read_record(root, "a")
    assert record is not None and record.attempts == 3


def test_an_id_is_not_taken_from_another_video(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    numbered_video(tmp_path / "a.mp4", seconds=1)
    numbered_video(tmp_path / "other/v_a.mp4", seconds=2)
    split(tmp_path / "a.mp4", tmp_path / "root")
    before = tree(tmp_path / "root")
    with pytest.raises(HicoError, match=r"other/v_a\.mp4 and .*a\.mp4, added before, have the same id, 'a'"):
        split(tmp_path / "other/v_a.mp4", tmp_path / "root")
    assert tree(tmp_path / "root") == before


@pytest.mark.processes
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_run_again_gives_the_same_tree(tmp_path: Path, how: signal.Signals) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in "abc":
        numbered_video(videos / f"{name}.mp4", seconds=8)
    command = [
        sys.executable,
        "-c",
        "from hico_cli.main import main; main()",
        "split",
        str(videos),
        "--workers",
        "1",
    ]
    undisturbed = tmp_path / "undisturbed"
    subprocess.run([*command, "--root", undisturbed], check=True, capture_output=True)

    root = tmp_path / "root"
    with running([*command, "--root", root], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # the first video is done, the second has begun
        time.sleep(0.05)
        os.kill(process.pid, how)
        said = process.stderr.read()
        process.wait(timeout=20)
    assert process.returncode == 128 + how
    assert said.splitlines()[-1] == "hico: stopped; the same command continues"
    assert not (root / ".tmp").exists()
    records = {path.stem for path in (root / "records").glob("*.json")}
    assert "a" in records
    for clip in (root / "train").iterdir():
        assert probe(clip).timestamps, "no half clip under a final name"

    subprocess.run([*command, "--root", root], check=True, capture_output=True)
    clips = {name: data for name, data in tree(root).items() if name.startswith("train/")}
    assert clips == {name: data for name, data in tree(undisturbed).items() if name.startswith("train/")}
    assert not (root / ".tmp").exists()


REAL = [
    "v_GGSY1Qvo990.mp4",
    "nasa_13013.mp4",
    "arm wrestling.mp4",
    "awkward/unordered.mov",
    "awkward/mpeg4_short.avi",
]


@pytest.mark.parametrize("name", REAL)
def test_real_videos(tmp_path: Path, real_videos: Path, name: str) -> None:
    expected = Counter[int]()
    with av.open(str(real_videos / name)) as container:
        first = None
        for frame in container.decode(video=0):
            assert frame.pts is not None and frame.time_base is not None
            first = frame.pts if first is None else first
            expected[int((frame.pts - first) * frame.time_base / 5)] += 1
    summary, _ = split(real_videos / name, tmp_path)
    assert summary.num_failed == 0
    record = read_record(tmp_path, find_sources([str(real_videos / name)])[0].video_id)
    assert record is not None
    assert {clip.start_ms // 5000: clip.num_frames for clip in record.clips} == expected


@pytest.mark.parametrize(
    ("shots", "options", "cuts"),
    [
        ([9], {}, [[], []]),
        ([3, 4, 4.5], {}, [[3.0], [7.0], []]),
        ([2, 3, 3], {}, [[2.0], [5.0]]),  # with the first frame of a clip
        ([3, 4, 4.5], {"fps": 5.0, "short_side": None}, [[3.0], [7.0], []]),
        ([1, 0.2, 1], {"tail": "drop"}, None),  # leaves nothing
        ([5.5, 1.5, 0.5], {"tail": "drop", "segment_seconds": 2.5}, [[], [], [5.5, 7.0]]),
    ],
)
def test_cuts_are_noted(
    shots: list[float], options: dict[str, Any], cuts: list[list[float]] | None, tmp_path: Path
) -> None:
    video_of_shots(tmp_path / "a.mp4", shots)
    split(tmp_path / "a.mp4", tmp_path / "root", SMALL.model_copy(update=options))
    record = read_record(tmp_path / "root", "a")
    assert record is not None
    if cuts is None:
        assert record.failure is not None
        return
    assert [clip.cuts for clip in record.clips] == [pytest.approx(moments) for moments in cuts]
