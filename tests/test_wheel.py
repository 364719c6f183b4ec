"""What is installed from the wheel, outside the checkout, works: nothing is missing from the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

from made_videos import numbered_video

ROOT = Path(__file__).parents[1]


def uv() -> str:
    """The program that made the environment of these tests, as scripts/setup.sh finds it."""
    own = ROOT / ".uv/bin/uv"
    return str(own) if own.exists() else "uv"


def test_the_wheel_alone(tmp_path: Path) -> None:
    """It finds its packages where these tests do, and hico itself in a folder of its own."""
    built = [uv(), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path / "dist"), str(ROOT)]
    done = subprocess.run(built, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    installed = tmp_path / "installed"
    install = [uv(), "pip", "install", "--quiet", "--no-deps", "--target", str(installed), str(wheel)]
    assert subprocess.run(install, check=False).returncode == 0
    numbered_video(tmp_path / "videos/a.mp4", seconds=3)
    root = tmp_path / "root"

    def hico(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(installed), "HICO_ROOT": str(root)}
        command = [sys.executable, "-P", "-m", "hico_cli", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    where = [sys.executable, "-P", "-c", "import hico_core; print(hico_core.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(installed)}, stdout=-1, text=True)
    assert found.stdout.startswith(str(installed))
    for command in (
        ["doctor"],
        ["split", "videos"],
        ["index"],
        ["report", str(root)],
        ["config", "show", "finetune-hmdb51"],
    ):
        done = hico(*command)
        assert done.returncode == 0, (command, done.stderr)
    assert json.loads(hico("index", "--json").stdout)["num_videos"] == 1
    assert (installed / "bin/hico").exists()
