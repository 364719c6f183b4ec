"""Cost of a training step against a plain one in the style of the authors' code, and whether both learn the same.

    python scripts/bench_step.py [ROUNDS] [VIDEOS]

The plain step computes eagerly in float32, with tensors in PyTorch's usual layout, LARS parameter by parameter with two
values read back for each, and a pair classifier that receives every pair. Each measurement runs in a process of its
own: 2 warm-up steps, then the timed ones. With VIDEOS, a folder of real videos, 200 steps on their clips are compared
as well: bfloat16 against two seeds of float32.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from benchmarking import report
from torch import Tensor, nn

from hico_core.config import Config, preset
from hico_core.corpus.index import build_index, read_index_table
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.workspace.records import SplitOptions
from hico_core.data.augment import apply_augmentation
from hico_core.data.dataset import ClipDataset
from hico_core.data.loader import read_batches
from hico_core.data.plan import Position, TrainingOrder, plan_steps
from hico_core.data.videos import COLUMNS, IndexedVideos
from hico_core.encoding.hardware import FP32, Precision, choose_precision, keep_freed_memory, use_precision
from hico_core.model.heads import ProjectionHead
from hico_core.model.hico import HicoModel
from hico_core.model.recompute import recompute_units
from hico_core.model.s3dg import S3DG
from hico_core.training.learner import Learner
from hico_core.training.optim import LARS, parameter_groups
from hico_core.training.step import train_step

CLIPS = 3
TIMED_STEPS = 4
CURVE_STEPS = 200
CURVE_WINDOW = 20  # number of steps whose means are compared


class PlainTopicHead(nn.Module):
    """The straightforward pair classifier: every pair, in both orders, through all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.projection = ProjectionHead()
        self.pair = nn.Linear(256, 256)
        self.score = nn.Linear(256, 1)

    def forward(self, features: Tensor, gather: None = None) -> Tensor:
        """(N, F) -> (N, N, 2)."""
        u = self.projection(features)
        first = u[:, None].expand(-1, len(u), -1)
        second = u[None].expand(len(u), -1, -1)
        orders = [torch.cat([first, second], dim=-1), torch.cat([second, first], dim=-1)]
        return torch.cat([self.score(self.pair(pairs).relu()) for pairs in orders], dim=-1)


class PlainLARS(torch.optim.Optimizer):
    """LARS parameter by parameter; its norms are read back from the device."""

    def __init__(self, groups: Iterable[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "lars_exclude": False, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters."""
        for group in self.param_groups:
            for weight in group["params"]:
                update = weight.grad + group["weight_decay"] * weight
                trust = 1.0
                if not group["lars_exclude"]:
                    w_norm, g_norm = weight.norm().item(), weight.grad.norm().item()
                    denominator = g_norm + group["weight_decay"] * w_norm
                    trust = 0.001 * w_norm / denominator if denominator else 1.0
                update = update * (trust * group["lr"])
                state = self.state[weight]
                buffer = state.setdefault("momentum_buffer", torch.zeros_like(weight))
                buffer.mul_(0.9).add_(update)
                weight.sub_(update + 0.9 * buffer)
        return None


def candidates(device: torch.device) -> dict[str, dict[str, Any]]:
    """The variants to measure, by name."""
    found: dict[str, dict[str, Any]] = {
        "plain fp32": {"plain": True},
        "hico": {"precision": "auto"},
        "hico, bf16": {"precision": "bf16"},
        "hico, recomputed": {"precision": "auto", "recompute": True},
        "hico, bf16, recomputed": {"precision": "bf16", "recompute": True},
    }
    if device.type == "cuda":
        found["hico, compiled"] = {"precision": "auto", "compile": True}
    return found


def build(
    config: Config, device: torch.device, *, plain: bool = False, compile: bool = False, recompute: bool = False
) -> tuple[HicoModel, torch.optim.Optimizer]:
    """Make a model in training mode, and its optimiser."""
    model = HicoModel(S3DG(), topic_head=PlainTopicHead() if plain else None).to(device).train()
    optim = config.optim
    if recompute:
        recompute_units(model.backbone)
    if not plain:
        model.to(memory_format=torch.channels_last_3d)
    groups = parameter_groups(model, weight_decay=optim.weight_decay, lars_exclude_bn=optim.lars_exclude_bn)
    if plain:
        return model, PlainLARS(groups)
    if compile:
        model.backbone.compile()
    return model, LARS(groups, lr=0.1)


def measure(videos: int, device_name: str, settings: dict[str, Any]) -> dict[str, float]:
    """Seconds per step and the memory that steps add, in this process."""
    device = torch.device(device_name)
    config = preset("hacs-hico-s")
    precision = FP32 if settings.get("plain") else use_precision(settings["precision"], device)
    parts = {key: value for key, value in settings.items() if key != "precision"}
    clips = torch.randn(videos, CLIPS, 3, 16, 112, 112, generator=torch.Generator().manual_seed(0)).to(device)
    if device.type == "cpu" and not settings.get("plain") and not settings.get("recompute"):
        keep_freed_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model, optimizer = build(config, device, **parts)
    learner = Learner.of(model, optimizer, precision=precision)
    times = []
    for _ in range(2 + TIMED_STEPS):
        began = time.perf_counter()
        result = train_step(learner, clips, loss=config.loss, lr=0.1)
        assert result is not None
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    peak = (
        torch.cuda.max_memory_allocated() / 2**20
        if device.type == "cuda"
        else (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    )
    return {"seconds": statistics.median(times[2:]), "peak MB": peak}


def measure_in_process(videos: int, device: torch.device, settings: dict[str, Any]) -> dict[str, float]:
    """Measure in a separate process, so that nothing is left over from the previous measurement."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", json.dumps([videos, device.type, settings])],
        check=True,
        capture_output=True,
        text=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def compare(rounds: int, device: torch.device) -> dict[str, Any]:
    """Measure all candidates in turn, `rounds` times: medians, and ratios to the plain step round by round."""
    videos = 32 if device.type == "cuda" else 8
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in candidates(device)}
    for number in range(rounds):
        for name, settings in candidates(device).items():
            measured[name].append(measure_in_process(videos, device, settings))
            print(number, name, measured[name][-1], file=sys.stderr, flush=True)
    plain = measured["plain fp32"]
    result: dict[str, Any] = {"videos": videos, "clips of each": CLIPS}
    for name, costs in measured.items():
        speed = [a["seconds"] / b["seconds"] for a, b in zip(plain, costs, strict=True)]
        memory = [b["peak MB"] / a["peak MB"] for a, b in zip(plain, costs, strict=True)]
        result[name] = {
            "seconds": statistics.median(cost["seconds"] for cost in costs),
            "peak MB": statistics.median(cost["peak MB"] for cost in costs),
            "times as fast": [statistics.median(speed), min(speed), max(speed)],
            "memory": [statistics.median(memory), min(memory), max(memory)],
        }
    return result


