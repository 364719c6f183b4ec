"""The benchmark runs each cell once, whatever stops it, and each arm differs from HiCo in what its name says."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import benchmark
import numpy as np
import pandas as pd
import pytest
import torch
from arms import ARMS, MEANINGS, PRETRAINED, RATES
from cells import Cell, pixels_of
from commands import running
from parts import PARTS, Part, cells_of, chosen_rates
from results import read_results, run_benchmark, write_results
from running import BenchmarkProgress, file_of, scores_as_json

from hico_core.base.errors import HicoError
from hico_core.base.files import lock
from hico_core.config import Config, flat_settings
from hico_core.evidence.arms import HICO, pretraining
from hico_core.evidence.segments import Score
from hico_core.evidence.trial import Corpus

SCRIPTS = Path(benchmark.__file__).parent

CORPUS = Corpus("fillers", 0.5, 9)
CELLS = [
    Cell(corpus=CORPUS, arm="pixels"),
    *(Cell(corpus=CORPUS, arm=arm, steps=3, rate=3e-3) for arm in ("hico", "simclr-far-3", "supervised")),
    Cell(corpus=CORPUS, arm="hico", steps=3, rate=3e-3, trimmed=True),
    Cell(corpus=CORPUS, arm="hico", steps=3, rate=3e-3, videos=5),
]


def settings(arm: str) -> Config:
    return pretraining(PRETRAINED[arm], num_videos=240, steps=600, rate=3e-3, seed=1)


def test_arms_differ_from_hico_in_sampling_and_loss_alone() -> None:
    """All else, the optimiser's rate too, is one for all: a fair comparison."""
    base = flat_settings(settings("hico"))
    assert base["train.epochs"] == 40
    for arm in PRETRAINED.values():
        other = flat_settings(settings(arm.name))
        differ = {key for key in base if base[key] != other[key]} - {"recipe"}
        # The linear scaling rule is undone, so that the rate is the same.
        allowed = {"optim.base_lr"} if other["sampling.clips_per_video"] == 2 else set()
        assert {key.split(".")[0] for key in differ - allowed} <= {"sampling", "loss"}, arm
        rate = other["optim.base_lr"] * other["train.batch_size"] * other["sampling.clips_per_video"] / 256
        assert rate == pytest.approx(3e-3)


@pytest.mark.parametrize(("videos", "steps"), [(240, 600), (1920, 600), (16, 10), (37, 11)])
def test_a_schedule_is_as_long_as_the_run(videos: int, steps: int) -> None:
    config = pretraining(HICO, num_videos=videos, steps=steps, rate=1e-3, seed=0)
    per_epoch = videos // 16
    assert config.train.max_steps == steps
    assert (config.train.epochs - 1) * per_epoch < steps <= config.train.epochs * per_epoch


def test_the_plan() -> None:
    cells = [cell for part in PARTS for cell in cells_of(part, seeds=range(1, 11), rates={"simclr-far-3": 6e-3})]
    assert max(Counter(cell.name for cell in cells).values()) == 1
    of_arm = Counter(cell.arm for cell in cells if cell.corpus.seed == 4)
    assert set(of_arm) == set(MEANINGS)
    # HiCo and its rival stand side by side everywhere.
    assert of_arm["hico"] == of_arm["simclr-far-3"] == 2 + 1 + 3 + 2 + 4
    assert {cell.rate for cell in cells if cell.arm == "simclr-far-3" and cell.corpus.seed} == {6e-3}


@pytest.mark.parametrize(("part", "steps"), [("rates", 600), ("long-rates", 1800)])
def test_each_arm_is_tried_with_each_rate_on_the_tuning_seed(part: Part, steps: int) -> None:
    tried = cells_of(part, seeds=range(1, 11), rates={})
    assert {(cell.corpus.seed, cell.steps) for cell in tried} == {(0, steps)}
    assert Counter(cell.arm for cell in tried) == dict.fromkeys([arm.name for arm in ARMS] + ["supervised"], len(RATES))


def test_each_arm_gets_the_rate_that_suits_it() -> None:
    columns = ["seed", "arm", "rate", "probe", "steps", "accuracy"]
    rows = [
        (0, "hico", 1e-3, "action-linear", 600, 0.5),
        (0, "hico", 3e-3, "action-linear", 600, 0.4),
        (0, "hico", 3e-3, "topic-linear", 600, 0.9),
        (0, "hico", 3e-3, "action-linear", 1800, 0.9),
        (1, "hico", 6e-3, "action-linear", 600, 0.9),
        (0, "visual", 6e-3, "action-linear", 600, 0.2),
    ]
    assert chosen_rates(pd.DataFrame(rows, columns=columns)) == {"hico": 1e-3, "visual": 6e-3}
    assert chosen_rates(pd.DataFrame(columns=columns)) == {}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    seen: list[BenchmarkProgress] = []
    run_benchmark(folder, CELLS, processes=2, videos=24, on_progress=seen.append)
    assert [progress.done for progress in seen] == [0, 1, 2, 3, 4, 5, 6]
    return folder


@pytest.mark.videos
def test_results_have_a_row_for_each_cell_and_probe(folder: Path) -> None:
    assert sorted(path.stem for path in (folder / "cells").iterdir()) == sorted(cell.name for cell in CELLS)
    assert not any((folder / "corpora").iterdir())  # they are large, and follow from their seeds
    results = pd.read_parquet(write_results(folder))
    assert results.groupby(["arm", "trimmed"]).size().to_dict() == {
        ("hico", False): 20,
        ("hico", True): 10,
        ("pixels", False): 6,  # no linear probes
        ("simclr-far-3", False): 10,
        ("supervised", False): 10,
    }
    assert results["accuracy"].between(0, 1).all()
    assert (results["seed"] == 9).all()


