"""What only a GPU can show: that it computes what a CPU does, waits for little, and fails in one line."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import TINY, assert_one_line, hico, hico_process, running
from made_workspaces import untrimmed_workspace

from hico_core.config import AugmentConfig, preset
from hico_core.data.augment import apply_augmentation, draw_augmentation
from hico_core.data.batches import Batch
from hico_core.doctor.findings import examine
from hico_core.encoding.hardware import use_precision
from hico_core.encoding.windows import Grid
from hico_core.model.hico import HicoModel
from hico_core.model.pooling import PooledEncoder
from hico_core.model.s3dg import S3DG
from hico_core.training.learner import Learner
from hico_core.training.optim import LARS, build_optimizer, parameter_groups
from hico_core.training.step import augmented_clips, train_step
from hico_core.transfer.extraction.manifest import load_features
from hico_core.transfer.features import FeatureExtractor, Features

pytestmark = [pytest.mark.gpu, pytest.mark.videos, pytest.mark.processes]

GPU = torch.device("cuda", 0)
SETTINGS = [*TINY, "--device", "cuda", "--epochs", "40", "-o", "train.checkpoint_seconds=0", "-o", "data.workers=2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of 12 s to train on, and a run of 120 steps on the GPU."""
    root = untrimmed_workspace(tmp_path_factory.mktemp("gpu"), videos=6, seconds=12)
    pretrain(root, "whole", "-o", "train.precision=fp32")
    return root


def pretrain(root: Path, name: str, *more: str) -> None:
    done = hico_process("pretrain", *SETTINGS, "--name", name, *more, root=root)
    assert done.returncode == 0, done.stderr


