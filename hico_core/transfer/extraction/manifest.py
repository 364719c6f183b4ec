"""A folder of features: its manifest, checks of the files against it, and the features as one table."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ValidationError

from hico_core.base.addresses import Location, name_from, place_named, workspace_of
from hico_core.base.choices import Align, DType, FileFormat, Layer, Pool, ReadFrom, Tail
from hico_core.base.errors import HicoError, counted, require_package, short_reason
from hico_core.base.files import json_line, read_json_lines
from hico_core.base.storage import fetched, write_text, written_beside
from hico_core.checkpoints.frozen import DEFAULT, RANDOM, encoder_text
from hico_core.corpus.workspace.records import SourceFile, sha256_of
from hico_core.encoding.windows import Grid
from hico_core.transfer.extraction.feature_files import read_array

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "manifest.jsonl"
MANIFESTS = "manifest*.jsonl"  # including those of shards in a bucket
HDF5 = "features.hdf5"
VERSION: Literal[2] = 2

# Stands for the encoder if features come from another tool.
ADOPTED = "adopted"


class Settings(BaseModel, frozen=True, extra="forbid"):
    """The settings that all features of a folder share."""

    manifest_version: Literal[2] = VERSION
    window: int
    stride: int
    native_fps: bool  # the grid uses each video's own average frame rate
    align: Align
    tail: Tail
    pool: Pool
    layer: Layer
    dtype: DType
    encoder: str | None = None  # its name in the table; None: `checkpoint` is a file of hico or the authors
    checkpoint_sha256: str  # of the weights
    picture: dict[str, Any]
    precision: str
    rows_of: Literal["windows", "segments"] = "windows"
    per_segment: int | None = None  # number of windows spread over a segment; None: those of the grid


class ManifestRow(Settings, frozen=True, extra="forbid"):
    """A line of manifest.jsonl, for one video's file. Times are in seconds from the video's first frame.

    In the file, `checkpoint` and `source` are relative to the workspace if they lie in it.
    """

    video_id: str
    file: str  # [prefix]<video_id>[suffix].<file_format>
    prefix: str
    suffix: str
    file_format: FileFormat
    rows: int
    dim: int  # numbers per row
    shape: list[int]  # of a row
    size_bytes: int  # of the file
    sha256: str
    fps: float  # of the grid
    checkpoint: str  # a file of weights, DEFAULT or random; "": the encoder has none, or includes its own
    source: str
    source_fps: float  # average
    duration_seconds: float
    num_frames: int  # of the source
    source_size_bytes: int
    source_mtime_ns: int
    source_sha256: str | None
    read_from: ReadFrom | None = None  # the clips of an index, or the source itself
    start_seconds: list[float]
    end_seconds: list[float]
    centre_seconds: list[float]
    labels: list[str] | None = None  # of the rows, if they are segments

    @property
    def encoder_text(self) -> str:
        """The name by which `load_frozen` finds the encoder."""
        return encoder_text(self.encoder, self.checkpoint)

    @property
    def grid(self) -> Grid:
        """Where the video's windows lie."""
        return Grid(fps=self.fps, window=self.window, stride=self.stride, align=self.align, tail=self.tail)

    @property
    def source_file(self) -> SourceFile:
        """The file that was read."""
        return SourceFile(
            path=self.source,
            size_bytes=self.source_size_bytes,
            mtime_ns=self.source_mtime_ns,
            sha256=self.source_sha256,
        )


def read_manifest(folder: Location) -> dict[str, ManifestRow]:
    """File name -> row; for duplicates, the later line counts. Incomplete lines are ignored.

    Shards that write into a bucket have one manifest each; these are read as one.

    Raises:
        HicoError: a line is of another version, or malformed.

    """
    rows: dict[str, ManifestRow] = {}
    shards: list[Location] = sorted(folder.glob("manifest-*.jsonl"), key=str)
    for path in [folder / MANIFEST, *shards]:
        for fields in read_json_lines(path).rows:
            row = _row(fields, path)
            rows[row.file] = row
    workspace = workspace_of(folder)
    return rows if workspace is None else {name: _with_paths(row, workspace, place_named) for name, row in rows.items()}


def manifest_line(row: ManifestRow, folder: Location) -> bytes:
    """A row as a line of a folder's manifest."""
    workspace = workspace_of(folder)
    written = row if workspace is None else _with_paths(row, workspace, name_from)
    return json_line(written.model_dump())


def drop_lines(folder: Location, video_ids: Collection[str]) -> None:
    """Rewrite the manifests of a folder without the lines of some videos; delete a manifest that becomes empty."""
    paths: list[Location] = list(folder.glob(MANIFESTS))
    for path in paths:
        rows = read_json_lines(path).rows
        kept = [row for row in rows if row.get("video_id") not in video_ids]
        if not kept:
            path.unlink()
        elif len(kept) < len(rows):
            write_text(path, b"".join(map(json_line, kept)).decode())


def _with_paths(row: ManifestRow, workspace: Location, named: Callable[[Location, str], str]) -> ManifestRow:
    paths = {"checkpoint": row.checkpoint, "source": row.source}
    places = {key: named(workspace, path) for key, path in paths.items() if path not in (DEFAULT, RANDOM)}
    return row.model_copy(update=places)


