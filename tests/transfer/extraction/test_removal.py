"""Removed videos leave nothing behind, wherever the command was killed before; all others stay as they are."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import pyarrow.parquet as pq
import pytest
import torch
from buckets import keys_in, make_bucket
from commands import assert_one_line, hico, hico_process
from made_videos import numbered_video
from trees import tree

from hico_core.base.addresses import locate
from hico_core.base.errors import UsageError
from hico_core.checkpoints.content import export_encoder
from hico_core.corpus.index import read_index
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.transfer.extraction.removal import remove_videos

pytestmark = pytest.mark.videos


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Split videos, one read in place, one that failed, clips of another tool; features of all, two folders of them."""
    folder = tmp_path_factory.mktemp("made")
    root = folder / "root"
    for name in ("a", "b", "-c"):
        numbered_video(folder / f"videos/{name}.mp4", seconds=6)
    (folder / "videos/broken.mp4").write_text("no video")
    numbered_video(folder / "in place/d.mp4", seconds=6)
    numbered_video(root / "train/v_e_0000000_0005000.mp4", seconds=5)
    torch.manual_seed(0)
    export_encoder(root / "runs/made/export/encoder.safetensors", S3DGTiny())
    quick = ("--workers", "0", "--device", "cpu")
    for code, words in (
        (3, ("split", folder / "videos")),
        (0, ("index", "--untrimmed", folder / "in place")),
        (0, ("index", "--adopt")),
        (0, ("extract-features", *quick)),
        (0, ("extract-features", "--name", "packed", "--prefix", "v_", "--format", "hdf5", *quick)),
    ):
        done = hico(*words, root=root)
        assert done.returncode == code, (words, done.stderr)
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "made", copy_function=shutil.copy2)
    return tmp_path / "made/root"


def traces_of(root: Path, name: str) -> list[str]:
    """Where a workspace still tells of a video."""
    found = [path for path in tree(root) if Path(path).name.removeprefix("v_").startswith((f"{name}.", f"{name}_"))]
    if name in pq.read_table(root / "index.parquet")["video_id"].to_pylist():
        found.append("index.parquet")
    for path in (*root.glob("*.txt"), *root.glob("*.jsonl"), *root.glob("features/*/*.jsonl")):
        lines = path.read_text().splitlines()
        names = [f"/{name}.", f'"{name}"', f"/v_{name}_"]
        if any(line.startswith(f"{name},") or any(word in line for word in names) for line in lines):
            found.append(path.name)
    with h5py.File(root / "features/packed/features.hdf5") as packed:
        found += [key for key in packed if key == f"v_{name}"]
    return found


def test_a_video_leaves_with_all_that_was_made_of_it(root: Path) -> None:
    before = tree(root)
    assert len(traces_of(root, "b")) == 2 + 1 + 1 + 1 + 2 + 2 + 1, "clips, record, index, list, features, lines, pack"
    done = hico("remove", "b", "--json", root=root)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert traces_of(root, "b") == []
    after = tree(root)
    gone = before.keys() - after.keys()
    assert gone == {*told["clips"], *told["features"], "records/b.json"}
    assert told["size_bytes"] == sum(len(before[name]) for name in (*told["clips"], *told["features"]))
    assert told["num_rows"] == 2
    rewritten = {name for name in after if after[name] != before.get(name)}
    manifests = {f"features/{name}/manifest.jsonl" for name in ("made", "packed")}
    assert rewritten == {"index.parquet", "training.txt", "features/packed/features.hdf5", *manifests}
    assert (root.parent / "videos/b.mp4").exists()
    # What is left is whole: everything goes on, and indexing again gives the same.
    table = pq.read_table(root / "index.parquet")
    assert hico("index", root=root).returncode == 0
    assert pq.read_table(root / "index.parquet").equals(table)
    assert tree(root)["training.txt"] == after["training.txt"]
    for words in (("index", "--check"), ("features", "check", "packed"), ("features", "check", "made")):
        done = hico(*words, root=root)
        assert done.returncode == 0, (words, done.stderr)
    # It may come back.
    assert hico("split", root.parent / "videos/b.mp4", root=root).returncode == 0
    assert hico("index", root=root).returncode == 0
    assert tree(root)["training.txt"] == before["training.txt"]


def test_a_dry_run_changes_nothing(root: Path) -> None:
    before = tree(root)
    done = hico("remove", "--dry-run", "a", "--", "-c", root=root)
    assert done.returncode == 0, done.stderr
    *files, last = done.stdout.splitlines()
    assert files[0] == "train/v_a_0000000_0005000.mp4" and "features/packed/v_-c.npy" in files and len(files) == 8
    assert last.startswith("would remove 2 videos: 4 clips, 4 files of features, 4 rows of the index, ")
    assert tree(root) == before


