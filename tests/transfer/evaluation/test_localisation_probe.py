"""Features that know when something happens are told from those that do not, whatever video they come from."""

import json
from pathlib import Path

import numpy as np
import pytest
from made_features import made_features, made_segments

from hico_core.base.errors import HicoError, UsageError
from hico_core.encoding.windows import Grid
from hico_core.transfer.evaluation.localisation import average_precision, edit_score, frame_accuracy, segmental_f1
from hico_core.transfer.evaluation.localisation_probe import (
    CHANCE,
    MOST_FREQUENT,
    AnnotatedSeconds,
    Predictions,
    features_of_seconds,
    guesses,
    labels_of_seconds,
    measured,
    probe_seconds,
    read_groups,
    read_seconds,
    write_localisation,
)
from hico_core.transfer.extraction.manifest import require_features
from hico_core.transfer.localisation.annotations import Segment

GRID = Grid(fps=8.0, window=8, stride=4)  # windows of a second, two a second
LABELS = ("bow", "run", "sit")

# Start, end and number of class in the features.
Annotated = list[tuple[float, float, int]]


def segment(start: float, end: float, label: str) -> Segment:
    return Segment(video="a", start_seconds=start, end_seconds=end, label=label, subset=None)


def as_file(folder: Path, annotated: dict[str, Annotated]) -> Path:
    file = folder / "segments.csv"
    lines = [f"{video},{start},{end},{LABELS[n]}" for video, found in annotated.items() for start, end, n in found]
    file.write_text("\n".join(["video,start,end,label", *lines]))
    return file


def drawn(num_videos: int = 8, seconds: int = 24) -> dict[str, Annotated]:
    """In each video, actions of 3 to 5 s one after the other, a second of nothing between them."""
    rng = np.random.default_rng(0)
    found: dict[str, Annotated] = {}
    for number in range(num_videos):
        start, of_video = 1, []
        while start + 5 < seconds:
            end = start + int(rng.integers(3, 6))
            of_video.append((float(start), float(end), int(rng.integers(0, 3))))
            start = end + 1
        found[f"v{number}"] = of_video
    return found


@pytest.mark.parametrize(
    ("segments", "seconds", "labels"),
    [
        ([(0.6, 2.5, "run"), (2.2, 2.8, "bow")], 4.3, [0, 2, 1, 0]),
        ([(0.0, 4.0, "run")], 4.0, [2, 2, 2, 2]),
        ([(0.0, 4.0, "run"), (1.0, 2.0, "bow")], 4.0, [2, 1, 2, 2]),  # the shorter one counts
        ([(1.0, 2.0, "bow"), (0.0, 4.0, "run")], 4.0, [2, 1, 2, 2]),  # in whatever order they are annotated
        ([(0.5, 1.5, "run")], 2.0, [2, 0]),  # a segment ends before its end
        ([(0.6, 1.4, "run")], 2.0, [0, 0]),
        ([(0.0, 0.3, "run")], 0.3, [0]),
        ([], 2.6, [0, 0, 0]),
    ],
)
def test_what_is_annotated_at_the_middle_of_each_second(
    segments: list[tuple[float, float, str]], seconds: float, labels: list[int]
) -> None:
    found = labels_of_seconds([segment(*one) for one in segments], {"bow": 1, "run": 2}, duration_seconds=seconds)
    assert found.tolist() == labels


def test_each_second_has_the_nearest_window(tmp_path: Path) -> None:
    """The slow twin: all distances."""
    annotated = drawn(3)
    for grid in (GRID, Grid(fps=15.0, window=16, stride=40), Grid(fps=8.0, window=8, stride=5, tail="shift")):
        folder = tmp_path / f"{grid.stride}"
        made_features(folder, dict.fromkeys(annotated, 22.7), grid, segments=annotated)
        manifest = require_features(folder)
        seconds, _ = read_seconds(as_file(tmp_path, annotated), manifest)
        found = seconds.of_each_video(features_of_seconds(folder, manifest, seconds))
        for video, rows in zip(seconds.videos, found, strict=True):
            array, row = np.load(folder / f"{video}.npy"), manifest[f"{video}.npy"]
            for second, features in enumerate(rows):
                distances = [abs(centre - second - 0.5) for centre in row.centre_seconds]
                nearest = [array[at] for at, far in enumerate(distances) if far <= min(distances) + 1e-9]
                assert any(np.array_equal(features, one) for one in nearest)


