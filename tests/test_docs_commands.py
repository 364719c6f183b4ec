"""The command lines of the documentation are run, page by page, in a folder as the page supposes it, but in small."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import torch
from buckets import make_bucket, s3_server
from clusters import ray_cluster
from commands import hico
from made_videos import numbered_video
from torchvision.models import get_model

from hico_core.checkpoints.content import export_encoder
from hico_core.model.s3dg_tiny import S3DGTiny

pytestmark = pytest.mark.videos

ROOT = Path(__file__).parents[1]

# Settings that make a training a matter of a second.
SMALL = {
    "run": "-o model.encoder=s3dg-tiny -o data.num_frames=8 -o data.crop_size=32 -o data.workers=0".split(),
    "pretrain": (
        "-o model.encoder=s3dg-tiny -o data.num_frames=8 -o data.crop_size=32 -o data.workers=0 --max-steps 1"
    ).split(),
    "finetune": "-o data.num_frames=8 -o data.crop_size=32 -o data.workers=0 --batch-size 2 --max-steps 1".split(),
}

# What a page's machines have and this one has not.
INSTEAD = {
    "--hours": "0.002",
    "--nproc": "1",
    "--batch-size": "2",
    "--views": "1",
    "--crops": "1",
    "retrieve": "videos/0.mp4",
}

# Run by tests of their own, since they take minutes or need torchrun.
ELSEWHERE = {"demo", "torchrun"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, lists of them, and a workspace with an encoder."""
    folder = tmp_path_factory.mktemp("prepared")
    for number in range(4):
        numbered_video(folder / f"videos/{number}.mp4", seconds=5)
    shutil.copytree(folder / "videos", folder / "HACS/videos")
    lists: dict[str, list[str]] = {"trainlist01.txt": [], "testlist01.txt": []}
    for label, name in enumerate(("Run", "Walk"), start=1):
        for number in range(5):
            file = f"{name}/v_{name}_g{number:02d}_c01.avi"
            numbered_video(folder / "UCF-101" / file, seconds=2 + label)
            lists["trainlist01.txt" if number < 3 else "testlist01.txt"].append(f"{file} {label}")
    for place in (folder, folder / "splits"):
        place.mkdir(exist_ok=True)
        (place / "classInd.txt").write_text("1 Run\n2 Walk\n")
        for name, lines in lists.items():
            (place / name).write_text("\n".join(lines) + "\n")
    subsets = ("training", "training", "validation", "validation")
    database = {
        str(n): {
            "duration": 5.0,
            "subset": subset,
            "annotations": [{"segment": [0.0, 2.0], "label": ("run", "sit")[n % 2]}],
        }
        for n, subset in enumerate(subsets)
    }
    (folder / "activity_net.json").write_text(json.dumps({"database": database}))
    assert hico("split", folder / "videos", root=folder / "hico-data").returncode == 0
    assert hico("index", root=folder / "hico-data").returncode == 0
    torch.manual_seed(0)
    export_encoder(folder / "hico-data/runs/hacs-hico-s/export/encoder.safetensors", S3DGTiny())
    torch.save(get_model("r2plus1d_18", weights=None).state_dict(), folder / "r2plus1d_18-91a641e6.pth")
    for name in ("k400-data", "uk400-data"):
        shutil.copytree(folder / "hico-data", folder / name)
    return folder


