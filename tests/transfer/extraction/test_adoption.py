"""Features of other tools become a folder that everything downstream reads."""

from pathlib import Path

import numpy as np
import pytest

from hico_core.base.errors import HicoError, UsageError
from hico_core.encoding.lanes import WholeVideo
from hico_core.encoding.windows import Grid, window_times
from hico_core.transfer.evaluation.labelled import LabelledVideo, rows_from_folder
from hico_core.transfer.evaluation.retrieval import extractor_of
from hico_core.transfer.extraction.adoption import adopt_features
from hico_core.transfer.extraction.manifest import check_features, load_features, read_manifest

GRID = Grid(fps=15.0, window=16, stride=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name, rows in (("v_a", 3), ("v_b", 1)):
        np.save(tmp_path / f"{name}.npy", rng.random((rows, 4), dtype=np.float32))
    return tmp_path


@pytest.mark.parametrize("grid", [GRID, Grid(fps=15.0, window=16, stride=8, align="center")])
def test_rows_lie_where_hico_s_own_would(folder: Path, grid: Grid) -> None:
    """Of a video that ends with its last window, or, of centred ones, with its last stride."""
    adopt_features(folder, grid, prefix="v_")
    seconds = (24 if grid.align == "center" else 32) / 15
    times = window_times(grid, duration_seconds=seconds, source_fps=30.0)
    table = load_features(folder, video_ids=["a"])
    np.testing.assert_allclose(table.rows[["start_seconds", "end_seconds"]].to_numpy(), times)
    np.testing.assert_array_equal(table.array, np.load(folder / "v_a.npy"))
    assert not list(check_features(folder))


def test_they_can_be_probed_but_nothing_can_be_looked_up(folder: Path) -> None:
    adopt_features(folder, GRID, prefix="v_")
    manifest = read_manifest(folder)
    videos = [LabelledVideo(name, label, WholeVideo(folder, [])) for label, name in enumerate("ab")]
    assert rows_from_folder(folder, manifest, videos).labels.tolist() == [0, 0, 0, 1]
    with pytest.raises(HicoError, match="comes from another tool"):
        extractor_of(manifest["v_a.npy"], encoder=None, device="cpu")


def test_a_prefix_is_no_pattern(folder: Path) -> None:
    for name in ("v_a", "v_b"):
        (folder / f"{name}.npy").rename(folder / f"[v]{name}.npy")
    assert [row.video_id for row in adopt_features(folder, GRID, prefix="[v]v_")] == ["a", "b"]


def test_again_with_another_grid(folder: Path) -> None:
    adopt_features(folder, GRID, prefix="v_")
    adopt_features(folder, Grid(fps=30.0, window=16, stride=8), prefix="v_")
    assert {row.fps for row in read_manifest(folder).values()} == {30.0}


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((2, 5), np.float32), "numbers per row"),
        (np.zeros((2, 4), np.float64), "float64 (2, 4), not float32 or float16 (T, F)"),
        (np.zeros((1, 2, 4), np.float32), "float32 (1, 2, 4), not"),
        (np.full((2, 4), np.nan, np.float32), "not finite"),
    ],
)
def test_what_is_refused_leaves_no_manifest(folder: Path, array: np.ndarray, said: str) -> None:
    np.save(folder / "v_c.npy", array)
    with pytest.raises(HicoError) as refused:
        adopt_features(folder, GRID, prefix="v_")
    assert said in str(refused.value)
    assert not (folder / "manifest.jsonl").exists()


def test_hidden_files_are_left_alone(folder: Path) -> None:
    (folder / "._v_a.npy").write_bytes(b"what a Mac keeps beside a file")
    assert not any(row.file.startswith(".") for row in adopt_features(folder, GRID))
    assert not list(check_features(folder))


@pytest.mark.parametrize("fps", [0.0, float("nan"), float("inf")])
def test_a_frame_rate_is_a_positive_number(folder: Path, fps: float) -> None:
    with pytest.raises(UsageError, match="must be positive and finite"):
        adopt_features(folder, Grid(fps=fps, window=16, stride=8))


def test_a_folder_without_files(tmp_path: Path) -> None:
    with pytest.raises(HicoError, match=r"no files v_ID\.npy"):
        adopt_features(tmp_path, GRID, prefix="v_")
