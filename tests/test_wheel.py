"""What is installed from the wheel, outside the checkout, works: nothing is missing from the package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_videos import numbered_video

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]

# What the check of the repository knows of packages: to find it out again takes half a minute.
KNOWN_TYPES = ROOT / ".mypy_cache"


def uv() -> str:
    """The program that made the environment of these tests, as scripts/setup.sh finds it."""
    own = ROOT / ".uv/bin/uv"
    return str(own) if own.exists() else "uv"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """hico in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    built = [uv(), "build", "--quiet", "--wheel", "--out-dir", str(folder / "dist"), str(ROOT)]
    done = subprocess.run(built, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    install = [uv(), "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "installed"), str(wheel)]
    assert subprocess.run(install, check=False).returncode == 0
    return folder / "installed"


def environment_with(installed: Path) -> dict[str, str]:
    """In which the installed hico is found first, and its packages where these tests find them."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(installed), os.environ.get("PYTHONPATH")]))}


@pytest.mark.videos
def test_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    numbered_video(tmp_path / "videos/a.mp4", seconds=3)
    environment = environment_with(installed) | {"HICO_ROOT": str(tmp_path / "root")}

    def hico(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "hico_cli", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    where = [sys.executable, "-P", "-c", "import hico_core; print(hico_core.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, stdout=-1, text=True, check=False)
    assert found.stdout.startswith(str(installed))
    for command in (
        ["doctor"],
        ["split", "videos"],
        ["index"],
        ["report", str(tmp_path / "root")],
        ["config", "show", "finetune-hmdb51"],
    ):
        done = hico(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert json.loads(hico("index", "--json").stdout)["num_videos"] == 1
    assert (installed / "bin/hico").exists()


# What a user writes; mypy complains of an "ignore" where there is nothing to ignore.
CALLER = """
import numpy as np
from torch import nn
from typing_extensions import assert_type

import hico_core
import hico_core.interop
from hico_core import FeatureExtractor, build_index, extract_features, load_backbone, pretrain, split_videos
from hico_core.config import Config
from hico_core.corpus.index import IndexSummary
from hico_core.interop import read_authors_config
from hico_core.training.loop import RunSummary
from hico_core.transfer.features import Features

extractor = FeatureExtractor.from_checkpoint("encoder.safetensors", window=16)
features = extractor.extract("a.mp4")
assert_type(features, Features)
rows: np.ndarray = features.array
module: nn.Module = load_backbone("encoder.safetensors")
assert_type(build_index(), IndexSummary)
assert_type(pretrain(device="cpu"), RunSummary)
number: int = split_videos("videos").num_done
config: Config = read_authors_config("theirs.yaml").config

FeatureExtractor.from_checkpoint("encoder.safetensors", windw=16)  # type: ignore[call-arg]
load_backbone(1)  # type: ignore[arg-type]
extract_features(1)  # type: ignore[arg-type]
hico_core.splitvideos  # type: ignore[attr-defined]
hico_core.interop.load_backbones  # type: ignore[attr-defined]
"""


def test_a_type_checker_knows_what_is_installed(installed: Path, tmp_path: Path) -> None:
    assert all((installed / package / "py.typed").exists() for package in ("hico_core", "hico_cli"))
    (tmp_path / "caller.py").write_text(CALLER)
    if KNOWN_TYPES.is_dir():
        shutil.copytree(KNOWN_TYPES, tmp_path / "known")
    command = [sys.executable, "-P", "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml")]
    command += ["--cache-dir", "known", "caller.py"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment_with(installed), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
