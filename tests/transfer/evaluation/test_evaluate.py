"""The test of a classifier says what two processes, a loop by hand and scikit-learn say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from commands import assert_one_line, hico
from made_checkpoints import save_checkpoint
from made_videos import numbered_video
from PIL import Image
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from hico_core.base.errors import BadVideo
from hico_core.checkpoints.content import EncoderOrigin, Progress
from hico_core.config import load_finetuning_config
from hico_core.model.classifier import VideoClassifier
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.transfer.evaluation import evaluate as module
from hico_core.transfer.evaluation.predictions import Prediction

pytestmark = pytest.mark.videos

CLASSES = 3


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a finetuned run, five videos to test, and one that is none."""
    root = tmp_path_factory.mktemp("evaluate")
    for number in range(5):
        numbered_video(root / f"videos/{number}.mp4", seconds=2 + number)
    (root / "test.txt").write_text("".join(f"{number}.mp4 {number % CLASSES}\n" for number in range(5)))
    (root / "with bad.txt").write_text("0.mp4 0\n1.mp4 1\nnone.mp4 2\n")
    torch.manual_seed(0)
    model = VideoClassifier(CLASSES, S3DGTiny(), S3DGTiny.feature_dim)
    config = load_finetuning_config(overrides=["data.num_frames=8", "data.crop_size=32", "test.views=3"])
    save_checkpoint(
        root / "runs/tuned/checkpoints/last.pt",
        model=model,
        optimizer=torch.optim.Adam(model.parameters()),
        progress=Progress(encoder=EncoderOrigin(path="e.safetensors", sha256="0")),
        config=config.model_dump(mode="json"),
    )
    listed = ("--list", root / "test.txt", "--data-root", root / "videos", "--subset", "test")
    assert hico("index", *listed, root=root).returncode == 0
    return root


def predictions_in(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "predictions.parquet")


def test_what_comes_out(root: Path) -> None:
    done = hico("evaluate", "tuned", "--json", root=root)
    assert done.returncode == 0, done.stderr
    folder = root / "runs/tuned/evaluation"
    results = json.loads((folder / "results.json").read_text())
    assert {**results, "run": "tuned", "folder": str(folder)} == json.loads(done.stdout)
    table = predictions_in(folder)
    assert table["video_id"].tolist() == ["0", "1", "2", "3", "4"]
    probabilities = np.stack(table["probabilities"].tolist())
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert (probabilities.argmax(axis=1) == table["predicted"]).all()
    assert results["top1"] == (table["predicted"] == table["label"]).mean()
    assert results["mean_class_accuracy"] == pytest.approx(balanced_accuracy_score(table["label"], table["predicted"]))
    assert (results["views"], results["num_videos"], results["config"]["test"]["views"]) == (3, 5, 3)
    assert results["encoder_sha256"] == "0" and len(results["checkpoint_sha256"]) == 64
    by_class = pd.read_csv(folder / "classes.csv")
    assert by_class["videos"].tolist() == [2, 2, 1]
    assert by_class["right"].sum() == round(results["top1"] * 5)
    with Image.open(folder / "confusion.png") as picture:
        assert min(picture.size) >= 300


def test_results_lie_in_the_run_however_it_is_named(root: Path) -> None:
    run = root / "runs/tuned"
    (checkpoint,) = (run / "checkpoints").iterdir()
    for named in ("tuned", run, checkpoint):
        done = hico("evaluate", named, "--views", "1", "--json", root=root)
        assert json.loads(done.stdout)["folder"] == str(run / "evaluation"), done.stderr
    assert [path.name for path in (run / "checkpoints").iterdir()] == [checkpoint.name]


@pytest.mark.processes
def test_two_processes_say_the_same(root: Path, tmp_path: Path) -> None:
    """Rows do not depend on who encodes them, in as many threads."""
    outputs = []
    for nproc in ("1", "2"):
        command = [sys.executable, "-m", "hico_cli", "evaluate", "tuned", "--root", str(root), "--nproc", nproc]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        done = subprocess.run(
            [*command, "-O", str(tmp_path / nproc), "--workers", "0"], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.replace(str(tmp_path / nproc), ""))
    assert outputs[0] == outputs[1]
    assert predictions_in(tmp_path / "1").equals(predictions_in(tmp_path / "2"))
    assert (tmp_path / "1/results.json").read_text() == (tmp_path / "2/results.json").read_text()


