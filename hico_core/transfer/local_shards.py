"""Several processes of one machine that extract features side by side, each a shard of the videos and a GPU."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Thread
from typing import IO, Any, NamedTuple

import torch

from hico_core.corpus.engine import available_cores
from hico_core.corpus.ffmpeg import dies_with_us
from hico_core.corpus.workspace import Shard
from hico_core.training.launch import EXIT_CODE_FILE, with_options

# How long a process that was asked to end may take before it is killed.
_GRACE_SECONDS = 20.0


class ShardResult(NamedTuple):
    """How a shard's process ended."""

    exit_code: int
    fields: dict[str, Any]  # what it printed; empty if it failed


def run_shards(
    arguments: Sequence[str],
    *,
    shards: Sequence[Shard],
    on_line: Callable[[str], None],
) -> list[ShardResult]:
    """Run `hico ARGUMENTS --shard I/N --json` for each shard, all at once, to their ends.

    Args:
        arguments: of the command, without --nproc and --shard.
        shards: of the videos.
        on_line: told of each line that one of them writes about its progress.

    """
    with TemporaryDirectory(prefix="hico-") as folder, _processes(arguments, shards, Path(folder)) as processes:
        lines: SimpleQueue[str | None] = SimpleQueue()
        outputs = [_collected(process.stdout) for process in processes]
        for process in processes:
            assert process.stderr is not None
            Thread(target=_pass_lines, args=(process.stderr, lines), daemon=True).start()
        for _ in processes:
            for line in iter(lines.get, None):
                on_line(line)
        return [_result(process.wait(), output()) for process, output in zip(processes, outputs, strict=True)]


@contextmanager
def _processes(
    arguments: Sequence[str], shards: Sequence[Shard], folder: Path
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start a process a shard; whatever happens, none of them outlives the block.

    An error that all of them find is said by the first, which leaves its exit code in the folder.
    """
    processes: list[subprocess.Popen[str]] = []
    environment = {**os.environ, EXIT_CODE_FILE: str(folder / "exit code")}
    try:
        for place, shard in enumerate(shards):
            processes.append(
                subprocess.Popen(
                    [
                        *(*dies_with_us(), sys.executable, "-m", "hico_cli"),
                        *with_options(arguments, ["--shard", str(shard), "--json"]),
                    ],
                    env=environment_of(place, len(shards), environment, num_gpus=torch.cuda.device_count()),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=_GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def environment_of(place: int, count: int, environment: Mapping[str, str], *, num_gpus: int) -> dict[str, str]:
    """What process number `place` of `count` is given: one of the GPUs, in turn, and its share of the cores."""
    own = dict(environment)
    if num_gpus:
        # Those that somebody named, or else their numbers. A process that is given one that is not there sees no GPU.
        names = (environment.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(num_gpus)))).split(",")
        own["CUDA_VISIBLE_DEVICES"] = names[place % num_gpus]
    own.setdefault("OMP_NUM_THREADS", str(max(available_cores() // count, 1)))
    return own


def _pass_lines(source: IO[str], lines: "SimpleQueue[str | None]") -> None:
    with source:
        for line in source:
            lines.put(line.rstrip("\n"))
    lines.put(None)


def _collected(source: IO[str] | None) -> Callable[[], str]:
    """Read a stream in the background; call the result for all of it."""
    assert source is not None
    text: list[str] = []

    def collect() -> None:
        with source:
            text.append(source.read())

    thread = Thread(target=collect, daemon=True)
    thread.start()

    def all_of_it() -> str:
        thread.join()
        return text[0]

    return all_of_it


def _result(exit_code: int, output: str) -> ShardResult:
    return ShardResult(exit_code, json.loads(output) if output.strip() else {})
