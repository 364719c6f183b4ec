"""A workspace that was moved, with all in it, goes on as if it had always been there."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from commands import TINY, hico
from made_videos import numbered_video

from hico_core.checkpoints.content import export_encoder
from hico_core.model.s3dg_tiny import S3DGTiny

pytestmark = pytest.mark.videos

QUICK = ("--device", "cpu", "--workers", "0")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project: a workspace with videos in it, of which some were split and some are read in place, and a run."""
    home = tmp_path_factory.mktemp("first") / "home"
    for number in range(4):
        numbered_video(home / f"work/videos/{number}.mp4", seconds=6)
    for label in range(2):
        for part in ("train", "test"):
            numbered_video(home / f"work/labelled/{part}{label}.mp4", seconds=3)
    (home / "work/videos/broken.mp4").write_text("no video")
    for part in ("train", "test"):
        (home / f"work/labelled/{part}.txt").write_text(f"{part}0.mp4 0\n{part}1.mp4 1\n")
    for words in (
        ("split", home / "work/videos"),
        *(("index", "--list", home / f"work/labelled/{part}.txt", "--subset", part) for part in ("train", "test")),
        ("pretrain", *TINY, "--max-steps", "1", *QUICK),
        ("extract-features", *QUICK),
        ("finetune", *FINETUNE, "--max-steps", "1"),
        ("probe", "--seeds", "1", *QUICK),
    ):
        done = hico(*words, root=home / "work")
        assert done.returncode == (3 if words[0] == "split" else 0), (words, done.stderr)
    return home


FINETUNE = (
    *("-o", "data.num_frames=8", "-o", "data.crop_size=32", "--batch-size", "2", "--views", "1"),
    *QUICK,
)


def texts_of(root: Path) -> dict[str, str]:
    """All that a workspace's files say, other than pictures, weights and logs."""
    kept = {".json", ".jsonl", ".yaml"}
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.suffix in kept}


def test_no_file_of_a_workspace_says_where_it_lies(home: Path) -> None:
    assert [name for name, text in texts_of(home / "work").items() if str(home) in text] == []
    table = pq.read_table(home / "work/index.parquet")
    assert [column for column in ("path", "source") if any(str(home) in str(v) for v in table[column])] == []
    assert "videos/0.mp4" in table["source"].to_pylist()
    checkpoint = torch.load(home / "work/runs/finetune-hmdb51/checkpoints/last.pt", weights_only=True)
    assert checkpoint["progress"]["encoder"]["path"] == "runs/hacs-hico-s/export/encoder.safetensors"


@pytest.fixture
def moved(home: Path, tmp_path: Path) -> Path:
    """The workspace elsewhere, with nothing left where it was."""
    copy = tmp_path / "before"
    shutil.copytree(home, copy, copy_function=shutil.copy2)
    (copy / "work").rename(tmp_path / "other name")
    shutil.rmtree(copy)
    return tmp_path / "other name"


def test_every_command_goes_on(moved: Path) -> None:
    index, records = pq.read_table(moved / "index.parquet"), texts_of(moved / "records")
    before = json.loads(hico("split", moved / "videos", "--json", root=moved).stdout)
    assert (before["num_split"], before["num_unchanged"], before["num_failed"]) == (0, 4, 1)
    assert len((moved / "failures.jsonl").read_text().splitlines()) == 1, "of the same broken video"
    assert hico("index", root=moved).returncode == 0
    assert pq.read_table(moved / "index.parquet").equals(index)
    assert texts_of(moved / "records") == records
    listed = ("index", "--list", moved / "labelled/train.txt", "--subset", "train")
    assert hico(*listed, root=moved).returncode == 0
    assert texts_of(moved / "records") == records
    assert hico("index", "--check", root=moved).returncode == 0
    done = hico("pretrain", *TINY, "--max-steps", "2", "--resume", *QUICK, root=moved)
    assert done.returncode == 0, done.stderr
    done = hico("finetune", *FINETUNE, "--max-steps", "2", "--resume", root=moved)
    assert done.returncode == 0, done.stderr
    done = hico("evaluate", "finetune-hmdb51", *QUICK, root=moved)
    assert done.returncode == 0, done.stderr
    done = hico("report", moved / "runs/hacs-hico-s", root=moved)
    assert done.returncode == 0, done.stderr