@pytest.mark.slow
def test_features_that_know_when_and_features_that_do_not(tmp_path: Path) -> None:
    annotated = drawn()
    seconds_of = dict.fromkeys(annotated, 24.0)
    made_features(tmp_path / "knows", seconds_of, GRID, segments=annotated)
    other_times = {video: [(start + 3, end + 3, n) for start, end, n in annotated["v0"]] for video in annotated}
    made_features(tmp_path / "guesses", seconds_of, GRID, segments=other_times)
    file = as_file(tmp_path, annotated)
    seconds, remarks = read_seconds(file, require_features(tmp_path / "knows"))
    assert remarks == [] and seconds.classes == ["(background)", *LABELS] and seconds.lengths_V.tolist() == [24] * 8
    told: list[str] = []
    folders = {name: tmp_path / name for name in ("knows", "guesses")}
    found = probe_seconds(folders, seconds, num_folds=2, on_done=told.append)
    rows = {row.features: row for row in found.rows}
    assert list(rows) == ["knows", "guesses", MOST_FREQUENT, CHANCE] and len(told) == 2 and found.remarks == []
    assert rows["knows"].frame_accuracy.value > 0.95 and rows["knows"].f1["50"].value > 0.95
    assert rows["knows"].edit.value > 0.95 and rows["knows"].mean_average_precision > 0.95
    for name in ("guesses", MOST_FREQUENT, CHANCE):
        assert rows[name].frame_accuracy.high < 0.6 and rows[name].mean_average_precision < 0.6
    fields = write_localisation(
        tmp_path / "found.json", found, seconds, segments=file, features=tmp_path / "knows", root=tmp_path
    )
    written = json.loads((tmp_path / "found.json").read_text())
    assert written == json.loads(json.dumps(fields)) and written["features"] == "knows"
    assert sum(written["seconds_of_classes"].values()) == 8 * 24
    assert written["rows"][0]["f1"]["10"]["value"] == rows["knows"].f1["10"].value


def made_seconds(lengths: list[int], labels: list[int]) -> AnnotatedSeconds:
    names = [f"v{number}" for number in range(len(lengths))]
    return AnnotatedSeconds(
        videos=names,
        groups=names,
        lengths_V=np.array(lengths),
        labels_N=np.array(labels),
        classes=["(background)", *LABELS],
    )


def test_measures_are_of_all_videos_together() -> None:
    rng = np.random.default_rng(0)
    seconds = made_seconds([5, 9, 14], rng.integers(0, 4, 28).tolist())
    predicted, scores = rng.integers(0, 4, 28), rng.random((28, 4))
    row = measured("x", Predictions(predicted, scores), seconds)
    pairs = [(predicted[part], seconds.labels_N[part]) for part in (slice(5), slice(5, 14), slice(14, 28))]
    assert row.frame_accuracy.value == pytest.approx(frame_accuracy(predicted, seconds.labels_N))
    assert row.edit.value == pytest.approx(np.mean([edit_score(*pair) for pair in pairs]))
    for overlap in (10, 25, 50):
        expected = segmental_f1([one for one, _ in pairs], [true for _, true in pairs], overlap / 100)
        assert row.f1[str(overlap)].value == pytest.approx(expected)
    expected_ap = {name: average_precision(scores[:, n], seconds.labels_N == n) for n, name in enumerate(LABELS, 1)}
    assert row.average_precision == pytest.approx(expected_ap)
    assert row.mean_average_precision == pytest.approx(np.mean(list(expected_ap.values())))


def test_guesses() -> None:
    """Video 0 has most of class 1 of all, and is guessed without what it has itself."""
    seconds = made_seconds([5, 4, 3], [1, 1, 1, 1, 2, 2, 2, 2, 0, 1, 2, 0])
    found = guesses(seconds, np.repeat([0, 1, 2], [5, 4, 3]))
    assert found[MOST_FREQUENT].labels_N.tolist() == [2] * 5 + [1] * 4 + [1] * 3
    row = measured(MOST_FREQUENT, found[MOST_FREQUENT], seconds)
    assert row.average_precision == pytest.approx({"bow": 5 / 12, "run": 5 / 12})  # no second is of the third class
    assert set(found[CHANCE].labels_N) <= {0, 1, 2}