@pytest.mark.videos
def test_what_is_done_is_not_done_again(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()}
    seen: list[BenchmarkProgress] = []
    run_benchmark(folder, CELLS, processes=1, videos=24, on_progress=seen.append)
    assert seen == []
    assert {path: path.stat().st_mtime_ns for path in (folder / "cells").iterdir()} == before


@pytest.mark.videos
def test_a_damaged_file_is_named(folder: Path) -> None:
    path = folder / "cells" / "half.json"
    path.write_text('{"arm": "hico", ')
    with pytest.raises(HicoError, match=r"half\.json: not what the benchmark writes"):
        read_results(folder)
    path.unlink()


@pytest.mark.videos
def test_one_benchmark_at_a_time(folder: Path) -> None:
    with lock(folder / ".lock", refusal=""), pytest.raises(HicoError, match="another benchmark runs here"):
        run_benchmark(folder, CELLS, processes=1)


# Runs one cell after the other; the folder is its argument.
PROGRAM = """
import sys
from pathlib import Path
from cells import Cell
from results import run_benchmark
from hico_core.evidence.trial import Corpus

if __name__ == "__main__":
    corpus = Corpus("scenes", 0.5, 3)
    cells = [Cell(corpus=corpus, arm="random")]
    cells += [Cell(corpus=corpus, arm="hico", steps=steps, rate=3e-3) for steps in (3, 4000)]
    chosen = cells[:int(sys.argv[2])]
    tell = lambda progress: print(progress.done, flush=True)
    run_benchmark(Path(sys.argv[1]), chosen, processes=1, videos=24, on_progress=tell)
"""


@pytest.mark.videos
@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_kill_keeps_what_is_done_and_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SCRIPTS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(program), str(tmp_path / "out")]
    with running(
        [*command, "3"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as started:
        assert started.stdout is not None
        for line in started.stdout:
            if line.strip() == "2":  # the long one has begun
                break
        children = children_of(started.pid)
        assert children
        started.send_signal(number)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() and not is_zombie(child) for child in children):
        assert time.monotonic() < deadline, "a training goes on without anybody who waits for it"
        time.sleep(0.1)
    done = subprocess.run([*command, "2"], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "cells").glob("*.json"))) == 2


def children_of(pid: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except FileNotFoundError:
                continue
            if int(fields[1]) == pid:
                found.append(int(folder.name))
    return found


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.videos
def test_a_cell_that_fails_ends_the_benchmark_and_keeps_the_others(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the second cell is written down: one line, and the same command continues."""
    cells = [CELLS[0], Cell(corpus=CORPUS, arm="random")]
    (tmp_path / "cells").mkdir()
    shutil.copy(file_of(cells[0], folder), tmp_path / "cells")
    monkeypatch.setenv("HICO_FAULT", "file.written=ENOSPC")  # of the new process, at its first file
    with pytest.raises(HicoError, match="No space left"):
        run_benchmark(tmp_path, cells, processes=1, videos=24)
    monkeypatch.delenv("HICO_FAULT")
    assert [path.stem for path in (tmp_path / "cells").glob("*.json")] == [cells[0].name]
    run_benchmark(tmp_path, cells, processes=1, videos=24)
    assert len(read_results(tmp_path)["arm"].unique()) == 2


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        ("1,1", "named twice"),
        ("1-3,2", "named twice"),
        ("x", "neither a number"),
        ("3-1", "ends before"),
        ("0-2", "seed 0"),
    ],
)
def test_seeds(tmp_path: Path, seeds: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        benchmark.main([str(tmp_path / "out"), "--seeds", seeds])
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.videos
def test_the_tables_of_what_is_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command, with all cells of a part measured already."""
    scores = [Score(**row) for row in json.loads(file_of(CELLS[1], folder).read_text())["scores"]]
    for cell in cells_of("trimmed", seeds=[1, 2], rates={}):
        file_of(cell, folder).write_text(scores_as_json(cell, scores, seconds=1.0))
    arguments = [str(folder), "--part", "trimmed", "--seeds", "1,2"]
    benchmark.main(arguments)
    shown = capsys.readouterr().out
    assert "scenes, trimmed, look 0.5, 600 steps, 2 seeds" in shown
    assert "scenes, trimmed: +0.0% ± 0.0%, 0 of 2 seeds: met" in shown
    assert (folder / "results.parquet").exists()
    with lock(folder / ".lock", refusal=""), pytest.raises(SystemExit, match="1"):
        benchmark.main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("benchmark: ") and "another benchmark runs here" in line


@pytest.mark.processes
def test_it_starts_from_anywhere(tmp_path: Path) -> None:
    """As a maintainer types it, with nothing on the path but what Python puts there."""
    command = [sys.executable, str(SCRIPTS / "benchmark.py"), "--help"]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parents[1])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "--part" in done.stdout


def test_pixels_are_means_of_squares() -> None:
    clips = torch.randint(0, 256, (2, 3, 24, 24, 3), dtype=torch.uint8)
    rows = pixels_of(clips, side=8).reshape(2, 3, 3, 8, 8)  # clip, frame, channel, row, column
    assert np.isclose(rows[1, 2, 0, 4, 5], clips[1, 2, 12:15, 15:18, 0].float().mean() / 255)
