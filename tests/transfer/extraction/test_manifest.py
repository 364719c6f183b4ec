"""What a manifest says of its folder is read as it was written, and each way in which it is not true has its line."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hico_core.base.errors import HicoError
from hico_core.transfer.extraction.manifest import (
    ManifestRow,
    check_features,
    drop_lines,
    features_of,
    load_features,
    manifest_line,
    read_manifest,
    require_features,
)


def row_of(folder: Path, video_id: str, *, value: float = 0.0, rows: int = 2, **changes: Any) -> ManifestRow:  # noqa: ANN401
    """A video of `rows` windows of a second each, with its file, whose 3 numbers a row are all `value`."""
    path = folder / f"{video_id}.npy"
    folder.mkdir(parents=True, exist_ok=True)
    np.save(path, np.full((rows, 3), value, np.float32))
    starts = [float(k) for k in range(rows)]
    fields: dict[str, Any] = {
        **{"window": 16, "stride": 16, "native_fps": False, "align": "start", "tail": "pad", "pool": "avg"},
        **{"layer": "pooled", "dtype": "float32", "checkpoint_sha256": "c", "picture": {}, "precision": "fp32"},
        **{"video_id": video_id, "file": path.name, "prefix": "", "suffix": "", "file_format": "npy"},
        **{"rows": rows, "dim": 3, "shape": [3], "size_bytes": path.stat().st_size},
        **{"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "fps": 16.0},
        **{"checkpoint": "/encoders/e.safetensors", "source": f"/videos/{video_id}.mp4", "source_fps": 30.0},
        **{"duration_seconds": float(rows), "num_frames": 30 * rows, "source_size_bytes": 1, "source_mtime_ns": 1},
        **{"source_sha256": None, "start_seconds": starts, "end_seconds": [s + 1 for s in starts]},
        **{"centre_seconds": [s + 0.5 for s in starts]},
    }
    return ManifestRow.model_validate(fields | changes)


def write(folder: Path, *rows: ManifestRow, name: str = "manifest.jsonl", end: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"".join(manifest_line(row, folder) for row in rows) + end.encode())


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rows = [row_of(tmp_path, "a"), row_of(tmp_path, "b", rows=3)]
    write(tmp_path, *rows)
    assert read_manifest(tmp_path) == {row.file: row for row in rows}
    assert read_manifest(tmp_path / "nowhere") == {}


def test_the_later_line_counts_and_one_cut_short_does_not(tmp_path: Path) -> None:
    old, new = row_of(tmp_path, "a", rows=1), row_of(tmp_path, "a", rows=4)
    write(tmp_path, old, row_of(tmp_path, "b"), new, end='{"video_id": "c", "fi')
    assert {name: row.rows for name, row in read_manifest(tmp_path).items()} == {"a.npy": 4, "b.npy": 2}


def test_shards_have_a_manifest_each(tmp_path: Path) -> None:
    write(tmp_path, row_of(tmp_path, "a"), name="manifest-1-of-2.jsonl")
    write(tmp_path, row_of(tmp_path, "b"), name="manifest-2-of-2.jsonl")
    assert sorted(read_manifest(tmp_path)) == ["a.npy", "b.npy"]


def test_paths_are_seen_from_the_workspace(tmp_path: Path) -> None:
    """So that a workspace that is moved takes its features along; what lies elsewhere keeps its whole path."""
    first, second = tmp_path / "first", tmp_path / "second"
    folder = first / "features/f"
    row = row_of(folder, "a", source=f"{first}/videos/a.mp4", checkpoint="/encoders/e.safetensors")
    write(folder, row)
    written = json.loads((folder / "manifest.jsonl").read_text())
    assert (written["source"], written["checkpoint"]) == ("videos/a.mp4", "/encoders/e.safetensors")
    assert read_manifest(folder) == {"a.npy": row}
    first.rename(second)
    (moved,) = read_manifest(second / "features/f").values()
    assert (moved.source, moved.checkpoint) == (f"{second}/videos/a.mp4", "/encoders/e.safetensors")


@pytest.mark.parametrize(
    ("dropped", "left"),
    [
        ({"a"}, {"b.npy", "c.npy"}),
        ({"a", "c"}, {"b.npy"}),
        ({"a", "b", "c"}, set()),
        (set(), {"a.npy", "b.npy", "c.npy"}),
    ],
)
def test_lines_of_videos_that_are_removed(dropped: set[str], left: set[str], tmp_path: Path) -> None:
    """A manifest of which nothing is left is no manifest."""
    write(tmp_path, row_of(tmp_path, "a"), row_of(tmp_path, "b"))
    write(tmp_path, row_of(tmp_path, "c"), name="manifest-2-of-2.jsonl")
    drop_lines(tmp_path, dropped)
    assert set(read_manifest(tmp_path)) == left
    assert all(path.stat().st_size for path in tmp_path.glob("manifest*.jsonl"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"manifest_version": 1}, r"another version of hico \(manifest version 1, not 2\); extract again"),
        ({"window": "x"}, r"has a damaged line \(window\)"),
        ({"rows": None}, r"\(rows\)"),
        ({"colour": "red"}, r"\(colour\)"),
        ({"file": "../a.npy"}, r"'\.\./a\.npy' is not the name of a file in this folder"),
        ({"file": "b/a.npy"}, "is not the name of a file"),
        ({"prefix": "v_"}, "is not the name of a file"),
    ],
)
def test_lines_that_hico_did_not_write(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    line = row_of(tmp_path, "a").model_dump() | changes
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(HicoError, match=said) as caught:
        read_manifest(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/manifest.jsonl: ")


@pytest.mark.parametrize("changes", [{"checkpoint_sha256": "d"}, {"shape": [1, 3]}, {"fps": 30.0}])
def test_features_of_one_folder_are_of_one_encoder(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(HicoError, match="no features here"):
        require_features(tmp_path)
    write(tmp_path, row_of(tmp_path, "a"), row_of(tmp_path, "b", **changes))
    with pytest.raises(HicoError, match=r"a\.npy and b\.npy come from different encoders"):
        require_features(tmp_path)


def test_features_as_one_table(tmp_path: Path) -> None:
    write(tmp_path, row_of(tmp_path, "b", value=2.0, rows=1), row_of(tmp_path, "a", value=1.0))
    table = load_features(tmp_path)
    assert table.array[:, 0].tolist() == [1.0, 1.0, 2.0]
    assert table.rows["video_id"].tolist() == ["a", "a", "b"]
    assert table.rows["centre_seconds"].tolist() == [0.5, 1.5, 0.5]
    assert load_features(tmp_path, video_ids=["b"]).array.tolist() == [[2.0, 2.0, 2.0]]
    with pytest.raises(HicoError, match="has no features of 2 videos, such as 'c'"):
        load_features(tmp_path, video_ids=["c", "a", "d"])


def saved(path: Path, array: np.ndarray) -> None:
    np.save(path, array)


# What became of a file, what reading it says, and what `hico features check` says.
DAMAGE: dict[str, tuple[Any, str, str]] = {
    "gone": (Path.unlink, "no such file", "is missing"),
    "empty": (lambda path: path.write_bytes(b""), "is damaged", "has 0 bytes, not "),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-4]), "is damaged", " bytes, not "),
    "longer": (
        lambda path: saved(path, np.zeros((3, 3), np.float32)),
        r"contains float32 \(3, 3\), not",
        "bytes, not ",
    ),
    "wider": (lambda path: saved(path, np.zeros((2, 4), np.float32)), r"contains float32 \(2, 4\), not", "bytes, not "),
    "one number": (lambda path: saved(path, np.array(1, np.float32)), r"contains float32 \(\), not", "bytes, not "),
    "halved": (
        lambda path: saved(path, np.zeros((2, 3), np.float16)),
        r"contains float16 \(2, 3\), not",
        "bytes, not ",
    ),
    "no number": (lambda path: saved(path, np.full((2, 3), np.nan, np.float32)), "not finite", "has changed since"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_file_that_is_not_what_its_manifest_says(what: str, tmp_path: Path) -> None:
    damage, said, problem = DAMAGE[what]
    rows = [row_of(tmp_path, "a"), row_of(tmp_path, "b")]
    write(tmp_path, *rows)
    assert list(check_features(tmp_path)) == []
    damage(tmp_path / "a.npy")
    with pytest.raises(HicoError, match=said):
        features_of(tmp_path, rows[0])
    ((name, found),) = check_features(tmp_path)
    assert name == "a.npy" and problem in found
    assert features_of(tmp_path, rows[1]).shape == (2, 3)


def test_a_file_of_which_no_line_tells(tmp_path: Path) -> None:
    row_of(tmp_path, "b")
    write(tmp_path, row_of(tmp_path, "a"))
    (tmp_path / "notes.txt").write_text("not of hico")
    assert list(check_features(tmp_path)) == [("b.npy", "is not in the manifest")]
