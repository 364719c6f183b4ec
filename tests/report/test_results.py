"""What was measured of a run's encoder is found by the encoder that its file names, and stands in the report."""

import json
from pathlib import Path

import pytest

from hico_core.base.errors import HicoError
from hico_core.report.facts import read_run
from hico_core.report.results import read_results
from hico_core.report.tables import localised_tables, probe_table, retrieval_table
from hico_core.report.verdict import judge_finetuning
from hico_core.transfer.evaluation.retrieval import Retrieval, write_retrieval

ESTIMATE = {"value": 0.5, "low": 0.25, "high": 0.75}
SECONDS = {
    "encoder": "runs/one/export/encoder.safetensors",
    "num_videos": 4,
    "num_groups": 2,
    "seconds_of_classes": {"(background)": 3, "a": 5},
    "rows": [
        {
            "features": "one",
            "frame_accuracy": ESTIMATE,
            "edit": ESTIMATE,
            "f1": {"10": ESTIMATE, "25": ESTIMATE},
            "mean_average_precision": 0.625,
            "average_precision": {"a": 0.625},
        }
    ],
}
TEST = {"top1": 0.75, "top5": None, "num_videos": 8, "num_classes": 2}
FOUND = Retrieval(
    protocol="clip",
    num_queries=4,
    gallery_size=6,
    recall={1: 0.5, 5: 1.0},
    mean_average_precision=0.625,
    chance={1: 0.25, 5: 0.9},
)


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two runs, the first with results of all kinds, and one that was finetuned from it."""
    for name in ("one", "two", "tuned"):
        write(tmp_path / "runs" / name / "config.yaml", {"sampling": {}} if name != "tuned" else {})
    write_retrieval(
        tmp_path / "retrieval/one-clip.json",
        FOUND,
        features=tmp_path / "features/one",
        encoder=str(tmp_path / "runs/one/export/encoder.safetensors"),
        root=tmp_path,
    )
    write(tmp_path / "probes/one-seconds.json", SECONDS)
    write(tmp_path / "runs/tuned/evaluation/results.json", {**TEST, "encoder": str(tmp_path / "runs/one/export/x")})
    return tmp_path


def test_results_of_an_encoder_stand_in_its_report(root: Path) -> None:
    runs = [read_run(root / "runs" / name) for name in ("one", "two", "tuned")]
    accuracies, found, localised = probe_table(runs), retrieval_table(runs), localised_tables(runs)
    of_test = "75.0 (40.9 to 92.9) of 8 videos"
    assert accuracies is not None and accuracies.rows == [
        ["evaluation of tuned, top1", of_test, "", "", "50.0"],
        ["evaluation, top1", "", "", of_test, "50.0"],
    ]
    assert found is not None and found.rows == [
        ["one", "features/one", "clip", "50.0 (15.0 to 85.0)", "25.0", "100.0", "62.5", 4, 6]
    ]
    (table,) = localised
    half = "50.0 (25.0 to 75.0)"
    assert table.rows == [["one", half, half, half, half, "62.5"]]
    assert table.head == ["features", "accuracy", "edit", "F1@10", "F1@25", "mAP"]
    assert "8 seconds of 4 videos in 2 groups" in table.caption


def test_a_later_test_of_a_classifier_counts_where_there_was_none_at_its_end(root: Path) -> None:
    assert "accuracy 75.0 % (6 of 8 test videos" in judge_finetuning(read_run(root / "runs/tuned").results.tested).text
    write(root / "runs/tuned/results.json", {**TEST, "top1": 0.5})
    assert "accuracy 50.0 % (4 of 8 test videos" in judge_finetuning(read_run(root / "runs/tuned").results.tested).text


def test_no_results_are_no_tables(root: Path) -> None:
    runs = [read_run(root / "runs/two")]
    assert (probe_table(runs), retrieval_table(runs), localised_tables(runs)) == (None, None, [])


@pytest.mark.parametrize("place", ["retrieval/one-clip.json", "probes/one-seconds.json"])
@pytest.mark.parametrize("content", ["{", '{"encoder": "runs/one/x", "rows": [1], "num_videos": "many"}'])
def test_a_damaged_file_is_named(root: Path, place: str, content: str) -> None:
    (root / place).write_text(content)
    with pytest.raises(HicoError, match=f"{place}: is damaged; remove it"):
        read_results(root / "runs/one", root)
