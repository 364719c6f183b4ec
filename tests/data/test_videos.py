"""The columns of an index say which parts of which files a video has, and where counting does not find its frames."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hico_core.corpus.index import SCHEMA
from hico_core.data.videos import COLUMNS, IndexedVideos

ROOT = Path("/root of all")

# Of each clip: the video, its number, when it starts and ends, and its frames: 10 a second.
SPLIT = [
    ("a", 0, 0.0, 5.0, 50),
    ("a", 1, 5.0, 10.0, 50),
    ("a", 2, 10.0, 12.0, 20),
    ("b", 0, 0.0, 3.0, 30),
    ("c", 0, 0.0, 5.0, 50),
    ("c", 1, 5.0, 7.0, 20),
]


def videos_of(rows: list[tuple[str, int, float, float, int]], **columns: Any) -> IndexedVideos:  # noqa: ANN401
    """The videos of an index with these clips; `columns` are values of all rows, or of each."""
    made: dict[str, list[Any]] = {
        "video_id": [row[0] for row in rows],
        "clip_index": [row[1] for row in rows],
        "path": [f"train/{row[0]}-{row[1]}.mp4" for row in rows],
        "start_seconds": [row[2] for row in rows],
        "end_seconds": [row[3] for row in rows],
        "num_frames": [row[4] for row in rows],
        "source": [f"videos/{row[0]}.mp4" for row in rows],
    }
    usual = {"subset": "train", "first_frame": 0, "fps": 10.0, "variable_fps": False, "width": 64, "height": 48}
    options = {name: columns.pop(name) for name in ("subset_wanted", "shortest_seconds") if name in columns}
    for name, value in {**usual, "size_bytes": 9, "label": None, "cuts": None, **columns}.items():
        made[name] = value if isinstance(value, list) else [value] * len(rows)
    schema = pa.schema([SCHEMA.field(name) for name in COLUMNS])
    table = pa.table(made).select(COLUMNS).cast(schema)
    return IndexedVideos(
        table,
        root=ROOT,
        subset=options.get("subset_wanted"),
        shortest_seconds=options.get("shortest_seconds", 0.0),
    )


def test_videos_and_their_pieces() -> None:
    videos = videos_of(SPLIT, label=[3, 3, 3, None, 0, 0])
    assert [videos.video_id(n) for n in range(len(videos))] == ["a", "b", "c"]
    assert [videos.duration_seconds(n) for n in range(3)] == [12.0, 3.0, 7.0]
    assert [videos.label(n) for n in range(3)] == [3, None, 0]
    assert videos.source(1) == f"{ROOT}/videos/b.mp4" and not videos.is_in_place(1)
    pieces = videos.pieces(0)
    assert [piece.path for piece in pieces] == [ROOT / f"train/a-{n}.mp4" for n in range(3)]
    assert [(piece.first_number, piece.num_frames, piece.first_frame) for piece in pieces] == [
        (0, 50, 0),
        (50, 50, 0),
        (100, 20, 0),
    ]
    assert [piece.first_number for piece in videos.pieces(2)] == [0, 50], "each video is counted from its own start"
    assert {(piece.fps, piece.short_side, piece.size_bytes) for piece in pieces} == {(10.0, 48, 9)}


def test_cuts_of_a_video_are_known_where_those_of_all_its_clips_are() -> None:
    videos = videos_of(SPLIT, cuts=[[1.5], [], [10.0, 11.0], [], [2.0], None])
    assert [videos.cuts(number) for number in range(3)] == [[1.5, 10.0, 11.0], [], None]
    assert videos.knows_cuts and not videos_of(SPLIT).knows_cuts
    longest = videos_of(SPLIT, cuts=[[1.5], [], [10.0, 11.0], [], [2.0], None], shortest_seconds=6.0)
    assert [longest.cuts(number) for number in range(2)] == [[1.5, 10.0, 11.0], None]


@pytest.mark.parametrize(
    ("window", "numbers"),
    [
        ((0.0, 1.0), [0]),
        ((1.0, 4.8), [0]),
        ((4.0, 6.0), [0, 1]),
        ((4.95, 6.0), [0, 1]),  # less than a frame before the border: its rounding may lie on the other side
        ((6.0, 9.0), [1]),
        ((0.0, 12.0), [0, 1, 2]),
        ((11.9, 12.0), [2]),
        ((12.0, 15.0), [2]),  # behind the end, the last frame is shown
    ],
)
def test_pieces_of_a_window(window: tuple[float, float], numbers: list[int]) -> None:
    found = videos_of(SPLIT).pieces(0, window)
    assert [int(piece.start_seconds // 5) for piece in found] == numbers


@pytest.mark.parametrize(
    ("subset", "shortest", "ids", "short"),
    [
        (None, 0.0, ["a", "b", "c"], 0),
        ("train", 0.0, ["a", "c"], 0),
        ("test", 0.0, ["b"], 0),
        ("val", 0.0, [], 0),
        (None, 7.0, ["a", "c"], 1),
        ("train", 7.5, ["a"], 1),
        ("test", 99.0, [], 1),
    ],
)
def test_which_videos_are_taken(subset: str | None, shortest: float, ids: list[str], short: int) -> None:
    subsets = ["test" if row[0] == "b" else "train" for row in SPLIT]
    videos = videos_of(SPLIT, subset=subsets, subset_wanted=subset, shortest_seconds=shortest)
    assert [videos.video_id(n) for n in range(len(videos))] == ids
    assert videos.num_short == short
    assert [videos.pieces(n)[0].first_number for n in range(len(ids))] == [0] * len(ids)


@pytest.mark.parametrize(
    ("rows", "by_their_times"),
    [
        (SPLIT, set()),
        ([row for row in SPLIT if row[:2] != ("a", 1)], {"a"}),  # a clip is missing
        ([("a", 0, 0.0, 5.0, 49), *SPLIT[1:]], {"a"}),  # a frame is missing
        ([("a", 0, 0.0, 5.0, 50), ("a", 1, 5.04, 10.0, 50)], set()),  # less than half a frame is rounding
        ([("a", 0, 0.0, 5.0, 50), ("a", 1, 5.06, 10.0, 50)], {"a"}),
        ([("a", 0, 0.2, 5.0, 48), ("b", 0, 0.0, 3.0, 30)], {"a"}),  # the first clip is missing
    ],
)
def test_where_counting_does_not_find_frames(
    rows: list[tuple[str, int, float, float, int]], by_their_times: set[str]
) -> None:
    """All pieces of such a video are found by their frames' times; the other videos' are not."""
    videos = videos_of(rows)
    found = {videos.video_id(n): {piece.variable_fps for piece in videos.pieces(n)} for n in range(len(videos))}
    assert found == {video_id: {video_id in by_their_times} for video_id in found}


def test_a_video_in_place() -> None:
    """Its pieces lie in one file, and are counted there too."""
    rows = SPLIT[:3]
    first = [0, 50, 100]
    videos = videos_of(rows, path=["videos/a.mp4"] * 3, first_frame=first)
    assert videos.is_in_place(0)
    assert [(piece.first_number, piece.first_frame) for piece in videos.pieces(0)] == [(n, n) for n in first]
    assert len({piece.path for piece in videos.pieces(0)}) == 1


def test_no_videos() -> None:
    videos = videos_of([])
    assert (len(videos), videos.num_short, videos.largest_short_side) == (0, 0, 0)


@pytest.mark.parametrize(
    ("rows", "same"),
    [
        (list(SPLIT), True),
        ([("a", 0, 0.0, 12.0, 120), *SPLIT[3:]], True),  # cut otherwise
        (SPLIT[:4], False),
        ([*SPLIT[:3], ("d", 0, 0.0, 3.0, 30), *SPLIT[4:]], False),
        ([*SPLIT[:3], ("b", 0, 0.0, 3.1, 31), *SPLIT[4:]], False),
        ([*SPLIT[3:], *SPLIT[:3]], False),  # in another order
    ],
)
def test_an_index_is_known_by_its_videos(rows: list[tuple[str, int, float, float, int]], same: bool) -> None:
    assert (videos_of(SPLIT).identity() == videos_of(rows).identity()) == same
    assert (videos_of(SPLIT).identity().changes_to(videos_of(rows).identity()) is None) == same
