"""All checks and measurements of hico that need a GPU, in a few minutes; results as JSON in docs/measurements/.

    python scripts/gpu_check.py [--videos FOLDER] [PART ...]
    python scripts/gpu_check.py --cpu       the same with tiny sizes on a CPU, to check that the script works

FOLDER has real videos for the parts that decode; without it, they make a small corpus. If PARTs are given, only these
are measured, and the results of the others stay unchanged: parity, steps, profile, encoder, compile, plain, runs.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from bench_step import build, compare
from benchmarking import report, results_of
from make_corpus import make_corpus
from torch import Tensor

from hico_core.base.choices import DeviceName, PrecisionName
from hico_core.base.engine import available_cores
from hico_core.config import Config, dump_config, load_config, preset
from hico_core.corpus.index import build_index
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.workspace.records import SplitOptions
from hico_core.encoding.encoder import WindowEncoder
from hico_core.encoding.hardware import FP32, Precision, choose_precision, use_precision
from hico_core.model.hico import HicoModel
from hico_core.model.pooling import PooledEncoder
from hico_core.model.s3dg import S3DG
from hico_core.training.fitting import fit_batch
from hico_core.training.learner import Learner
from hico_core.training.log import StepMetrics, part_waiting
from hico_core.training.loop import pretrain
from hico_core.training.step import compute_loss, train_step
from hico_core.training.task import Task

NEEDS = """needs: one NVIDIA GPU with 16 GB free (what does not fit is said, not fatal), a PyTorch that sees it,
2 GB of disk for temporary files, 4 cores for the decoding part, under 8 minutes"""

ENCODED = 1024  # windows, at each size
TAKES_MINUTES_ON_A_CPU = {"compile", "plain"}

CLIPS = 3
BF16 = Precision("bf16", "checked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The sizes of all measurements."""

    frames: int
    side: int  # pixels
    videos: int  # number of videos in a parity batch
    batches: tuple[int, ...]  # batch sizes for memory and speed
    timed_steps: int
    trained_steps: int  # number of training steps before arithmetic is compared
    run: tuple[str, ...]  # settings of the short training runs


GPU_SIZES = Sizes(
    frames=16,
    side=112,
    videos=8,
    batches=(8, 16, 32, 64, 128),
    timed_steps=10,
    trained_steps=50,
    run=("optim.warmup_epochs=1", "train.batch_size=8", "train.epochs=40", "train.max_steps=30"),
)
CPU_SIZES = Sizes(
    frames=8,
    side=32,
    videos=2,
    batches=(2,),
    timed_steps=1,
    trained_steps=2,
    run=(
        "optim.warmup_epochs=1",
        "train.batch_size=2",
        "train.epochs=2",
        "data.num_frames=8",
        "data.frame_stride=8",
        "data.crop_size=32",
    ),
)


