"""A test that starts something says so, or fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Tests as somebody may write them: what each does, its markers, and which one it lacks.
CASES = {
    "pure": ("assert True", [], None),
    "python": ("run([sys.executable, '-c', ''])", [], "processes"),
    "python_marked": ("run([sys.executable, '-c', ''])", ["processes"], None),
    "python_in_a_fixture": ("request.getfixturevalue('started')", [], "processes"),
    "of_a_cluster": ("run([sys.executable, '-c', ''])", ["cluster"], None),
    "a_shell": ("os.system('true')", [], "processes"),
    "ffmpeg": ("run(['/nowhere/ffmpeg-7', '-version'])", [], "videos"),
    "ffmpeg_that_dies_with_us": ("run(['setpriv', '--pdeathsig', 'KILL', 'ffmpeg', '-version'])", [], "videos"),
    "ffmpeg_marked": ("run([Path('/nowhere/ffmpeg'), '-version'])", ["videos"], None),
    "a_video_that_was_made_before": ("sys.audit('hico.tests.numbered_video')", [], "videos"),
    "both": ("run(['ffmpeg']); os.system('true')", [], "videos and processes"),
}

BEGINNING = """
import os, subprocess, sys
from pathlib import Path
import pytest

def run(command):
    try:
        subprocess.run(command)
    except FileNotFoundError:
        pass

@pytest.fixture
def started():
    run([sys.executable, "-c", ""])
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("cases")
    lines = [BEGINNING]
    for name, (does, markers, _) in CASES.items():
        lines += [f"@pytest.mark.{marker}" for marker in markers]
        lines += [f"def test_{name}(request):", f"    {does}", ""]
    (folder / "test_cases.py").write_text("\n".join(lines))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    videos\n    processes\n    cluster\n")
    command = [sys.executable, "-m", "pytest", "-p", "markers", "-p", "no:cacheprovider", "--tb=short", "-rA", "."]
    paths = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])}
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **paths, "COLUMNS": "200"}, capture_output=True, text=True, check=False
    )
    return done.stdout


@pytest.mark.processes
@pytest.mark.parametrize("name", CASES)
def test_a_test_that_lacks_its_marker_fails(name: str, said: str) -> None:
    missing = CASES[name][2]
    failed = [line for line in said.splitlines() if line.startswith(f"ERROR test_cases.py::test_{name} ")]
    assert f"PASSED test_cases.py::test_{name}\n" in said
    assert [f"wants the marker {missing};" in line for line in failed] == ([True] if missing else [])
