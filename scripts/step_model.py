"""A model of what limits a training step of the paper's encoder: operation counts over the speeds of a machine.

    python scripts/step_model.py [VIDEOS_A_PROCESS [PROCESSES]]
    python scripts/step_model.py check

Operations, bytes and messages are counted on tensors without data. A machine's speeds are assumed: the manufacturers'
figures times the fraction that such networks reach. The CPU's were measured (docs/benchmarks-cpu.md), and some of an
H100's (docs/benchmarks-gpu.md).
`check` runs steps of several sizes on this CPU, and compares their times with the counts.
"""

import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from benchmarking import report
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from hico_core.base.choices import EncoderName
from hico_core.config import preset
from hico_core.encoders.trained import hico_model
from hico_core.encoding.hardware import keep_freed_memory
from hico_core.training.learner import Learner
from hico_core.training.optim import build_optimizer
from hico_core.training.step import compute_loss, train_step

CLIPS = 3
# 36 batch norms forward and backward, gradients, embeddings; see tests/training/test_collectives.py.
MESSAGES = 2 * 81 + 3 + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The hardware of one process."""

    name: str
    flops: float  # per second
    bytes_moved: float  # per second
    launch_seconds: float  # to launch an operation
    message_seconds: float  # for a short message to all
    link_bytes: float  # per second, for long messages
    loader_cores: int  # per process
    is_gpu: bool


MACHINES = (
    # The fraction of the memory bandwidth and the launch time of an operation come from steps on an H100 with 64 and
    # 128 videos, and with 8 (docs/benchmarks-gpu.md); its host was a virtual machine.
    Machine(
        name="H100, 12 cores for each GPU",
        flops=990e12 * 0.35,
        bytes_moved=3.35e12 * 0.35,
        launch_seconds=35e-6,
        message_seconds=30e-6,
        link_bytes=300e9,
        loader_cores=12,
        is_gpu=True,
    ),
    Machine(
        name="A100, 12 cores for each GPU",
        flops=312e12 * 0.45,
        bytes_moved=2.0e12 * 0.35,
        launch_seconds=35e-6,
        message_seconds=30e-6,
        link_bytes=200e9,
        loader_cores=12,
        is_gpu=True,
    ),
    # The speed of its float32 convolutions; the memory bandwidth is that of large copies.
    Machine(
        name="2 cores of an Intel Xeon",
        flops=235e9,
        bytes_moved=18e9,
        launch_seconds=5e-6,
        message_seconds=1e-3,
        link_bytes=1e9,
        loader_cores=2,
        is_gpu=False,
    ),
)

# Core seconds per clip of `hico split`'s files: decoding and everything after it (docs/benchmarks-cpu.md).
LOADER_SECONDS = 9.4e-3 + 0.2e-3


class Counted(NamedTuple):
    """The counts for one step."""

    flops: int
    bytes_moved: int
    operations: int


class Traffic(TorchDispatchMode):
    """Adds up the bytes that operations read and write."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes_moved = self.operations = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = op(*args, **(kwargs or {}))
        if op.namespace == "aten" and not op.is_view:
            self.operations += 1
            self.bytes_moved += sum(tensor.nbytes for tensor in [*_tensors(args), *_tensors((result,))])
        return result


def _tensors(values: Any) -> list[Tensor]:  # noqa: ANN401
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(value)
    return found


def count(videos: int, *, bf16: bool, encoder: EncoderName = "s3dg", size: int = 112) -> Counted:
    """Count a step with this many videos, and frames of `size` pixels per side."""
    config = preset("hacs-hico-s")
    with FakeTensorMode():
        model = hico_model(encoder).train()
        optimizer = build_optimizer(model, config.optim)
        clips = torch.zeros(videos, CLIPS, 3, 16, size, size)
        flops, traffic = FlopCounterMode(display=False), Traffic()
        with flops, traffic:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                outputs = model(clips)
            compute_loss(outputs, config.loss, clips_per_video=CLIPS).total.backward()
            optimizer.step()
    return Counted(flops.get_total_flops(), traffic.bytes_moved, traffic.operations)


def seconds_of(counted: Counted, machine: Machine, *, clips: int, processes: int, parameters: int) -> dict[str, float]:
    """Seconds of each part by itself.

    Arithmetic and memory traffic overlap only partially, so a step takes between the larger one and their sum; the
    loader and kernel launches run in parallel; messages are added.
    """
    found = {
        "arithmetic": counted.flops / machine.flops,
        "traffic": counted.bytes_moved / machine.bytes_moved,
        "handing out": counted.operations * machine.launch_seconds,
        "loader": clips * LOADER_SECONDS / machine.loader_cores,
    }
    if processes > 1:
        found["messages"] = MESSAGES * machine.message_seconds + 2 * 4 * parameters / machine.link_bytes
    return found


# Steps whose actual time is compared: videos, encoder, pixels per side.
CHECKED: tuple[tuple[int, EncoderName, int], ...] = (
    *((2, "s3dg", 112), (4, "s3dg", 112), (8, "s3dg", 112), (16, "s3dg", 112)),
    *((8, "s3dg", 64), (8, "s3dg-tiny", 112), (16, "s3dg-tiny", 112)),
)
TIMED_STEPS = 3


def measured_seconds(videos: int, encoder: EncoderName, size: int) -> float:
    """Median time of some steps on this CPU, after two warm-up steps."""
    config = preset("hacs-hico-s")
    model = hico_model(encoder).to(memory_format=torch.channels_last_3d).train()
    learner = Learner.of(model, build_optimizer(model, config.optim))
    clips = torch.randn(videos, CLIPS, 3, 16, size, size)
    seconds = []
    for _ in range(2 + TIMED_STEPS):
        began = time.perf_counter()
        train_step(learner, clips, loss=config.loss, lr=1e-3)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds[2:])


def check() -> None:
    """Print and save the times of steps on this CPU beside the counts."""
    keep_freed_memory()
    machine = next(machine for machine in MACHINES if not machine.is_gpu)
    results: dict[str, Any] = {}
    for videos, encoder, size in CHECKED:
        counted = count(videos, bf16=False, encoder=encoder, size=size)
        parts = seconds_of(counted, machine, clips=0, processes=1, parameters=0)
        model, real = parts["arithmetic"] + parts["traffic"], measured_seconds(videos, encoder, size)
        results[f"{encoder}, {videos} videos, {size} pixels"] = {
            "arithmetic": parts["arithmetic"],
            "traffic": parts["traffic"],
            "measured": real,
            "measured over their sum": real / model,
        }
    report("step-model-check", results)


def main() -> None:
    """Print and save the parts for each machine."""
    if sys.argv[1:] == ["check"]:
        check()
        return
    videos, processes = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 32), (2, 8)))
    parameters = sum(parameter.numel() for parameter in hico_model().parameters())
    results: dict[str, Any] = {"videos of a process": videos, "processes": processes, "parameters": parameters}
    for machine in MACHINES:
        counted = count(videos, bf16=machine.is_gpu)
        parts = seconds_of(
            counted, machine, clips=videos * CLIPS, processes=processes if machine.is_gpu else 1, parameters=parameters
        )
        results[machine.name] = {
            "TFLOP": counted.flops / 1e12,
            "GB moved": counted.bytes_moved / 1e9,
            "operations": counted.operations,
            "milliseconds": {name: round(1000 * seconds, 1) for name, seconds in parts.items()},
            "bounded by": max(parts, key=lambda name: parts[name]),
        }
    report("step-model", results)


if __name__ == "__main__":
    main()