def clips_of(videos: int, sizes: Sizes, device: torch.device) -> Tensor:
    """Synthetic clips (B, K, 3, T, S, S): smooth, and different from each other, as those of videos are."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(videos * CLIPS, 3, 2, 7, 7, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (sizes.frames, sizes.side, sizes.side), mode="trilinear")
    return smooth.unflatten(0, (videos, CLIPS)).to(device)


def relative(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((one.cpu().double() - other.cpu().double()).abs().max() / other.abs().max().cpu().double())


def trained_weights(sizes: Sizes, device: torch.device) -> dict[str, Tensor]:
    """Weights after some steps on these clips: those of an untrained encoder amplify rounding errors by hundreds."""
    config = preset("hacs-hico-s")
    torch.manual_seed(0)
    model, optimizer = build(config, device)
    learner, clips = Learner.of(model, optimizer), clips_of(sizes.videos, sizes, device)
    for _ in range(sizes.trained_steps):
        assert train_step(learner, clips, loss=config.loss, lr=1.0) is not None
    return {name: value.cpu() for name, value in model.state_dict().items()}


def check_parity(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Compare features, embeddings, loss and gradients with float32 on a CPU, for the same weights and clips.

    The difference between bfloat16 and float32 on the CPU shows how much of the GPU's difference is due to bfloat16.
    """
    config = preset("hacs-hico-s")
    clips = clips_of(sizes.videos, sizes, torch.device("cpu"))
    weights = trained_weights(sizes, device)

    def outcome(where: torch.device, precision: Precision) -> dict[str, Tensor]:
        model = HicoModel().to(where)
        model.load_state_dict(weights)
        model.eval()  # so that arithmetic is compared, not the statistics of a batch
        with precision.autocast(where):
            outputs = model(clips.to(where))
        loss = compute_loss(outputs, config.loss, clips_per_video=CLIPS)
        loss.total.backward()
        assert outputs.topic_logits is not None
        gradient = torch.cat([p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None])
        return {
            "embeddings": outputs.embeddings.detach(),
            "topic logits": outputs.topic_logits.detach(),
            "loss": loss.total.detach(),
            "gradient": gradient,
        }

    cpu = torch.device("cpu")
    reference = outcome(cpu, FP32)
    found: dict[str, Any] = {}
    names: tuple[PrecisionName, ...] = ("fp32", "tf32", "bf16") if device.type == "cuda" else ("fp32", "bf16")
    for name in names:
        here = outcome(device, use_precision(name, device))
        found[name] = {part: relative(here[part], value) for part, value in reference.items()}
    on_cpu = outcome(cpu, BF16)
    found["yardstick: bf16 on the CPU"] = {part: relative(on_cpu[part], value) for part, value in reference.items()}
    return found


