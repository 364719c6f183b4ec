"""Segments bring their classes with them, and those of one video are never on both sides."""

from pathlib import Path

import numpy as np
import pytest
from made_features import made_features, made_segments

from hico_core.base.errors import HicoError, UsageError
from hico_core.encoding.windows import Grid
from hico_core.transfer.evaluation.compare import compare_segments
from hico_core.transfer.evaluation.probe import LabelledRows
from hico_core.transfer.evaluation.retrieval import RANKS, chance_of_recall
from hico_core.transfer.evaluation.segments import (
    are_segments,
    folds_of_segments,
    retrieval_among_videos,
    segments_in,
)
from hico_core.transfer.extraction.manifest import load_features, require_features


def test_a_folder_brings_its_classes(tmp_path: Path) -> None:
    segments = {"a": [(0.0, 1.0, "run"), (0.5, 2.0, "bow")], "b": [(3.0, 4.5, "run")]}
    made_segments(tmp_path / "segments", segments)
    manifest = require_features(tmp_path / "segments")
    assert are_segments(manifest)
    found = segments_in(tmp_path / "segments", manifest)
    assert found.classes == ["bow", "run"]
    assert found.rows.labels.tolist() == [1, 0, 1]
    assert found.rows.groups is not None and found.rows.groups.tolist() == ["a", "a", "b"]
    assert found.rows.features.argmax(axis=1).tolist() == [1, 0, 1]
    table = load_features(tmp_path / "segments").rows
    assert table[["video_id", "start_seconds", "end_seconds", "labels"]].values.tolist() == [
        [video, start, end, label] for video, of_video in segments.items() for start, end, label in of_video
    ]


def rows_of(num_videos: int, *, each: int = 6) -> LabelledRows:
    rng = np.random.default_rng(0)
    count = num_videos * each
    features = rng.normal(size=(count, 8)).astype(np.float32)
    groups = np.repeat([f"v{number}" for number in range(num_videos)], each)
    return LabelledRows(features, rng.integers(0, 3, count), np.arange(count), groups)


def test_each_segment_is_tested_once_without_its_video() -> None:
    rows = rows_of(7)
    tested: list[int] = []
    for train, test in folds_of_segments(rows, 3):
        assert train.groups is not None and test.groups is not None
        assert not set(train.groups) & set(test.groups)
        tested += test.videos.tolist()
    assert sorted(tested) == list(range(42))
    with pytest.raises(UsageError, match="--folds 8: there are only 7 groups"):
        folds_of_segments(rows, 8)


def test_segments_are_looked_for_in_other_videos() -> None:
    """The slow twin: each ranking is written down."""
    rows = rows_of(5)
    assert rows.groups is not None
    found = retrieval_among_videos(rows, protocol="clip")
    units = rows.features / np.linalg.norm(rows.features, axis=1, keepdims=True)
    hits, precisions, chances = [], [], []
    for query in range(len(units)):
        others = [other for other in range(len(units)) if rows.groups[other] != rows.groups[query]]
        ranked = sorted(others, key=lambda other, query=query: -float(units[query] @ units[other]))  # type: ignore[misc]
        relevant = [bool(rows.labels[other] == rows.labels[query]) for other in ranked]
        at = [place for place, is_relevant in enumerate(relevant, start=1) if is_relevant]
        precisions.append(sum(number / place for number, place in enumerate(at, start=1)) / max(len(at), 1))
        hits.append({k: any(relevant[:k]) for k in RANKS})
        chances.append(chance_of_recall(rows.labels[[query]], rows.labels[others], k=5))
    assert found.mean_average_precision == pytest.approx(np.mean(precisions))
    assert found.recall == pytest.approx({k: np.mean([hit[k] for hit in hits]) for k in RANKS if k <= 20})
    assert found.chance[5] == pytest.approx(np.mean(chances)) and list(found.chance) == list(found.recall)
    with pytest.raises(UsageError, match="all segments are of one video, 'v0'"):
        retrieval_among_videos(rows.only(rows.groups == "v0"), protocol="clip")


def test_coclr_subtracts_the_mean_of_all_segments() -> None:
    """One segment per video, minus its own mean, would be nothing."""
    rows = rows_of(12, each=1)
    centred = rows._replace(features=rows.features - rows.features.mean(axis=0))
    far = rows._replace(features=rows.features + 8)
    found = retrieval_among_videos(far, protocol="coclr")
    expected = retrieval_among_videos(centred, protocol="video")
    assert found.protocol == "coclr" and found.recall == expected.recall
    assert found.mean_average_precision == pytest.approx(expected.mean_average_precision)


@pytest.mark.slow
def test_folders_of_one_set_of_segments_are_compared(tmp_path: Path) -> None:
    labels = ["run", "bow", "sit", "bow", "run", "sit"]
    times = [(float(at), at + 0.5) for at in range(6)]
    known = {f"v{n}": [(*time, label) for time, label in zip(times, labels, strict=True)] for n in range(6)}
    made_segments(tmp_path / "knows", known)
    made_segments(tmp_path / "too", known)
    found = compare_segments(
        {name: tmp_path / name for name in ("knows", "too")}, num_folds=3, num_neighbours=3
    ).comparison
    assert [(row.encoder, row.probe, row.accuracy) for row in found.rows] == [
        (name, probe, 1.0) for name in ("knows", "too") for probe in ("linear", "knn")
    ]
    assert (found.rows[0].num_test_clips, found.rows[0].num_test_groups, found.rows[0].chance) == (36, 6, 1 / 3)
    assert found.predictions["path"][0].as_py() == "v0 0.000-0.500" and found.rows[2].difference == 0
    made_segments(tmp_path / "other", {**known, "v5": known["v5"][:4]})
    made_features(tmp_path / "windows", {"v0": 4.0}, Grid(fps=8.0, window=8, stride=8))
    for name, said in (
        ("other", "does not have the same segments as"),
        ("windows", "its rows are windows, not segments"),
    ):
        with pytest.raises(HicoError, match=said):
            compare_segments({"knows": tmp_path / "knows", name: tmp_path / name}, num_folds=2, num_neighbours=3)