def metrics_of(root: Path, name: str) -> list[dict[str, Any]]:
    path = root / "runs" / name / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def assert_same_road(root: Path, one: str, other: str) -> None:
    """The same steps, each once, with the same rates and distances; the first losses as near as rounding allows."""
    first, second = metrics_of(root, one), metrics_of(root, other)
    assert [m["step"] for m in first] == [m["step"] for m in second]
    for a, b in zip(first, second, strict=True):
        assert {a[key] == b[key] for key in ("epoch", "lr", "distance", "bad_videos")} == {True}
    for a, b in zip(first[:10], second[:10], strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """As if the GPU had 1 GB."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e9 / torch.cuda.get_device_properties(GPU).total_memory)
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_steps_of_the_paper_s_model_are_those_of_a_cpu() -> None:
    """Three updates in double precision, in the layout that training uses."""
    config = preset("hacs-hico-s")
    clips = torch.randn(2, 3, 3, 8, 48, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = []
    for device in (torch.device("cpu"), GPU):
        torch.manual_seed(0)
        model = HicoModel(S3DG()).double().to(device).to(memory_format=torch.channels_last_3d).train()
        optimizer = LARS(parameter_groups(model, weight_decay=1e-6, lars_exclude_bn=False), lr=0.1)
        learner, losses = Learner.of(model, optimizer), []
        for _ in range(3):
            result = train_step(learner, clips.to(device), loss=config.loss, lr=0.1)
            assert result is not None
            losses.append(float(result.loss.total))
        found.append((losses, {name: value.cpu() for name, value in model.state_dict().items()}))
    (losses, weights), (losses_on_gpu, weights_on_gpu) = found
    assert losses == pytest.approx(losses_on_gpu, rel=1e-9)
    for name, value in weights.items():
        torch.testing.assert_close(weights_on_gpu[name], value, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("blur", ["off", "gaussian"])
def test_augmentation_is_that_of_a_cpu(blur: str) -> None:
    rng = random.Random(0)
    config = AugmentConfig(blur="gaussian") if blur == "gaussian" else AugmentConfig()
    draws = [draw_augmentation(128, 171, config, rng=rng) for _ in range(24)]
    generator = torch.Generator().manual_seed(0)
    crops = [
        torch.randint(0, 256, (8, d.crop.height, d.crop.width, 3), dtype=torch.uint8, generator=generator)
        for d in draws
    ]
    here, there = (
        apply_augmentation(
            [crop.to(device) for crop in crops], draws, size=112, mean=(0.45,) * 3, std=(0.225,) * 3
        ).cpu()
        for device in (torch.device("cpu"), GPU)
    )
    torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)


def test_a_step_waits_for_the_gpu_once() -> None:
    """As PyTorch itself counts: once in a step, and not at all for a batch."""
    config = preset("hacs-hico-s")
    precision = use_precision("auto", GPU)
    assert precision.name == "bf16"
    model = HicoModel(S3DG()).to(GPU).to(memory_format=torch.channels_last_3d).train()
    learner = Learner.of(model, build_optimizer(model, config.optim), precision=precision)
    rng = random.Random(0)
    draws = [draw_augmentation(64, 64, AugmentConfig(), rng=rng) for _ in range(6)]
    pixels = torch.cat(
        [torch.randint(0, 256, (8 * d.crop.height * d.crop.width * 3,), dtype=torch.uint8) for d in draws]
    )
    batch = Batch(
        pixels=pixels,
        num_frames=8,
        draws=draws,
        video_ids=["a", "b"],
        windows=[[(0.0, 1.0)] * 3] * 2,
        unusable=[],
    ).pin_memory()
    waits = []
    try:
        for _ in range(3):  # the first one makes what lasts
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                clips = augmented_clips(batch, size=64, mean=(0.45,) * 3, std=(0.225,) * 3, device=GPU)
                waits.append(len(found))
                result = train_step(learner, clips.unflatten(0, (2, 3)), loss=config.loss, lr=0.1)
                waits.append(len(found) - waits[-1])
            assert result is not None
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert waits[-2:] == [0, 1], [str(one.message) for one in found]


def test_a_killed_run_goes_on(root: Path) -> None:
    command = [sys.executable, "-m", "hico_cli", "pretrain", *SETTINGS, "-o", "train.precision=fp32"]
    environment = {**os.environ, "HICO_ROOT": str(root)}
    with running(
        [*command, "--name", "killed"], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as run:
        while len(metrics_of(root, "killed")) < 20 and run.poll() is None:
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    assert 20 <= len(metrics_of(root, "killed")) < 120
    pretrain(root, "killed", "-o", "train.precision=fp32", "--resume")
    assert_same_road(root, "whole", "killed")


def test_a_run_moves_between_gpu_and_cpu(root: Path) -> None:
    pretrain(root, "moved", "--max-steps", "4")
    pretrain(root, "moved", "--max-steps", "6", "--resume", "--device", "cpu")
    pretrain(root, "moved", "--max-steps", "8", "--resume")
    assert [m["step"] for m in metrics_of(root, "moved")] == list(range(1, 9))


def test_compiled(root: Path) -> None:
    """With other arithmetic, the losses of the first steps are near."""
    pretrain(root, "compiled", "--max-steps", "4", "-o", "train.compile=true")
    losses = [m["loss"] for m in metrics_of(root, "compiled")]
    assert losses == pytest.approx([m["loss"] for m in metrics_of(root, "whole")[:4]], rel=0.05)


def test_features_are_those_of_a_cpu(root: Path) -> None:
    """As far as bfloat16 goes; also from two processes, which share the GPU where there is one."""
    command = ("extract-features", "--checkpoint", root / "runs/whole/export/encoder.safetensors", "--workers", "0")
    tables = []
    for name, options in (
        ("cpu", ("--device", "cpu")),
        ("gpu", ("--device", "cuda")),
        ("auto", ("--device", "cuda", "--batch-size", "auto")),
        ("two", ("--device", "cuda", "--nproc", "2")),
    ):
        done = hico_process(*command, *options, "--name", name, "--json", root=root)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout.splitlines()[-1])["num_extracted"] == 6
        tables.append(load_features(root / "features" / name).array)
    cpu, *others = tables
    for other in others:
        assert other.shape == cpu.shape
        cosine = (cpu * other).sum(-1) / np.linalg.norm(cpu, axis=-1) / np.linalg.norm(other, axis=-1)
        assert cosine.min() > 0.999


@pytest.mark.usefixtures("little_memory")
def test_as_many_windows_as_memory_holds(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Three videos, so that windows wait on the GPU while others are encoded."""
    extractor = FeatureExtractor(
        PooledEncoder(S3DG()), grid=Grid(fps=30.0, window=16, stride=1), device=GPU, batch_size="auto"
    )
    videos = [root.parent / f"videos/{number}.mp4" for number in range(3)]
    for found in extractor.extract_many(videos, workers=2):
        assert isinstance(found, Features), found
        assert found.array.shape == (len(found.times), 1024)
    assert "continuing with 128 windows per batch" in caplog.text


@pytest.mark.usefixtures("little_memory")
def test_a_step_that_does_not_fit(root: Path) -> None:
    done = hico("pretrain", "--batch-size", "6", "--device", "cuda", "--dry-run", root=root)
    assert_one_line(done, 1, "a step of 6 videos does not fit into the memory of cuda", "--batch-size")


def test_more_processes_than_gpus(root: Path) -> None:
    processes = torch.cuda.device_count() + 1
    done = hico_process(
        "pretrain", *TINY, "--batch-size", str(2 * processes), "--nproc", str(processes), "--device", "cuda", root=root
    )
    assert_one_line(done, 2, f"{processes} training processes on this machine have", "start one process per GPU")


def test_finetuning_and_probing(root: Path, tmp_path: Path) -> None:
    """To their ends, with a test of each video."""
    videos = root.parent / "videos"
    for subset, numbers in (("train", range(4)), ("test", (4, 5))):
        (tmp_path / f"{subset}.txt").write_text("".join(f"{number}.mp4 {number % 2}\n" for number in numbers))
        listed = ("--list", tmp_path / f"{subset}.txt", "--data-root", videos, "--subset", subset)
        assert hico("index", *listed, root=tmp_path).returncode == 0
    sizes = ("-o", "data.num_frames=8", "-o", "data.crop_size=32", "--batch-size", "2", "--epochs", "2")
    encoder = root / "runs/whole/export/encoder.safetensors"
    done = hico_process(
        "finetune", "--checkpoint", encoder, *sizes, "--name", "tuned", "--device", "cuda", "--json", root=tmp_path
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["num_steps"], result["test"]["num_videos"]) == (4, 2)
    done = hico_process("probe", "--checkpoint", encoder, "--device", "cuda", "--json", root=tmp_path)
    assert done.returncode == 0, done.stderr


def test_the_doctor_sees_it(tmp_path: Path) -> None:
    finding = next(finding for finding in examine(tmp_path) if finding.name == "GPU")
    assert finding.state == "ok" and torch.cuda.get_device_name() in finding.found
