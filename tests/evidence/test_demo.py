"""The demo goes the whole way, goes on where it was stopped, and says what it shows, whichever way the numbers fall."""

import json
from pathlib import Path

import pytest
from commands import assert_one_line, hico

from hico_cli import demo as demo_command
from hico_core.base.files import lock
from hico_core.evidence.demo import DEMO_ARMS, DemoResult, sentence
from hico_core.evidence.segments import Score

pytestmark = pytest.mark.videos


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A demo, and what it prints."""
    root = tmp_path_factory.mktemp("demo") / "root"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_command, "_STEPS", 3)
        done = hico("demo", "--root", root, "--videos", "24")
    assert done.returncode == 0, done.stderr
    for said in ("motion", "untrained", "SimCLR", "HiCo", "not a result on HACS", "hico report"):
        assert said in done.stdout
    return root, done.stdout


@pytest.fixture(scope="module")
def root(shown: tuple[Path, str]) -> Path:
    return shown[0]


def test_it_leaves_runs_that_can_be_looked_at(root: Path) -> None:
    runs = [root / "runs" / arm for arm in ("simclr-far-3", "hico")]
    for run in runs:
        assert (run / "export/encoder.safetensors").is_file()
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 3
    done = hico("report", *runs)
    assert done.returncode == 0, done.stderr
    assert "action-linear" in (runs[0] / "report-with-hico.html").read_text()


def test_again_it_trains_nothing_and_says_the_same(shown: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_command, "_STEPS", 3)
    root, first = shown
    before = (root / "runs/hico/metrics.jsonl").read_text()
    again = hico("demo", "--root", root, "--videos", "24", "--json")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert found["sentence"] in first and len(found["scores"]) == 3
    for scores in found["scores"].values():
        row = [f"{100 * scores[probe]:14.1f}" for probe in ("action-linear", "scene-linear", "topic-linear")]
        assert "  ".join(row) in first
    assert (root / "runs/hico/metrics.jsonl").read_text() == before


def test_another_seed_wants_another_folder(root: Path) -> None:
    assert_one_line(hico("demo", "--root", root, "--videos", "24", "--seed", "8"), 2, "seed 1", "new folder")
    assert_one_line(hico("demo", "--root", root, "--videos", "60"), 2, "has a demo of 24 videos")
    with lock(root / ".demo.lock", refusal=""):
        assert_one_line(hico("demo", "--root", root, "--videos", "24"), 1, "another demo is running here")
    assert hico("demo", "--root", root, "--design", "fillers").returncode == 2
    assert_one_line(hico("demo", "--root", root / "other", "--videos", "23"), 2, "at least 24")
    assert not (root / "other").exists()


def test_it_leaves_other_folders_alone(tmp_path: Path) -> None:
    """A demo in a workspace would add its videos to those that the user trains on."""
    (tmp_path / "workspace/records").mkdir(parents=True)
    (tmp_path / "file").write_text("mine")
    said = "workspace: is not empty and contains no demo; name a new folder"
    assert_one_line(hico("demo", "--root", tmp_path / "workspace", "--videos", "24"), 2, said)
    assert_one_line(hico("demo", "--root", tmp_path / "file", "--videos", "24"), 2, "file: is a file; name a folder")
    assert [path.name for path in (tmp_path / "workspace").rglob("*")] == ["records"]


@pytest.mark.parametrize(
    ("random", "far", "hico_", "said"),
    [
        (0.4, 0.3, 0.7, "worse than an untrained encoder"),
        (0.3, 0.4, 0.7, "recognises motion best"),
        (0.3, 0.7, 0.4, "does not recognise motion best"),
    ],
)
def test_the_sentence_is_what_the_numbers_say(random: float, far: float, hico_: float, said: str) -> None:
    values = zip(DEMO_ARMS, (random, far, hico_), strict=True)
    assert said in sentence(DemoResult({arm: [Score("action-linear", value, 0.1)] for arm, value in values}, []))
