"""Ids come from file names, and names are read back from the right."""

from pathlib import Path

import pytest

from hico_core.corpus.ids import clip_name, find_sources, parse_clip_name, video_id
from hico_core.errors import HicoError, UsageError

IDS = {
    "v_GGSY1Qvo990.mp4": "GGSY1Qvo990",
    "v_v_x.mp4": "v_x",  # one prefix only
    "-abc.mp4": "-abc",
    "arm wrestling.mp4": "arm wrestling",
    "a_0000000_0005000.mp4": "a_0000000_0005000",  # looks like a clip's name
    "ünïcode, 動画.webm": "ünïcode, 動画",
    "two.dots.mkv": "two.dots",
}


@pytest.mark.parametrize(("name", "expected"), IDS.items())
def test_video_id(name: str, expected: str) -> None:
    assert video_id(Path("/videos") / name) == expected
    clip = clip_name(expected, start_ms=5000, end_ms=10000)
    parsed = parse_clip_name(clip)
    assert parsed == (expected, 5000, 10000)


@pytest.mark.parametrize("name", ["v_.mp4", "line\nbreak.mp4"])
def test_names_without_an_id(name: str) -> None:
    with pytest.raises(UsageError, match="rename the file"):
        video_id(Path(name))


def test_clip_names() -> None:
    assert clip_name("--0edUL8zmA", start_ms=90000, end_ms=92120) == "v_--0edUL8zmA_0090000_0092120.mp4"
    assert clip_name("x", start_ms=10_000_000, end_ms=10_005_000) == "v_x_10000000_10005000.mp4"
    assert parse_clip_name("v_x_10000000_10005000.mp4") == ("x", 10_000_000, 10_005_000)
    for other in ("x_0000000_0005000.mp4", "v_x_000_0005000.mp4", "v_x.mp4", "v_x_0000000_0005000.mp4.tmp"):
        assert parse_clip_name(other) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.mp4", "v_a.MKV", "notes.txt", "-dash.webm", "sub/c.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def ids(*inputs: object) -> list[str]:
    return [source.video_id for source in find_sources(map(str, inputs))]


def test_a_folder_is_its_videos(folder: Path) -> None:
    assert ids(folder) == ["-dash", "a", "b"]


def test_files_patterns_and_lists(folder: Path) -> None:
    assert ids(folder / "b.mp4", folder / "**/*.mp4") == ["b", "c"]
    (folder / "list.txt").write_text(f"b.mp4\n\n{folder}/sub/c.mp4\nmissing.mp4\n")
    assert ids(folder / "list.txt") == ["b", "c", "missing"]


def test_relative_names_with_a_dash_become_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (source,) = find_sources(["-dash.webm"])
    assert source.path == folder / "-dash.webm"


def test_two_files_with_one_id(folder: Path) -> None:
    (folder / "a.mp4").write_bytes(b"")
    with pytest.raises(HicoError) as caught:
        ids(folder)
    assert str(folder / "a.mp4") in str(caught.value)
    assert str(folder / "v_a.MKV") in str(caught.value)


@pytest.mark.parametrize("given", ["nowhere", "*.nothing"])
def test_inputs_that_stand_for_nothing(folder: Path, given: str) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        ids(folder / given)


def test_a_folder_without_videos(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no video files"):
        ids(tmp_path)
