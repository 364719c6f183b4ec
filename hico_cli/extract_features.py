"""`hico extract-features`: a checkpoint and videos -> dense features."""

from pathlib import Path
from typing import Annotated

import typer

from hico_cli.console import complain, progress, raising_on_signals, result
from hico_cli.options import (
    DEFAULT_ROOT,
    CacheDir,
    CacheSize,
    Device,
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
    from hico_core.transfer.features import FeatureEvent, FeatureExtractor, FeatureJob, indexed_jobs
    from hico_core.transfer.features import extract_features as extract

    for option, text in (("--name", name or ""), ("--prefix", prefix), ("--suffix", suffix)):
        require_file_name_part(text, option=option)
    place = locate(root)
    require_reachable(place)
    checkpoint = checkpoint or newest_encoder(local_part(place))
    if inputs:
        jobs = [FeatureJob(source.video_id, str(source.path), []) for source in find_sources(inputs)]
    else:
        jobs = indexed_jobs(IndexedVideos(read_index_table(place, columns=COLUMNS), root=place))
    extractor = FeatureExtractor.from_checkpoint(checkpoint, window=window, stride=stride, fps=fps, device=device)
    folder = local_part(place) / "features" / (name or _run_name(checkpoint))
    with (
        raising_on_signals("stopped; the same command goes on"),
        progress("features", total=len(jobs), as_json=json) as report,
    ):

        def on_event(event: FeatureEvent) -> None:
            if event.outcome == "failed":
                complain(event.reason)
            count = f"{event.num_done}/{event.num_videos}"
            fields = {"video": event.video_id, "outcome": event.outcome, "rows": event.num_rows}
            report(event.num_done, f"{count} {event.video_id}: {event.outcome}, {event.num_rows} rows", fields)

        summary = extract(
            jobs,
            extractor=extractor,
            checkpoint=checkpoint,
            root=place,
            folder=folder,
            cache=LocalCache(cache_dir or default_cache_folder(), size_bytes=read_size(cache_size)),
            prefix=prefix,
            suffix=suffix,
            on_event=on_event,
        )
    text = (
        f"{summary.num_extracted} videos extracted, {summary.num_unchanged} unchanged, {summary.num_failed} failed; "
        f"the features are in {folder}"
    )
    result(text, {**summary._asdict(), "manifest": str(summary.manifest)}, as_json=json)
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