def test_groups_are_tested_together(tmp_path: Path) -> None:
    annotated = drawn(4)
    made_features(tmp_path / "made", dict.fromkeys(annotated, 24.0), GRID, segments=annotated)
    (tmp_path / "groups.txt").write_text("v0\tred\nv1\tblue\n\nv2\tred\nv3\tblue\n")
    file, manifest = as_file(tmp_path, annotated), require_features(tmp_path / "made")
    groups = read_groups(tmp_path / "groups.txt")
    seconds, _ = read_seconds(file, manifest, groups=groups)
    assert set(seconds.groups_of_seconds[seconds.labels_N >= 0]) == {"red", "blue"}
    with pytest.raises(UsageError, match="--folds 3: there are only 2 groups; use --folds 2"):
        probe_seconds({"made": tmp_path / "made"}, seconds, num_folds=3)
    with pytest.raises(UsageError, match="--groups: has no group for 1 video, such as 'v3'"):
        read_seconds(file, manifest, groups={f"v{n}": "one" for n in range(3)})
    with pytest.raises(UsageError, match="all clips are in one group, 'one'"):
        probe_seconds(
            {"made": tmp_path / "made"},
            read_seconds(file, manifest, groups=dict.fromkeys(annotated, "one")).seconds,
            num_folds=2,
        )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("v0\tred\nv1 blue\n", "line 2: 'v1 blue' is not video<TAB>group, one line per video"),
        ("v0\tred\nv0\tblue\n", "line 2: .* is not video<TAB>group"),
        ("v0\tred\nv1\tblue\n", "no group has two videos; leave out --groups"),
    ],
)
def test_lists_of_groups_that_say_nothing(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "groups.txt").write_text(text)
    with pytest.raises(UsageError, match=said):
        read_groups(tmp_path / "groups.txt")


def test_what_a_reader_should_know_is_said(tmp_path: Path) -> None:
    annotated = {"v_a": [(0.0, 4.0, 0), (1.0, 3.0, 1), (4.6, 5.2, 1), (9.0, 10.0, 0)], "b": [(0.0, 3.0, 0)]}
    made_features(tmp_path / "made", {"a": 8.0, "b": 5.0, "unknown": 5.0}, GRID)
    file = as_file(tmp_path, {**annotated, "gone": [(0.0, 1.0, 2)]})
    seconds, remarks = read_seconds(file, require_features(tmp_path / "made"))
    assert seconds.videos == ["a", "b"]
    assert remarks == [
        "left out 1 segment: 1 outside their video",
        "left out the segments of 1 video without features, such as 'gone'",
        "left out 1 video with features but not in the file of segments",
        "1 segment overlapping others: a second that lies in two counts as the shorter one",
        "1 segment too short to contain the middle of a second",
    ]
    found = probe_seconds({"made": tmp_path / "made"}, seconds, num_folds=2)
    assert found.remarks[0] == (
        "class run: no seconds to train on, because all are tested together, so 2 test seconds must be "
        "wrong; add seconds in other groups"
    )


@pytest.mark.parametrize(
    ("annotated", "error", "said"),
    [
        ({"x": [(0.0, 1.0, 0)]}, UsageError, "has no segments of the 2 videos with features; its first video is 'x'"),
        ({"a": [(0.0, 5000.0, 0)], "b": [(1000.0, 3000.0, 1)]}, HicoError, "look like milliseconds"),
    ],
)
def test_segments_of_something_else(
    tmp_path: Path, annotated: dict[str, Annotated], error: type[HicoError], said: str
) -> None:
    made_features(tmp_path / "made", {"a": 8.0, "b": 5.0}, GRID)
    with pytest.raises(error, match=said):
        read_seconds(as_file(tmp_path, annotated), require_features(tmp_path / "made"))


def test_folders_that_do_not_fit(tmp_path: Path) -> None:
    made_features(tmp_path / "made", {"a": 8.0, "b": 5.0}, GRID)
    made_features(tmp_path / "fewer", {"a": 8.0}, GRID)
    made_segments(tmp_path / "segments", {"a": [(0.0, 1.0, "run")], "b": [(0.0, 1.0, "bow")]})
    seconds, _ = read_seconds(
        as_file(tmp_path, {"a": [(0.0, 2.0, 0)], "b": [(0.0, 1.0, 1)]}), require_features(tmp_path / "made")
    )
    for name, said in (
        ("fewer", "has no features of 1 video, such as 'b'"),
        ("segments", "its rows are segments, not"),
    ):
        with pytest.raises(HicoError, match=said):
            features_of_seconds(tmp_path / name, require_features(tmp_path / name), seconds)