def test_features_stay_and_are_looked_through(moved: Path) -> None:
    done = hico("extract-features", "--json", *QUICK, root=moved)
    assert (json.loads(done.stdout)["num_extracted"], json.loads(done.stdout)["num_unchanged"]) == (0, 8), done.stderr
    assert hico("features", "check", root=moved).returncode == 0
    done = hico("retrieve", moved / "videos/0.mp4", "--json", "--sheet", moved / "sheet.png", root=moved)
    assert done.returncode == 0, done.stderr
    matches = json.loads(done.stdout)["matches"]
    assert matches and all(Path(match["source"]).is_file() for match in matches)
    done = hico("extract-features", "--from", "sources", "--name", "sources", *QUICK, root=moved)
    assert done.returncode == 0, done.stderr
    done = hico("probe", "hacs-hico-s", "--seeds", "1", root=moved)
    assert done.returncode == 0, done.stderr


def test_what_was_measured_of_a_run_is_in_its_report(moved: Path) -> None:
    from hico_core.report.facts import read_run

    rows = [row.file for row in read_run(moved / "runs/hacs-hico-s").results.probes]
    assert "hacs-hico-s.json" in rows


def test_an_older_workspace_whose_paths_are_whole(home: Path, tmp_path: Path) -> None:
    """As hico wrote it before: it goes on where it is, and where it was moved to, the encoder is found by its hash."""
    work = tmp_path / "work"
    shutil.copytree(home / "work", work, copy_function=shutil.copy2)
    for name in ("hacs-hico-s",):
        path = work / f"features/{name}/manifest.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row |= {key: f"{home}/work/{row[key]}" for key in ("checkpoint", "source")}
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for path in (work / "records").glob("*.json"):
        record = json.loads(path.read_text())
        record["source"]["path"] = f"{work}/{record['source']['path']}"
        if record["options"]["kind"] == "untrimmed":
            for clip in record["clips"]:
                clip["path"] = record["source"]["path"]
        path.write_text(json.dumps(record))
    assert hico("index", root=work).returncode == 0
    assert hico("index", "--check", root=work).returncode == 0
    shutil.move(home / "work/runs", tmp_path / "hidden")
    try:
        done = hico("retrieve", work / "videos/0.mp4", "--json", root=work)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(work / "runs")
        done = hico("retrieve", work / "videos/0.mp4", "--json", root=work)
        assert done.returncode == 1 and f"{home}/work/runs/hacs-hico-s/export/encoder.safetensors" in done.stderr
    finally:
        shutil.move(tmp_path / "hidden", home / "work/runs")


def test_videos_that_were_moved_are_named_by_their_new_place(tmp_path: Path) -> None:
    numbered_video(tmp_path / "videos/a.mp4", seconds=6)
    root = tmp_path / "root"
    assert hico("split", tmp_path / "videos", root=root).returncode == 0
    (tmp_path / "videos").rename(tmp_path / "elsewhere")
    dry = hico("split", tmp_path / "elsewhere", "--dry-run", root=root)
    assert dry.returncode == 0 and str(tmp_path / "videos") in (root / "records/a.json").read_text(), dry.stderr
    assert json.loads(hico("split", tmp_path / "elsewhere", "--json", root=root).stdout)["num_unchanged"] == 1
    assert hico("index", root=root).returncode == 0
    assert pq.read_table(root / "index.parquet")["source"].to_pylist() == [str(tmp_path / "elsewhere/a.mp4")] * 2
    torch.manual_seed(0)
    export_encoder(tmp_path / "encoder.safetensors", S3DGTiny())
    words = ("--checkpoint", tmp_path / "encoder.safetensors", "--from", "sources", *QUICK)
    assert hico("extract-features", *words, root=root).returncode == 0


def test_a_line_of_a_list_inside_the_workspace_is_forgotten_once_it_is_mended(tmp_path: Path) -> None:
    root = tmp_path / "root"
    numbered_video(root / "lists/a.mp4", seconds=3)
    (root / "lists/all.txt").write_text("a.mp4\ngs://there/b.mp4\n")
    words = ("split", root / "lists/all.txt")
    assert hico(*words, root=root).returncode == 3
    (line,) = (root / "failures.jsonl").read_text().splitlines()
    assert json.loads(line)["source"] == "lists/all.txt, line 2"
    (root / "lists/all.txt").write_text("a.mp4\n")
    assert hico(*words, root=root).returncode == 0
    assert (root / "failures.jsonl").read_text() == ""
