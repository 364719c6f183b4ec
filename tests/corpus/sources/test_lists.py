"""Lists that come with a corpus name clips or labelled videos, in a folder tree like the authors'."""

from pathlib import Path

import pytest

from hico_core.base.errors import HicoError, UsageError
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.sources.lists import (
    find_training_list,
    is_list_of_clips,
    labelled_videos,
    listed_clips,
    require_some,
)


def write(path: Path, text: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("folder", ["training", "train", "."])
def test_clips_lie_where_either_of_the_authors_texts_says(folder: str, tmp_path: Path) -> None:
    write(tmp_path / folder / "v_a,b_0000000_0005000.mp4")
    listed = write(tmp_path / "training.txt", "c,0000000,0005000\na,b,0005000,0007000\n\na,b,0000000,0005000\n")
    write(tmp_path / folder / "v_a,b_0005000_0007000.mp4")
    video, missing = listed_clips(listed, data_root=tmp_path)
    assert is_list_of_clips(listed)
    assert missing.video_id == "c" and not missing.clips[0].exists(), "it fails by itself, later"
    assert video.video_id == "a,b"
    assert [path.name for path in video.clips] == ["v_a,b_0000000_0005000.mp4", "v_a,b_0005000_0007000.mp4"]
    assert all(path.exists() for path in video.clips)


@pytest.mark.parametrize(
    "line", ["a b.mp4 3", "a b.mp4\t3", "a b.mp4 \t\t 3", "a b.mp4\t3\tgroup 1", "a b.mp4\t\t3\t\tgroup 1"]
)
def test_columns_of_a_list_of_videos(line: str, tmp_path: Path) -> None:
    (source,) = labelled_videos(write(tmp_path / "list.txt", f"{line}\n"), data_root=tmp_path)
    assert (source.path, source.label) == (tmp_path / "a b.mp4", 3)


def test_labelled_videos(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "a dog.mp4"
    listed = write(tmp_path / "list.txt", f"sub/v_b.mp4 3\n{elsewhere} 0\n\n")
    assert not is_list_of_clips(listed)
    a, b = labelled_videos(listed, data_root=tmp_path)
    assert (a.video_id, a.path, a.label) == ("a dog", elsewhere, 0)
    assert (b.video_id, b.path, b.label) == ("b", tmp_path / "sub/v_b.mp4", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a.mp4\n", r"line 1: 'a\.mp4' is not <path> <label>"),
        (
            "a.mp4 0\nb.mp4 x\n",
            "line 2: 'b.mp4 x' is not <path> <label>; labels must be whole numbers in all lines, or class",
        ),
        ("a.mp4 x\nb.mp4 0\n", "line 2"),
        ("x/a.mp4 0\ny/a.mp4 1\n", "have the same id, 'a'"),
    ],
)
def test_wrong_lists_of_videos(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(HicoError, match=message):
        labelled_videos(write(tmp_path / "list.txt", text), data_root=tmp_path)


def test_a_list_that_goes_with_another_folder(tmp_path: Path) -> None:
    """One line, not a failure for each of its videos; some that are missing are failures."""
    listed = [Source(video_id=name, path=tmp_path / f"{name}.mp4", label=0) for name in ("a", "b")]
    said = r"list\.txt: none of its videos exists \(the first would be .*/a\.mp4\); set --data-root to"
    with pytest.raises(UsageError, match=said):
        require_some(listed, named_by="list.txt", data_root=tmp_path)
    (tmp_path / "b.mp4").touch()
    require_some(listed, named_by="list.txt", data_root=tmp_path)


def test_wrong_lists_of_clips(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"list\.txt, line 1: 'a,0,end' is not <id>,<start>,<end>"):
        listed_clips(write(tmp_path / "list.txt", "a,0,end\nb,0,end\n"), data_root=tmp_path)
    with pytest.raises(UsageError, match=r"such as v_a_0000000_0005000\.mp4, is in .*--data-root"):
        listed_clips(write(tmp_path / "list.txt", "a,0,5000\n"), data_root=tmp_path)
    with pytest.raises(UsageError, match=r"missing\.txt: cannot be read"):
        is_list_of_clips(tmp_path / "missing.txt")


def test_a_bad_line_costs_its_video_not_the_list_of_clips(tmp_path: Path) -> None:
    """Also where it is the first, from which the kind of list was taken once; b would lack a clip."""
    write(tmp_path / "train/v_c_0000000_0005000.mp4")
    lines = ["id,start,end", "a,0,5000", "b,0,5000", "b,5000,10 s", "c,0,5000", "c,5000,10000", f"d,0,{'9' * 5000}"]
    listed = write(tmp_path / "list.txt", "\n".join(lines))
    assert is_list_of_clips(listed)
    found = listed_clips(listed, data_root=tmp_path)
    assert [video.video_id for video in found if not video.obstacle] == ["a", "c"]
    assert next(video for video in found if video.video_id == "c").clips[0].exists()
    bad = [video for video in found if video.obstacle]
    assert [video.path for video in bad] == [tmp_path / f"list.txt, line {number}" for number in (1, 4, 7)]
    assert bad[1].obstacle == "'b,5000,10 s' is not <id>,<start>,<end> in milliseconds"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            "alone.mp4",
            "'alone.mp4' is not <path> <label>, where the label is a whole number in UTF-8, as in other lines",
        ),
        ("x.mp4 -1", "'x.mp4 -1' is not <path> <label>, where the label is a whole number"),
        ("x.mp4 ?", "is not <path> <label>"),
        ("x.mp4 99999999999", "is not <path> <label>"),  # more than the index holds
        ("x.mp4 " + "9" * 5000, "is not <path> <label>"),
        ("ftp://there/x.mp4 1", "ftp:// is not supported"),
        ("a.mp4 2", "is in the list with two labels, 2 and 0"),
    ],
)
def test_a_bad_line_costs_its_video_not_the_list(row: str, why: str, tmp_path: Path) -> None:
    found = labelled_videos(write(tmp_path / "list.txt", f"{row}\na.mp4 0\na.mp4 0\nb.mp4 1\n"), data_root=tmp_path)
    (bad,) = [video for video in found if video.obstacle]
    assert why in str(bad.obstacle)
    assert bad.path == (tmp_path / "a.mp4" if "two labels" in why else tmp_path / "list.txt, line 1")
    good = [(video.video_id, video.label) for video in found if not video.obstacle]
    assert good == ([("b", 1)] if "two labels" in why else [("a", 0), ("b", 1)])


def test_names_of_classes_that_are_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("a.mp4 école\nb.mp4 bow\nc.mp4 run\n".encode("latin-1"))
    found = labelled_videos(tmp_path / "list.txt", data_root=tmp_path)
    assert [(v.video_id, v.label) for v in found] == [("b", 0), ("c", 1), ("list.txt, line 1", None)]


def test_lists_are_looked_for_in_both_places(tmp_path: Path) -> None:
    data, anno = tmp_path / "data", tmp_path / "anno"
    data.mkdir()
    with pytest.raises(UsageError) as caught:
        find_training_list(data, anno, trimmed=False)
    assert str(anno / "training.txt") in str(caught.value) and str(data / "training.txt") in str(caught.value)
    write(data / "training.txt", "a,0,5000")
    assert find_training_list(data, anno, trimmed=False).list_file == data / "training.txt"
    write(anno / "training.txt", "a,0,5000")
    assert find_training_list(data, anno, trimmed=False).list_file == anno / "training.txt"
    write(anno / "kinetics400_train_list.txt", "a.mp4 0")
    assert find_training_list(data, anno, trimmed=True).list_file == anno / "kinetics400_train_list.txt"
