"""`hico features show|check|adopt`: inspect a folder of features, or make one from another tool's features."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import print_table, result, warn
from hico_cli.options import Json, Root
from hico_cli.outcomes import describe_measurement
from hico_core.base.addresses import DEFAULT_ROOT, local_part, locate
from hico_core.base.choices import Align
from hico_core.base.errors import HicoError, counted

if TYPE_CHECKING:
    from hico_core.transfer.extraction.manifest import ManifestRow

features = typer.Typer(no_args_is_help=True, help="Show and check extracted features, or adopt those of other tools.")

FeaturesName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="A folder in ROOT/features, or a path. Default: the newest."),
]


def feature_folder(name: str | None, root: str) -> Path:
    """The folder for a name: below ROOT/features, or a path; without a name, the newest folder there.

    Raises:
        HicoError: there is no such folder.

    """
    from hico_core.transfer.extraction.manifest import MANIFEST

    base = local_part(locate(root)) / "features"
    if name is not None:
        return base / name if (base / name).is_dir() or not Path(name).is_dir() else Path(name)
    manifests = list(base.glob(f"*/{MANIFEST}"))
    if not manifests:
        raise HicoError(f"{base}: no features here; run `hico extract-features`, or name a folder of features")
    newest = max(manifests, key=lambda path: path.stat().st_mtime).parent
    if len(manifests) > 1:
        warn(f"using {newest}, the newest of {len(manifests)} folders of features")
    return newest


@features.command("show")
def show(name: FeaturesName = None, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Show the contents of a folder of features: one row per video, and their common settings."""
    from hico_core.transfer.extraction.manifest import require_features

    folder = feature_folder(name, root)
    rows = sorted(require_features(folder).values(), key=lambda row: row.file)
    fields = {
        "folder": str(folder),
        **_common(rows[0]),
        "num_videos": len(rows),
        "num_rows": sum(row.rows for row in rows),
    }
    num_bytes, hours = sum(row.size_bytes for row in rows), sum(row.duration_seconds for row in rows) / 3600
    if json:
        videos = [{"file": row.file, "rows": row.rows, "seconds": row.duration_seconds} for row in rows]
        result("", {**fields, "hours": hours, "gigabytes": num_bytes / 1e9, "videos": videos}, as_json=True)
        return
    from rich.table import Column, Table

    table = Table(Column("file", overflow="fold"), "rows", "numbers per row", "seconds", "frames per second")
    for row in rows:
        table.add_row(row.file, str(row.rows), str(row.dim), f"{row.duration_seconds:.1f}", f"{row.fps:g}")
    print_table(table)
    fields |= {"video_hours": hours, "features_bytes": num_bytes}
    lines = [describe_measurement(key, value) for key, value in fields.items() if value is not None]
    result("\n".join(lines), {}, as_json=False)


def _common(row: "ManifestRow") -> dict[str, object]:
    names = ("window", "stride", "native_fps", "align", "tail", "pool", "layer", "dtype", "precision")
    return {**{name: getattr(row, name) for name in names}, "encoder": _encoder(row), "checkpoint": row.checkpoint}


def _encoder(row: "ManifestRow") -> str | None:
    """The encoder of the features, such as "s3dg, run hacs-hico-s"; None if its file is gone or another one now."""
    from hico_core.checkpoints.frozen import EXPORTED, run_or_stem
    from hico_core.checkpoints.reading import model_of, read_checkpoint

    file = Path(row.checkpoint)
    if row.encoder is not None or not file.exists():
        return row.encoder
    if file.suffix == EXPORTED:  # a program, which is not opened for its name
        return file.stem
    try:
        return f"{model_of(read_checkpoint(file)).encoder}, run {run_or_stem(file)}"
    except HicoError:
        return None


@features.command("check")
def check(name: FeaturesName = None, root: Root = DEFAULT_ROOT, json: Json = False) -> None:
    """Compare every file with the manifest: size, SHA-256, shape, numbers. Exit code 3: a file differs."""
    from hico_core.transfer.extraction.manifest import check_features, require_features

    folder = feature_folder(name, root)
    problems = list(check_features(folder))
    for file, problem in problems:
        warn(f"{folder / file}: {problem}")
    count = len(require_features(folder))
    result(
        f"{folder}: {counted(count, 'file')} in the manifest, {counted(len(problems), 'problem')}",
        {"folder": str(folder), "num_files": count, "problems": dict(problems)},
        as_json=json,
    )
    if problems:
        raise typer.Exit(3)


@features.command("adopt")
def adopt(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of ID.npy files, each with an array [T, F].")],
    fps: Annotated[float, typer.Option(help="Frame rate at which the tool sampled the videos.")],
    window: Annotated[int, typer.Option(help="Frames per window.")],
    stride: Annotated[int, typer.Option(help="Frames from one window to the next.")],
    align: Annotated[
        Align,
        typer.Option(
            help="start: the first window begins with the video; center: each window is centred on its stride."
        ),
    ] = "start",
    prefix: Annotated[str, typer.Option(help="Prefix of each file name, such as v_.")] = "",
    json: Json = False,
) -> None:
    """Write a manifest for features from another tool, so that they can be probed, searched and exported."""
    from hico_core.encoding.windows import Grid
    from hico_core.transfer.extraction.adoption import adopt_features

    rows = adopt_features(folder, Grid(fps=fps, window=window, stride=stride, align=align), prefix=prefix)
    count = sum(row.rows for row in rows)
    text = f"{folder}: {counted(len(rows), 'video')}, {counted(count, 'row')} of {rows[0].dim} numbers"
    result(text, {"folder": str(folder), "num_videos": len(rows), "num_rows": count, "dim": rows[0].dim}, as_json=json)