def commands_of(page: Path) -> list[list[str]]:
    """The words of each `$ hico ...` line, without comments."""
    blocks = re.findall(r"```(?:console|bash)\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[2:] for line in lines if line.startswith("$ hico ")]


def lines_of(page: Path) -> list[tuple[list[str], int]]:
    """The words of each `$ ...` line, whatever its program, and the exit code that its comment tells."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("$ ")]
    return [(shlex.split(line, comments=True)[1:], 3 if "# exit code 3" in line else 0) for line in lines]


def in_small(words: list[str]) -> list[str]:
    """A command line as it is run here; what it says itself stays."""
    known = [INSTEAD.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    program, *options = known
    return [program, *SMALL.get(program, []), *options]


PAGES = [
    "README.md",
    *(
        f"docs/{name}.md"
        for name in "index tutorial splitting training gpus features localisation finetuning reproduce".split()
    ),
]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(prepared: Path, tmp_path: Path, page: str) -> None:
    place = tmp_path / "place"
    begins_with_split = page in {"README.md", "docs/index.md", "docs/tutorial.md", "docs/splitting.md"}
    shutil.copytree(prepared, place, ignore=lambda folder, names: ["hico-data"] if begins_with_split else [])
    commands = [words for words in commands_of(ROOT / page) if words[0] not in ELSEWHERE]
    assert commands
    for words in commands:
        done = hico(*in_small(words), cwd=place)
        assert done.returncode == 0, (words, done.stderr)


@pytest.mark.processes
def test_everyday_tasks(prepared: Path, tmp_path: Path) -> None:
    """With what the shell does between them."""
    place = tmp_path / "place"
    shutil.copytree(prepared / "videos", place / "videos")
    numbered_video(place / "new/4.mp4", seconds=3)
    assert hico("split", "videos", cwd=place).returncode == 0
    assert hico("index", cwd=place).returncode == 0
    shutil.copytree(prepared / "hico-data/runs", place / "hico-data/runs")
    shutil.copytree(prepared / "UCF-101", place / "clips")
    clips = [f"{name}/v_{name}_g0{n}_c01.avi\t{name}\tg{n}\n" for name in ("Run", "Walk") for n in range(5)]
    (place / "clips/list.txt").write_text("".join(clips))
    labels = [f"{place / 'clips'}/{line}".replace("\t", ",") for line in clips]
    (place / "labels.csv").write_text("".join(["path,label,group\n", *labels]))
    lines = lines_of(ROOT / "docs/tasks.md")
    assert {words[0] for words, _ in lines} == {"hico", "mv", "rm", "du"}
    for words, code in lines:
        if words[0] == "hico":
            done = hico(*in_small(words[1:]), cwd=place)
            assert done.returncode == code, (words, done.stderr)
        else:
            subprocess.run(["bash", "-c", " ".join(words)], cwd=place, check=True)


@pytest.mark.processes
@pytest.mark.cluster
def test_the_commands_on_buckets_and_clusters(prepared: Path, tmp_path: Path) -> None:
    """With a real server and a real cluster; each command is a process of its own."""
    shutil.copytree(prepared, tmp_path / "place", ignore=lambda folder, names: ["hico-data"])
    commands = commands_of(ROOT / "docs/buckets.md")
    assert [words[0] for words in commands if "--ray-address" in words] == ["split", "extract-features"]
    with s3_server(), ray_cluster() as cluster:
        make_bucket("bucket")
        for video in (prepared / "videos").iterdir():
            boto3.client("s3").upload_file(str(video), "bucket", f"videos/{video.name}")
        for words in commands:
            here = [word.replace("HOST:PORT", cluster.address) for word in in_small(words)]
            command = [sys.executable, "-m", "hico_cli", *here]
            done = subprocess.run(command, cwd=tmp_path / "place", capture_output=True, text=True)
            assert done.returncode == 0, (words, done.stderr)


# What the example of many machines supposes, and what there is here.
ONE_MACHINE = {
    "--nproc-per-node 8": "--nproc-per-node 2",
    "--root /shared/hacs --batch-size 256": "--root hico-data --batch-size 4",
    "--nnodes 2": "--nnodes 1",
}


@pytest.mark.processes
def test_training_on_many_machines(prepared: Path, tmp_path: Path) -> None:
    """The job for Slurm, with one machine, for which `srun` starts its task; the line for torchrun is the same one."""
    shutil.copytree(prepared / "hico-data", tmp_path / "hico-data")
    page = (ROOT / "docs/gpus.md").read_text()
    (job,) = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    (line,) = re.findall(r"^\$ (torchrun .*?)\n```", page, re.DOTALL | re.MULTILINE)
    of_job = job.split("srun ")[1].replace('"$first:29500"', "FIRST:29500").replace('"$SLURM_NNODES"', "2")
    assert of_job.replace("\\\n", " ").split() == line.replace("\\\n", " ").split()

    for there, here in ONE_MACHINE.items():
        job = job.replace(there, here)
    (tmp_path / "job").write_text(job.rstrip() + " " + shlex.join(SMALL["pretrain"]) + "\n")
    programs = {"scontrol": "echo 127.0.0.1", "srun": 'exec "$@"'}
    for name, does in programs.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    slurm = {"SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "here", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "job"], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, **slurm, "PATH": path}
    )
    assert done.returncode == 0, done.stderr
    checkpoint = torch.load(tmp_path / "hico-data/runs/hacs-hico-s/checkpoints/last.pt", weights_only=True)
    assert checkpoint["progress"]["world_size"] == 2
