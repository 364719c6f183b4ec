"""Makes a folder of features like those of hico from features that another tool has extracted."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from hico_core.base.errors import HicoError, UsageError
from hico_core.base.storage import write_text
from hico_core.corpus.workspace.records import sha256_of
from hico_core.encoding.windows import Grid
from hico_core.transfer.extraction.feature_files import read_array
from hico_core.transfer.extraction.manifest import (
    ADOPTED,
    MANIFEST,
    ManifestRow,
    Settings,
    manifest_line,
    read_manifest,
)


def adopt_features(folder: Path, grid: Grid, *, prefix: str = "") -> list[ManifestRow]:
    """Write the manifest of a folder of `[prefix]<id>.npy` files with one array (T, F) each; the files stay unchanged.

    Row i covers the window that begins i * stride / fps seconds into its video. The length of the video is unknown: it
    is assumed to end with its last window.

    Args:
        folder: contains the files.
        grid: where windows lie; its frame rate must be a number.
        prefix: of the file names, before the ids.

    Raises:
        UsageError: there are no such files, or a number is out of range.
        HicoError: a file is not such an array, or the folder has features that hico has extracted.

    """
    if grid.fps is None or not 0 < grid.fps < math.inf or grid.window < 1 or grid.stride < 1:
        raise UsageError(f"--fps {grid.fps} --window {grid.window} --stride {grid.stride}: must be positive and finite")
    names = (path.name for path in folder.glob("*.npy"))
    paths = [folder / name for name in sorted(names) if name.startswith(prefix) and not name.startswith(".")]
    if not paths:
        raise UsageError(f"{folder}: no such folder, or no files {prefix}ID.npy in it")
    if any(row.encoder != ADOPTED for row in read_manifest(folder).values()):
        raise HicoError(f"{folder}: has features that hico extracted, and needs no other manifest")
    rows = [_row(path, grid, prefix) for path in paths]
    widths = {row.dim: row.file for row in rows}
    if len(widths) > 1:
        (dim, file), (other_dim, other) = list(widths.items())[:2]
        raise HicoError(
            f"{folder}: {file} has {dim} numbers per row, {other} has {other_dim}; adopt only files of one width"
        )
    write_text(folder / MANIFEST, b"".join(manifest_line(row, folder) for row in rows).decode())
    return rows


def _checked(path: Path) -> np.ndarray:
    """Read and check the array of a file.

    Raises:
        HicoError: it is not an array (T, F), or has values that are not finite.

    """
    array = read_array(path)
    if array.ndim != 2 or not array.size or str(array.dtype) not in ("float32", "float16"):
        raise HicoError(f"has {array.dtype} {array.shape}, not float32 or float16 (T, F)", subject=path)
    if not np.isfinite(array).all():
        raise HicoError("has values that are not finite (NaN or infinite)", subject=path)
    return array


def _settings(grid: Grid, dtype: Any) -> Settings:  # noqa: ANN401 - `Settings` checks it
    """The known settings of features that another tool has extracted."""
    return Settings(
        window=grid.window,
        stride=grid.stride,
        native_fps=False,
        align=grid.align,
        tail=grid.tail,
        pool="avg",
        layer="pooled",
        dtype=dtype,
        encoder=ADOPTED,
        checkpoint_sha256="",
        picture={},
        precision="unknown",
    )


def _row(path: Path, grid: Grid, prefix: str) -> ManifestRow:
    """The manifest's row for a file."""
    array, fps = _checked(path), grid.fps
    assert fps is not None
    starts = (grid.first_start + np.arange(len(array)) * grid.stride) / fps
    ends = starts + grid.window / fps
    return ManifestRow(
        **_settings(grid, str(array.dtype)).model_dump(),
        video_id=path.stem.removeprefix(prefix),
        file=path.name,
        prefix=prefix,
        suffix="",
        file_format="npy",
        rows=len(array),
        dim=array.shape[1],
        shape=[array.shape[1]],
        size_bytes=path.stat().st_size,
        sha256=sha256_of(path),
        fps=fps,
        checkpoint="",
        source="",
        source_fps=fps,
        duration_seconds=float(ends[-1]),
        num_frames=round(float(ends[-1]) * fps),
        source_size_bytes=0,
        source_mtime_ns=0,
        source_sha256=None,
        start_seconds=starts.tolist(),
        end_seconds=ends.tolist(),
        centre_seconds=((starts + ends) / 2).tolist(),
    )
