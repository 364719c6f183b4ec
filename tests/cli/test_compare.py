"""`hico compare` from a list to a table, files, a picture and a section of the report; and what goes wrong."""

import json
import signal
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import Done, assert_one_line, hico, hico_process
from made_videos import numbered_video

from hico_cli.console import QUIET
from hico_core.checkpoints.content import export_encoder
from hico_core.model.s3dg_tiny import S3DGTiny

pytestmark = pytest.mark.videos


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run, and twelve clips in four groups, of two classes that differ in shape."""
    root = tmp_path_factory.mktemp("compare")
    lines = []
    for number in range(8):
        label = "wide" if number % 2 else "high"
        numbered_video(root / f"clips/{number}.mp4", seconds=1, size="160x80" if number % 2 else "80x120")
        lines.append(f"{number}.mp4\t{label}\tgroup{number // 2}\n")
    (root / "list.txt").write_text("".join(lines))
    (root / "train.txt").write_text("".join(lines[:4]))
    (root / "test.txt").write_text("".join(lines[4:]))
    (root / "runs/made/export").mkdir(parents=True)
    export_encoder(root / "runs/made/export/encoder.safetensors", S3DGTiny())
    assert hico("index", "--untrimmed", root / "clips", root=root).returncode == 0
    return root


@pytest.fixture(autouse=True)
def _without_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(QUIET, "1")


def compare(root: Path, *arguments: str | Path) -> Done:
    data = ("--data-root", root / "clips", "--workers", "0")
    return hico("compare", *arguments, *data, root=root)


def test_a_comparison_and_its_report(root: Path) -> None:
    done = compare(root, root / "list.txt", "--runs", "--folds", "2")
    assert done.returncode == 0 and done.stderr.startswith(
        "hico: only 4 test groups: with fewer than ten, the intervals"
    )
    assert all(f"\n {name} " in done.stdout for name in ("encoder", "made", "pixels", "motion"))
    assert "Percent of 8 test clips in 4 groups" in done.stdout and "chance 50.0" in done.stdout
    folder = root / "compare/list"
    assert done.stdout.splitlines()[-1] == f"{folder}: results.parquet, predictions.parquet, accuracy.svg"
    results = pq.read_table(folder / "results.parquet").to_pylist()
    assert [(row["encoder"], row["probe"]) for row in results[:2]] == [("made", "linear"), ("made", "knn")]
    assert pq.read_table(folder / "predictions.parquet").num_rows == 3 * 2 * 8
    assert (folder / "accuracy.svg").read_text().startswith("<svg")
    assert hico("report", root, root=root).returncode == 0
    page = (root / "report.html").read_text()
    assert "Encoders compared" in page and page.count('<td class="text">motion</td>') == 1


def test_lists_for_programs(root: Path) -> None:
    lists = ("--train", root / "train.txt", "--test", root / "test.txt", "--no-baselines", "--name", "halves")
    done = compare(root, *lists, "--encoder", "pixels", "--encoder", "made", "--views", "2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [(row["encoder"], row["num_test_clips"]) for row in result["results"][::2]] == [("pixels", 4), ("made", 4)]
    notes = [note.partition(":")[0] for note in result["notes"]]
    assert notes[0] == "only 2 test groups" and all(note in done.stderr for note in result["notes"])
    assert result["folder"] == str(root / "compare/halves")


@pytest.mark.processes
def test_a_killed_comparison_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (
        "compare",
        root / "list.txt",
        "--encoder",
        "pixels",
        "--no-baselines",
        "--folds",
        "2",
        "--name",
        "killed",
    )
    options = ("--data-root", root / "clips", "--workers", "0", "--views", "3")
    monkeypatch.setenv("HICO_FAULT", "file.written:5")  # encoder.json and three clips are written
    assert hico_process(*command, *options, root=root).returncode == -signal.SIGKILL
    monkeypatch.delenv("HICO_FAULT")
    monkeypatch.delenv(QUIET)
    assert not (root / "compare/killed").exists()
    done = hico(*command, *options, root=root)
    assert done.returncode == 0 and "features of 4/8 clips" in done.stderr and "of 3/8 clips" not in done.stderr
    assert not list((root / "compare/.kept").rglob("*.tmp"))


def test_what_cannot_be_used_is_told(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "clips/bad.mp4").write_bytes(b"no video")
    lines = (root / "list.txt").read_text()
    (root / "some.txt").write_text(lines + "bad.mp4\twide\tgroup0\nnone.mp4\twide\tgroup0\n")
    done = compare(root, root / "some.txt", "--encoder", "pixels", "--no-baselines", "--folds", "2")
    assert done.returncode == 3 and "Percent of 8 test clips" in done.stdout
    assert "some.txt, line 10: " in done.stderr and "none.mp4: no such file" in done.stderr
    assert f"left out: {root}/clips/bad.mp4" in caplog.text
    for number in range(4):
        (root / f"clips/bad{number}.mp4").write_bytes(b"no video")
    (root / "bad.txt").write_text("".join(f"bad{n}.mp4\t{'ab'[n % 2]}\tgroup{n // 2}\n" for n in range(4)))
    done = compare(root, root / "bad.txt", "--encoder", "pixels", "--no-baselines", "--folds", "2")
    assert_one_line(done, 2, "no clip in the list can be read, such as ", "bad0.mp4")
    for train, test, missing in (
        (["0", "bad1"], ["2", "5"], "two classes to train on in each fold"),
        (["0", "1"], ["bad0", "bad3", "2"], "two groups to test on"),
        (["0", "1", "bad2"], ["bad0", "bad1"], "two groups to test on"),
    ):
        for side, names in (("train", train), ("test", test)):
            rows = (f"{name}.mp4\t{'ab'[int(name[-1]) % 2]}\t{side}{name}\n" for name in names)
            (root / f"bad-{side}.txt").write_text("".join(rows))
        lists = ("--train", root / "bad-train.txt", "--test", root / "bad-test.txt")
        done = compare(root, *lists, "--encoder", "pixels", "--no-baselines")
        assert_one_line(done, 1, "cannot be read, such as ", f"the others lack {missing}")


@pytest.mark.parametrize(
    ("lines", "options", "code", "said"),
    [
        ("0.mp4\twide\tg\n1.mp4\thigh\tg\n", ["--encoder", "pixels"], 2, "all clips are in one group, 'g'"),
        ("0.mp4\twide\ta\n1.mp4\thigh\tb\n", ["--encoder", "pixels"], 2, "there are only 2 groups; use --folds 2"),
        ("0.mp4\ta\ta\n1.mp4\tb\tb", ["--folds", "2"], 2, "no class has clips for both training and testing"),
        ("0.mp4\ta\ta\n1.mp4\ta\tb", ["--folds", "2"], 2, "all clips have the label 'a'; at least two classes"),
        (
            "none.mp4\twide\ta\n",
            ["--encoder", "pixels"],
            2,
            "none.mp4: no such file; set --data-root to the base folder of the paths",
        ),
        ("0.mp4\n", ["--encoder", "pixels"], 2, "line 1: '0.mp4' is not path<TAB>label"),
        (None, ["--encoder", "pixel", "--folds", "2"], 2, "pixel"),
        (None, ["--encoder", "s3dg", "--folds", "2"], 2, "s3dg=random"),
        (None, ["--folds", "2"], 2, "no encoder given; use --encoder"),
        (None, ["--encoder", "pixels", "--name", "../x"], 2, "--name"),
        (None, ["--encoder", "pixels", "--train", "train.txt"], 2, "LIST: give either a list, or --train and --test"),
    ],
)
def test_mistakes(root: Path, lines: str | None, options: list[str], code: int, said: str) -> None:
    if lines is not None:
        (root / "mistake.txt").write_text(lines)
    before = sorted((root / "compare").rglob("*"))
    done = compare(root, root / ("list.txt" if lines is None else "mistake.txt"), *options)
    assert_one_line(done, code, said)
    assert sorted((root / "compare").rglob("*")) == before
