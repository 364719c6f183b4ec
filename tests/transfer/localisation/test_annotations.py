"""Annotated segments mean the same in each kind of file; what cannot be used is counted by reason."""

import json
from pathlib import Path

import pytest

from hico_core.base.errors import HicoError
from hico_core.transfer.localisation.annotations import (
    EMPTY,
    NO_LABEL,
    NO_RECORD,
    NO_SEGMENT,
    AnnotatedVideo,
    Segment,
    ids_of,
    read_segments,
)

ROWS = [
    ("a", 0.5, 2, "long, jump", "training"),
    ("b", -1, 1e9, 'say "hi"', "validation"),
    ("a", 3, 4.25, "跳", "training"),
]


def written(path: Path, rows: list[tuple[str, float, float, str, str]], *, subsets: bool = True) -> Path:
    """The same segments as a file of each kind has them."""
    names = ["video", "start", "end", "label", "subset"][: 5 if subsets else 4]
    if path.suffix == ".csv":
        cells = [
            names,
            *([f'"{cell}"'.replace('say "hi"', 'say ""hi""') for cell in row[: len(names)]] for row in rows),
        ]
        text = "".join(",".join(row) + "\r\n" for row in cells)
    elif path.suffix == ".jsonl":
        text = "\n".join(json.dumps(dict(zip(names, row, strict=False))) for row in rows)
    else:
        database: dict[str, dict[str, object]] = {row[0]: {"subset": row[4], "annotations": []} for row in rows}
        for video, start, end, label, _ in rows:
            annotations = database[video]["annotations"]
            assert isinstance(annotations, list)
            annotations.append({"segment": [start, end], "label": label})
        text = json.dumps({"database": database})
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["json", "csv", "jsonl", "CSV"])
def test_three_kinds_of_files_say_the_same(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"segments.{ending.lower()}", ROWS)
    found = read_segments(path.rename(tmp_path / f"segments.{ending}"))
    assert sorted((s.video, s.start_seconds, s.end_seconds, s.label, s.subset) for s in found.segments) == sorted(ROWS)
    assert found.videos == {"a": AnnotatedVideo("training", None), "b": AnnotatedVideo("validation", None)}
    assert not found.left_out and not found.problems


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_need_not_name_subsets(tmp_path: Path, ending: str) -> None:
    found = read_segments(written(tmp_path / f"s.{ending}", ROWS, subsets=False))
    assert {s.subset for s in found.segments} == {None}
    assert found.segments[0] == Segment(video="a", start_seconds=0.5, end_seconds=2, label="long, jump", subset=None)


@pytest.mark.parametrize(
    ("segment", "label", "becomes"),
    [
        ("[1.5, 2]", '"run"', None),
        ("[-3, 1e300]", '"run"', None),  # only who knows how long the video is can tell
        ("[0, 0]", '"run"', EMPTY),
        ("[3, 3.0009]", '"run"', EMPTY),  # a toolkit leaves out what is shorter than a millisecond
        ("[2, 1]", '"run"', EMPTY),
        ("[NaN, 2]", '"run"', NO_SEGMENT),
        ("[1, Infinity]", '"run"', NO_SEGMENT),
        (f"[1, 1{'0' * 400}]", '"run"', NO_SEGMENT),
        ('["1", "2"]', '"run"', NO_SEGMENT),
        ("[true, 2]", '"run"', NO_SEGMENT),
        ("[1]", '"run"', NO_SEGMENT),
        ("null", '"run"', NO_SEGMENT),
        ("[1, 2]", "null", NO_LABEL),
        ("[1, 2]", "3", NO_LABEL),
        ("[1, 2]", '""', NO_LABEL),
        ("[1, 2]", '"two\\nlines"', NO_LABEL),
        ("[1, 2]", '"\\udce9"', NO_LABEL),
    ],
)
def test_segments_that_nobody_can_use_are_counted(
    tmp_path: Path, segment: str, label: str, becomes: str | None
) -> None:
    entry = f'{{"subset": "x", "annotations": [{{"segment": {segment}, "label": {label}}}]}}'
    (tmp_path / "a.json").write_text(f'{{"database": {{"a": {entry}}}}}')
    found = read_segments(tmp_path / "a.json")
    assert found.left_out == ({becomes: 1} if becomes else {}) and len(found.segments) == (becomes is None)


