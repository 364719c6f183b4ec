"""`hico extract-features`: a checkpoint and videos -> dense features."""

import json as json_module
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hico_cli.console import progress, raising_on_signals, result, video_reporter, warn
from hico_cli.options import (
    CacheDir,
    CacheSize,
    Device,
    Ids,
    Json,
    RayAddress,
    Readers,
    Recursive,
    Root,
    ShardOf,
    find_videos,
    read_shard,
    read_size,
    require_file_name_part,
)
from hico_cli.outcomes import describe_speed, extraction_fields, report_extraction
from hico_core.choices import Align, DType, IdRule, Layer, OutputFormat, Pool, ReadFrom, Tail, WindowPresetName
from hico_core.corpus.addresses import DEFAULT_ROOT, Location, local_part, locate_root
from hico_core.errors import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hico_core.corpus.workspace import Shard
    from hico_core.transfer.jobs import FeatureJob
    from hico_core.transfer.rehearsal import ExtractionPlan


def extract_features(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Videos, folders, patterns or .txt lists. Default: the videos of ROOT's index."),
    ] = None,
    root: Root = DEFAULT_ROOT,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel="Encoder", help=".safetensors, our .pt or the authors' .pyth. Default: ROOT's newest run."
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(rich_help_panel="Files", help="The folder in ROOT/features. Default: the run's name.")
    ] = None,
    preset: Annotated[
        WindowPresetName,
        typer.Option(
            rich_help_panel="Windows",
            help="Windows as ActivityNet, HACS or THUMOS features have them, or as in pretraining (clip).",
        ),
    ] = "hacs",
    window: Annotated[
        int | None, typer.Option(rich_help_panel="Windows", help="Frames in a window. Default: 16.")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(rich_help_panel="Windows", help="Frames from one window to the next. Default: 16; thumos: 4."),
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(
            metavar="N|native",
            rich_help_panel="Windows",
            help="Frames a second that are looked at; native: the video's own. Default: 15.",
        ),
    ] = None,
    align: Annotated[
        Align,
        typer.Option(
            rich_help_panel="Windows",
            help="The first window begins with the video, or windows lie around the middles of the strides.",
        ),
    ] = "start",
    tail: Annotated[
        Tail,
        typer.Option(
            rich_help_panel="Windows",
            help="A last window that is not full: repeat the last frame, leave it out, or move it back.",
        ),
    ] = "pad",
    file_format: Annotated[
        OutputFormat,
        typer.Option(
            "--format", rich_help_panel="Files", help="hdf5: .npy files, and all of them once more in features.hdf5."
        ),
    ] = "npy",
    dtype: Annotated[
        DType,
        typer.Option(rich_help_panel="Files", help="Precision of the numbers in the files."),
    ] = "float32",
    pool: Annotated[
        Pool,
        typer.Option(rich_help_panel="Encoder", help="Over the encoder's maps; none: [T, 1024, t, h, w]."),
    ] = "avg",
    layer: Annotated[
        Layer,
        typer.Option(
            rich_help_panel="Encoder",
            help="The encoder's 1024 numbers, or the 128 that pretraining compares (needs a .pt or .pyth).",
        ),
    ] = "pooled",
    prefix: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Files", help="Put before each file's id, such as v_ for ActivityNet (preset anet)."
        ),
    ] = None,
    suffix: Annotated[str, typer.Option(rich_help_panel="Files", help="Put after each file's id.")] = "",
    read_from: Annotated[
        ReadFrom | None,
        typer.Option(
            "--from",
            rich_help_panel="Which videos",
            help="What is read of the index's videos: their clips (the default, and smaller), or the files they were "
            "cut from.",
        ),
    ] = None,
    id_rule: Ids = "stem",
    recursive: Recursive = True,
    checksum: Annotated[
        bool,
        typer.Option(
            "--checksum",
            rich_help_panel="Which videos",
            help="Tell sources apart by their bytes, not by size and time.",
        ),
    ] = False,
    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            rich_help_panel="Encoder",
            help="Windows encoded together; auto: what a GPU's memory holds.",
        ),
    ] = None,
    workers: Readers = None,
    nproc: Annotated[
        int,
        typer.Option(
            "--nproc",
            min=1,
            rich_help_panel="Where it runs",
            help="Processes on this machine that share the videos, a GPU each.",
        ),
    ] = 1,
    shard: ShardOf = None,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(rich_help_panel="Where it runs", help="Here, or on a Ray cluster.")
    ] = "local",
    ray_address: RayAddress = None,
    device: Device = "auto",
    cache_dir: CacheDir = None,
    cache_size: CacheSize = "20GB",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell rows, bytes and hours, measured on a few batches; write nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Extract a [T, 1024] array per video: row i is the window that starts i * stride / fps seconds in.

    Writes ROOT/features/NAME/ID.npy and a line a video in manifest.jsonl. Finished videos are left alone. Exit
    code 3: some videos failed; they are listed in ROOT/failures.jsonl.
    """
    from hico_core.corpus.cache import LocalCache
    from hico_core.corpus.failures import forget_mended
    from hico_core.corpus.workspace import Shard
    from hico_core.training.encoder import Meter
    from hico_core.transfer.extraction import Files
    from hico_core.transfer.extraction import extract_features as extract
    from hico_core.transfer.features import FeatureExtractor
    from hico_core.transfer.jobs import features_name, newest_encoder, part_of
    from hico_core.transfer.manifest import pack_into_hdf5, require_hdf5
    from hico_core.transfer.presets import PRESETS

    windows = PRESETS[preset]
    prefix = windows.prefix if prefix is None else prefix
    for option, text in (("--name", name or ""), ("--prefix", prefix), ("--suffix", suffix)):
        require_file_name_part(text, option=option)
    part = Shard(*read_shard(shard)) if shard else None
    packed = file_format == "hdf5"
    if packed:
        require_hdf5()
    if packed and shard:
        raise typer.BadParameter("needs all videos; run the command once more without --shard", param_hint="--format")
    place = locate_root(root)
    checkpoint = checkpoint or newest_encoder(local_part(place))
    folder = place / "features" / (name or features_name(checkpoint))
    jobs = _jobs(inputs, place, id_rule=id_rule, recursive=recursive, read=read_from or "clips")
    if not dry_run:
        forget_mended(place, inputs or [], [job.source for job in jobs], command="extract-features")
    if nproc > 1 and not dry_run:
        shards = (part or Shard(1, 1)).split(nproc)
        total = len(part_of(jobs, part))
        _extract_in_processes(
            context.obj, shards, folder, total=total, root=root, workers=workers, packed=packed, as_json=json
        )
        return
    extractor = FeatureExtractor.from_checkpoint(
        checkpoint,
        window=windows.window if window is None else window,
        stride=windows.stride if stride is None else stride,
        fps=windows.fps if fps is None else _read_fps(fps),
        align=align,
        tail=tail,
        pool=pool,
        layer=layer,
        device=device,
        batch_size=_read_batch_size(batch_size),
    )
    cache = LocalCache(cache_dir, size_bytes=read_size(cache_size))
    files = Files(prefix, suffix, "npy" if file_format == "hdf5" else file_format, dtype)
    if dry_run:
        from hico_core.transfer.rehearsal import rehearse_extraction

        _report_plan(rehearse_extraction(jobs, extractor=extractor, cache=cache, files=files, workers=workers), json)
        return
    if read_from is None and any(job.source.clips for job in jobs) and (part is None or part.number == 1):
        warn("reading the clips that the index names; --from sources reads the videos that they were cut from")
    meter = Meter()
    with (
        raising_on_signals("stopped; the same command goes on"),
        progress("features", total=len(part_of(jobs, part)), as_json=json) as report,
    ):
        summary = extract(
            jobs,
            extractor=extractor,
            root=place,
            folder=folder,
            cache=cache,
            files=files,
            checksum=checksum,
            workers=workers,
            shard=part,
            ray_address=None if engine == "local" else ray_address or os.environ.get("RAY_ADDRESS") or "local",
            meter=meter,
            on_event=video_reporter(report, done="extracted", part="row", more=lambda: describe_speed(meter)),
        )
        if packed:
            pack_into_hdf5(folder)
    _report(extraction_fields(summary, meter), folder, root=root, as_json=json)


def _jobs(
    inputs: "Sequence[str] | None",
    place: "Location",
    *,
    id_rule: IdRule,
    recursive: bool,
    read: "ReadFrom",
) -> "list[FeatureJob]":
    from hico_core.corpus.index import read_index_table
    from hico_core.data.videos import COLUMNS, IndexedVideos
    from hico_core.transfer.jobs import jobs_of_files, jobs_of_index

    if inputs:
        return jobs_of_files(find_videos(inputs, id_rule=id_rule, recursive=recursive))
    return jobs_of_index(IndexedVideos(read_index_table(place, columns=COLUMNS), root=place), read=read)


def _extract_in_processes(
    typed: "Sequence[str]",
    shards: "list[Shard]",
    folder: "Location",
    *,
    total: int,
    root: str,
    workers: int | None,
    packed: bool,
    as_json: bool,
) -> None:
    """Run this command, as `typed`, once a process, each with a shard of the videos; tell what became of all."""
    from hico_core.corpus.engine import available_cores
    from hico_core.training.launch import with_options, without_options
    from hico_core.transfer.local_shards import run_shards
    from hico_core.transfer.manifest import pack_into_hdf5

    # hdf5 stands for .npy files, which are packed once all are there.
    arguments = without_options(typed, ["--nproc", "--shard", *(["--format"] if packed else [])])
    if workers is None:
        arguments = with_options(arguments, ["--workers", str(max(available_cores() // len(shards), 1))])
    num_done = 0
    with (
        raising_on_signals("stopped; the same command goes on"),
        progress("features", total=total, as_json=as_json) as report,
    ):

        def on_line(line: str) -> None:
            nonlocal num_done
            if line.startswith("{"):
                event = json_module.loads(line)
                num_done += 1
                text = f"{num_done}/{total} {event['video']}: {event['outcome']}, {event['rows']} rows"
                report(num_done, text, event)
            else:
                print(line, file=sys.stderr, flush=True)

        results = run_shards(arguments, shards=shards, on_line=on_line)
        failed = [one.exit_code for one in results if not one.fields]
        if failed:
            raise typer.Exit(max(failed))
        if packed:
            pack_into_hdf5(folder)
    names = ("num_extracted", "num_unchanged", "num_failed", "num_rows", "rows_per_second")
    fields: dict[str, Any] = {name: sum(one.fields[name] for one in results) for name in names}
    fields["waiting"] = sum(one.fields["waiting"] for one in results) / len(results)
    _report(fields, folder, root=root, as_json=as_json)


def _report(fields: dict[str, Any], folder: "Location", *, root: str, as_json: bool) -> None:
    report_extraction(fields, folder, root=root, as_json=as_json)
    if fields["num_failed"]:
        raise typer.Exit(3)


def _report_plan(plan: "ExtractionPlan", as_json: bool) -> None:
    text = (
        f"{counted(plan.num_videos, 'video')}, about {plan.num_rows} rows, {plan.num_bytes / 1e9:.3f} GB, "
        f"{plan.hours:.2f} hours at {plan.rows_per_second:.1f} rows/s (reading a window "
        f"{plan.reading_seconds * 1e3:.1f} ms in one process, encoding it "
        f"{plan.encoding_seconds * 1e3:.1f} ms); nothing was written"
    )
    if plan.num_unknown:
        text += f"; {plan.num_unknown} videos whose length is not known are left out"
    result(text, plan._asdict(), as_json=as_json)


def _read_fps(text: str) -> float | None:
    if text == "native":
        return None
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no rate; write a number or native", param_hint="--fps") from None


def _read_batch_size(text: str | None) -> "int | Literal['auto'] | None":
    if text is None or text == "auto":
        return text  # type: ignore[return-value]
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is no number of windows; write one, or auto", param_hint="--batch-size")
    return int(text)
