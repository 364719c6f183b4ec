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

from hico_core.config import preset
from hico_core.data.loader import Position
from hico_core.interop.checkpoints import hash_of_tensors, read_checkpoint
from hico_core.model.hico import HicoModel
from hico_core.training.checkpoint import LAST, Progress, checkpoint_of, content_of, write_of_run
from hico_core.training.optim import build_optimizer

ENVIRONMENT = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


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
    return {"model": model, "optimizer": optimizer, "progress": progress, "config": config.model_dump(mode="json")}


def as_older_versions_wrote(path: Path, parts: dict[str, Any]) -> None:
    """A checkpoint whose momenta lie in the memory of their group, as the optimiser has them."""
    content = {
        **dict(content_of(read_checkpoint(path))),
        "progress": parts["progress"].model_dump(),
        "optimizer": parts["optimizer"].state_dict(),
    }
    torch.save(content, path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads memory in /proc")
@pytest.mark.parametrize("older", [False, True])
def test_a_checkpoint_takes_twice_its_size_at_most(older: bool, trained: dict[str, Any], tmp_path: Path) -> None:
    """In the process that gets it; the one that reads it has the file besides. All have the same."""
    path = tmp_path / "checkpoints" / LAST
    write_of_run(path, checkpoint_of(**trained))
    if older:
        as_older_versions_wrote(path, trained)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [sys.executable, *torchrun, receivers.__file__, str(tmp_path)], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, other = (json.loads((tmp_path / f"entered.{rank}.json").read_text()) for rank in (0, 1))
    size = other["checkpoint_bytes"]
    assert 100e6 < size < 120e6
    print(first["grown_bytes"] / size, other["grown_bytes"] / size)
    assert other["grown_bytes"] < 2 * size
    assert first["grown_bytes"] < 3 * size
    state = {"model": trained["model"].state_dict(), "optimizer": trained["optimizer"].state_dict()}
    assert first["sha256"] == other["sha256"] == hash_of_tensors(receivers.tensors_in(state))
    assert first["step"] == other["step"] == 7
