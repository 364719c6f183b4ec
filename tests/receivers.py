"""What each of some processes does for tests/training/test_handing_over.py: it enters a run, as to resume it.

    torchrun --nproc-per-node N receivers.py RUN_DIR

Each writes RUN_DIR/entered.RANK.json: a hash of what it got, and by how many bytes its memory has grown for that.
"""

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from hico_core.config import preset
from hico_core.interop.checkpoints import hash_of_tensors
from hico_core.training.distributed import largest
from hico_core.training.launch import leave
from hico_core.training.run import entered_run

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


def main() -> None:
    """Enter the run, and write down what that took."""
    run_dir = Path(sys.argv[1])
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = memory("VmRSS")
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + _ROOM, resource.RLIM_INFINITY))
    config = preset("hacs-hico-s")
    with entered_run(run_dir, config, "cpu", resume=True, allow_changed=False, free=()) as (world, _, checkpoint):
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


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main()
    leave(0, os.environ)
