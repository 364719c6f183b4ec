"""Clips in the authors' naming are taken as they are, unless they contradict each other."""

import json
from pathlib import Path

import pytest
from made_videos import numbered_video, turned_copy

from hico_core.base.errors import UsageError
from hico_core.base.tally import VideoEvent
from hico_core.corpus.adopt import Gap, adopt_clips, find_gaps
from hico_core.corpus.index import build_index, read_index
from hico_core.corpus.sources.ids import ClipName, clip_name
from hico_core.corpus.workspace.check import check_files


def names(*seconds: tuple[int, int]) -> list[ClipName]:
    return [ClipName("a", start * 1000, end * 1000) for start, end in seconds]


def test_gaps() -> None:
    assert find_gaps(names((0, 5), (5, 10), (10, 12))) == []
    assert find_gaps(names((5, 10), (15, 20))) == [Gap(0, 5000), Gap(10000, 15000)]
    with pytest.raises(ValueError, match="clips at 0 and 4000 ms overlap"):
        find_gaps(names((0, 5), (4, 9)))


def adopt(root: Path) -> tuple[int, dict[str, VideoEvent]]:
    events: dict[str, VideoEvent] = {}

    def on_event(event: VideoEvent) -> None:
        events[event.video_id] = event

    return adopt_clips(root, workers=2, on_event=on_event).num_failed, events


def make(root: Path, video_id: str, *seconds: tuple[int, int]) -> None:
    (root / "train").mkdir(exist_ok=True)
    for start, end in seconds:
        name = clip_name(video_id, start_ms=start * 1000, end_ms=end * 1000)
        numbered_video(root / "train" / name, seconds=end - start, fps="25")


@pytest.mark.videos
def test_clips_of_another_tool(tmp_path: Path) -> None:
    make(tmp_path, "--0edUL8zmA", (0, 5), (5, 10), (10, 12))
    make(tmp_path, "with_gap", (0, 5), (10, 12))
    make(tmp_path, "overlapping", (0, 5), (4, 6))
    (tmp_path / "train/v_broken_0000000_0005000.mp4").write_text("no video")
    num_failed, events = adopt(tmp_path)
    assert num_failed == 2
    assert {name for name, event in events.items() if event.outcome == "failed"} == {"overlapping", "broken"}
    assert events["with_gap"].note == "has no clip of 5 to 10 s; adopted with the gaps"
    lines = [json.loads(line) for line in (tmp_path / "failures.jsonl").read_text().splitlines()]
    names = {f"train/v_{name}_*.mp4" for name in ("overlapping", "broken")}
    assert {line["source"] for line in lines} == names, "a line for each"

    summary = build_index(tmp_path)
    assert (summary.num_videos, summary.num_clips, summary.num_failed) == (2, 5, 2)
    index = read_index(tmp_path)
    whole = index[index["video_id"] == "--0edUL8zmA"]
    assert list(whole["num_frames"]) == [125, 125, 50]
    assert list(whole["start_seconds"]) == [0, 5, 10] and list(whole["end_seconds"]) == [5, 10, 12]
    assert not whole["variable_fps"].any() and whole["fps"].iloc[0] == pytest.approx(25)
    assert index[index["video_id"] == "with_gap"]["variable_fps"].all(), "times, not counting, find frames past a gap"
    assert [d.kind for d in check_files(tmp_path)] == ["extra", "extra", "extra"]

    # Known ones are left alone; new clips of a video are seen.
    make(tmp_path, "with_gap", (5, 10))
    _, events = adopt(tmp_path)
    outcomes = {name: event.outcome for name, event in events.items()}
    assert outcomes == {"--0edUL8zmA": "unchanged", "with_gap": "done", "overlapping": "failed", "broken": "failed"}
    assert events["with_gap"].note == ""


@pytest.mark.videos
def test_a_clip_has_the_size_in_which_it_is_shown(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    numbered_video(tmp_path / "flat.mp4", seconds=1)
    turned_copy(tmp_path / "flat.mp4", tmp_path / "train" / clip_name("a", start_ms=0, end_ms=1000), degrees=90)
    adopt(tmp_path)
    build_index(tmp_path)
    (row,) = read_index(tmp_path).itertuples()
    assert (row.width, row.height) == (120, 160)


def test_nothing_to_adopt(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no clips without a record"):
        adopt(tmp_path)
