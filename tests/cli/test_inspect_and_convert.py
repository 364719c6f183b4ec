"""`hico inspect` and `hico convert` on a small workspace and checkpoint."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import assert_one_line, hico
from made_videos import numbered_video, video_of_shots
from PIL import Image

from hico_core.checkpoints.authors_names import export_state_dict
from hico_core.model.hico import HicoModel

pytestmark = pytest.mark.videos


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    (folder / "videos").mkdir()
    for name in ("a", "b", "c"):
        numbered_video(folder / "videos" / f"{name}.mp4", seconds=6)
    assert hico("index", "--untrimmed", folder / "videos", root=folder / "root").returncode == 0
    return folder / "root"


def test_a_sheet_of_samples(root: Path) -> None:
    done = hico("inspect", root, "--samples", "2", "--at", "1.0")
    assert done.returncode == 0, done.stderr
    facts = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert facts["picture"] == str(root / "samples.png")
    assert facts["videos"].endswith(" train") and facts["failed"] == "0" and "median" in facts["frames per second"]
    sheet = np.asarray(Image.open(root / "samples.png"))
    # Two lines of a head; 2 videos of 3 clips, a row each: a title and frames of 112 pixels.
    head = 2 * 14 + 6
    assert sheet.shape[0] == head + 6 * (14 + 112 + 6)
    frames, title = sheet[head + 14 : head + 14 + 112], sheet[head : head + 14]
    assert frames.std() > 20 and title.min() < 50
    border = (frames == (255, 60, 0)).all(axis=-1)
    assert border.any(), "the crop is drawn on the frames"


def test_facts_without_a_picture(root: Path, tmp_path: Path) -> None:
    """There is nothing to draw, but the videos can be counted."""
    numbered_video(tmp_path / "brief/a.mp4", seconds=1)
    assert hico("index", "--untrimmed", tmp_path / "brief", root=tmp_path / "root").returncode == 0
    done = hico("inspect", tmp_path / "root")
    assert done.returncode == 0 and "videos: 1 train" in done.stdout
    assert done.stderr.startswith("hico: no picture of clips: ")


def test_shots_per_minute(root: Path, tmp_path: Path) -> None:
    assert "\nshots per minute: not known\n" in hico("inspect", root, "-O", tmp_path / "a.png").stdout
    video_of_shots(tmp_path / "in/a.mp4", [3, 2, 1])
    assert hico("index", "--untrimmed", tmp_path / "in", "--cuts", root=tmp_path / "root").returncode == 0
    assert "\nshots per minute: 30.0\n" in hico("inspect", tmp_path / "root").stdout


def test_the_same_seed_gives_the_same_sheet(root: Path, tmp_path: Path) -> None:
    sheets = []
    for number, seed in enumerate(("1", "1", "2")):
        picture = tmp_path / f"{number}.png"
        assert hico("inspect", root, "--samples", "1", "--seed", seed, "-O", picture).returncode == 0
        sheets.append(picture.read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def test_a_checkpoint_is_described(tmp_path: Path) -> None:
    torch.save({"epoch": 9, "model_state": export_state_dict(HicoModel().state_dict())}, tmp_path / "a.pyth")
    done = hico("inspect", tmp_path / "a.pyth")
    assert done.returncode == 0
    assert "authors' HiCo pretraining checkpoint" in done.stdout and "entries: 1104" in done.stdout
    assert "biases are 0" in done.stderr
    done = hico("convert", tmp_path / "a.pyth", tmp_path / "encoder.safetensors")
    assert done.returncode == 0 and "the encoder" in done.stdout
    assert "encoder" in hico("inspect", tmp_path / "encoder.safetensors").stdout


def test_one_line_each(root: Path, tmp_path: Path) -> None:
    (tmp_path / "no.pt").write_text("nothing")
    assert_one_line(hico("inspect", tmp_path / "no.pt"), 1, "no.pt", "not a checkpoint")
    assert_one_line(hico("inspect", tmp_path / "missing.pt"), 2, "missing.pt: no such file")
    assert_one_line(hico("inspect", tmp_path), 1, "has no index.parquet")
    run = tmp_path / "hico-data/runs/tiny"
    run.mkdir(parents=True)
    (run / "config.yaml").touch()
    advice = f"{run} is a run; use `hico inspect --encoder {run}` or `hico report {run}`"
    assert_one_line(hico("inspect", run), 2, advice)
    known = hico("inspect", "--encoder", "tiny", cwd=tmp_path)
    assert_one_line(known, 2, "tiny: no such encoder; did you mean hico-data/runs/tiny?")
    assert_one_line(hico("convert", tmp_path / "missing.pt", tmp_path / "a.pyth"), 2, "missing.pt: no such file")
    done = hico("convert", tmp_path / "no.pt", tmp_path / "a.xyz")
    assert done.returncode == 2 and "--to" in done.stderr
