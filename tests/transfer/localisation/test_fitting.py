"""Annotations fit the features that there are, and nobody is trained on the videos of the test by a name."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from made_features import manifest_row

from hico_core.base.choices import Toolkit
from hico_core.base.errors import HicoError, UsageError
from hico_core.encoding.windows import Grid
from hico_core.transfer.extraction.manifest import ManifestRow
from hico_core.transfer.localisation.annotations import EMPTY, AnnotatedVideo, Annotations, Segment
from hico_core.transfer.localisation.fitting import (
    OUTSIDE,
    TWICE,
    Fitted,
    Subsets,
    choose_subsets,
    describe_changes,
    feature_grid,
    fit_annotations,
    num_overlapping,
    preset_of,
)

ANET = Grid(fps=15.0, window=16, stride=16)
SUBSETS = Subsets("train", "test")

# Name of a video, subset, and its segments.
Video = tuple[str, str | None, list[tuple[float, float, str]]]


def annotated(*videos: Video, durations: dict[str, float] | None = None) -> Annotations:
    segments = [
        Segment(video=name, start_seconds=start, end_seconds=end, label=label, subset=subset)
        for name, subset, found in videos
        for start, end, label in found
    ]
    known = {name: AnnotatedVideo(subset, (durations or {}).get(name)) for name, subset, _ in videos}
    return Annotations(segments, known, Counter(), {})


def rows(**seconds: float) -> dict[str, ManifestRow]:
    return {name: manifest_row(name, seconds=length, grid=ANET) for name, length in seconds.items()}


def fit(*videos: Video, **seconds: float) -> Fitted:
    return fit_annotations(annotated(*videos), rows(**seconds), SUBSETS)


@pytest.mark.parametrize(
    ("segment", "becomes"),
    [
        ((1.5, 2), (1.5, 2)),
        ((0, 10), (0, 10)),
        ((9.2, 40), (9.2, 10)),  # the video has 10 s
        ((-3, 1e300), (0, 10)),
        ((-2, -1), OUTSIDE),
        ((-2, 0), OUTSIDE),
        ((10, 11), OUTSIDE),
        ((9.9995, 11), EMPTY),  # of what is left, a toolkit sees nothing
    ],
)
def test_segments_are_cut_to_their_video_or_left_out(
    segment: tuple[float, float], becomes: tuple[float, float] | str
) -> None:
    fitted = fit(("a", "train", [(*segment, "run"), (3, 4, "run")]), a=10)
    found = [tuple(annotation["segment"]) for annotation in fitted.database["a"]["annotations"]]
    assert found == [*([] if isinstance(becomes, str) else [becomes]), (3, 4)]
    assert fitted.left_out == ({becomes: 1} if isinstance(becomes, str) else {})
    assert fitted.num_cut == (not isinstance(becomes, str) and becomes != segment)


def test_what_is_left_of_a_file() -> None:
    fitted = fit(
        ("a", "train", [(1, 2, "run"), (1, 2, "run"), (1.5, 3, "dive"), (4, 5, "Ambiguous")]),
        ("unlabelled", "train", []),
        ("ambiguous", "train", [(1, 2, "Ambiguous")]),
        ("b", "test", [(1, 2, "run"), (2, 3, "swim")]),
        ("empty", "test", []),
        ("other", "val", [(1, 2, "bow")]),
        ("gone", "train", [(1, 2, "fly")]),
        **dict.fromkeys(("a", "unlabelled", "ambiguous", "b", "empty", "other"), 20.0),
    )
    assert {name: entry["subset"] for name, entry in fitted.database.items()} == {
        "a": "training",
        "b": "validation",
        "empty": "validation",  # where a detector had better find nothing
    }
    assert fitted.categories == ["dive", "run", "swim"]
    assert [(s["segment"], s["label_id"]) for s in fitted.database["a"]["annotations"]] == [([1, 2], 1), ([1.5, 3], 0)]
    assert (fitted.num_train, fitted.num_test) == (1, 2)
    assert fitted.left_out == {TWICE: 1, "called Ambiguous": 2}
    assert (fitted.num_unlabelled, fitted.num_of_other_subsets, fitted.num_overlapping) == (2, 1, 1)
    assert fitted.only_tested == ["swim"]
    assert describe_changes(fitted) == [
        "left out 3 segments: 2 called Ambiguous, 1 given twice",
        "left out 2 training videos without a segment",
        "left out 1 video of other subsets",
        "1 segment overlapping others: all are kept, and where two overlap, the shorter one is learnt",
        "no training video has the class 'swim'; its average precision is 0 and is included in the mean",
    ]
    assert describe_changes(fit(("a", "train", [(1, 2, "x")]), ("b", "test", [(1, 2, "x")]), a=9, b=9)) == []


@pytest.mark.parametrize("seconds", [0.03, 1.0, 14.967, 15.0, 100 / 3])
@pytest.mark.parametrize("fps", [15.0, None])
def test_a_video_has_the_frames_of_its_grid(seconds: float, fps: float | None) -> None:
    """OpenTAD's rate, frame / duration, is that of the grid; its sliding windows have a row a stride."""
    row = manifest_row("a", seconds=seconds, grid=Grid(fps=fps, window=16, stride=16), source_fps=30000 / 1001)
    entry = fit_annotations(annotated(("a", "train", [(0, 1, "x")])), {"a": row}, SUBSETS).database["a"]
    assert entry["frame"] / entry["duration"] == pytest.approx(row.fps, rel=1e-12) == entry["fps"]
    assert len(range(0, entry["frame"], row.stride)) == row.rows
    assert 0 <= entry["duration"] - seconds + 1e-6 <= 1 / row.fps


