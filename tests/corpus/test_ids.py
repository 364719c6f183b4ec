"""Ids come from file names, and names are read back from the right."""

import os
from pathlib import Path

import pytest

from hico_core.corpus.ids import Source, clip_name, find_sources, parse_clip_name, unique_sources, video_id
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


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("v_.mp4", "no video id can be made"),
        ("line\nbreak.mp4", "a line break"),
        ("tab\t.mp4", "control character"),
        ("u\u2028.mp4", "a line break"),
        (os.fsdecode(b"latin-\xe9.mp4"), "is not UTF-8"),
        ("x" * 251 + ".mp4", "an id may have 250 bytes, this has 251"),
        ("no\xa0break \u202f \u202e.mp4", None),  # spaces of macOS' screen recordings, another direction of writing
        ("x" * 250 + ".mp4", None),
    ],
)
def test_names_that_cannot_be_used(name: str, why: str | None) -> None:
    """One odd name is one failure, told later; the others are found."""
    path = Path("/videos") / name
    odd, other = unique_sources([Source(video_id(path), path), Source("~", Path("/videos/~.mp4"))])
    assert other.obstacle is None
    told = odd.obstacle or ""
    assert not told if why is None else why in told and "rename the file" in told


@pytest.mark.parametrize(
    ("path", "base", "expected"),
    [
        ("/data/d1/v_0001.mp4", "/data", "d1-0001"),
        ("/data/d1/sub/0001.mp4", "/data/", "d1-sub-0001"),
        ("/data/0001.mp4", "/data", "0001"),
        ("/database/0001.mp4", "/data", "0001"),  # not below it, though its name begins alike
    ],
)
def test_folders_in_ids(path: str, base: str, expected: str) -> None:
    assert video_id(Path(path), rule="relpath", base=Path(base)) == expected
    assert video_id(Path(path), base=Path(base)) == "0001"


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


def test_folders_make_ids_of_files_with_one_name(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other/c.mp4").write_bytes(b"")
    pattern = str(folder / "**/*.mp4")
    with pytest.raises(HicoError, match=r"other/c\.mp4 and .*sub/c\.mp4 have one id, 'c'.*--id relpath"):
        find_sources([pattern])
    assert [source.video_id for source in find_sources([pattern], id_rule="relpath")] == ["b", "other-c", "sub-c"]
    (folder / "list.txt").write_text("sub/c.mp4\nother/c.mp4\n")
    found = find_sources([str(folder / "list.txt")], id_rule="relpath")
    assert [source.video_id for source in found] == ["other-c", "sub-c"]


def test_a_list_that_is_not_utf_8(folder: Path) -> None:
    """Names in Latin-1 are bytes of names as any other; what they cannot be used for is said of each."""
    (folder / "list.txt").write_bytes("b.mp4\ncafé.mp4\n".encode("latin-1"))
    good, bad = find_sources([str(folder / "list.txt")])
    assert (good.video_id, good.obstacle) == ("b", None)
    assert bad.obstacle is not None and "is not UTF-8" in bad.obstacle


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
