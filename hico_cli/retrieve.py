"""`hico retrieve`: finds moments of videos that are similar to a query, or measures retrieval."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import print_table, result, warn
from hico_cli.features import feature_folder
from hico_cli.labels import LIST, ListFolder, labelled
from hico_cli.options import ENCODER_FORM, ENCODER_NAMES, Device, Json, Root, refuse_unused
from hico_core.base.addresses import DEFAULT_ROOT, Location, local_part, locate_root
from hico_core.base.choices import RetrievalProtocol, Subset
from hico_core.base.errors import counted

if TYPE_CHECKING:
    from hico_core.transfer.evaluation.retrieval import FoundMoment, Retrieval


def retrieve(
    context: typer.Context,
    query: Annotated[Path | None, typer.Argument(help="Video for which to find similar moments.")] = None,
    root: Root = DEFAULT_ROOT,
    features: Annotated[
        str | None, typer.Option(help="A folder in ROOT/features, or a path. Default: the newest.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Number of moments to show.")] = 10,
    include_own: Annotated[bool, typer.Option("--include-own", help="Also search the query's own video.")] = False,
    every_moment: Annotated[
        bool,
        typer.Option("--every-moment", help="Show several moments per video instead of only the best one."),
    ] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="Picture (.png) or page (.html) to write, with frames of query and matches.")
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            *ENCODER_NAMES,
            metavar=ENCODER_FORM,
            help="Encoder of the features, if it is not where the manifest says.",
        ),
    ] = None,
    protocol: Annotated[
        RetrievalProtocol | None,
        typer.Option(
            help="Measure retrieval instead: video compares means of videos, clip compares windows, coclr subtracts "
            "the means of queries and gallery first."
        ),
    ] = None,
    queries: Annotated[Subset, typer.Option(help="Subset of the index to use as queries.")] = "test",
    gallery: Annotated[Subset, typer.Option(help="Subset of the index to search in.")] = "train",
    query_list: Annotated[str | None, typer.Option(help=f"List to use instead of --queries. {LIST}")] = None,
    gallery_list: Annotated[str | None, typer.Option(help="List to use instead of --gallery.")] = None,
    data_root: ListFolder = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Find moments that are similar to QUERY, or, with --protocol, measure retrieval: R@k and mAP.

    With features of segments, each segment is compared with those of all other videos. Exit code 3: some lines of a
    list cannot be used.
    """
    if (query is None) == (protocol is None):
        raise typer.BadParameter("give either a video or --protocol", param_hint="QUERY")
    of_search = ("top", "include_own", "every_moment", "sheet", "encoder", "device")
    of_measuring = ("queries", "gallery", "query_list", "gallery_list", "data_root")
    if protocol is not None:
        refuse_unused(context, *of_search, why="is for the search with a video; leave out --protocol, or this")
    else:
        refuse_unused(context, *of_measuring, why="needs --protocol; a video is searched for in all of --features")
    for listed, subset in ((query_list, "queries"), (gallery_list, "gallery")):
        if listed:
            refuse_unused(context, subset, why="has no effect beside a list")
    from hico_core.transfer.extraction.jobs import encoder_named
    from hico_core.transfer.extraction.manifest import require_features

    folder, place = feature_folder(features, root), locate_root(root)
    manifest = require_features(folder)
    if query is not None:
        from hico_core.transfer.evaluation.match_sheet import ALL_ALIKE, are_alike, require_sheet_name, write_sheet
        from hico_core.transfer.evaluation.retrieval import extractor_of, search_video

        if sheet is not None:
            require_sheet_name(sheet)
        rows = list(manifest.values())
        named = None if encoder is None else encoder_named(encoder, local_part(place))
        extractor = extractor_of(rows[0], encoder=named, device=device, root=local_part(place))
        moments = search_video(
            query, folder, rows, extractor=extractor, top=top, own=include_own, one_per_video=not every_moment
        )
        if sheet is not None:
            write_sheet(sheet, query, moments.moments, window_seconds=moments.window_seconds)
        _report_moments(moments.moments, sheet, as_json=json)
        if len(moments.moments) < top and not json:
            of_each = "" if every_moment else ", one per video; --every-moment shows several"
            result(f"{counted(len(moments.moments), 'moment')} found{of_each}", {}, as_json=False)
        if are_alike(moments.moments):
            warn(ALL_ALIKE)
        return
    from hico_core.transfer.evaluation.labelled import rows_from_folder
    from hico_core.transfer.evaluation.retrieval import retrieval
    from hico_core.transfer.evaluation.segments import are_segments, retrieval_among_videos, segments_in

    assert protocol is not None
    if are_segments(manifest):
        refuse_unused(context, *of_measuring, why="matches of segments are searched among the other videos")
        found = retrieval_among_videos(segments_in(folder, manifest).rows, protocol=protocol)
        _report_retrieval(found, folder, place, as_json=json)
        return
    (asked,) = labelled([query_list] if query_list else None, place=place, subset=queries, data_root=data_root)
    (searched,) = labelled(
        [gallery_list] if gallery_list else None,
        place=place,
        subset=gallery,
        data_root=data_root,
        known=asked.classes or None,
    )
    sides = [rows_from_folder(folder, manifest, side.videos, means=protocol != "clip") for side in (asked, searched)]
    found = retrieval(*sides, protocol=protocol)
    _report_retrieval(found, folder, place, as_json=json)
    if asked.num_bad or searched.num_bad:
        raise typer.Exit(3)


def _report_retrieval(found: "Retrieval", folder: Path, place: Location, *, as_json: bool) -> None:
    """Write the measurement into the workspace, where the report finds it, and print it."""
    from hico_core.transfer.evaluation.retrieval import RESULTS, write_retrieval
    from hico_core.transfer.extraction.manifest import require_features

    target = local_part(place) / RESULTS / f"{folder.name}-{found.protocol}.json"
    encoder = next(iter(require_features(folder).values())).encoder_text
    write_retrieval(target, found, features=folder, encoder=encoder, root=place)
    result(f"{_describe_retrieval(found)}\n{target}", {**asdict(found), "file": str(target)}, as_json=as_json)


def _describe_retrieval(found: "Retrieval") -> str:
    from hico_core.transfer.evaluation.intervals import percent, wilson_interval

    recall = ", ".join(
        f"R@{k} {percent(value)} (chance {percent(found.chance[k])})" for k, value in found.recall.items()
    )
    _, low, high = wilson_interval(found.recall[1], found.num_queries)
    return (
        f"protocol {found.protocol}: {recall}, mAP {percent(found.mean_average_precision or 0.0)}; "
        f"{found.num_queries} queries, {found.gallery_size} in the gallery; 95 % interval of R@1 "
        f"{100 * low:.1f} to {percent(high)}"
    )


def _report_moments(moments: "list[FoundMoment]", sheet: Path | None, *, as_json: bool) -> None:
    if as_json:
        matches = [asdict(moment) for moment in moments]
        result("", {"matches": matches, "sheet": str(sheet) if sheet else None}, as_json=True)
        return
    from rich.table import Column, Table

    table = Table(Column("video", overflow="fold"), "start", "end", "similarity", "matches the query at")
    for moment in moments:
        table.add_row(
            moment.video_id,
            f"{moment.start_seconds:.2f} s",
            f"{moment.end_seconds:.2f} s",
            f"{moment.similarity:.4f}",
            f"{moment.query_seconds:.2f} s",
        )
    print_table(table)
    if sheet is not None:
        result(str(sheet), {}, as_json=False)
