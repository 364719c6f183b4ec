"""`hico extract-features`: a checkpoint and videos -> dense features."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hico_cli.console import progress, raising_on_signals, result, video_reporter, warn
from hico_cli.options import (
    CacheDir,
    CacheSize,
    Device,
    Encoder,
    FrameRate,
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
    refuse_unused,
    require_file_name_part,
)
from hico_cli.outcomes import describe_speed, extraction_fields, report_extraction
from hico_core.base.addresses import DEFAULT_ROOT, local_part, locate_root
from hico_core.base.cache import local_cache
from hico_core.base.choices import Align, DType, Layer, OutputFormat, Pool, ReadFrom, Tail, WindowPresetName
from hico_core.base.errors import counted

if TYPE_CHECKING:
    from hico_core.transfer.extraction.dry_run import ExtractionPlan


def extract_features(
    context: typer.Context,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Videos, folders, patterns or .txt lists. Default: all videos in the index."),
    ] = None,
    root: Root = DEFAULT_ROOT,
    encoder: Encoder = None,
    name: Annotated[
        str | None,
        typer.Option(rich_help_panel="Files", help="Name of the folder in ROOT/features. Default: the run's name."),
    ] = None,
    preset: Annotated[
        WindowPresetName | None,
        typer.Option(
            rich_help_panel="Windows",
            help="Windows of the usual ActivityNet, HACS or THUMOS features, or of pretraining (clip). Default: hacs; "
            "for public encoders, the windows that they were trained on.",
        ),
    ] = None,
    window: Annotated[int | None, typer.Option(rich_help_panel="Windows", help="Frames per window; hacs: 16.")] = None,
    stride: Annotated[
        int | None,
        typer.Option(rich_help_panel="Windows", help="Frames from one window to the next; hacs: 16, thumos: 4."),
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(
            metavar="N|native",
            rich_help_panel="Windows",
            help="Frame rate at which the video is sampled; native: its own; hacs: 15.",
        ),
    ] = None,
    align: Annotated[
        Align,
        typer.Option(
            rich_help_panel="Windows",
            help="start: the first window begins with the video; center: each window is centred on its stride.",
        ),
    ] = "start",
    tail: Annotated[
        Tail,
        typer.Option(
            rich_help_panel="Windows",
            help="For an incomplete last window: repeat the last frame, drop the window, or shift it back.",
        ),
    ] = "pad",
    file_format: Annotated[
        OutputFormat,
        typer.Option(
            "--format",
            rich_help_panel="Files",
            help="File format; hdf5 writes features.hdf5 in addition to the .npy files.",
        ),
    ] = "npy",
    dtype: Annotated[
        DType,
        typer.Option(rich_help_panel="Files", help="Data type of the stored numbers."),
    ] = "float32",
    pool: Annotated[
        Pool,
        typer.Option(rich_help_panel="Encoder", help="Pooling over the encoder's feature maps; none: [T, F, t, h, w]."),
    ] = "avg",
    layer: Annotated[
        Layer,
        typer.Option(
            rich_help_panel="Encoder",
            help="pooled: the encoder's features; projection: the 128 numbers that pretraining compares (needs a "
            ".pt or .pyth file).",
        ),
    ] = "pooled",
    prefix: Annotated[
        str | None,
        typer.Option(
            rich_help_panel="Files", help="Prefix of each file name, such as v_ for ActivityNet (preset anet)."
        ),
    ] = None,
    read_from: Annotated[
        ReadFrom | None,
        typer.Option(
            "--from",
            rich_help_panel="Which videos",
            help="Read the clips in the index (default; smaller), or the original videos.",
        ),
    ] = None,
    id_rule: Ids = "stem",
    recursive: Recursive = True,
    frame_rate: FrameRate = None,
    segments: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel="Segments",
            help="Annotated segments: a .csv or .jsonl of video, start, end, label, or ActivityNet's .json. Write one "
            "row per segment, the mean of its windows, instead of one row per window.",
        ),
    ] = None,
    per_segment: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel="Segments",
            help="Use N windows spread over each segment, instead of one per stride.",
        ),
    ] = None,
    checksum: Annotated[
        bool,
        typer.Option(
            "--checksum",
            rich_help_panel="Which videos",
            help="Detect changed sources by SHA-256 instead of size and modification time.",
        ),
    ] = False,
    batch_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            rich_help_panel="Encoder",
            help="Windows encoded together; auto: as many as fit into the GPU's memory.",
        ),
    ] = None,
    workers: Readers = None,
    nproc: Annotated[
        int,
        typer.Option(
            "--nproc",
            min=1,
            rich_help_panel="Where it runs",
            help="Processes on this machine that share the videos, one per GPU.",
        ),
    ] = 1,
    shard: ShardOf = None,
    ray_address: RayAddress = None,
    device: Device = "auto",
    cache_dir: CacheDir = None,
    cache_size: CacheSize = "20GB",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Estimate rows, bytes and hours from a few batches; write nothing."),
    ] = False,
    json: Json = False,
) -> None:
    """Extract features: one array per video, [T, 1024] with S3D-G; row i starts at i * stride / fps seconds.

    With --segments, row i is the mean of the windows of the video's i-th segment.
    Writes ROOT/features/NAME/ID.npy and one line per video in manifest.jsonl. Finished videos are skipped. Exit
    code 3: some videos failed; they are listed in ROOT/failures.jsonl.
    """
    from hico_core.base.failures import forget_mended
    from hico_core.checkpoints.frozen import load_frozen
    from hico_core.corpus.workspace.access import Shard
    from hico_core.encoding.encoder import Meter
    from hico_core.encoding.windows import Grid
    from hico_core.transfer.extraction.extract import ExtractionPolicy, Files
    from hico_core.transfer.extraction.extract import extract_features as extract
    from hico_core.transfer.extraction.jobs import encoder_named, features_folder, jobs_of, part_of
    from hico_core.transfer.extraction.presets import windows_of
    from hico_core.transfer.extraction.segments import jobs_of_segments
    from hico_core.transfer.features import FeatureExtractor

    for option, text in (("--name", name), ("--prefix", prefix or None)):
        require_file_name_part(text, option=option)
    if inputs:
        refuse_unused(context, "read_from", why="is for the videos of the index; leave out INPUTS, or this")
    else:
        refuse_unused(context, "id_rule", "recursive", "frame_rate", why="needs INPUTS; the index has these already")
    if segments is None:
        refuse_unused(context, "per_segment", why="needs --segments FILE")
    place, rate, batch = locate_root(root), _read_fps(fps), _read_batch_size(batch_size)
    cache = local_cache(cache_dir, read_size(cache_size))
    policy = ExtractionPolicy(
        checksum=checksum,
        workers=workers,
        processes=nproc,
        shard=Shard(*read_shard(shard)) if shard else None,
        ray_address=ray_address,
    )
    frozen = load_frozen(encoder_named(encoder, local_part(place), warn), warn=warn)
    windows = windows_of(preset, frozen, window=window, stride=stride, fps=rate, prefix=prefix)
    grid = Grid(fps=windows.fps, window=windows.window, stride=windows.stride, align=align, tail=tail)
    extractor = FeatureExtractor.from_encoder(
        frozen, grid=grid, pool=pool, layer=layer, device=device, batch_size=batch
    )
    sources = find_videos(inputs, id_rule=id_rule, recursive=recursive, frame_rate=frame_rate) if inputs else None
    jobs = jobs_of(sources, place, read=read_from or "clips", cache=cache)
    if segments is not None:
        jobs, remarks = jobs_of_segments(jobs, segments, num_windows=per_segment)
        for remark in remarks:
            warn(f"{segments}: {remark}")
    folder = features_folder(place, extractor, name or (f"{frozen.folder_name}-segments" if segments else None))
    files = Files(folder, windows.prefix, file_format, dtype)
    if dry_run:
        from hico_core.transfer.extraction.dry_run import dry_run_extraction

        plan = dry_run_extraction(part_of(jobs, policy.shard), extractor=extractor, files=files, workers=workers)
        _report_estimate(plan, json)
        return
    forget_mended(place, inputs or [], [job.source for job in jobs], command="extract-features")
    if read_from is None and any(job.source.clips for job in jobs) and (not policy.shard or policy.shard.number == 1):
        warn("reading the 5 s clips; to read the original videos: --from sources")
    meter = Meter()
    with (
        raising_on_signals("stopped; the same command continues"),
        progress("features", total=len(part_of(jobs, policy.shard)), as_json=json) as report,
    ):
        summary = extract(
            jobs,
            encoder=extractor,
            root=place,
            files=files,
            policy=policy,
            meter=meter,
            on_event=video_reporter(report, done="extracted", part="row", more=lambda: describe_speed(meter)),
        )
    report_extraction(extraction_fields(summary, meter), folder, root=root, as_json=json)
    if summary.num_failed:
        raise typer.Exit(3)


def _report_estimate(plan: "ExtractionPlan", as_json: bool) -> None:
    text = (
        f"{counted(plan.num_videos, 'video')}, about {plan.num_rows} rows, {plan.num_bytes / 1e9:.3f} GB, "
        f"{plan.hours:.2f} hours at {plan.rows_per_second:.1f} rows/s (reading a window "
        f"{plan.reading_seconds * 1e3:.1f} ms in one process, encoding it "
        f"{plan.encoding_seconds * 1e3:.1f} ms); nothing was written"
    )
    if plan.num_unknown:
        text += f"; left out {counted(plan.num_unknown, 'video')} of unknown length"
    result(text, asdict(plan), as_json=as_json)


def _read_fps(text: str | None) -> float | Literal["native"] | None:
    if text is None or text == "native":
        return text  # type: ignore[return-value]
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a frame rate; use a number or native", param_hint="--fps") from None


def _read_batch_size(text: str | None) -> "int | Literal['auto'] | None":
    if text is None or text == "auto":
        return text  # type: ignore[return-value]
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is not a number of windows; use one, or auto", param_hint="--batch-size")
    return int(text)
