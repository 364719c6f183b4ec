"""What finds and installs hico says the same as the code."""

import re
from pathlib import Path

import pytest
import yaml

from hico_core.base.version import __version__

ROOT = Path(__file__).parents[1]


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["preferred-citation"]["year"] == 2022


@pytest.mark.parametrize("needed", ["hico_cli/main.py", "scripts/setup.sh", "scripts/quickstart.sh", "README.md"])
def test_the_image_gets_what_it_runs(needed: str) -> None:
    """Everything is kept out of the image but for what .dockerignore lets through."""
    everything, *through = (ROOT / ".dockerignore").read_text().split()
    assert everything == "*"
    assert needed.split("/")[0] in {name.removeprefix("!") for name in through} or f"!{needed}" in through


def test_the_workflow_calls_the_one_script() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    runs = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert runs == [".ci/run"]
    assert re.search(r"scripts/test\.sh", (ROOT / ".ci/run").read_text())
