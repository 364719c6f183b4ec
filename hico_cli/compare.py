"""`hico compare`: which encoder best separates the classes of a list."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import counting, print_table, progress, raising_on_signals, result, warn
from hico_cli.features import feature_folder
from hico_cli.labels import ListFolder
from hico_cli.options import (
    CacheDir,
    CacheSize,
    Device,
    Json,
    Readers,
    Root,
    read_size,
    refuse_unused,
    require_file_name_part,
)
from hico_core.base.addresses import DEFAULT_ROOT, local_part, locate, locate_root

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hico_core.base.cache import LocalCache
    from hico_core.corpus.sources.grouped_lists import GroupedList
    from hico_core.transfer.evaluation.compare import ComparedSegments
    from hico_core.transfer.evaluation.comparison import ComparedRow, Comparison

_LINES = (
    "One PATH, TAB, LABEL per line, and optionally TAB and GROUP (clips of one scene, person or camera); a .csv has "
    "commas instead of tabs."
)


def compare(
    context: typer.Context,
    clips: Annotated[
        str | None, typer.Argument(metavar="[LIST]", help=f"Clips to use for cross-validation. {_LINES}")
    ] = None,
    root: Root = DEFAULT_ROOT,
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder", help="NAME or NAME=WEIGHTS (see `hico config encoders`), a run or a file; may be repeated."
        ),
    ] = None,
    runs: Annotated[
        bool, typer.Option("--runs", help="Compare all runs of ROOT that have exported an encoder.")
    ] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Add the trivial baselines pixels and motion.")
    ] = True,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--features",
            help="Instead of LIST: a folder of features of segments (`hico extract-features --segments`); may be "
            "repeated. Differences are relative to the first one.",
        ),
    ] = None,
    folds: Annotated[
        int, typer.Option(min=2, help="Folds of cross-validation over LIST; a group is never divided between folds.")
    ] = 5,
    train: Annotated[str | None, typer.Option("--train", help="Instead of folds: clips to train on.")] = None,
    test: Annotated[str | None, typer.Option("--test", help="Clips to test on.")] = None,
    data_root: ListFolder = None,
    views: Annotated[int, typer.Option(min=1, help="Clips per video; 1: the middle of the video.")] = 1,
    neighbours: Annotated[int, typer.Option(min=1, help="Neighbours that vote in k-NN (k).")] = 20,
    name: Annotated[
        str | None, typer.Option(help="Name of the folder in ROOT/compare. Default: the list's name.")
    ] = None,
    workers: Readers = None,
    device: Device = "auto",
    cache_dir: CacheDir = None,
    cache_size: CacheSize = "20GB",
    json: Json = False,
) -> None:
    """Compare the accuracy of several encoders on labelled clips: linear probe and k-NN, with 95 % intervals.

    Intervals are bootstrapped over groups; differences are paired and relative to the first encoder. Features are
    computed once per encoder and kept in ROOT/compare, so a second comparison takes seconds. If it is interrupted, the
    same command continues. Exit code 3: some clips, or lines of a list, cannot be used.
    """
    from hico_core.base.cache import local_cache
    from hico_core.transfer.evaluation.clip_features import Computing
    from hico_core.transfer.evaluation.compare import (
        KEPT,
        ProbeSettings,
        encoders_to_compare,
        finished_runs,
        notes_on_encoders,
    )
    from hico_core.transfer.evaluation.compare import compare as compare_encoders
    from hico_core.transfer.evaluation.folds import split_as_listed, split_into_folds
    from hico_core.transfer.extraction.jobs import encoder_named

    place = local_part(locate_root(root)) / "compare"
    if features is not None:
        of_clips = ("clips", "encoder", "runs", "baselines", "train", "test", "data_root", "views", "workers", "device")
        refuse_unused(context, *of_clips, why="has no effect with --features, which are encoded already")
        folders = {given: feature_folder(given, root) for given in features}
        chosen_name = name or next(iter(folders.values())).name
        require_file_name_part(chosen_name, option="--name")
        of_segments = _compared_segments(folders, num_folds=folds, num_neighbours=neighbours, as_json=json)
        _write_and_tell(of_segments.comparison, place / chosen_name, notes=of_segments.remarks, as_json=json)
        return
    if (clips is None) == (test is None) or (train is None) != (test is None):
        raise typer.BadParameter("give either a list, or --train and --test", param_hint="LIST")
    if clips is None:
        refuse_unused(context, "folds", why="needs LIST; --train and --test replace the folds")
    cache = local_cache(cache_dir, read_size(cache_size))
    listed_in = locate(clips or test or "")
    chosen_name = name or (listed_in.stem if listed_in.suffix == ".txt" else listed_in.name)
    require_file_name_part(chosen_name, option="--name")
    listed = [_listed(text, data_root, cache) for text in (clips, train, test) if text is not None]
    split = split_into_folds(listed[0], num_folds=folds) if clips else split_as_listed(*listed)
    of_runs = finished_runs(place.parent) if runs else []
    named = [encoder_named(text, place.parent) for text in encoder or []]
    encoders = encoders_to_compare(named, runs=of_runs, with_baselines=baselines, warn=warn)
    notes = [*split.remarks, *notes_on_encoders(encoders, of_runs)]
    for note in notes:
        warn(note)
    with (
        raising_on_signals("stopped; the same command continues"),
        progress("compare", total=2 * len(encoders), as_json=json) as report,
    ):
        found = compare_encoders(
            encoders,
            split,
            place / KEPT,
            settings=ProbeSettings(views, neighbours),
            computing=Computing(device, workers),
            on_progress=lambda done, text: report(done, text, {"done": done / (2 * len(encoders)), "what": text}),
        )
    _write_and_tell(found, place / chosen_name, notes=notes, as_json=json)
    if found.num_left_out or any(one.bad for one in listed):
        raise typer.Exit(3)


def _compared_segments(
    folders: dict[str, Path], *, num_folds: int, num_neighbours: int, as_json: bool
) -> "ComparedSegments":
    """Probe folders of features of segments; print remarks on the results as warnings."""
    from hico_core.transfer.evaluation.compare import compare_segments

    with (
        raising_on_signals("stopped; nothing was written"),
        progress("compare", total=len(folders), as_json=as_json) as report,
    ):
        found = compare_segments(
            folders, num_folds=num_folds, num_neighbours=num_neighbours, on_done=counting(report, "what")
        )
    for remark in found.remarks:
        warn(remark)
    return found


def _write_and_tell(found: "Comparison", folder: Path, *, notes: list[str], as_json: bool) -> None:
    """Write the results and print them; `notes` on them are printed already."""
    from hico_core.report.comparisons import write_picture
    from hico_core.transfer.evaluation.compare import notes_on_results
    from hico_core.transfer.evaluation.comparison import write_comparison

    write_comparison(folder, found)
    picture = write_picture(folder, found.rows)
    on_results = notes_on_results(found.rows)
    if as_json:
        fields = {"results": [asdict(row) for row in found.rows], "notes": [*notes, *on_results]}
        result("", {**fields, "folder": str(folder)}, as_json=True)
    else:
        _print_table(found.rows)
        result(f"{folder}: results.parquet, predictions.parquet, {picture.name}", {}, as_json=False)
    for note in on_results:
        warn(note)


def _listed(text: str, data_root: str | None, cache: "LocalCache") -> "GroupedList":
    """Read the clips of a list; a bad line is a warning."""
    from hico_core.corpus.sources.grouped_lists import read_grouped_list

    base = locate(text, cache).parent if data_root is None else locate(data_root, cache)
    found = read_grouped_list(locate(text, cache), data_root=base)
    for problem in found.bad:
        warn(f"{problem}; left out")
    return found


def _print_table(rows: "Sequence[ComparedRow]") -> None:
    """Print one row per encoder, in percent, each value above the ends of its interval."""
    from rich.box import SIMPLE
    from rich.table import Table

    from hico_core.report.comparisons import describe_test, in_percent

    table = Table(box=SIMPLE, padding=(0, 0), pad_edge=False)
    table.add_column("encoder", overflow="fold")
    for title in ("linear probe", "difference", "k-NN", "difference"):
        table.add_column(title, no_wrap=True, justify="right")
    for encoder, cells in in_percent(rows).items():
        table.add_row(encoder, *(cell.replace(" (", "\n").rstrip(")") for cell in cells))
    print_table(table)
    result(describe_test(rows[0]), {}, as_json=False)