def losses_of(videos: IndexedVideos, *, seed: int, precision: Precision, device: torch.device) -> list[float]:
    """Losses of a short training on small clips: 8 frames of 64 pixels, so that 200 steps take minutes."""
    config = preset("hacs-hico-s")
    data = config.data.model_copy(update={"num_frames": 8, "frame_stride": 8})
    torch.manual_seed(seed)
    model, optimizer = build(config, device)
    learner = Learner.of(model, optimizer, precision=precision)
    dataset = ClipDataset(videos, data=data, sampling=config.sampling, augment=config.augment)
    plans = plan_steps(
        TrainingOrder(
            num_videos=len(videos),
            batch_size=8,
            epochs=CURVE_STEPS,
            epochs_per_round=10,
            seed=seed,
        ),
        max_distance_at=lambda progress: progress,
        start=Position(),
    )
    losses = []
    batches = read_batches(dataset, plans, workers=2, pin_memory=False)
    for _, batch in batches:
        clips = apply_augmentation(batch.crops_on(device), batch.draws, size=64, mean=(0.45,) * 3, std=(0.225,) * 3)
        result = train_step(learner, clips.unflatten(0, (-1, CLIPS)), loss=config.loss, lr=0.1)
        assert result is not None
        losses.append(float(result.loss.total.detach()))
        if len(losses) == CURVE_STEPS:
            break
    batches.close()
    return losses


def compare_curves(folder: Path, device: torch.device) -> dict[str, Any]:
    """Windowed means of the losses, and the distance between the curves."""
    bf16 = Precision("bf16", "compared")
    with tempfile.TemporaryDirectory(prefix="hico-bench-") as name:
        root = Path(name)
        split_videos(
            find_sources([str(folder)]), root=root, options=SplitOptions(), workers=2, on_event=lambda event: None
        )
        build_index(root)
        videos = IndexedVideos(read_index_table(root, columns=COLUMNS), root=root, shortest_seconds=64 / 30)
        curves = {}
        for label, seed, precision in (("fp32", 0, FP32), ("fp32, other seed", 1, FP32), ("bf16", 0, bf16)):
            losses = losses_of(videos, seed=seed, precision=precision, device=device)
            curves[label] = [
                statistics.fmean(losses[i : i + CURVE_WINDOW]) for i in range(0, CURVE_STEPS, CURVE_WINDOW)
            ]
            print(label, curves[label], file=sys.stderr, flush=True)

    def apart(one: str, other: str) -> dict[str, float]:
        distances = [abs(a - b) for a, b in zip(curves[one], curves[other], strict=True)]
        return {"mean": statistics.fmean(distances), "largest": max(distances)}

    return {
        f"losses, means of {CURVE_WINDOW} steps": curves,
        "bf16 from fp32 of the same seed": apart("bf16", "fp32"),
        "fp32 from fp32 of another seed": apart("fp32, other seed", "fp32"),
    }


def main() -> None:
    """Measure, and write docs/measurements/step-<device>.json."""
    if sys.argv[1:2] == ["--one"]:
        videos, device_name, settings = json.loads(sys.argv[2])
        print(json.dumps(measure(videos, device_name, settings)))
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    results: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} cores",
        "auto": choose_precision("auto", device)._asdict(),
        "torch": torch.__version__,
        "step": compare(rounds, device),
    }
    if len(sys.argv) > 2:
        results["learning"] = compare_curves(Path(sys.argv[2]).resolve(), device)
    report(f"step-{device.type}", results)


if __name__ == "__main__":
    main()