def test_videos_that_cannot_be_decoded_count_as_wrong(root: Path, tmp_path: Path) -> None:
    lists = ("--list", root / "with bad.txt", "--data-root", root / "videos")
    done = hico("evaluate", "tuned", *lists, "--views", "1", "-O", tmp_path, "--json", root=root)
    assert done.returncode == 3
    results = json.loads(done.stdout)
    assert (results["num_videos"], results["num_failed"], results["views"]) == (3, 1, 1)
    (bad,) = (row for _, row in predictions_in(tmp_path).iterrows() if row["reason"])
    assert bad["video_id"] == "none" and pd.isna(bad["predicted"]) and "no such file" in bad["reason"]
    known = [row for _, row in predictions_in(tmp_path).iterrows() if not row["reason"]]
    assert results["top1"] == sum(row["predicted"] == row["label"] for row in known) / 3


def test_lines_that_cannot_be_used_are_told_and_left_out(root: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("0.mp4 0\n1.mp4 1\n2.mp4\n")
    lists = ("--list", tmp_path / "list.txt", "--data-root", root / "videos")
    done = hico("evaluate", "tuned", *lists, "--views", "1", "-O", tmp_path, "--json", root=root)
    assert done.returncode == 3 and f"hico: {tmp_path}/list.txt, line 3: '2.mp4' is not <path> <label>" in done.stderr
    results = json.loads(done.stdout)
    assert (results["num_videos"], results["num_failed"]) == (2, 0)


def test_three_splits_in_one_command(root: Path) -> None:
    lists: list[Any] = []
    for number in (1, 2, 3):
        (root / f"split{number}.txt").write_text(f"{number}.mp4 {number % CLASSES}\n0.mp4 0\n")
        lists += ["--list", root / f"split{number}.txt"]
    done = hico("evaluate", "tuned", "tuned", "tuned", *lists, "--data-root", root / "videos", "--json", root=root)
    assert done.returncode == 0, done.stderr
    *each, together = [json.loads(line) for line in done.stdout.splitlines()]
    values = [one["top1"] for one in each]
    assert together["top1"]["values"] == values and together["top1"]["mean"] == pytest.approx(np.mean(values))
    assert together["top1"]["standard_error"] == pytest.approx(np.std(values, ddof=1) / 3**0.5)


def test_classes_have_the_names_of_the_list(root: Path, tmp_path: Path) -> None:
    """A list as UCF101's: labels from its folders' names, names from classInd.txt."""
    (tmp_path / "classInd.txt").write_text("1 a\n2 b\n3 c\n")
    (tmp_path / "testlist01.txt").write_text("b/1.mp4\nc/2.mp4\n")
    for name, video in (("b", "1.mp4"), ("c", "2.mp4")):
        (tmp_path / "ucf" / name).mkdir(parents=True)
        (tmp_path / "ucf" / name / video).symlink_to(root / "videos" / video)
    lists = ("--list", tmp_path / "testlist01.txt", "--data-root", tmp_path / "ucf", "-O", tmp_path / "out")
    done = hico("evaluate", "tuned", *lists, root=root)
    assert done.returncode == 0, done.stderr
    by_class = pd.read_csv(tmp_path / "out/classes.csv")
    assert (by_class["name"].tolist(), by_class["videos"].tolist()) == (["a", "b", "c"], [0, 1, 1])
    (tmp_path / "classInd.txt").write_text("1 a\n2 b\n3 c\n4 d\n")
    assert_one_line(hico("evaluate", "tuned", *lists, root=root), 1, "the list has 4 classes, but", "has 3")


def test_confusions_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 50).tolist(), rng.integers(0, 4, 50).tolist()
    predictions = [
        Prediction(video_id=str(n), label=label, predicted=said, probability=0.5, in_top5=True)
        for n, (label, said) in enumerate(zip(labels, predicted, strict=True))
    ]
    predictions.append(
        Prediction(
            video_id="bad", label=2, predicted=None, probability=None, in_top5=False, bad=BadVideo("bad.mp4", "x")
        )
    )
    matrix = module.confusion_matrix(predictions, 4)
    np.testing.assert_array_equal(matrix[:, :4], confusion_matrix(labels, predicted))
    assert matrix[:, 4].tolist() == [0, 0, 1, 0]


def test_what_is_wrong_is_one_line(root: Path, tmp_path: Path) -> None:
    assert_one_line(hico("evaluate", "nobody", root=root), 1, "nobody: has no checkpoints/best.pt or last.pt")
    torch.save({"model": {}}, tmp_path / "x.pt")
    assert hico("evaluate", tmp_path / "x.pt", root=root).returncode == 1
    (tmp_path / "l.txt").write_text("0.mp4 9\n")
    lists = ("--list", tmp_path / "l.txt", "--data-root", root / "videos")
    assert_one_line(hico("evaluate", "tuned", *lists, root=root), 1, "0 has label 9", "has 3 classes")
    done = hico("evaluate", "tuned", "tuned", *lists, root=root)
    assert done.returncode == 2 and "1 lists for 2 runs" in done.stderr
    assert not (tmp_path / "evaluation").exists()
