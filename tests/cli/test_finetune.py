"""`hico finetune`: from lists of labelled videos, ours or the authors', to an accuracy."""

import json
from pathlib import Path

import pytest
import torch
from authors_files import write_config
from commands import assert_one_line, hico, hico_process
from made_videos import numbered_video

from hico_core.checkpoints.content import export_encoder
from hico_core.config import load_finetuning_config
from hico_core.model.s3dg_tiny import S3DGTiny

pytestmark = pytest.mark.videos

HMDB = "ft-hmdb/ft-s3dg-hico-s.yaml"

TINY = ["-o", "data.num_frames=8", "-o", "data.crop_size=32", "-o", "data.workers=0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """videos/, lists/ and encoder.safetensors, as the authors keep them; two videos to train on, one to test on."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "videos").mkdir()
    (folder / "lists").mkdir()
    for name in ("a", "b", "c d"):
        numbered_video(folder / "videos" / f"{name}.mp4", seconds=2)
    (folder / "lists" / "hmdb51_train_list.txt").write_text("a.mp4 0\nb.mp4 1\n")
    (folder / "lists" / "hmdb51_test_list.txt").write_text("c d.mp4 1\n")
    torch.manual_seed(0)
    export_encoder(folder / "encoder.safetensors", S3DGTiny())
    return folder


def test_from_lists_to_an_accuracy(data: Path, tmp_path: Path) -> None:
    for subset in ("train", "test"):
        listed: tuple[str | Path, ...] = (
            "--list",
            data / f"lists/hmdb51_{subset}_list.txt",
            "--data-root",
            data / "videos",
        )
        assert hico("index", *listed, "--subset", subset, root=tmp_path).returncode == 0
    sizes = ("--batch-size", "2", "--epochs", "2", *TINY)
    command: tuple[str | Path, ...] = ("finetune", "--checkpoint", data / "encoder.safetensors", *sizes)
    done = hico(*command, "--linear", "--json", root=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    run = tmp_path / "runs" / "finetune-hmdb51-linear"
    assert result["run_dir"] == str(run) and result["num_steps"] == 2
    assert result["test"] == json.loads((run / "results.json").read_text())
    assert load_finetuning_config(run / "config.yaml").optim.warmup_epochs == pytest.approx(10 * 2 / 300)
    assert json.loads(done.stderr.splitlines()[-1]) == {"tested": 1, "of": 1}

    done = hico(*command, "--linear", "--resume", "--views", "4", root=tmp_path)
    assert done.returncode == 0 and "2 steps" in done.stdout and "4 x 1 views" in done.stdout
    assert f"{run}: already finished after 2 steps; to train for longer: --epochs N --allow-changed" in done.stderr
    assert_one_line(hico(*command, "--linear", root=tmp_path), 2, "--resume")


@pytest.mark.processes
def test_two_processes(data: Path, tmp_path: Path) -> None:
    """They share the videos of a step and those of the test, and come to the same as one."""
    for subset in ("train", "test"):
        listed = ("--list", data / f"lists/hmdb51_{subset}_list.txt", "--data-root", data / "videos")
        assert hico("index", *listed, "--subset", subset, root=tmp_path).returncode == 0
    sizes = ("--batch-size", "2", "--epochs", "2", *TINY, "-o", "augment.colour_probability=0")
    command: list[str | Path] = ["finetune", "--checkpoint", data / "encoder.safetensors", *sizes, "--json"]
    accuracies, first_losses = [], []
    for nproc, run in (("1", hico), ("2", hico_process)):  # what two processes print is no more than passed on
        done = run(*command, "--nproc", nproc, "--name", nproc, root=tmp_path)
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        tested = json.loads(line)["test"]
        assert tested["num_videos"] == 1, "each video is tested by one of them"
        accuracies.append(tested["top1"])
        metrics = [json.loads(line) for line in (tmp_path / f"runs/{nproc}/metrics.jsonl").read_text().splitlines()]
        assert len(metrics) == 2
        first_losses.append(metrics[0]["loss"])
    assert accuracies[0] == accuracies[1]
    # In single precision; tests/training/test_distributed.py has the proof in double.
    assert first_losses[0] == pytest.approx(first_losses[1], rel=1e-3)


def test_a_file_of_the_authors_as_it_is(data: Path, tmp_path: Path) -> None:
    changes = {
        "DATA.NUM_INPUT_FRAMES": 8,
        "DATA.TRAIN_CROP_SIZE": 32,
        "DATA.TEST_CROP_SIZE": 32,
        "DATA_LOADER.NUM_WORKERS": 0,
        "TRAIN.BATCH_SIZE": 2,
        "TRAIN.CHECKPOINT_FILE_PATH": str(data / "encoder.safetensors"),
        "DATA.DATA_ROOT_DIR": str(data / "videos"),
        "DATA.ANNO_DIR": str(data / "lists"),
    }
    path = write_config(tmp_path, HMDB, changes)
    done = hico(
        "finetune",
        "--config",
        path,
        "-o",
        "OPTIMIZER.MAX_EPOCH=1",
        "-o",
        "optim.warmup_epochs=0",
        root=tmp_path / "root",
    )
    assert done.returncode == 0, done.stderr
    assert " keys that hico does not use" in done.stderr and "1 step in" in done.stdout
    assert "PAI" not in done.stderr
    written = load_finetuning_config(tmp_path / "root" / "runs" / "finetune-hmdb51" / "config.yaml")
    assert (written.num_classes, written.train.epochs) == (51, 1)

    other = ("--data-root", tmp_path / "nowhere", "--anno-dir", tmp_path / "lists")
    done = hico("finetune", "--config", path, *other, root=tmp_path / "other")
    assert done.returncode == 2
    assert f"tried {tmp_path / 'lists' / 'hmdb51_train_list.txt'}" in done.stderr


def test_what_is_wrong_is_one_line(data: Path, tmp_path: Path) -> None:
    theirs = write_config(tmp_path, HMDB)
    assert_one_line(hico("pretrain", "--config", theirs, root=tmp_path), 2, "hico finetune --config")
    pretraining = write_config(tmp_path, "pt-hacs/s3dg-hico-s.yaml")
    assert_one_line(hico("finetune", "--config", pretraining, root=tmp_path), 2, "hico pretrain --config")
    assert_one_line(hico("finetune", "--recipe", "finetune-x", root=tmp_path), 2, "finetune-hmdb51, finetune-ucf101")
    assert_one_line(hico("finetune", "-o", "train.tun=head", root=tmp_path), 2, "train.tune")
    assert_one_line(hico("finetune", root=tmp_path), 1, "hico pretrain", "--encoder")
    given = ("--encoder", data / "encoder.safetensors")
    assert_one_line(hico("finetune", *given, root=tmp_path), 1, "hico index")
    assert hico("index", "--untrimmed", data / "videos", root=tmp_path).returncode == 0
    assert_one_line(hico("finetune", *given, root=tmp_path), 1, "no labelled videos", "hico index --list")