def test_what_hico_did_not_make_stays(root: Path, made: Path) -> None:
    done = hico("remove", "d", "e", "broken", root=root)
    assert done.returncode == 0, done.stderr
    assert f"{made}/in place/d.mp4: not made by hico, so not removed" in done.stderr
    assert f"{root}/train/v_e_*.mp4: not made by hico, so not removed" in done.stderr
    assert (made / "in place/d.mp4").exists() and (root / "train/v_e_0000000_0005000.mp4").exists()
    assert traces_of(root, "d") == traces_of(root, "broken") == []
    assert traces_of(root, "e") == ["train/v_e_0000000_0005000.mp4"]
    assert (root / "failures.jsonl").read_text() == ""


def test_all_videos(root: Path) -> None:
    assert hico("remove", "a", "b", "d", "e", "broken", "--", "-c", root=root).returncode == 0
    left = {name for name in tree(root) if not name.endswith(".lock")}
    own = {name for name in left if not name.startswith("runs/")}
    assert own == {"failures.jsonl", "train/v_e_0000000_0005000.mp4"}


@pytest.mark.parametrize(
    ("ids", "parts"),
    [
        (["a", "brocken"], ["has no video 'brocken'; the nearest id is 'broken'"]),
        (["v_a.mp4"], ["has no video 'v_a.mp4'; the nearest id is 'a'"]),
    ],
)
def test_an_unknown_id(root: Path, ids: list[str], parts: list[str]) -> None:
    before = tree(root)
    assert_one_line(hico("remove", *ids, root=root), 2, *parts)
    assert {name: value for name, value in tree(root).items() if not name.endswith(".lock")} == {
        name: value for name, value in before.items() if not name.endswith(".lock")
    }


def test_no_workspace(tmp_path: Path) -> None:
    assert_one_line(hico("remove", "a", root=tmp_path / "nothing"), 2, "not a workspace")
    assert not (tmp_path / "nothing").exists()


POINTS = [
    *("remove.feature", "remove.feature:3", "remove.manifest", "remove.manifest:2", "remove.features", "file.written"),
    *("file.written:2", "file.written:4", "index.list", "index.table", "remove.clip", "remove.clip:2", "remove.clip:4"),
    *("remove.record", "remove.record:2", "remove.announced"),
]


@pytest.mark.processes
@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_the_same_command_goes_on(root: Path, made: Path, tmp_path: Path, point: str) -> None:
    command = [sys.executable, "-c", "from hico_cli.main import main; main()", "remove", "a", "b"]
    environment = {**os.environ, "HICO_ROOT": str(root), "HICO_FAULT": point}
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -9, (killed.returncode, killed.stderr)
    # Whatever the index names is there, or `hico index` notices.
    done = hico("remove", "a", "b", root=root)
    assert done.returncode == 0, done.stderr
    assert traces_of(root, "a") == traces_of(root, "b") == []
    undisturbed = tmp_path / "undisturbed"
    shutil.copytree(made / "root", undisturbed, copy_function=shutil.copy2)
    remove_videos(["a", "b"], root=undisturbed)
    ours, theirs = tree(root), tree(undisturbed)
    differs = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    assert all(name.endswith((".lock", ".hdf5")) for name in differs), differs


@pytest.mark.processes
@pytest.mark.cluster
def test_in_a_bucket(buckets: str, tmp_path: Path) -> None:
    for name in ("a", "b"):
        numbered_video(tmp_path / f"videos/{name}.mp4", seconds=6)
    make_bucket("removal")
    root = "s3://removal/root"
    torch.manual_seed(0)
    export_encoder(tmp_path / "encoder.safetensors", S3DGTiny())
    for words in (
        ("split", tmp_path / "videos", "--root", root),
        ("index", "--root", root),
        ("extract-features", "--root", root, "--checkpoint", tmp_path / "encoder.safetensors", "--workers", "0"),
    ):
        done = hico(*words, cwd=tmp_path)
        assert done.returncode == 0, (words, done.stderr)
    removal = remove_videos(["a"], root=root)
    assert (len(removal.clips), len(removal.features), removal.num_rows) == (2, 1, 2)
    keys = keys_in("removal")
    assert [key for key in keys if "/a." in key or "v_a_" in key or "removal.json" in key] == []
    assert read_index(root)["video_id"].tolist() == ["b", "b"]
    assert b'"a"' not in keys["root/features/encoder/manifest.jsonl"] and b"a," not in keys["root/training.txt"]
    with pytest.raises(UsageError, match="has no video 'a'"):
        remove_videos(["a"], root=locate(root))
    # A clip that is gone is noticed there as well.
    clip = next(key for key in keys if "v_b_0005000" in key)
    locate(f"s3://removal/{clip}").unlink()
    assert_one_line(hico_process("--quiet", "index", root=root), 3, "v_b_0005000", "1 of 2 clips of 'b' is missing")
