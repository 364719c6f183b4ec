"""Lists of labelled videos are read as the benchmarks distribute them."""

from pathlib import Path

import pytest

from hico_core.base.choices import Subset
from hico_core.base.errors import UsageError
from hico_core.corpus.sources.benchmark_lists import Split, numbered_as, read_split
from hico_core.corpus.sources.ids import Source


def labels(given: str, root: Path, subset: Subset = "train") -> dict[str, int | None]:
    return {str(v.path.relative_to(root)): v.label for v in read_split(given, data_root=root, subset=subset).videos}  # type: ignore[union-attr]


def test_ucf101(tmp_path: Path) -> None:
    (tmp_path / "classInd.txt").write_text("1 Apply\r\n2 Basket\r\n3 Cut\r\n")
    (tmp_path / "trainlist01.txt").write_text("Basket/v_Basket_g08_c01.avi 2\r\nApply/v_Apply_g08_c01.avi 1\r\n")
    (tmp_path / "testlist01.txt").write_text("Cut/v_Cut_g01_c01.avi\nApply/v_Apply_g01_c01.avi\n")
    root = tmp_path / "UCF-101"
    assert labels(str(tmp_path / "trainlist01.txt"), root) == {
        "Basket/v_Basket_g08_c01.avi": 1,
        "Apply/v_Apply_g08_c01.avi": 0,
    }
    found = read_split(str(tmp_path / "testlist01.txt"), data_root=root, subset="test")
    assert [(v.video_id, v.label, v.class_name) for v in found.videos] == [
        ("Apply_g01_c01", 0, "Apply"),
        ("Cut_g01_c01", 2, "Cut"),
    ]
    assert found.classes == {0: "Apply", 1: "Basket", 2: "Cut"}
    (tmp_path / "trainlist02.txt").write_text("Dive/v_Dive_g08_c01.avi 4\n")
    with pytest.raises(UsageError, match=r"trainlist02\.txt, line 1: .* does not begin with a class of classInd\.txt"):
        labels(str(tmp_path / "trainlist02.txt"), root)


def test_hmdb51(tmp_path: Path) -> None:
    (tmp_path / "run_test_split1.txt").write_text("a b.avi 1 \nc.avi 2 \nd.avi 0 \n")
    (tmp_path / "brush_hair_test_split1.txt").write_text("e.avi 2 \nf.avi 1 \n")
    (tmp_path / "run_test_split2.txt").write_text("c.avi 1 \n")
    pattern = str(tmp_path / "*_test_split1.txt")
    root = tmp_path / "hmdb51"
    assert labels(pattern, root) == {"run/a b.avi": 1, "brush_hair/f.avi": 0}
    assert labels(pattern, root, "test") == {"run/c.avi": 1, "brush_hair/e.avi": 0}
    (tmp_path / "run_test_split3.txt").write_text("c.avi 7\n")
    with pytest.raises(UsageError, match=r"line 1: 'c\.avi 7' is not <name> <0, 1 or 2>"):
        labels(str(tmp_path / "*_test_split3.txt"), root)
    with pytest.raises(UsageError, match="matches no list of HMDB51, such as brush_hair_test_split1"):
        labels(str(tmp_path / "*_split9.txt"), root)