def _row(fields: dict[str, Any], path: Location) -> ManifestRow:
    if fields.get("manifest_version") != VERSION:
        raise HicoError(
            f"{path}: was written by another version of hico (manifest version "
            f"{fields.get('manifest_version', 1)}, not {VERSION}); extract again with another --name"
        )
    try:
        row = ManifestRow.model_validate(fields)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise HicoError(f"{path}: has a damaged line ({where}); extract again with another --name") from None
    if Path(row.file).name != row.file or not row.file.startswith(row.prefix):
        raise HicoError(f"{path}: {row.file!r} is not the name of a file in this folder")
    return row


def require_features(folder: Location) -> dict[str, ManifestRow]:
    """The manifest of a folder, which must have features.

    Raises:
        HicoError: it has no features, or features of several encoders or frame rates.

    """
    rows = read_manifest(folder)
    if not rows:
        raise HicoError(f"{folder}: no features here (no {MANIFEST}); run `hico extract-features`")
    first = next(iter(rows.values()))
    for row in rows.values():
        if _origin(row) != _origin(first):
            raise HicoError(
                f"{folder}: {first.file} and {row.file} come from different encoders or frame rates; extract again "
                "with another --name"
            )
    return rows


def _origin(row: ManifestRow) -> tuple[object, ...]:
    """What features that are used together must have in common."""
    return row.encoder, row.checkpoint_sha256, row.shape, None if row.native_fps else row.fps


def features_of(folder: Location, row: ManifestRow) -> np.ndarray:
    """Read a video's features: (T, ...), checked against the manifest's shape.

    Raises:
        HicoError: the file is missing, damaged, replaced, or has values that are not finite.

    """
    path = folder / row.file
    with ExitStack() as stack:
        try:
            local = stack.enter_context(fetched(path))
        except OSError as error:
            raise HicoError(
                f"cannot be read ({short_reason(error)}); run `hico extract-features` again", subject=path
            ) from error
        array = read_array(local)
    if array.shape[:1] != (row.rows,) or array.size != row.rows * row.dim or array.dtype != row.dtype:
        raise HicoError(
            f"contains {array.dtype} {array.shape}, not {row.dtype} {(row.rows, *row.shape)} as its manifest says; run "
            "`hico extract-features` again",
            subject=path,
        )
    if not np.isfinite(array).all():
        raise HicoError("has values that are not finite (NaN or infinite); its encoder or file is broken", subject=path)
    return array


def require_hdf5() -> None:
    """Check that HDF5 can be written, before any work is done.

    Raises:
        UsageError: the package is missing.

    """
    require_package("h5py", extra="hdf5", wanted_by="--format hdf5")


def pack_into_hdf5(folder: Location, rows: Mapping[str, ManifestRow] | None = None) -> None:
    """Write features.hdf5 as ActionFormer reads it: one dataset per video, named like its file without the extension.

    Args:
        folder: with features.
        rows: file name -> row, for the videos to include; None: all.

    """
    import h5py

    rows = require_features(folder) if rows is None else rows
    with written_beside(folder / HDF5) as beside, h5py.File(beside, "w") as packed:
        for name, row in sorted(rows.items()):
            packed.create_dataset(name.removesuffix(f".{row.file_format}"), data=features_of(folder, row))


class FeatureTable(NamedTuple):
    """Features of many videos as one array, with a table that describes each row."""

    array: np.ndarray  # (N, F)
    rows: "pd.DataFrame"  # N rows: video_id, start_seconds, end_seconds, centre_seconds; labels, if rows are segments


def load_features(folder: Path | str, *, video_ids: Sequence[str] | None = None) -> FeatureTable:
    """Load all features of a folder, or those of some videos, in order of the ids.

    Args:
        folder: ROOT/features/NAME.
        video_ids: the videos; None: all.

    Raises:
        HicoError: a video has no features here, or a file does not match the manifest.

    """
    import pandas as pd  # slow, and nothing else here needs it

    by_id = {row.video_id: row for row in require_features(Path(folder)).values()}
    wanted = sorted(by_id) if video_ids is None else list(video_ids)
    missing = [video_id for video_id in wanted if video_id not in by_id]
    if missing:
        raise HicoError(f"{folder}: has no features of {counted(len(missing), 'video')}, such as {missing[0]!r}")
    chosen = [by_id[video_id] for video_id in wanted]
    arrays = [features_of(Path(folder), row).reshape(row.rows, -1) for row in chosen]
    columns = ["video_id", "start_seconds", "end_seconds", "centre_seconds"]
    columns += ["labels"] * (chosen[0].labels is not None)
    times = [pd.DataFrame({column: getattr(row, column) for column in columns}) for row in chosen]
    return FeatureTable(np.concatenate(arrays), pd.concat(times, ignore_index=True))


def check_features(folder: Path) -> Iterator[tuple[str, str]]:
    """Compare every file of a folder with its manifest; yield each file that differs, and why."""
    rows = require_features(folder)
    for name, row in sorted(rows.items()):
        problem = _problem_with(folder, row)
        if problem:
            yield name, problem
    suffixes = {f".{row.file_format}" for row in rows.values()}
    for path in sorted(folder.iterdir()):
        if path.suffix in suffixes and path.name not in rows and not path.name.startswith("."):
            yield path.name, "is not in the manifest"


def _problem_with(folder: Path, row: ManifestRow) -> str | None:
    path = folder / row.file
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != row.size_bytes:
        return f"has {path.stat().st_size} bytes, not {row.size_bytes}"
    if sha256_of(path) != row.sha256:
        return "has changed since it was written"
    try:
        features_of(folder, row)
    except HicoError as error:
        return error.reason
    return None
