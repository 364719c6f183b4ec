"""`hico export-tad`: features and annotations as detection toolkits read them."""

from pathlib import Path
from typing import Annotated

import typer

from hico_cli.console import result, warn
from hico_cli.features import feature_folder
from hico_cli.options import Json, Root
from hico_core.base.addresses import DEFAULT_ROOT, local_part, locate
from hico_core.base.choices import Toolkit


def export_tad(
    annotations: Annotated[Path, typer.Argument(help="A JSON file in the format of ActivityNet's annotations.")],
    toolkit: Annotated[Toolkit, typer.Option("--for", help="Who is to read it.")],
    root: Root = DEFAULT_ROOT,
    features: Annotated[
        str | None, typer.Option(help="A folder in ROOT/features, or a path. Default: the newest.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-O", help="The folder to write. Default: ROOT/tad/FEATURES-TOOLKIT.")
    ] = None,
    json: Json = False,
) -> None:
    """Write annotations limited to the videos that have features, and the configuration that fits these features.

    The annotations get each video's duration, frame, fps and the label_id of each segment. Segments are cut to their
    video; those that are empty or Ambiguous are left out. Beside them: the classes, the videos that are missing, and
    the part of a configuration that depends on the features. Exit code 3: the entries of some videos cannot be used.
    """
    from hico_core.transfer.extraction.tad import export_features

    folder = feature_folder(features, root)
    target = output or local_part(locate(root)) / "tad" / f"{folder.name}-{toolkit}"
    export, problems, written, changes = export_features(annotations, folder, toolkit=toolkit, folder=target)
    for name, problem in problems.items():
        warn(f"{annotations}: the entry of {name!r} {problem}; left out")
    if changes:
        warn(changes)
    if export.other_durations:
        first = export.other_durations[0]
        warn(
            f"{len(export.other_durations)} videos last over a second more or less than annotated, such as {first}: "
            "are they the same videos?"
        )
    fields = {
        "num_videos": len(export.annotations),
        "num_classes": len(export.categories),
        "num_missing": len(export.missing),
        "num_failed": len(problems),
        "num_segments_left_out": export.left_out.total(),
        "segments_left_out": dict(export.left_out),
        "num_segments_cut": export.num_cut,
        "num_without_annotations": export.num_without_annotations,
        "files": [str(path) for path in written],
    }
    text = f"{len(export.annotations)} videos, {len(export.categories)} classes; {written[-1]}"
    result(text, fields, as_json=json)
    if problems:
        raise typer.Exit(3)
