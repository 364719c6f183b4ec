"""Videos that are read where they lie give the same rows, and the same clips, as split ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from made_videos import numbered_video, painted_number, run_ffmpeg, turned_copy, video_of_shots

from hico_core.base.errors import HicoError
from hico_core.base.tally import VideoEvent
from hico_core.corpus.index import build_index, read_index, read_index_table
from hico_core.corpus.intake import Rules
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.records import SplitOptions, UntrimmedOptions, VideoRecord, record_text
from hico_core.data.reading import read_clip
from hico_core.data.videos import IndexedVideos

pytestmark = pytest.mark.videos


VIDEOS: dict[str, dict[str, Any]] = {
    "ntsc.mp4": {"seconds": 13, "fps": "30000/1001"},
    "hole.mp4": {"seconds": 18, "keep": "not(between(t,4,10.7))"},
    "vp8.webm": {"seconds": 11, "output": ("-c:v", "libvpx", "-crf", "4", "-b:v", "4M", "-auto-alt-ref", "1")},
}


def add(inputs: Path, root: Path) -> tuple[int, list[VideoEvent]]:
    events: list[VideoEvent] = []
    summary = add_untrimmed(
        find_sources([str(inputs)]),
        root=root,
        options=UntrimmedOptions(),
        workers=2,
        on_event=events.append,
    )
    return summary.num_failed, events


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("untrimmed")
    for name, how in VIDEOS.items():
        numbered_video(folder / name, **how)
    add(folder, folder / "in place")
    build_index(folder / "in place")
    split_videos(
        find_sources([str(folder)]),
        root=folder / "split",
        options=SplitOptions(preset="ultrafast", crf=10),
        workers=2,
        on_event=lambda event: None,
    )
    build_index(folder / "split")
    return folder


def test_rows_are_those_of_clips(folder: Path) -> None:
    here, there = read_index(folder / "in place"), read_index(folder / "split")
    for column in ("video_id", "clip_index", "num_clips", "start_ms", "end_ms", "num_frames", "variable_fps", "source"):
        assert list(here[column]) == list(there[column]), column
    for column in ("start_seconds", "end_seconds", "fps"):
        assert list(here[column]) == pytest.approx(list(there[column]), abs=2e-3)
    assert list(here["path"]) == list(here["source"])
    assert here["sha256"].isna().all()
    assert list(here[here["video_id"] == "ntsc"]["first_frame"]) == [0, 150, 300]


@pytest.mark.parametrize("video", range(3))
def test_clips_are_those_of_split_videos(folder: Path, video: int) -> None:
    shown = []
    for root in (folder / "in place", folder / "split"):
        videos = IndexedVideos(read_index_table(root), root=root)
        assert len(videos) == 3
        pieces = videos.pieces(video)
        numbers = []
        for i in range(20):
            start = i / 19 * (videos.duration_seconds(video) - 64 / 30)
            clip = read_clip(pieces, (start, start + 64 / 30), num_frames=16, decoder="auto")
            numbers.append([painted_number(picture.numpy()) for picture in clip])
        shown.append(torch.tensor(numbers))
    assert torch.equal(*shown)


def test_known_videos_are_left_alone_and_bad_ones_named(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (tmp_path / "text.mp4").write_text("no video")
    num_failed, events = add(tmp_path / "text.mp4", root)
    assert num_failed == 1 and events[0].outcome == "failed"
    assert "text.mp4" in (root / "failures.jsonl").read_text()
    add(folder, root)
    before = {path.name: path.stat().st_mtime_ns for path in (root / "records").iterdir()}
    add(folder, root)
    assert {path.name: path.stat().st_mtime_ns for path in (root / "records").iterdir()} == before


def test_a_video_is_not_indexed_twice(folder: Path) -> None:
    with pytest.raises(HicoError, match=r"was split here .*; use another --root"):
        add(folder, folder / "split")


def test_a_video_on_its_side_has_the_size_that_is_shown(tmp_path: Path) -> None:
    numbered_video(tmp_path / "flat.mp4", seconds=1, size="160x120")
    turned_copy(tmp_path / "flat.mp4", tmp_path / "turned.mp4", degrees=90)
    add(tmp_path / "turned.mp4", tmp_path / "root")
    build_index(tmp_path / "root")
    index = read_index(tmp_path / "root")
    assert (index["width"][0], index["height"][0]) == (120, 160)


def joined_twice(folder: Path, name: str) -> Path:
    """Two recordings with the same clock, one behind the other."""
    part = folder / "part.ts"
    numbered_video(part, seconds=6, fps="10", output=("-c:v", "libx264", "-preset", "ultrafast", "-bf", "0"))
    (folder / name).write_bytes(part.read_bytes() * 2)
    return folder / name


def test_a_clock_that_goes_back_is_refused_by_name_and_split_has_it(tmp_path: Path) -> None:
    joined = joined_twice(tmp_path, "joined.ts")
    num_failed, (event,) = add(joined, tmp_path / "in place")
    assert num_failed == 1
    assert "its clock goes back from 5.900 s to 0.000 s at frame 60" in event.note
    split_videos(
        find_sources([str(joined)]),
        root=tmp_path / "split",
        options=SplitOptions(preset="ultrafast"),
        workers=1,
        on_event=lambda event: None,
    )
    build_index(tmp_path / "split")
    index = read_index(tmp_path / "split")
    assert list(index["start_ms"]) == [0, 5000, 10000] and list(index["num_frames"]) == [50, 50, 20]


def test_what_an_earlier_version_wrote_is_left_out_and_mended_by_the_same_command(tmp_path: Path) -> None:
    """A record whose clips go back in time, which no reader takes."""
    numbered_video(tmp_path / "videos/a.mp4", seconds=12)
    numbered_video(tmp_path / "videos/b.mp4", seconds=12)
    add(tmp_path / "videos", tmp_path / "root")
    path = tmp_path / "root/records/a.json"
    record = VideoRecord.model_validate_json(path.read_text())
    path.write_text(record_text(record.model_copy(update={"clips": record.clips[::-1]}), tmp_path / "root"))
    assert build_index(tmp_path / "root").num_failed == 1
    assert set(read_index(tmp_path / "root")["video_id"]) == {"b"}
    add(tmp_path / "videos", tmp_path / "root")
    assert build_index(tmp_path / "root").num_failed == 0
    assert list(read_index(tmp_path / "root")["start_ms"]) == [0, 5000, 10000] * 2


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_size_that_changes_in_the_middle_is_refused_before_it_is_indexed(tmp_path: Path, codec: str) -> None:
    """Also where packets are frames, so that the file need not be decoded to be counted."""
    for name, size, start in (("small", "160x120", "0"), ("large", "320x180", "2"), ("again", "160x120", "2")):
        how = ("-c:v", codec, "-preset", "ultrafast", "-bf", "0", "-output_ts_offset", start)
        numbered_video(tmp_path / f"{name}.ts", seconds=2, size=size, output=how)
    for name, second in (("two sizes", "large"), ("one size", "again")):
        joined = tmp_path / "joined.ts"
        joined.write_bytes((tmp_path / "small.ts").read_bytes() + (tmp_path / f"{second}.ts").read_bytes())
        run_ffmpeg("-i", joined, "-c", "copy", tmp_path / f"{name}.mp4")
    num_failed, (event,) = add(tmp_path / "two sizes.mp4", tmp_path / "root")
    assert num_failed == 1 and "from 160x120 to 320x180 at 2.00 s" in event.note
    num_failed, (event,) = add(tmp_path / "one size.mp4", tmp_path / "root")
    assert num_failed == 0 and event.outcome == "done"


def test_cuts_are_noted_when_asked_for_and_are_those_of_splitting(tmp_path: Path) -> None:
    """Asked for later, known videos are looked at once more; not asked for again, they stay as they are."""
    video_of_shots(tmp_path / "in/a.mp4", [3, 2, 4, 2.5])
    run_ffmpeg(
        "-i", tmp_path / "in/a.mp4", "-c:v", "libvpx", "-b:v", "4M", "-output_ts_offset", "7", tmp_path / "in/b.webm"
    )
    (tmp_path / "in/c").mkdir()
    run_ffmpeg("-i", tmp_path / "in/a.mp4", tmp_path / "in/c/%d.png")
    sources = find_sources([str(tmp_path / "in")], frame_rate=10)

    def outcomes(*, cuts: bool) -> set[str]:
        events: list[VideoEvent] = []
        rules = Rules(cuts=cuts)
        root, options = tmp_path / "in place", UntrimmedOptions()
        add_untrimmed(sources, root=root, options=options, workers=1, on_event=events.append, rules=rules)
        build_index(root)
        return {event.outcome for event in events}

    assert outcomes(cuts=False) == {"done"}
    assert read_index(tmp_path / "in place")["cuts"].isna().all()
    assert [outcomes(cuts=True), outcomes(cuts=False), outcomes(cuts=True)] == [{"done"}, {"unchanged"}, {"unchanged"}]
    split_videos(sources, root=tmp_path / "split", options=SplitOptions(preset="ultrafast"), workers=1)
    build_index(tmp_path / "split")
    here, there = read_index(tmp_path / "in place"), read_index(tmp_path / "split")
    assert list(here["video_id"]) == list(there["video_id"]) == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    for in_place, split in zip(here["cuts"], there["cuts"], strict=True):
        assert list(in_place) == list(split)
    assert [list(cuts) for cuts in here["cuts"]] == [[3.0], [5.0, 9.0], []] * 3
