"""`hico retrieve`: moments of videos that are like a query, or how well features find their like."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hico_cli.console import result
from hico_cli.features import feature_folder
from hico_cli.labels import LISTS, ListFolder, labelled
from hico_cli.options import Device, Json, Root
from hico_core.corpus.addresses import DEFAULT_ROOT, absolute, local_part, locate_root

if TYPE_CHECKING:
    from hico_core.transfer.manifest import ManifestRow
    from hico_core.transfer.retrieval import Match


def retrieve(
    query: Annotated[Path | None, typer.Argument(help="The video for which similar moments are looked for.")] = None,
    root: Root = DEFAULT_ROOT,
    features: Annotated[
        str | None, typer.Option(help="A folder in ROOT/features, or a path. Default: the newest.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many moments.")] = 10,
    include_own: Annotated[bool, typer.Option("--include-own", help="Find the query's own video as well.")] = False,
    sheet: Annotated[
        Path | None, typer.Option(help="A picture (.png) or page (.html) with frames of query and matches.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="The encoder of the features, if it is not where the manifest says.")
    ] = None,
    protocol: Annotated[
        Literal["video", "clip", "coclr"] | None,
        typer.Option(
            help="Measure instead: by means of videos, by windows, or by means without those of queries and gallery."
        ),
    ] = None,
    queries: Annotated[
        Literal["train", "val", "test"], typer.Option(help="Subset of the index, to look for.")
    ] = "test",
    gallery: Annotated[
        Literal["train", "val", "test"], typer.Option(help="Subset of the index, to look through.")
    ] = "train",
    query_list: Annotated[str | None, typer.Option(help=f"Instead of --queries. {LISTS}")] = None,
    gallery_list: Annotated[str | None, typer.Option(help="Instead of --gallery.")] = None,
    data_root: ListFolder = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Look for moments like those of QUERY among features, or measure retrieval with --protocol: R@k and mAP.

    Exit code 3: some lines of a list cannot be used.
    """
    if (query is None) == (protocol is None):
        raise typer.BadParameter("give a video, or --protocol, and not both", param_hint="QUERY")
    from hico_core.transfer.manifest import require_features

    folder = feature_folder(features, root)
    manifest = require_features(folder)
    if query is not None:
        _search(query, folder, root, manifest, checkpoint, top, include_own, sheet, device, json)
        return
    from hico_core.transfer.labelled import rows_from_folder
    from hico_core.transfer.retrieval import retrieval

    assert protocol is not None
    place = locate_root(root)
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
    recall = ", ".join(f"R@{k} {value:.2%}" for k, value in found.recall.items())
    text = (
        f"protocol {protocol}: {recall}, mAP {found.mean_average_precision:.2%} ({found.num_queries} queries, "
        f"{found.gallery_size} in the gallery)"
    )
    result(text, found._asdict(), as_json=json)
    if asked.num_bad or searched.num_bad:
        raise typer.Exit(3)


def _search(
    query: Path,
    folder: Path,
    root: str,
    manifest: "dict[str, ManifestRow]",
    checkpoint: Path | None,
    top: int,
    include_own: bool,
    sheet: Path | None,
    device: Literal["auto", "cpu", "cuda"],
    as_json: bool,
) -> None:
    from hico_core.corpus.ids import video_id
    from hico_core.transfer.match_sheet import write_sheet
    from hico_core.transfer.retrieval import extractor_of, search

    if sheet is not None and sheet.suffix not in {".png", ".html"}:
        raise typer.BadParameter(f"{sheet} must end in .png or .html", param_hint="--sheet")
    rows = list(manifest.values())
    extractor = extractor_of(rows[0], checkpoint=checkpoint, device=device, root=local_part(locate_root(root)))
    features = extractor.extract(query)
    own = {row.video_id for row in rows if row.source == str(absolute(query)) or row.video_id == video_id(query)}
    matches = search(
        features.array.reshape(len(features.array), -1),
        features.times[:, 0],
        folder,
        rows,
        top=top,
        excluded=frozenset() if include_own else frozenset(own),
    )
    if sheet is not None:
        write_sheet(sheet, query, matches, window_seconds=float(features.times[0, 1] - features.times[0, 0]))
    fields = {"matches": [match._asdict() for match in matches], "sheet": str(sheet) if sheet else None}
    if as_json:
        result("", fields, as_json=True)
        return
    _print_table(matches)
    if sheet is not None:
        result(str(sheet), {}, as_json=False)


def _print_table(matches: "list[Match]") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("video", "start", "end", "similarity", "like the query at")
    for match in matches:
        table.add_row(
            match.video_id,
            f"{match.start_seconds:.2f} s",
            f"{match.end_seconds:.2f} s",
            f"{match.similarity:.4f}",
            f"{match.query_seconds:.2f} s",
        )
    Console().print(table)
