"""The command lines of the documentation are run, page by page, in a folder as the page supposes it, but in small."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from commands import hico
from made_videos import numbered_video

from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.training.checkpoint import export_encoder

ROOT = Path(__file__).parents[1]

# Settings that make a training a matter of a second.
SMALL = {
    "pretrain": (
        "-o model.encoder=s3dg-tiny -o data.num_frames=8 -o data.crop_size=32 -o data.workers=0 --max-steps 1"
    ).split(),
    "finetune": "-o data.num_frames=8 -o data.crop_size=32 -o data.workers=0 --batch-size 2 --max-steps 1".split(),
}

# What a page's machines have and this one has not.
INSTEAD = {"--nproc": "1", "--batch-size": "2", "--views": "1", "--crops": "1"}

# Run by tests of their own, since they take minutes or need torchrun.
ELSEWHERE = {"demo", "torchrun"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, lists of them, and a workspace with an encoder."""
    folder = tmp_path_factory.mktemp("prepared")
    for number in range(3):
        numbered_video(folder / f"videos/{number}.mp4", seconds=3)
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
    annotation = {"duration": 3.0, "subset": "training", "annotations": [{"segment": [0.0, 2.0], "label": "run"}]}
    (folder / "activity_net.json").write_text(json.dumps({"database": {str(n): annotation for n in range(3)}}))
    assert hico("split", folder / "videos", root=folder / "hico-data").returncode == 0
    assert hico("index", root=folder / "hico-data").returncode == 0
    torch.manual_seed(0)
    export_encoder(folder / "hico-data/runs/made/export/encoder.safetensors", S3DGTiny())
    for name in ("k400-data", "uk400-data"):
        shutil.copytree(folder / "hico-data", folder / name)
    return folder


def commands_of(page: Path) -> list[list[str]]:
    """The words of each `$ hico ...` line, without comments."""
    blocks = re.findall(r"```(?:console|bash)\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[2:] for line in lines if line.startswith("$ hico ")]


def in_small(words: list[str]) -> list[str]:
    """A command line as it is run here."""
    known = [INSTEAD.get(before, word) for before, word in zip(["", *words], words, strict=False)]
    return [*known, *SMALL.get(words[0], [])]


PAGES = ["README.md", *(f"docs/{name}.md" for name in "splitting training features finetuning reproduce".split())]


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page(prepared: Path, tmp_path: Path, page: str) -> None:
    place = tmp_path / "place"
    begins_with_split = page in {"README.md", "docs/splitting.md"}
    shutil.copytree(prepared, place, ignore=lambda folder, names: ["hico-data"] if begins_with_split else [])
    commands = [words for words in commands_of(ROOT / page) if words[0] not in ELSEWHERE]
    assert len(commands) >= 2
    for words in commands:
        done = hico(*in_small(words), cwd=place)
        assert done.returncode == 0, (words, done.stderr)
