"""Cost of `hico split` against the same ffmpeg commands run by hand, and against one ffmpeg per clip.

    python scripts/bench_split.py VIDEOS [ROUNDS] [workers]

VIDEOS is a folder of real videos; sources of 640x360 and 1280x720 are made from them. `workers` measures only the gain
of two workers over one; set HICO_FFMPEG to use another ffmpeg.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarking import Cost, alternate, cost_of_call, cost_of_command, make_sources, ratio, report, summary

from hico_core.corpus.clips.encode import Cut, ffmpeg_arguments
from hico_core.corpus.clips.ffmpeg import Ffmpeg, find_ffmpeg, passthrough_arguments
from hico_core.corpus.clips.plan import plan_clips
from hico_core.corpus.clips.probe import probe
from hico_core.corpus.workspace.commit import commit
from hico_core.corpus.workspace.records import ClipRecord, SourceFile, SplitOptions, VideoRecord

HICO = [sys.executable, "-c", "from hico_cli.main import main; main()"]


def split_by_hico(sources: Sequence[Path], root: Path, *, workers: int = 1) -> Cost:
    """`hico split` with its defaults, into a new workspace."""
    shutil.rmtree(root, ignore_errors=True)
    command: list[str | Path] = [*HICO, "split", *sources, "--root", root, "--workers", str(workers), "--min-free", "0"]
    return cost_of_command(command)


def split_by_hand(commands: list[list[str]], folder: Path) -> Cost:
    """Run exactly the commands that hico runs, and nothing else."""

    def run() -> None:
        for number, command in enumerate(commands):
            own = folder / str(number)
            shutil.rmtree(own, ignore_errors=True)
            own.mkdir(parents=True)
            subprocess.run(command, cwd=own, check=True, capture_output=True)

    return cost_of_call(run)


def split_naively(sources: list[Path], folder: Path, *, num_clips: int) -> Cost:
    """Run `ffmpeg -ss T -i SOURCE -t 5 OUT` for each clip, with ffmpeg's defaults."""
    program = str(find_ffmpeg())

    def run() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for source in sources:
            for clip in range(num_clips):
                target = folder / f"{source.stem}_{clip}.mp4"
                cut = ["-ss", str(5 * clip), "-i", str(source), "-t", "5", str(target)]
                subprocess.run([program, "-nostdin", "-v", "error", *cut], check=True)

    return cost_of_call(run)


def by_hand_commands(sources: list[Path]) -> list[list[str]]:
    """hico's ffmpeg commands, one per source."""
    program = Ffmpeg(find_ffmpeg())
    commands = []
    for source in sources:
        info = probe(source)
        cut = Cut(plan=plan_clips(info.frame_seconds), time_base=info.time_base)
        arguments = ffmpeg_arguments(source, cut, SplitOptions(), passthrough_arguments(program.version))
        commands.append([str(program.program), *arguments])
    return commands


def make_finished_root(root: Path, count: int) -> Path:
    """Make a folder of `count` (empty) videos and a workspace in which all of them are finished."""
    videos = root / "videos"
    scratch = root / "scratch"
    for folder in (videos, scratch, root / "records", root / "train"):
        folder.mkdir(parents=True)
    for number in range(count):
        path = videos / f"video{number:06d}.mp4"
        path.touch()
        folder = scratch / path.stem
        folder.mkdir()
        commit(root, _finished_record(path), folder, None)
    return videos


def _finished_record(path: Path) -> VideoRecord:
    """The record of a finished video of 150 s."""
    clip = ClipRecord(
        path="",
        start_ms=0,
        end_ms=5000,
        start_seconds=0,
        end_seconds=5,
        num_frames=150,
        width=340,
        height=192,
        codec="h264",
        keyframe_interval=16,
        size_bytes=200_000,
        sha256="0" * 64,
    )
    clips = [
        clip.model_copy(
            update={
                "path": f"train/v_{path.stem}_{5000 * i:07d}_{5000 * (i + 1):07d}.mp4",
                "start_ms": 5000 * i,
                "end_ms": 5000 * (i + 1),
            }
        )
        for i in range(30)
    ]
    return VideoRecord(
        hico_version="0",
        video_id=path.stem,
        source=SourceFile(path=str(path), size_bytes=0, mtime_ns=path.stat().st_mtime_ns),
        options=SplitOptions(),
        attempts=1,
        fps=30.0,
        variable_fps=False,
        clips=clips,
    )


