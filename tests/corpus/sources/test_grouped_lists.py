"""A list names clips, classes and groups; each line that does not is told with its number."""

from pathlib import Path

import pytest

from hico_core.base.errors import UsageError
from hico_core.corpus.sources.grouped_lists import GroupedClip, read_grouped_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    return tmp_path


def written(folder: Path, text: str, name: str = "list.txt") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_clips_with_groups(folder: Path) -> None:
    found = read_grouped_list(written(folder, "b b.mp4\tup\thome\n\na.mp4\tdown\tyard\n"), data_root=folder)
    expected = [GroupedClip(folder / "a.mp4", "down", "yard"), GroupedClip(folder / "b b.mp4", "up", "home")]
    assert found == (expected, True, [])


@pytest.mark.parametrize("text", ["a.mp4\tup\nb b.mp4\tdown", "a.mp4 up\nb b.mp4 down"])
def test_without_groups_each_clip_is_its_own(folder: Path, text: str) -> None:
    found = read_grouped_list(written(folder, text), data_root=folder)
    assert not found.has_groups
    assert [(clip.label, clip.group) for clip in found.clips] == [
        ("up", str(folder / "a.mp4")),
        ("down", str(folder / "b b.mp4")),
    ]


def test_a_line_that_comes_twice_counts_once(folder: Path) -> None:
    assert len(read_grouped_list(written(folder, "a.mp4\tup\tx\na.mp4\tup\tx"), data_root=folder).clips) == 1


@pytest.mark.parametrize("header", ["", "path,label,group\n", "\ufeffpath,label,group\n"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
def test_commas(folder: Path, header: str, ends: str) -> None:
    (folder / "c, d.mp4").touch()
    text = f'{header}a.mp4,up,"home, garden"\n"c, d.mp4",down,yard\n'.replace("\n", ends)
    found = read_grouped_list(written(folder, text, "list.csv"), data_root=folder)
    expected = [GroupedClip(folder / "a.mp4", "up", "home, garden"), GroupedClip(folder / "c, d.mp4", "down", "yard")]
    assert found == (expected, True, [])


def test_commas_without_groups(folder: Path) -> None:
    found = read_grouped_list(written(folder, "path,label\na.mp4,up\nb b.mp4\n", "list.csv"), data_root=folder)
    assert [clip.label for clip in found.clips] == ["up"] and not found.has_groups
    assert "list.csv, line 3: 'b b.mp4' is not path<TAB>label" in found.bad[0]
    with pytest.raises(UsageError, match=r"list\.csv: has no clips below its header"):
        read_grouped_list(written(folder, "path,label\n", "list.csv"), data_root=folder)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("b b.mp4", "line 2: 'b b.mp4' is not path<TAB>label<TAB>group"),
        ("b b.mp4\tup", "line 2: 'b b.mp4\\tup' is not path<TAB>label<TAB>group"),
        ("b b.mp4\tup\tx\ty", "is not path<TAB>label<TAB>group"),
        ("none.mp4\tup\tx", "none.mp4: no such file; set --data-root"),
        ("a.mp4\tdown\tx", "a.mp4 has another label or group in an earlier line"),
    ],
)
def test_bad_lines_are_told(folder: Path, line: str, why: str) -> None:
    found = read_grouped_list(written(folder, f"a.mp4\tup\tx\n{line}\nc.mp4\tup\ty"), data_root=folder)
    assert len(found.clips) == 2
    (said,) = found.bad
    assert why in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("a.mp4\nc.mp4", "line 1: 'a.mp4' is not path<TAB>label"),
        ("path,label\na.mp4,up", "line 1: 'path,label' is not path<TAB>label.*; a list with commas must be a .csv"),
        ("no.mp4\tup", "no.mp4: no such file"),
    ],
)
def test_a_list_of_which_nothing_can_be_used_is_refused(folder: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        read_grouped_list(written(folder, text), data_root=folder)
