"""`hico probe`: how well frozen features separate classes."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import counting, print_table, progress, raising_on_signals, result, warn
from hico_cli.features import feature_folder
from hico_cli.labels import LISTS, ListFolder, labelled_sides
from hico_cli.options import CacheDir, CacheSize, Device, Encoder, Json, Readers, Root, read_size, refuse_unused
from hico_core.base.addresses import DEFAULT_ROOT, Location, local_part, locate, locate_root
from hico_core.base.errors import counted

if TYPE_CHECKING:
    from hico_core.transfer.evaluation.intervals import Estimate
    from hico_core.transfer.evaluation.labelled import LabelledSet
    from hico_core.transfer.evaluation.localisation_probe import AnnotatedSeconds, LocalisationRow
    from hico_core.transfer.evaluation.probe import MeanAndError, ProbeReport
    from hico_core.transfer.evaluation.probing import Probed


def probe(
    context: typer.Context,
    features: Annotated[
        str | None, typer.Argument(help="A folder in ROOT/features, or a path. Default: encode the videos.")
    ] = None,
    root: Root = DEFAULT_ROOT,
    train: Annotated[list[str] | None, typer.Option("--train", help=f"Videos to train the probes on. {LISTS}")] = None,
    test: Annotated[
        list[str] | None, typer.Option("--test", help="Videos to test on; as many lists as for --train.")
    ] = None,
    data_root: ListFolder = None,
    encoder: Encoder = None,
    views: Annotated[int, typer.Option(min=1, help="Clips per video, if videos are encoded.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="Random seeds to average over.")] = 3,
    neighbours: Annotated[int, typer.Option(min=1, help="Neighbours that vote in k-NN (k).")] = 20,
    shots: Annotated[
        list[int] | None,
        typer.Option("--shots", min=1, help="Training videos per class for few-shot probes; may be repeated."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-O",
            help="JSON file to write. Default: ROOT/probes/NAME.json or, with --segments, NAME-seconds.json.",
        ),
    ] = None,
    segments: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel="Class of each second",
            help="Predict the class of each second instead, from FEATURES of whole videos and this file of annotated "
            "segments: a .csv or .jsonl of video, start, end, label, or ActivityNet's .json.",
        ),
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            "--beside",
            metavar="FEATURES",
            rich_help_panel="Class of each second",
            help="More features to evaluate in the same way, such as the trivial baselines pixels and motion "
            "(`hico extract-features --encoder pixels --name pixels`). May be repeated.",
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            "--groups",
            metavar="LIST",
            rich_help_panel="Class of each second",
            help="One VIDEO, TAB, GROUP per line: videos of one scene, person or camera are tested together. Default: "
            "each video is its own group.",
        ),
    ] = None,
    folds: Annotated[
        int,
        typer.Option(
            min=2,
            rich_help_panel="Class of each second",
            help="Folds of cross-validation; a video is never divided between folds.",
        ),
    ] = 5,
    workers: Readers = None,
    device: Device = "auto",
    cache_dir: CacheDir = None,
    cache_size: CacheSize = "20GB",
    json: Json = False,
) -> None:
    """Train and test classifiers on frozen features of labelled videos: linear, k-NN, few-shot.

    The linear probe tries 20 combinations of learning rate and weight decay and keeps the one with the best accuracy on
    a fifth of the training videos, held out by video; test videos are never used for this choice. Features of segments
    (`hico extract-features --segments`) include their classes and are tested in folds by video.

    With --segments, the class of each second of untrimmed videos is predicted instead, in folds by video or group:
    frame accuracy, edit score, segmental F1 and mAP, compared with two trivial baselines. Exit code 3: some videos, or
    lines of a list, cannot be used.
    """
    from hico_core.base.cache import local_cache
    from hico_core.checkpoints.frozen import load_frozen
    from hico_core.transfer.evaluation.probing import (
        features_in_folder,
        features_of_videos,
        probe_segments,
        probe_sets,
        write_probe,
    )
    from hico_core.transfer.evaluation.segments import are_segments
    from hico_core.transfer.extraction.jobs import encoder_named
    from hico_core.transfer.extraction.manifest import require_features

    if train and not test:
        raise typer.BadParameter("name a list to test on", param_hint="--test")
    if len(train or []) != len(test or []):
        raise typer.BadParameter(
            f"{counted(len(test or []), 'list')}, but --train has {len(train or [])}", param_hint="--test"
        )
    place = locate_root(root)
    if segments is not None:
        if features is None:
            raise typer.BadParameter("needs FEATURES of whole videos", param_hint="--segments")
        of_videos = ("train", "test", "data_root", "encoder", "views", "seeds", "neighbours", "shots")
        refuse_unused(
            context, *of_videos, "workers", "device", why="has no effect with --segments, which tests in folds"
        )
        folders = {name: feature_folder(name, root) for name in (features, *(beside or []))}
        target = output or local_part(place) / "probes" / f"{folders[features].name}-seconds.json"
        _probe_seconds(segments, folders, groups, num_folds=folds, target=target, place=place, as_json=json)
        return
    refuse_unused(context, "beside", "groups", why="needs --segments FILE")
    if features is not None:
        refuse_unused(
            context, "encoder", "views", "workers", "device", why="has no effect: FEATURES are encoded already"
        )
    if features is None:
        cache = local_cache(cache_dir, read_size(cache_size))
        frozen = load_frozen(encoder_named(encoder, local_part(place), warn), warn=warn)
        probed = features_of_videos(frozen, num_views=views, device=device, workers=workers, cache=cache)
    else:
        probed = features_in_folder(feature_folder(features, root))
    manifest = require_features(probed.folder) if probed.folder else {}
    to_train, to_test = list["LabelledSet"](), list["LabelledSet"]()
    run: partial[Probed]
    if probed.folder and are_segments(manifest):
        refuse_unused(context, "train", "test", "data_root", why="segments are tested in folds of videos")
        num_splits, what = folds, "segments"
        run = partial(probe_segments, probed.folder, manifest, num_folds=folds)
    else:
        refuse_unused(context, "folds", why="needs segments; videos are tested on --test")
        to_train, to_test = labelled_sides(train, test, place=place, data_root=data_root)
        num_splits, what = len(to_train), "videos"
        run = partial(probe_sets, probed, to_train, to_test)
    with (
        raising_on_signals("stopped; nothing was written"),
        progress("probe", total=num_splits * (seeds + 1), as_json=json) as report,
    ):
        found, num_read = run(seeds=range(seeds), k=neighbours, shots=shots or [], on_done=counting(report, "probe"))
    target = output or local_part(place) / "probes" / f"{probed.name}.json"
    fields = write_probe(target, found, probed, root=place)
    lines = [
        f"linear probe: {_describe(found.linear, found)}",
        f"k-NN, k {found.k}: {_describe(found.knn, found)}",
        *(f"{count}-shot: {_describe(value, found)}" for count, value in found.few_shot.items()),
        f"{sum(found.num_train)} training and {sum(found.num_test)} test {what} in {counted(num_splits, 'split')}",
        str(target),
    ]
    result("\n".join(lines), {**fields, "file": str(target)}, as_json=json)
    if found.k < neighbours:
        used = counted(found.k, "neighbour")
        warn(f"k-NN used {used} instead of {neighbours}: only {found.k} training {what} (--neighbours)")
    num_given = sum(len(one.videos) for one in (*to_train, *to_test))
    if any(one.num_bad for one in (*to_train, *to_test)) or (features is None and num_read < num_given):
        raise typer.Exit(3)


def _describe(value: "MeanAndError", found: "ProbeReport") -> str:
    """An accuracy with its context: for one split, its videos; for several, their standard error."""
    from hico_core.transfer.evaluation.intervals import in_context, percent

    times = len(value.values)
    if len(found.num_test) == 1:
        mean = f", mean over {counted(times, 'seed')}" if times > 1 else ""
        return in_context(value.mean, found.num_test[0], chance=found.chance) + mean
    error = f"standard error {percent(value.standard_error or 0.0)} over {counted(len(found.num_test), 'split')}"
    return f"{percent(value.mean)} ({error}; chance {percent(found.chance)})"


def _probe_seconds(
    segments: Path,
    folders: dict[str, Path],
    groups: str | None,
    *,
    num_folds: int,
    target: Path,
    place: Location,
    as_json: bool,
) -> None:
    """Predict the class of each second from each folder, and print the measures."""
    from hico_core.transfer.evaluation.localisation_probe import (
        probe_seconds,
        read_groups,
        read_seconds,
        write_localisation,
    )
    from hico_core.transfer.extraction.manifest import require_features

    first = next(iter(folders.values()))
    group_of = None if groups is None else read_groups(locate(groups))
    seconds, remarks = read_seconds(segments, require_features(first), groups=group_of)
    with (
        raising_on_signals("stopped; nothing was written"),
        progress("probe", total=len(folders), as_json=as_json) as report,
    ):
        found = probe_seconds(folders, seconds, num_folds=num_folds, on_done=counting(report, "probe"))
    for remark in (*remarks, *found.remarks):
        warn(f"{segments}: {remark}")
    fields = write_localisation(target, found, seconds, segments=segments, features=first, root=place)
    if not as_json:
        _print_seconds(found.rows, seconds)
    result(str(target), {**fields, "file": str(target)}, as_json=as_json)


def _print_seconds(rows: "list[LocalisationRow]", seconds: "AnnotatedSeconds") -> None:
    """Print one row per folder or baseline, in percent, each value above the ends of its interval."""
    from rich.box import SIMPLE
    from rich.table import Table

    num_background = int((seconds.labels_N == 0).sum())
    caption = (
        f"Percent of {counted(len(seconds.labels_N), 'second')} of {counted(len(seconds.videos), 'video')} in "
        f"{counted(len(set(seconds.groups)), 'group')}, {100 * num_background / len(seconds.labels_N):.1f} % of them "
        f"background, {len(seconds.classes) - 1} classes, with 95 % intervals over groups"
    )
    table = Table(box=SIMPLE, padding=(0, 1), pad_edge=False, caption=caption, caption_justify="left")
    table.add_column("features", overflow="fold")
    for title in ("accuracy", "edit", *(f"F1@{overlap}" for overlap in rows[0].f1), "mAP"):
        table.add_column(title, no_wrap=True, justify="right")
    for row in rows:
        estimates = (row.frame_accuracy, row.edit, *row.f1.values())
        table.add_row(row.features, *map(_in_percent, estimates), f"{100 * row.mean_average_precision:.1f}")
    print_table(table)


def _in_percent(value: "Estimate") -> str:
    return f"{100 * value.value:.1f}\n{100 * value.low:.0f} to {100 * value.high:.0f}"
