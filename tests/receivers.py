"""What each of some processes does for tests/training/test_handing_over.py: it enters runs, as to resume them.

    torchrun --nproc-per-node N receivers.py RUN_DIR...

Each writes RUN_DIR/entered.RANK.json: a hash of what it got, and by how many bytes its memory has grown for that; and,
into the first folder, odd.RANK.pt: tensors that are not as those of a checkpoint, and other values.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hico_core.checkpoints.reading import hash_of_tensors
from hico_core.config import preset
from hico_core.training.distributed import from_first, joined_world, largest
from hico_core.training.launch import leave
from hico_core.training.run import entered_run
from hico_core.training.task import Task

# Of address space, beyond what a process has when it has joined the others; so much, and the test's machine lives on.
_ROOM = 3 << 30


def memory(name: str) -> int:
    """Bytes of this process: VmRSS, which it has now; VmHWM, which it had at most; VmSize, of addresses."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith(f"{name}:"))


def tensors_in(value: Any, name: str = "") -> dict[str, Tensor]:  # noqa: ANN401 - what stands in a checkpoint
    """The tensors of nested dictionaries."""
    if isinstance(value, Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else ()
    return {inner: tensor for key, item in items for inner, tensor in tensors_in(item, f"{name}.{key}").items()}


def enter(run_dir: Path) -> None:
    """Enter a run, and write down what that took."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = memory("VmRSS")
    task = Task(config=preset("hacs-hico-s"), root=run_dir, run_dir=run_dir, device="cpu", resume=True)
    with entered_run(task, free=()) as (world, _, checkpoint):
        grown = memory("VmHWM") - before
        assert checkpoint is not None
        found = tensors_in({"model": checkpoint.model, "optimizer": checkpoint.optimizer})
        told = {
            "grown_bytes": grown,
            "checkpoint_bytes": sum(tensor.nbytes for tensor in found.values()),
            "sha256": hash_of_tensors(found),
            "step": checkpoint.progress.position.step,
        }
        (run_dir / f"entered.{world.rank}.json").write_text(json.dumps(told))
        largest([0.0], world)  # all are done


def odd_values() -> dict[str, Any]:
    """Views, tensors of any type, layout and number of sides; what they stand in has values of its own."""
    numbers = torch.arange(120.0)
    return {
        "view": numbers[3:7],
        "with gaps": numbers.view(10, 12)[::2, ::3],
        "one value for all": torch.ones(1).expand(5),
        "channels last": numbers.view(1, 2, 3, 4, 5).to(memory_format=torch.channels_last_3d),
        "parameter": nn.Parameter(torch.ones(2)),
        "no sides": torch.tensor(3),
        "empty": torch.empty(0, 4),
        "booleans": torch.tensor([True, False]),
        "bfloat16": torch.ones(3, dtype=torch.bfloat16),
        "twice": (numbers, numbers),
        "plain": {"text": "text", "nothing": None, "number": 0.1},
    }


def main() -> None:
    """Enter all runs; hand over what is odd; join and leave again and again."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + _ROOM, hard))
    run_dirs = [Path(argument) for argument in sys.argv[1:]]
    for run_dir in run_dirs:
        enter(run_dir)
    with joined_world(torch.device("cpu")) as world:
        values = from_first(odd_values() if world.is_first else {}, world)
        torch.save(values, run_dirs[0] / f"odd.{world.rank}.pt")
        largest([0.0], world)
    for number in range(40):
        with joined_world(torch.device("cpu")) as world:
            time.sleep(0.01 * (number % 2 == world.rank))  # each is the slower one in its turn
            assert largest([float(world.rank)], world) == [1.0]


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main()
    leave(0, os.environ)