def rerun(root: Path, videos: Path) -> Cost:
    """Run `hico split` when everything is finished."""
    return cost_of_command([*HICO, "split", videos, "--root", root, "--min-free", "0"])


def measure_workers(sources: Sequence[Path], work: Path, *, rounds: int) -> dict[str, object]:
    """Wall time of two workers relative to one; each runs one ffmpeg at a time."""
    pair = alternate(
        {
            "2 workers": partial(split_by_hico, sources, work / "root", workers=2),
            "1 worker": partial(split_by_hico, sources, work / "root", workers=1),
        },
        rounds=rounds,
    )
    return {"costs": summary(pair), "wall 2 / 1": ratio(pair, "2 workers", "1 worker", of="wall_seconds")}


def measure_split(sources: list[Path], work: Path, *, seconds: float, rounds: int) -> dict[str, object]:
    """Compare `hico split` with ffmpeg by hand, and, for one video, with one ffmpeg per clip."""
    many = alternate(
        {
            "hico": partial(split_by_hico, sources, work / "root"),
            "by hand": partial(split_by_hand, by_hand_commands(sources), work / "hand"),
        },
        rounds=rounds,
    )
    one = alternate(
        {
            "hico": partial(split_by_hico, sources[:1], work / "root"),
            "naive": partial(split_naively, sources[:1], work / "naive", num_clips=int(seconds) // 5),
        },
        rounds=rounds,
    )
    return {
        "seconds of video": len(sources) * seconds,
        "costs": summary(many),
        "cpu hico / by hand": ratio(many, "hico", "by hand"),
        "costs, one video": summary(one),
        "cpu hico / naive, one video": ratio(one, "hico", "naive"),
    }


def measure_reruns(work: Path, *, rounds: int) -> dict[str, dict[str, float]]:
    """Cost of running the same command again when everything is finished."""
    finished = {
        count: (work / f"finished{count}", make_finished_root(work / f"finished{count}", count))
        for count in (100, 10_000)
    }
    return summary(
        alternate({f"{count} finished": partial(rerun, *where) for count, where in finished.items()}, rounds=rounds)
    )


def main() -> None:
    """Measure, and write docs/measurements/split.json, or split-workers-<version of ffmpeg>.json."""
    videos, rounds = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    ffmpeg = Ffmpeg(find_ffmpeg())
    results: dict[str, object] = {"ffmpeg": ffmpeg.banner.split(" Copyright")[0]}
    if sys.argv[3:] == ["workers"]:
        with tempfile.TemporaryDirectory(prefix="hico-bench-") as name:
            sources = make_sources(videos, Path(name) / "sources", height=360, count=12, seconds=60.0)
            results |= measure_workers(sources, Path(name), rounds=rounds)
        report(f"split-workers-ffmpeg-{'.'.join(map(str, ffmpeg.version or ()))}", results)
        return
    with tempfile.TemporaryDirectory(prefix="hico-bench-") as name:
        work = Path(name)
        for height, count, seconds in ((360, 12, 60.0), (720, 6, 30.0)):
            sources = make_sources(videos, work / "sources", height=height, count=count, seconds=seconds)
            results[f"{height}p"] = measure_split(sources, work, seconds=seconds, rounds=rounds)
            if height == 360:
                results["workers"] = measure_workers(sources, work, rounds=rounds)
        results["re-run"] = measure_reruns(work, rounds=rounds)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results["note"] = f"the benchmark itself took {own // 1024} MB; load {os.getloadavg()[0]:.1f}"
    report("split", results)


if __name__ == "__main__":
    main()
