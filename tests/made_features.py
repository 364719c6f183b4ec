"""Folders of features as `hico extract-features` writes them, of videos that nobody has to make."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hico_core.corpus.workspace.records import sha256_of
from hico_core.encoding.windows import Grid, window_times
from hico_core.transfer.extraction.manifest import ManifestRow, manifest_line


def manifest_row(
    video_id: str, *, seconds: float, grid: Grid, source_fps: float = 30.0, prefix: str = "", dim: int = 3
) -> ManifestRow:
    """What a manifest says of a video of this length; of the file, nothing that is true."""
    times = window_times(grid, duration_seconds=seconds, source_fps=source_fps)
    return ManifestRow(
        window=grid.window,
        stride=grid.stride,
        native_fps=grid.fps is None,
        align=grid.align,
        tail=grid.tail,
        pool="avg",
        layer="pooled",
        dtype="float32",
        checkpoint_sha256="0" * 64,
        picture={},
        precision="fp32",
        video_id=video_id,
        file=f"{prefix}{video_id}.npy",
        prefix=prefix,
        suffix="",
        file_format="npy",
        rows=len(times),
        dim=dim,
        shape=[dim],
        size_bytes=0,
        sha256="",
        fps=grid.rate(source_fps),
        checkpoint="/encoder.safetensors",
        source=f"/{video_id}.mp4",
        source_fps=source_fps,
        duration_seconds=seconds,
        num_frames=round(seconds * source_fps),
        source_size_bytes=1,
        source_mtime_ns=1,
        source_sha256=None,
        start_seconds=times[:, 0].tolist(),
        end_seconds=times[:, 1].tolist(),
        centre_seconds=times.mean(axis=1).tolist(),
    )


def made_features(
    folder: Path,
    seconds_of: Mapping[str, float],
    grid: Grid,
    *,
    segments: Mapping[str, list[tuple[float, float, int]]] | None = None,
    prefix: str = "",
    dim: int = 3,
) -> dict[str, ManifestRow]:
    """Write features of videos: 1 in the place of a class where a window's middle lies in one of its segments, else 0.

    Args:
        folder: to be written.
        seconds_of: id of a video -> its length.
        grid: of the windows.
        segments: id of a video -> start, end and class of its actions.
        prefix: of the files.
        dim: numbers a row.

    """
    folder.mkdir(parents=True)
    rows: dict[str, ManifestRow] = {}
    for video_id, seconds in seconds_of.items():
        row = manifest_row(video_id, seconds=seconds, grid=grid, prefix=prefix, dim=dim)
        centres_T = np.array(row.centre_seconds)
        features_TC = np.zeros((row.rows, dim), np.float32)
        for start, end, number in (segments or {}).get(video_id, []):
            features_TC[(centres_T >= start) & (centres_T < end), number] = 1
        path = folder / row.file
        np.save(path, features_TC)
        rows[row.file] = row.model_copy(update={"size_bytes": path.stat().st_size, "sha256": sha256_of(path)})
    (folder / "manifest.jsonl").write_bytes(b"".join(manifest_line(row, folder) for row in rows.values()))
    return rows


def made_segments(folder: Path, segments: Mapping[str, list[tuple[float, float, str]]], *, dim: int = 3) -> None:
    """Write features of segments: id of a video -> start, end and class; 1 in the place of the class, else 0."""
    classes = sorted({label for of_video in segments.values() for _, _, label in of_video})
    folder.mkdir(parents=True)
    lines = []
    for video_id, of_video in segments.items():
        starts, ends, labels = (list(column) for column in zip(*of_video, strict=True))
        path = folder / f"{video_id}.npy"
        np.save(path, np.eye(dim, dtype=np.float32)[[classes.index(label) for label in labels]])
        row = manifest_row(video_id, seconds=max(ends), grid=Grid(fps=15.0, window=16, stride=16), dim=dim)
        of_segments = {
            "rows": len(of_video),
            "start_seconds": starts,
            "end_seconds": ends,
            "centre_seconds": [(start + end) / 2 for start, end in zip(starts, ends, strict=True)],
            "labels": labels,
            "rows_of": "segments",
            "size_bytes": path.stat().st_size,
            "sha256": sha256_of(path),
        }
        lines.append(manifest_line(row.model_copy(update=of_segments), folder))
    (folder / "manifest.jsonl").write_bytes(b"".join(lines))