@pytest.mark.parametrize("by_class", [False, True])
def test_kinetics(tmp_path: Path, by_class: bool) -> None:
    (tmp_path / "val.csv").write_text(
        'label,youtube_id,time_start,time_end,split\n"zumba, fast",-abc_,3,13,val\nabseiling,xyz,10,20,val\n'
    )
    root = tmp_path / "k400"
    folders = {"zumba, fast": root / "zumba, fast" if by_class else root}
    folders["zumba, fast"].mkdir(parents=True)
    (folders["zumba, fast"] / "-abc__000003_000013.mp4").touch()
    prefix = {name: f"{name}/" if by_class else "" for name in ("zumba, fast", "abseiling")}
    assert labels(str(tmp_path / "val.csv"), root) == {
        f"{prefix['zumba, fast']}-abc__000003_000013.mp4": 1,
        f"{prefix['abseiling']}xyz_000010_000020.mp4": 0,
    }
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="needs the columns label, time_end, time_start, youtube_id"):
        labels(str(tmp_path / "other.csv"), root)
    (tmp_path / "bad.csv").write_text("label,youtube_id,time_start,time_end\na,b,x,3\n")
    with pytest.raises(UsageError, match="line 2: its time_start 'x' is not a whole number of seconds"):
        labels(str(tmp_path / "bad.csv"), root)
    (tmp_path / "none.csv").write_text("label,youtube_id,time_start,time_end\n")
    with pytest.raises(UsageError, match="has no rows below its header"):
        labels(str(tmp_path / "none.csv"), root)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("zumba,x,then,13", "its time_start 'then' is not a whole number of seconds"),
        ("zumba,x,3,13.5", "its time_end '13.5' is not"),
        ("zumba,x,-3,13", "its time_start '-3' is not"),
        (f"zumba,x,3,{'9' * 5000}", "is not a whole number"),
        ("zumba,x", "has no time_end and no time_start"),
        (",x,3,13", "has no label"),
        ("zumba, fast,x,3,13", "its time_start 'x' is not"),
        ('"zumba,x,3,13', "has no label and no time_end and no time_start and no youtube_id"),  # no closing quote
        ("caf\udce9,x,3,13", "is not plain text in UTF-8"),
        ("bow,a,3,13", "is in the list with two labels, 'bow' and 'zumba'"),
    ],
)
def test_a_bad_row_costs_its_video_not_the_list(row: str, why: str, tmp_path: Path) -> None:
    """Whatever it is, the rows after it are read; labels keep the numbers of all classes that are named."""
    text = f"label,youtube_id,time_start,time_end\n{row}\nzumba,a,3,13\nzumba,a,3,13\n\nbow,b,1,11\n"
    (tmp_path / "val.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "zumba").mkdir()
    split = read_split(str(tmp_path / "val.csv"), data_root=tmp_path, subset="train")
    (bad,) = [video for video in split.videos if video.obstacle]
    assert why in str(bad.obstacle)
    twice = "two labels" in why
    assert bad.path == (tmp_path / "bow/a_000003_000013.mp4" if twice else tmp_path / "val.csv, line 2")
    good = {str(video.path.relative_to(tmp_path)): video.label for video in split.videos if not video.obstacle}  # type: ignore[union-attr]
    assert good["bow/b_000001_000011.mp4"] == 0
    assert len(good) == (1 if twice else 2)


def test_a_bad_row_of_ucf101_and_hmdb51(tmp_path: Path) -> None:
    (tmp_path / "classInd.txt").write_text("1 Apply\n")
    (tmp_path / "trainlist01.txt").write_text("Dive/v_d.avi 4\nApply/v_a.avi 1\n")
    (tmp_path / "run_test_split1.txt").write_text("a.avi 1\nb.avi\n")
    ucf = read_split(str(tmp_path / "trainlist01.txt"), data_root=tmp_path, subset="train").videos
    assert [(v.video_id, v.obstacle) for v in ucf] == [
        ("a", None),
        ("trainlist01.txt, line 1", "'Dive/v_d.avi 4' does not begin with a class of classInd.txt"),
    ]
    hmdb = read_split(str(tmp_path / "*_test_split1.txt"), data_root=tmp_path, subset="train").videos
    assert [v.obstacle for v in hmdb] == [None, "'b.avi' is not <name> <0, 1 or 2>"]


def test_folders_of_classes_are_seen_though_the_first_video_is_missing(tmp_path: Path) -> None:
    (tmp_path / "val.csv").write_text("label,youtube_id,time_start,time_end\nbow,a,3,13\nrun,b,1,11\n")
    (tmp_path / "run").mkdir()
    assert labels(str(tmp_path / "val.csv"), tmp_path) == {"bow/a_000003_000013.mp4": 0, "run/b_000001_000011.mp4": 1}


def test_a_path_and_a_label_a_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.mp4 3\nb c.mp4 0\n")
    assert labels(str(tmp_path / "list.txt"), tmp_path) == {"a.mp4": 3, "b c.mp4": 0}


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "list [1].txt").write_text("a.mp4 3\n")
    assert labels(str(tmp_path / "list [1].txt"), tmp_path) == {"a.mp4": 3}


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_a_path_and_a_class_name_a_line(separator: str, tmp_path: Path) -> None:
    """Names are numbered in their order; after a tab they may hold blanks."""
    jump = "long jump" if separator == "\t" else "jump"
    lines = [f"a b.mp4{separator}{jump}", f"c.mp4{separator}bow", f"d.mp4{separator}{jump}"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    found = read_split(str(tmp_path / "list.txt"), data_root=tmp_path, subset="train")
    assert [(v.video_id, v.label) for v in found.videos] == [("a b", 1), ("c", 0), ("d", 1)]
    assert [v.class_name for v in found.videos] == [jump, "bow", jump]
    assert found.classes == {0: "bow", 1: jump}


@pytest.mark.parametrize(
    ("classes", "known", "numbers"),
    [
        ({0: "b", 1: "c"}, {}, {"b": 0, "c": 1}),
        ({4: "b", 7: "c"}, {}, {"b": 4, "c": 7}),
        ({0: "b", 1: "c"}, {0: "a", 1: "b", 2: "c"}, {"a": 0, "b": 1, "c": 2}),
        ({0: "c", 1: "d"}, {0: "a", 2: "c"}, {"a": 0, "d": 1, "c": 2}),
        ({0: "d", 1: "e"}, {0: "a", 2: "c"}, {"a": 0, "e": 1, "c": 2, "d": 3}),
    ],
)
def test_a_class_has_one_number_in_all_lists(
    classes: dict[int, str], known: dict[int, str], numbers: dict[str, int]
) -> None:
    videos = [
        Source(video_id=name, path=Path(f"{name}.mp4"), label=label, class_name=name) for label, name in classes.items()
    ]
    numbered = numbered_as(Split(videos, classes), known)
    assert numbered.classes == {label: name for name, label in numbers.items()}
    assert [video.label for video in numbered.videos] == [numbers[name] for name in classes.values()]


def test_labels_without_names_stay(tmp_path: Path) -> None:
    split = Split([Source(video_id="a", path=tmp_path / "a.mp4", label=5)], {})
    assert numbered_as(split, {0: "x"}).videos == split.videos