def test_videos_that_last_as_long_as_annotated() -> None:
    videos = [("a", "train", [(1.0, 2.0, "x")]), ("b", "test", [(1.0, 2.0, "x")])]
    found = annotated(*videos, durations={"a": 11.5, "b": 10.5})
    assert fit_annotations(found, rows(a=10, b=10), SUBSETS).other_durations == ["a"]


@pytest.mark.parametrize(
    ("usable", "train", "test", "expected"),
    [
        (["training", "validation"], None, None, ("training", "validation")),
        (["Train", "Val"], None, None, ("Train", "Val")),
        (["train", "test", "extra"], None, None, ("train", "test")),
        (["Validation", "Test"], None, None, ("Validation", "Test")),  # as THUMOS has them
        (["testing", "validation"], None, None, ("validation", "testing")),
        (["train", "val", "test"], None, "test", ("train", "test")),
        (["train", "val", "test"], "val", None, ("val", "test")),
        (["a", "b"], "b", "a", ("b", "a")),
        (
            ["train", "val", "test"],
            None,
            None,
            r"which to test on: there are 'test' \(1 video\), 'train' .*, 'val'",
        ),
        (["train", "training", "val"], None, None, "which to test on"),
        (["Test", "test", "train"], None, None, "which to test on"),
        (["validation"], None, None, r"which to test on: there is 'validation' \(1 video\)"),
        (["val", "test"], None, None, "which to test on"),  # not THUMOS' names
        (["a", "b"], "b", None, "which to test on"),
        ([], None, None, "there is none"),
        (["train", "test"], "Train", None, "--train-subset Train: no video of it has features and segments; there are"),
        (["train", "test"], None, "val", "--test-subset val: no video"),
        (["train", "test"], "train", "train", "are both 'train'"),
    ],
)
def test_which_videos_are_trained_on(
    usable: list[str], train: str | None, test: str | None, expected: tuple[str, str] | str
) -> None:
    found = annotated(*((name, name, []) for name in usable))
    if isinstance(expected, tuple):
        assert choose_subsets(found, dict.fromkeys(usable, 1), train=train, test=test) == expected
    else:
        with pytest.raises(UsageError, match=expected):
            choose_subsets(found, dict.fromkeys(usable, 1), train=train, test=test)


def test_validation_is_trained_on_only_where_the_file_has_no_training_subset() -> None:
    """Features of the training videos may be missing."""
    found = annotated(("a", "training", []), ("b", "validation", []), ("c", "testing", []))
    with pytest.raises(UsageError, match="which to test on"):
        choose_subsets(found, {"validation": 1, "testing": 1}, train=None, test=None)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([], 0),
        ([(0, 1), (1, 2)], 0),
        ([(0, 2), (1, 3)], 1),
        ([(0, 9), (1, 2), (3, 4)], 2),
        ([(5, 6), (0, 1)], 0),
        ([(0, 1), (0, 1)], 1),
    ],
)
def test_overlaps(times: list[tuple[float, float]], expected: int) -> None:
    segments = [
        Segment(video="a", start_seconds=start, end_seconds=end, label="x", subset=None) for start, end in times
    ]
    assert num_overlapping(segments) == expected


@pytest.mark.parametrize(
    ("changes", "toolkit", "problem"),
    [
        ({"tail": "shift"}, "opentad", "shifted off the grid; extract with --tail pad or drop"),
        ({"file_format": "npz"}, "actionformer", r"actionformer does not read \.npz; extract with --format npy"),
        ({"file_format": "parquet"}, "opentad", "extract with --format npy or npz or pt"),
        ({"shape": [3, 7, 7]}, "opentad", "extract with --pool avg or max"),
        ({"window": 15}, "opentad", "counts whole ones; extract with an even --window, not 15"),
        ({"align": "center", "window": 15}, "opentad", "extract with an even --window"),
    ],
)
def test_features_that_do_not_fit(changes: dict[str, Any], toolkit: Toolkit, problem: str) -> None:
    row = manifest_row("a", seconds=9, grid=ANET).model_copy(update=changes)
    with pytest.raises(HicoError, match=problem):
        feature_grid({"a.npy": row}, Path("features"), toolkit)


def test_actionformer_takes_odd_windows() -> None:
    row = manifest_row("a", seconds=9, grid=Grid(fps=15.0, window=15, stride=4))
    assert feature_grid({"a.npy": row}, Path("features"), "actionformer").offset_frames == 7.5


@pytest.mark.parametrize(
    ("grid", "prefix", "expected"),
    [
        (ANET, "v_", "anet"),
        (ANET, "", "hacs"),
        (Grid(fps=None, window=16, stride=4), "", "thumos"),
        (Grid(fps=7.5, window=16, stride=16), "", None),
        (Grid(fps=None, window=16, stride=8), "", None),
    ],
)
def test_a_preset_is_known_by_its_windows(grid: Grid, prefix: str, expected: str | None) -> None:
    row = manifest_row("a", seconds=9, grid=grid, prefix=prefix)
    if expected is not None:
        assert preset_of(row, Path("features")) == expected
    else:
        with pytest.raises(UsageError, match="choose the settings with --preset anet or hacs or thumos"):
            preset_of(row, Path("features"))
