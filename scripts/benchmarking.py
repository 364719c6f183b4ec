"""Shared by the benchmarks: fair measurements of commands, sources made from real videos, and the JSON of results."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

from hico_core.corpus.clips.ffmpeg import find_ffmpeg

MEASUREMENTS = Path(__file__).parents[1] / "docs" / "measurements"


class Cost(NamedTuple):
    """The cost of some work."""

    cpu_seconds: float  # user and system, children included
    wall_seconds: float
    peak_mb: float = 0.0  # of the largest process, if measured


def cost_of_command(command: Sequence[str | Path], *, ok: Sequence[int] = (0,)) -> Cost:
    """Run a command to its end, and measure its cost."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in ok:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - start, usage.ru_maxrss / 1024)


def cost_of_call(work: Callable[[], object]) -> Cost:
    """Call a function, and measure its cost; child processes count once they have ended."""
    before, start = os.times(), time.perf_counter()
    work()
    wall = time.perf_counter() - start
    after = os.times()
    return Cost(sum(after[:4]) - sum(before[:4]), wall)


def alternate(candidates: Mapping[str, Callable[[], Cost]], *, rounds: int) -> dict[str, list[Cost]]:
    """Measure A B C A B C ..., so that other load on the machine affects all of them."""
    costs: dict[str, list[Cost]] = {name: [] for name in candidates}
    for number in range(rounds):
        for name, measure in candidates.items():
            costs[name].append(measure())
            cpu, wall, _ = costs[name][-1]
            print(f"round {number + 1}/{rounds} {name}: {cpu:.2f} s CPU, {wall:.2f} s", file=sys.stderr, flush=True)
    return costs


def ratio(costs: Mapping[str, list[Cost]], ours: str, baseline: str, *, of: str = "cpu_seconds") -> dict[str, float]:
    """Ratio of ours to the baseline, round by round: median, smallest, largest."""
    pairs = zip(costs[ours], costs[baseline], strict=True)
    ratios = [getattr(a, of) / getattr(b, of) for a, b in pairs]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def summary(costs: Mapping[str, list[Cost]]) -> dict[str, dict[str, float]]:
    """Medians for each candidate."""
    return {
        name: {field: statistics.median(getattr(cost, field) for cost in of) for field in Cost._fields}
        for name, of in costs.items()
    }


def report(name: str, results: dict[str, Any]) -> None:
    """Print a benchmark's results and keep them in docs/measurements/."""
    # Paths of this machine mean nothing to anyone else.
    arguments = ["VIDEOS" if Path(argument).is_dir() else argument for argument in sys.argv[1:]]
    full = {
        "benchmark": name,
        "command": " ".join(["python", f"scripts/{Path(sys.argv[0]).name}", *arguments]),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        **results,
    }
    target = MEASUREMENTS / f"{name}.json"
    MEASUREMENTS.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(full, indent=1) + "\n")
    print(json.dumps(full, indent=1))


def results_of(name: str) -> dict[str, Any]:
    """The results that `report` saved, or an empty dict."""
    path = MEASUREMENTS / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def make_sources(videos: Path, folder: Path, *, height: int, count: int, seconds: float = 60.0) -> list[Path]:
    """Make realistic untrimmed videos from real ones.

    They are x264 medium, 16:9, 30 fps, with sound and keyframes at most 250 frames apart. Each joins the real videos,
    starting with a different one, and is cut at `seconds`.
    """
    real = sorted(path for path in videos.iterdir() if path.suffix in {".mp4", ".mkv", ".webm"})
    folder.mkdir(parents=True, exist_ok=True)
    width = height * 16 // 9
    rate = {360: "700k", 720: "2M"}[height]
    made = []
    for number in range(count):
        target = folder / f"source{height}_{number}.mp4"
        made.append(target)
        if target.exists():
            continue
        order = real[number % len(real) :] + real[: number % len(real)]
        inputs = [part for path in order for part in ("-t", "8", "-i", str(path))]
        same = ";".join(
            f"[{i}:v:0]scale={width}:{height}:force_original_aspect_ratio=increase,crop={width}:{height},"
            f"fps=30,setsar=1,format=yuv420p[v{i}]"
            for i in range(len(order))
        )
        joined = "".join(f"[v{i}]" for i in range(len(order))) + f"concat=n={len(order)}:v=1[v]"
        beside = target.with_name(f"making-{target.name}")
        encode = ["-c:v", "libx264", "-preset", "medium", "-b:v", rate, "-g", "250", "-c:a", "aac"]
        arguments = ["-nostdin", "-v", "error", "-y", *inputs, "-f", "lavfi", "-i", "sine=d=600"]
        arguments += ["-filter_complex", f"{same};{joined}", "-map", "[v]", "-map", f"{len(order)}:a"]
        subprocess.run([find_ffmpeg(), *arguments, "-t", str(seconds), *encode, beside], check=True)
        beside.rename(target)
    return made
