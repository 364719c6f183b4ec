"""`hico extract-features`: a checkpoint and videos -> dense features."""

from pathlib import Path
from typing import Annotated

import typer

from hico_cli.console import complain, progress, raising_on_signals, result, telling
from hico_cli.options import (
    DEFAULT_ROOT,
    CacheDir,
    CacheSize,
    Device,
    Ids,
    Json,
    Root,
    local_part,
    read_size,
    require_file_name_part,
)
from hico_core.errors import HicoError


def extract_features(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Videos, folders, patterns or .txt lists. Default: the videos of ROOT's index."),
    ] = None,
    root: Root = DEFAULT_ROOT,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help=".safetensors, our .pt or the authors' .pyth. Default: ROOT's newest run."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the folder in ROOT/features. Default: the run's.")] = None,
    window: Annotated[int, typer.Option(help="Frames in a window.")] = 16,
    stride: Annotated[int, typer.Option(help="Frames from one window to the next.")] = 16,
    fps: Annotated[float, typer.Option(help="Frames a second that are looked at.")] = 15.0,
    prefix: Annotated[str, typer.Option(help="Put before each file's id, such as v_ for ActivityNet.")] = "",
    suffix: Annotated[str, typer.Option(help="Put after each file's id.")] = "",
    id_rule: Ids = "stem",
    checksum: Annotated[
        bool, typer.Option("--checksum", help="Tell sources apart by their bytes, not by size and time.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read. Default: one a core, at most 8.")
    ] = None,
    device: Device = "auto",
    cache_dir: CacheDir = None,
    cache_size: CacheSize = "20GB",
    json: Json = False,
) -> None:
    """Extract a [T, 1024] float32 array per video: row i is the window that starts i * stride / fps seconds in.

    Writes ROOT/features/NAME/<id>.npy and a line a video in manifest.jsonl. Finished videos are left alone. Exit
    code 3: some videos failed; they are listed in ROOT/failures.jsonl.
    """
    from hico_core.corpus.addresses import locate, require_reachable
    from hico_core.corpus.cache import LocalCache, default_cache_folder
    from hico_core.corpus.ids import find_sources
    from hico_core.corpus.index import read_index_table
    from hico_core.data.videos import COLUMNS, IndexedVideos
    from hico_core.transfer.features import FeatureExtractor, jobs_of_files, jobs_of_index
    from hico_core.transfer.features import extract_features as extract

    for option, text in (("--name", name or ""), ("--prefix", prefix), ("--suffix", suffix)):
        require_file_name_part(text, option=option)
    place = locate(root)
    require_reachable(place)
    checkpoint = checkpoint or newest_encoder(local_part(place))
    if inputs:
        jobs = jobs_of_files(find_sources(inputs, id_rule=id_rule))
    else:
        jobs = jobs_of_index(IndexedVideos(read_index_table(place, columns=COLUMNS), root=place))
    extractor = FeatureExtractor.from_checkpoint(checkpoint, window=window, stride=stride, fps=fps, device=device)
    folder = local_part(place) / "features" / (name or _run_name(checkpoint))
    with (
        raising_on_signals("stopped; the same command goes on"),
        progress("features", total=len(jobs), as_json=json) as report,
    ):
        summary = extract(
            jobs,
            extractor=extractor,
            checkpoint=checkpoint,
            root=place,
            folder=folder,
            cache=LocalCache(cache_dir or default_cache_folder(), size_bytes=read_size(cache_size)),
            prefix=prefix,
            suffix=suffix,
            checksum=checksum,
            workers=workers,
            on_event=telling(report, done="extracted", parts="rows"),
        )
    text = (
        f"{summary.num_done} videos extracted, {summary.num_unchanged} unchanged, {summary.num_failed} failed; "
        f"the features are in {folder}"
    )
    fields = {
        "num_extracted": summary.num_done,
        "num_unchanged": summary.num_unchanged,
        "num_failed": summary.num_failed,
        "num_rows": summary.num_parts,
        "manifest": str(folder / "manifest.jsonl"),
    }
    result(text, fields, as_json=json)
    if summary.num_failed:
        complain(f"{summary.num_failed} videos failed: {root}/failures.jsonl")
        raise typer.Exit(3)


def newest_encoder(root: Path) -> Path:
    """The export that was written last among the runs of a workspace.

    Raises:
        HicoError: there is none.

    """
    exports = list((root / "runs").glob("*/export/encoder.safetensors"))
    if not exports:
        raise HicoError(f"{root / 'runs'}: no run has exported an encoder; run `hico pretrain`, or give --checkpoint")
    return max(exports, key=lambda path: path.stat().st_mtime)


def _run_name(checkpoint: Path) -> str:
    """hico-data/runs/hacs-hico-s/export/encoder.safetensors -> hacs-hico-s; of another file, its stem."""
    if checkpoint.parent.name in {"export", "checkpoints"}:
        return checkpoint.absolute().parents[1].name
    return checkpoint.stem