def test_odd_rows_of_tables_cost_themselves(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "Label, start ,end,video,note\nrun,0,1,a,\n\nrun,0\nrun,x,1,a,\nrun,nan,1,a,\n,0,1,a,\n"
    )
    assert read_segments(tmp_path / "a.csv").left_out == {NO_RECORD: 1, NO_SEGMENT: 2, NO_LABEL: 1}
    row = {"video": "a", "start": 0, "end": 1, "label": "run"}
    lines = [json.dumps(row), "{", "3", json.dumps({**row, "video": 7}), json.dumps({**row, "subset": ["x"]})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = read_segments(tmp_path / "a.jsonl")
    assert len(found.segments) == 1 and found.left_out == {NO_RECORD: 4}


def test_a_bad_entry_costs_its_video_not_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"database": {"a": {}, "b": {"subset": "x", "duration": 7}}}')
    found = read_segments(tmp_path / "a.json")
    assert found.videos == {"b": AnnotatedVideo("x", 7.0)} and found.problems == {"a": "names no subset"}
    (tmp_path / "a.csv").write_text(
        "video, start, end, label, subset\n a, 0, 1, run, x\na , 2, 3,run ,x \nb, 0, 1, run,\n"
    )
    spaced = read_segments(tmp_path / "a.csv")
    assert [(one.video, one.label, one.subset) for one in spaced.segments] == [
        ("a", "run", "x"),
        ("a", "run", "x"),
        ("b", "run", None),
    ]
    (tmp_path / "a.csv").write_text("video,start,end,label,subset\na,0,1,run,x\nb,0,1,run,x\na,2,3,run,y\n")
    found = read_segments(tmp_path / "a.csv")
    assert found.problems == {"a": "is in two subsets, x and y"}
    assert found.videos.keys() == {"b"} == {segment.video for segment in found.segments}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.json", "{", "is not a JSON file of annotations"),
        ("a.json", "[]", 'has no "database" of videos'),
        ("a.json", '{"database": {}}', 'has no "database" of videos'),
        ("a.json", '{"database": {"a": {}}}', "entry 'a' names no subset"),
        ("a.json", '{"database": {"a": {"subset": "x", "annotations": null}}}', "has annotations that are not a list"),
        ("a.json", '{"database": {"a": []}}', "names no subset"),
        ("a.json", '{"database": {"a\\nb": {"subset": "x"}}}', "has a name that is not plain text"),
        ("a.csv", "", "has no column 'video' but none at all; it needs video, start, end, label"),
        ("a.csv", "a.mp4 0 1 run\n", "has no column 'video' but 'a.mp4 0 1 run'"),
        ("a.csv", "video,start,end,label\n", "it names no video"),
        ("a.csv", "video,start,end,label\na;1;2;x\n", "1 of its segments are not a row of video, start, end and label"),
        ("a.csv", 'video,start,end,label\n"a,1,2,x\n', r"a\.csv, line 2: is not comma-separated"),
        ("a.jsonl", "{}\n", "has no column 'video'"),
        ("a.txt", "", r"annotations must be in a \.json, \.csv, \.jsonl file"),
    ],
)
def test_files_that_are_no_annotations(tmp_path: Path, name: str, text: str, problem: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(HicoError, match=problem):
        read_segments(tmp_path / name)


@pytest.mark.parametrize(
    ("ids", "names", "expected"),
    [
        (["v_0pABCDEFG"], ["v_0pABCDEFG"], {"v_0pABCDEFG": "v_0pABCDEFG"}),
        (["0pABCDEFG"], ["v_0pABCDEFG"], {"v_0pABCDEFG": "0pABCDEFG"}),
        (["x"], ["v_x", "x"], {"x": "x"}),  # whatever comes first
        (["x"], ["x", "v_x"], {"x": "x"}),
        (["x", "v_x"], ["x", "v_x"], {"x": "x", "v_x": "v_x"}),
        (["x", "v_x"], ["v_x"], {"v_x": "v_x"}),
        (["x"], ["y"], {}),
        (["x"], ["films/v_x.MP4"], {"films/v_x.MP4": "x"}),
        (["v_x", "x"], ["v_x.mp4"], {"v_x.mp4": "v_x"}),
        (["x"], ["x.mp4", "x"], {"x": "x"}),
        (["x"], ["v_x", "x.mp4"], {"v_x": "x"}),  # two names of one video: the first
        (["x", "x.1"], ["x.1", "x.2"], {"x.1": "x.1"}),  # not every dot begins an ending
    ],
)
def test_an_exact_name_comes_before_one_without_v(ids: list[str], names: list[str], expected: dict[str, str]) -> None:
    assert ids_of(names, ids) == expected
