"""`hico pretrain --config` with a file of the authors, on folder trees like theirs."""

import shutil
from pathlib import Path

import pytest
from authors_files import write_config
from commands import assert_one_line, hico, hico_process
from made_videos import numbered_video

from hico_core.config import load_config
from hico_core.corpus.index import read_index

pytestmark = pytest.mark.videos

SMALL = {
    "DATA.NUM_INPUT_FRAMES": 8,
    "DATA.SAMPLING_RATE": 8,
    "DATA.TRAIN_CROP_SIZE": 32,
    "TRAIN.BATCH_SIZE": 2,
    "OPTIMIZER.MAX_EPOCH": 1,
    "OPTIMIZER.WARMUP_EPOCHS": 0,
    "DATA_LOADER.NUM_WORKERS": 0,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos as the authors keep them: clips in training/, named by training.txt beside it."""
    folder = tmp_path_factory.mktemp("authors")
    (folder / "videos").mkdir()
    for name in ("a", "b"):
        numbered_video(folder / "videos" / f"{name}.mp4", seconds=7)
    assert hico("split", folder / "videos", root=folder / "work").returncode == 0
    assert hico("index", root=folder / "work").returncode == 0
    shutil.copytree(folder / "work" / "train", folder / "clips" / "training")
    shutil.copy(folder / "work" / "training.txt", folder / "clips")
    return folder


def test_clips_and_lists_as_they_are(data: Path, tmp_path: Path) -> None:
    changes = {**SMALL, "DATA.DATA_ROOT_DIR": str(data / "clips"), "DATA.ANNO_DIR": str(tmp_path / "nowhere")}
    config = write_config(tmp_path, "pt-hacs/s3dg-hico-s.yaml", changes)
    done = hico("pretrain", "--config", config, root=tmp_path / "root")
    assert done.returncode == 0, done.stderr
    assert " keys that hico does not use" in done.stderr and "scale_lr" in done.stderr
    run = tmp_path / "root" / "runs" / "hacs-hico-s"
    assert load_config(run / "config.yaml").train.batch_size == 2
    assert (run / "export" / "encoder.safetensors").exists()
    assert read_index(tmp_path / "root")["path"].str.startswith(str(data / "clips" / "training")).all()

    # With an index, theirs is not needed any more; without one, what was tried is said.
    shutil.rmtree(tmp_path / "root" / "runs")
    gone = write_config(
        tmp_path, "pt-hacs/s3dg-hico-s.yaml", {**changes, "DATA.DATA_ROOT_DIR": str(tmp_path / "nowhere")}
    )
    assert hico("pretrain", "--config", gone, "--dry-run", root=tmp_path / "root").returncode == 0
    done = hico("pretrain", "--config", gone, "--dry-run", root=tmp_path / "other")
    assert done.returncode == 2
    assert f"tried {tmp_path / 'nowhere' / 'training.txt'}" in done.stderr and "--data-root" in done.stderr


def test_trimmed_kinetics(data: Path, tmp_path: Path) -> None:
    (tmp_path / "kinetics400_train_list.txt").write_text("a.mp4 7\nb.mp4 399\n")
    config = write_config(tmp_path, "pt-k400/s3dg-hico-l.yaml", SMALL)
    folders: list[str | Path] = ["--data-root", data / "videos", "--anno-dir", tmp_path]
    assert hico("pretrain", "--config", config, *folders, "--dry-run", root=tmp_path / "root").returncode == 0
    assert not (tmp_path / "root").exists()
    done = hico("pretrain", "--config", config, *folders, "--max-steps", "1", root=tmp_path / "root")
    assert done.returncode == 0, done.stderr
    index = read_index(tmp_path / "root")
    assert dict(zip(index["video_id"], index["label"], strict=True)) == {"a": 7, "b": 399}
    assert (tmp_path / "root" / "runs" / "k400-hico-l").is_dir()


@pytest.mark.processes
@pytest.mark.parametrize("nproc", ["1", "2"])
def test_a_bad_line_costs_its_video_not_the_run(data: Path, tmp_path: Path, nproc: str) -> None:
    (tmp_path / "kinetics400_train_list.txt").write_text("a.mp4 7\nb.mp4 399\nc.mp4\n")
    config = write_config(tmp_path, "pt-k400/s3dg-hico-l.yaml", SMALL)
    command = ("pretrain", "--config", config, "--data-root", data / "videos", "--anno-dir", tmp_path, "--nproc", nproc)
    small = ("--max-steps", "1", "-o", "model.encoder=s3dg-tiny", "-o", "loss.topical_weight=0")
    run = hico if nproc == "1" else hico_process
    done = run(*command, *small, root=tmp_path / "root")
    assert done.returncode == 3 and "1 step in" in done.stdout, done.stderr
    assert f"hico: {tmp_path}/kinetics400_train_list.txt, line 3: 'c.mp4' is not <path> <label>" in done.stderr
    assert f"hico: 1 video failed; see {tmp_path}/root/failures.jsonl" in done.stderr.splitlines()


def test_index_of_a_list(data: Path, tmp_path: Path) -> None:
    done = hico("index", "--list", data / "clips" / "training.txt", root=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "training.txt").read_text() == (data / "clips" / "training.txt").read_text()


def test_one_line_each(data: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, "pt-hacs/s3dg-hico-s.yaml", {"MODEL.EMA.ENABLE": True})
    assert_one_line(hico("pretrain", "--config", config, root=tmp_path), 2, "MODEL.EMA.ENABLE", str(config))
    assert_one_line(hico("config", "validate", config), 2, "MODEL.EMA.ENABLE")
    ours = tmp_path / "ours.yaml"
    ours.write_text("train: {seed: 1}")
    done = hico("pretrain", "--config", ours, "--data-root", data, root=tmp_path)
    assert done.returncode == 2 and "--data-root" in done.stderr


@pytest.mark.processes
def test_config_shows_what_it_becomes(tmp_path: Path) -> None:
    config = write_config(tmp_path, "pt-hacs/s3dg-hico-l.yaml")
    lines = hico("config", "diff", "hacs-hico-l", config).stdout.splitlines()
    assert sorted(lines) == ["data.workers: None -> 4", "optim.scale_lr: global -> authors"]
    done = hico("config", "validate", config)
    assert done.returncode == 0 and "valid" in done.stdout and "OSS.ENABLE" not in done.stderr
    assert "OSS.ENABLE" in hico_process("--debug", "config", "validate", config, root=tmp_path).stderr
