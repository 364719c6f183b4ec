"""What one process gives to others arrives, and takes no more memory there than it is large."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import receivers
import torch
from commands import hico
from made_videos import numbered_video

from hico_core.checkpoints.content import LAST, Progress, checkpoint_of, content_of, write_of_run
from hico_core.checkpoints.reading import hash_of_tensors, read_checkpoint
from hico_core.config import preset
from hico_core.data.plan import Position
from hico_core.model.hico import HicoModel
from hico_core.training.optim import build_optimizer

ENVIRONMENT = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}

LABELS = {"a": 0, "b": 1, "c": 0, "d": 1}


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    """The parts of a checkpoint of the paper's model, whose optimiser has momenta."""
    torch.manual_seed(0)
    config = preset("hacs-hico-s")
    model = HicoModel()
    optimizer = build_optimizer(model, config.optim)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    progress = Progress(position=Position(7, 10, 3))
    run = {"scaling": {}, "progress": progress, "config": config.model_dump(mode="json")}
    return {"model": model, "optimizer": optimizer, **run}


def as_older_versions_wrote(path: Path, parts: dict[str, Any]) -> None:
    """A checkpoint whose momenta lie in the memory of their group, as the optimiser has them."""
    content = {
        **dict(content_of(read_checkpoint(path))),
        "progress": parts["progress"].model_dump(),
        "optimizer": parts["optimizer"].state_dict(),
    }
    torch.save(content, path)


def enter(*run_dirs: Path) -> None:
    """In two processes; see receivers.py."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *torchrun, receivers.__file__, *map(str, run_dirs)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory in /proc")
def test_what_arrives_takes_twice_its_size_at_most(trained: dict[str, Any], tmp_path: Path) -> None:
    """And is what was sent. The process that reads a checkpoint has the file besides."""
    for name in ("newer", "older"):
        write_of_run(tmp_path / name / "checkpoints" / LAST, checkpoint_of(**trained))
    as_older_versions_wrote(tmp_path / "older/checkpoints" / LAST, trained)
    enter(tmp_path / "newer", tmp_path / "older")
    state = {"model": trained["model"].state_dict(), "optimizer": trained["optimizer"].state_dict()}
    for name in ("newer", "older"):
        first, other = (json.loads((tmp_path / name / f"entered.{rank}.json").read_text()) for rank in (0, 1))
        assert first["sha256"] == other["sha256"] == hash_of_tensors(receivers.tensors_in(state))
        assert first["step"] == other["step"] == 7
        size = other["checkpoint_bytes"]
        assert 100e6 < size < 120e6
        assert other["grown_bytes"] < 2 * size and first["grown_bytes"] < 3 * size, name
    odd, arrived = receivers.odd_values(), torch.load(tmp_path / "newer/odd.1.pt", weights_only=True)
    assert arrived.pop("plain") == odd.pop("plain")
    torch.testing.assert_close(arrived, odd, rtol=0, atol=0)
    assert arrived["channels last"].stride() == odd["channels last"].stride()


def largest_memory_part(value: Any) -> float:  # noqa: ANN401 - what stands in a checkpoint
    """How often the tensors of a nest fit into the memory that they lie in, at most."""
    return max(t.untyped_storage().nbytes() / t.nbytes for t in receivers.tensors_in(value).values())


@pytest.mark.slow
def test_no_tensor_of_a_checkpoint_is_a_view(trained: dict[str, Any], tmp_path: Path) -> None:
    """Neither in the file, for those who load it themselves, nor as read from an older one."""
    assert largest_memory_part(trained["optimizer"].state_dict()) > 10
    path = tmp_path / LAST
    write_of_run(path, checkpoint_of(**trained))
    assert largest_memory_part(torch.load(path, weights_only=True)) == 1
    as_older_versions_wrote(path, trained)
    assert largest_memory_part(torch.load(path, weights_only=True)) > 10
    assert largest_memory_part(read_checkpoint(path).content) == 1


@pytest.mark.videos
@pytest.mark.processes
def test_commands_of_two_processes_need_little_memory(tmp_path: Path) -> None:
    """Resuming the paper's model, and finetuning it, with 8 GB of addresses, of which libraries take most."""
    root = str(tmp_path / "root")
    for subset in ("train", "val", "test"):
        for name in LABELS:
            numbered_video(tmp_path / subset / f"{subset}_{name}.mp4", seconds=6)
        (tmp_path / f"{subset}.txt").write_text(
            "".join(f"{subset}_{name}.mp4 {label}\n" for name, label in LABELS.items())
        )
        listed = ("--list", tmp_path / f"{subset}.txt", "--data-root", tmp_path / subset, "--subset", subset)
        assert hico("index", *listed, "--root", root).returncode == 0
    small = ["--root", root, "--device", "cpu", "--batch-size", "4"]
    for setting in ("crop_size=32", "num_frames=8", "frame_stride=8", "workers=0"):
        small += ["-o", f"data.{setting}"]
    done = hico("pretrain", *small, "--name", "run", "--max-steps", "1")
    assert done.returncode == 0, done.stderr
    encoder = str(tmp_path / "root/runs/run/checkpoints" / LAST)
    for command in (
        ["pretrain", *small, "--name", "run", "--max-steps", "2", "--resume", "--allow-changed"],
        ["finetune", *small, "--name", "tuned", "--max-steps", "1", "--checkpoint", encoder, "-o", "test.views=1"],
    ):
        limited = ["bash", "-c", 'ulimit -v 8000000; exec "$@"', "-", sys.executable, "-m", "hico_cli", *command]
        done_too = subprocess.run([*limited, "--nproc", "2"], env=ENVIRONMENT, capture_output=True, text=True)
        assert done_too.returncode == 0, done_too.stderr[-2000:]