def check_memory_and_speed(sizes: Sizes, device: torch.device) -> Iterator[dict[str, Any]]:
    """Peak memory and clips/s of whole steps on synthetic clips: the upper limit for any data.

    By batch size, with and without recomputation; at one size, also the gain from the memory layout of tensors and from
    cuDNN's search for the fastest kernels.
    """
    rows: list[dict[str, Any]] = [
        {"videos": videos, "recompute": recompute} for videos in sizes.batches for recompute in (False, True)
    ]
    middle: dict[str, Any] = {"videos": max(b for b in sizes.batches if b <= 32), "recompute": False}
    rows += [middle | {"layout": "contiguous"}, middle | {"cudnn.benchmark": True}]
    for row in rows:
        try:
            yield row | _measure_steps(preset("hacs-hico-s"), row, sizes, device)
        except torch.OutOfMemoryError:
            yield row | {"out of memory": True}
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _measure_steps(config: Config, row: Mapping[str, Any], sizes: Sizes, device: torch.device) -> dict[str, float]:
    videos = row["videos"]
    model, optimizer = build(config, device, recompute=row["recompute"])
    learner = Learner.of(model, optimizer, precision=use_precision("auto", device))
    if row.get("layout") == "contiguous":
        model.to(memory_format=torch.contiguous_format)
    torch.backends.cudnn.benchmark = row.get("cudnn.benchmark", False)
    clips = clips_of(videos, sizes, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began = 0.0
    for step in range(3 + sizes.timed_steps):
        if step == 3:
            _wait(device)
            began = time.perf_counter()
        assert train_step(learner, clips, loss=config.loss, lr=0.1) is not None
    _wait(device)
    seconds = (time.perf_counter() - began) / sizes.timed_steps
    found = {"seconds a step": seconds, "clips/s": videos * CLIPS / seconds}
    if device.type == "cuda":
        found["peak MB"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def check_profile(sizes: Sizes, device: torch.device) -> list[dict[str, Any]]:
    """The operations that take most of a step's time on the device."""
    config = preset("hacs-hico-s")
    learner = Learner.of(*build(config, device), precision=use_precision("auto", device))
    clips = clips_of(max(b for b in sizes.batches if b <= 32), sizes, device)
    on_gpu = device.type == "cuda"
    activity = torch.profiler.ProfilerActivity.CUDA if on_gpu else torch.profiler.ProfilerActivity.CPU
    for _ in range(3):
        train_step(learner, clips, loss=config.loss, lr=0.1)
    with torch.profiler.profile(activities=[activity]) as profile:
        train_step(learner, clips, loss=config.loss, lr=0.1)
        _wait(device)
    times = [
        (e.key[:100], (e.self_device_time_total if on_gpu else e.self_cpu_time_total) / 1000, e.count)
        for e in profile.key_averages()
    ]
    slowest = sorted(times, key=lambda one: -one[1])[:15]
    return [{"operation": name, "milliseconds": round(ms, 3), "calls": count} for name, ms, count in slowest]


def check_compile(sizes: Sizes, device: torch.device) -> dict[str, Any]:
    """Duration of the first step with torch.compile, and the cost of a step with and without it."""
    config = preset("hacs-hico-s")
    precision = use_precision("auto", device)
    clips = clips_of(max(b for b in sizes.batches if b <= 32), sizes, device)
    found = {}
    for compiled in (False, True):
        learner = Learner.of(*build(config, device, compile=compiled), precision=precision)
        times = []
        for _ in range(2 + sizes.timed_steps):
            began = time.perf_counter()
            assert train_step(learner, clips, loss=config.loss, lr=0.1) is not None
            _wait(device)
            times.append(time.perf_counter() - began)
        found["compiled" if compiled else "eager"] = {"first step": times[0], "seconds a step": min(times[2:])}
    return found


def check_encoder(sizes: Sizes, device: torch.device) -> list[dict[str, Any]]:
    """Windows/s of the encoder alone, as in extraction, by batch size."""
    precision = use_precision("auto", device)
    encoder = PooledEncoder(S3DG(), pool="avg").eval().to(device).to(memory_format=torch.channels_last_3d)
    rows = []
    for batch_size in (4 * size for size in sizes.batches):
        clips = list(clips_of(batch_size, sizes, device)[:, 0])
        windows = WindowEncoder(encoder, batch_size=batch_size, precision=precision)
        batches = max(ENCODED // batch_size, 1) if device.type == "cuda" else 1
        windows.encode(clips)
        began = time.perf_counter()
        for _ in range(batches):
            windows.encode(clips)
        rows.append({"windows together": batch_size, "windows/s": batches * batch_size / (time.perf_counter() - began)})
    return rows


@contextlib.contextmanager
def workspace(videos: Path | None) -> Iterator[Path]:
    """A workspace with split and indexed videos."""
    with tempfile.TemporaryDirectory(prefix="hico-gpu-") as name:
        root = Path(name) / "root"
        folder = videos or Path(name) / "videos"
        if videos is None:
            make_corpus(folder)
        sources = find_sources([str(folder)])
        split_videos(sources, root=root, options=SplitOptions(), workers=4, on_event=lambda event: None)
        build_index(root)
        yield root


def check_runs(sizes: Sizes, device: torch.device, videos: Path | None) -> dict[str, Any]:
    """A run with real decoding; the same run interrupted half-way and resumed; and processes under torchrun."""
    with workspace(videos) as root:
        task = Task(config=load_config(overrides=sizes.run), root=root, run_dir=root / "runs", lower_batch=True)
        asked = fit_batch(task).config
        return _check_pretrain(asked, device, root) | {"torchrun": _check_torchrun(asked, device, root)}


def _check_pretrain(asked: Config, device: torch.device, root: Path) -> dict[str, Any]:
    name: DeviceName = "cuda" if device.type == "cuda" else "cpu"
    steps: list[StepMetrics] = []
    whole = pretrain(asked, root=root, run_dir=root / "runs/whole", device=name, on_step=steps.append)
    half = asked.model_copy(
        update={"train": asked.train.model_copy(update={"max_steps": max(whole.num_steps // 2, 1)})}
    )
    pretrain(half, root=root, run_dir=root / "runs/half", device=name)
    pretrain(asked, root=root, run_dir=root / "runs/half", device=name, resume=True)
    weights = [
        torch.load(root / "runs" / run / "checkpoints/last.pt", weights_only=True)["model"] for run in ("whole", "half")
    ]
    later = steps[len(steps) // 2 :]
    return {
        "precision": whole.precision._asdict(),
        "steps": whole.num_steps,
        "videos of a step": asked.train.batch_size,
        "cores": available_cores(),
        "clips/s with decoding": sum(m.clips_per_second for m in later) / len(later),
        "part of the time waiting for data": sum(part_waiting(asdict(m)) for m in later) / len(later),
        # 0 if the device computes the same sum in the same order each time.
        "resumed against undisturbed, largest difference of a weight": max(
            float((weights[0][key].double() - weights[1][key].double()).abs().max()) for key in weights[0]
        ),
    }


def _check_torchrun(asked: Config, device: torch.device, root: Path) -> dict[str, Any]:
    """One process per GPU under torchrun; a single process joins NCCL, but exchanges nothing."""
    processes = max(torch.cuda.device_count(), 1) if device.type == "cuda" else 1
    config = root / "config.yaml"
    config.write_text(dump_config(asked))
    arguments = ["pretrain", "--config", str(config), "--root", str(root), "--name", "torchrun"]
    arguments += ["--device", device.type, "--max-steps", "2"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", "hico_cli"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    return {
        "processes": processes,
        "exit code": done.returncode,
        "said": done.stdout.splitlines()[-1:] if done.returncode == 0 else done.stderr.splitlines()[:5],
    }


def main() -> None:
    """Check, and write docs/measurements/gpu-<name>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--videos", type=Path)
    parser.add_argument("parts", nargs="*")
    asked = parser.parse_args()
    print(NEEDS, file=sys.stderr)
    if not asked.cpu and not torch.cuda.is_available():
        sys.exit("gpu_check: PyTorch sees no GPU here; --cpu runs the script itself with tiny sizes")
    device = torch.device("cpu" if asked.cpu else "cuda")
    sizes = CPU_SIZES if asked.cpu else GPU_SIZES
    # Each yields its results so far, so that these are kept whatever follows.
    checks: dict[str, Callable[[], Iterable[Any]]] = {
        "parity": lambda: [check_parity(sizes, device)],
        "steps": lambda: accumulate([row] for row in check_memory_and_speed(sizes, device)),
        "profile": lambda: [check_profile(sizes, device)],
        "encoder": lambda: [check_encoder(sizes, device)],
        "compile": lambda: [check_compile(sizes, device)],
        "plain": lambda: [compare(2, device)],
        "runs": lambda: [check_runs(sizes, device, asked.videos and asked.videos.resolve())],
    }
    if wrong := set(asked.parts) - checks.keys():
        parser.error(f"no such part: {', '.join(sorted(wrong))}; there are {', '.join(checks)}")
    parts = asked.parts or [part for part in checks if not (asked.cpu and part in TAKES_MINUTES_ON_A_CPU)]
    name = "cpu" if asked.cpu else f"gpu-{torch.cuda.get_device_name().lower().replace(' ', '-')}"
    about = {"torch": torch.__version__, "cuda": torch.version.cuda, "auto": choose_precision("auto", device)._asdict()}
    results: dict[str, Any] = {}
    if asked.parts and (old := results_of(name)).items() >= about.items():
        results = {part: old[part] for part in checks if part in old}
    for part in parts:
        began = time.perf_counter()
        for found in checks[part]():
            results[part] = {"seconds": time.perf_counter() - began, "found": found}
            if not asked.cpu:
                report(name, about | results)
    if asked.cpu:
        print(json.dumps(about | results, indent=1))


if __name__ == "__main__":
    main()
