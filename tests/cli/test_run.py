"""`hico run` goes the whole road within its hours, and goes on where it was stopped."""

import json
import shlex
from pathlib import Path

import pytest
from commands import TINY, assert_one_line, hico
from made_videos import numbered_video

from hico_core.config import load_config

pytestmark = pytest.mark.videos

SMALL = [word for word in TINY if word not in ("--batch-size", "2")]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number in range(2):
        numbered_video(folder / f"{number}.mp4", seconds=3)
    return folder


def test_the_whole_road_and_again(tmp_path: Path, videos: Path) -> None:
    root = tmp_path / "root"
    command: tuple[str | Path, ...] = ("run", videos, *SMALL, "-o", "train.epochs=2", "-o", "optim.warmup_epochs=0")
    done = hico(*command, root=root)
    assert done.returncode == 0, done.stderr
    assert "measuring how fast s3dg-tiny trains" in done.stderr
    told = [done.stdout.index(text) for text in ("clips of 2 videos", "plan for --hours 1 (1.0 h)", "the encoder is")]
    assert told == sorted(told), "the plan is told before training"
    config = load_config(root / "runs/run/config.yaml")
    assert (config.model.encoder, config.train.epochs, config.train.batch_size) == ("s3dg-tiny", 2, 2)
    assert done.stdout.splitlines()[-1] == str(root / "runs/run/report.html")
    assert "2 steps are too few for s3dg-tiny to learn from" in done.stderr.splitlines()[-1]
    assert (root / "features/run/manifest.jsonl").exists()
    metrics = (root / "runs/run/metrics.jsonl").read_text()
    assert len(metrics.splitlines()) == 2
    times = json.loads((root / "runs/run/road.json").read_text())
    assert all(times.values()) and set(times) == {"splitting", "measuring", "training", "features"}

    (tmp_path / "broken.mp4").write_bytes(b"no video")
    again = hico(*command, tmp_path / "broken.mp4", "--resume", root=root)
    assert again.returncode == 3, again.stderr
    assert "plan for" not in again.stdout, "nothing is left to measure"
    assert (root / "runs/run/metrics.jsonl").read_text() == metrics
    assert "to learn from" in again.stderr.splitlines()[-1]

    other = hico(*command, "--encoder", "s3dg", "-o", "model.encoder=s3dg", root=root)
    assert other.returncode == 2
    assert "this run has model.encoder=s3dg-tiny, not s3dg" in other.stderr.splitlines()[-1]

    numbered_video(tmp_path / "third.mp4", seconds=3)
    more = hico(*command, tmp_path / "third.mp4", root=root)
    assert more.returncode == 2
    said = more.stderr.splitlines()[-1]
    assert "there were 2 videos, and there are 3 now; use another --name, or continue with `hico pretrain" in said
    typed = shlex.split(said.split("`")[1])
    assert hico(*typed[1:]).returncode == 0
    assert hico(*command, root=root).returncode == 0
    assert len((root / "features/run/manifest.jsonl").read_text().splitlines()) == 3


def test_too_little_time_for_training(tmp_path: Path, videos: Path) -> None:
    """A step is done all the same, the features are left out, and what would be enough is the last line."""
    root = tmp_path / "root"
    assert hico("split", videos, root=root).returncode == 0
    done = hico("run", videos, *SMALL, "--hours", "0.001", root=root)
    assert done.returncode == 0, done.stderr
    assert (root / "runs/run/export/encoder.safetensors").exists()
    *_, features, steps = done.stderr.splitlines()
    assert f"`hico extract-features --root {root} --encoder {root}/runs/run` extracts the missing ones" in features
    assert f"for enough steps: `hico run {videos}" in steps
    assert "--name run-2 --hours 0." in steps


def test_a_plan_without_a_trace(tmp_path: Path, videos: Path) -> None:
    root = tmp_path / "root"
    done = hico("run", videos, *SMALL, "--dry-run", "--json", root=root)
    assert done.returncode == 0, done.stderr
    told = [
        "splitting 2 videos",
        "measuring how fast s3dg-tiny trains",
        "encoding a few windows",
        "a training step of 2",
    ]
    assert all(text in line for text, line in zip(told, done.stderr.splitlines(), strict=False))
    plan = json.loads(done.stdout)["plan"]
    assert plan["encoder"] == "s3dg-tiny" and plan["num_rows"] > 0
    num_steps = plan["length"]["num_steps"]
    assert num_steps >= 300 and num_steps * plan["step_seconds"] < 3600
    assert not root.exists()
    named = ("--encoder", "s3dg-tiny", "--device", "cpu")
    few = hico("run", videos, *SMALL, *named, "--dry-run", "--hours", "0.001", root=root)
    last = few.stderr.splitlines()[-1]
    assert " ".join(named) in last, "the command keeps what was asked for"
    assert "--name run --hours 0." in last, "no run has the name yet"


def test_what_is_wrong_is_one_line(tmp_path: Path, videos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    root = tmp_path / "root"
    assert_one_line(hico("run", tmp_path / "empty", root=root), 2, "no video files in this folder")
    assert_one_line(hico("run", tmp_path / "nowhere", root=root), 2, "no such file or folder")
    assert_one_line(hico("run", videos, "-o", "train.epoch=3", root=root), 2, "unknown key train.epoch")
    assert_one_line(hico("run", videos, "--encoder", "s3dgg", root=root), 2, "these are s3dg, s3dg-tiny")
    assert_one_line(hico("run", videos, "--resume", root=root), 2, "runs/run: no such run to continue")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert_one_line(hico("run", videos, "--device", "cuda", root=root), 2, "--device cuda: PyTorch sees no GPU here")
    assert not root.exists()
    done = hico("run", videos / "0.mp4", root=root)
    assert done.returncode == 1
    assert "has 1 training video, too few to compare with each other" in done.stderr.splitlines()[-1]
