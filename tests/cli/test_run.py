"""`hico run` goes the whole road, and goes on where it was stopped."""

import re
from pathlib import Path

import pytest
from commands import assert_one_line, hico
from made_videos import numbered_video

from hico_core.config import load_config, preset

pytestmark = pytest.mark.videos


def test_the_whole_road_and_again(tmp_path: Path) -> None:
    for number in range(2):
        numbered_video(tmp_path / f"videos/{number}.mp4", seconds=3)
    root = tmp_path / "root"
    command = ("run", tmp_path / "videos", "--hours", "0.001")
    done = hico(*command, root=root)
    assert done.returncode == 0, done.stderr
    announced = re.search(r"pretraining (\d+) of the recipe's (\d+) epochs, (\d+) videos a step", done.stderr)
    assert announced is not None, done.stderr
    train = load_config(root / "runs/run/config.yaml").train
    assert [train.epochs, preset("hacs-hico-s").train.epochs, train.batch_size] == list(map(int, announced.groups()))
    assert 1 <= train.epochs <= 120 and train.batch_size == 2
    assert done.stdout.splitlines()[-1] == str(root / "runs/run/report.html")
    assert (root / "features/run/manifest.jsonl").exists()
    metrics = (root / "runs/run/metrics.jsonl").read_text()

    (tmp_path / "videos/broken.mp4").write_bytes(b"no video")
    again = hico(*command, root=root)
    assert again.returncode == 3, again.stderr
    assert "of the recipe's" not in again.stderr, "the run that is there goes on, as long as it was to be"
    assert (root / "runs/run/metrics.jsonl").read_text() == metrics
    assert again.stdout.splitlines()[-1] == str(root / "runs/run/report.html")


def test_nothing_to_run_on_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_one_line(hico("run", tmp_path / "empty", root=tmp_path / "root"), 2, "no video files in this folder")
    assert_one_line(hico("run", tmp_path / "nowhere", root=tmp_path / "root"), 2, "no such file or folder")
    numbered_video(tmp_path / "one/a.mp4", seconds=3)
    done = hico("run", tmp_path / "one", root=tmp_path / "one-root")
    assert done.returncode == 1
    assert "has 1 training video, too few to compare with each other" in done.stderr.splitlines()[-1]
