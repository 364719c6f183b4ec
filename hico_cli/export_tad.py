"""`hico export-tad`: features and annotations in the formats of detection toolkits."""

from pathlib import Path
from typing import Annotated

import typer

from hico_cli.console import result, warn
from hico_cli.features import feature_folder
from hico_cli.options import Json, Root
from hico_core.base.addresses import DEFAULT_ROOT, local_part, locate
from hico_core.base.choices import DetectionPreset, Toolkit
from hico_core.base.errors import counted


def export_tad(
    annotations: Annotated[
        Path, typer.Argument(help="ActivityNet's .json, or a .csv or .jsonl of video, start, end, label[, subset].")
    ],
    toolkit: Annotated[Toolkit, typer.Option("--for", help="Toolkit that will read the files.")],
    root: Root = DEFAULT_ROOT,
    features: Annotated[
        str | None, typer.Option(help="A folder in ROOT/features, or a path. Default: the newest.")
    ] = None,
    train_subset: Annotated[str | None, typer.Option(help="Subset to train on, as named in the annotations.")] = None,
    test_subset: Annotated[str | None, typer.Option(help="Subset to test on, as named in the annotations.")] = None,
    preset: Annotated[
        DetectionPreset | None,
        typer.Option(
            help="Dataset whose sizes and thresholds are used. Default: the one whose windows the features have."
        ),
    ] = None,
    sliding: Annotated[
        bool,
        typer.Option(
            "--sliding", help="For opentad: cut videos into overlapping windows instead of processing them whole."
        ),
    ] = False,
    checkout: Annotated[
        Path | None,
        typer.Option(help="Checkout of the toolkit; the configuration for opentad builds on its files."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-O", help="Folder to write. Default: ROOT/tad/FEATURES-TOOLKIT.")
    ] = None,
    json: Json = False,
) -> None:
    """Write a configuration for training and evaluating an unmodified ActionFormer or OpenTAD on features.

    Also writes the annotations in the toolkit's format, the classes, and a list of annotated videos without features.
    Prints the toolkit's commands for training and evaluation. Exit code 3: the entries of some videos cannot be used.
    """
    from hico_core.transfer.localisation.export import MISSING, Wanted, export_features
    from hico_core.transfer.localisation.fitting import describe_changes

    folder = feature_folder(features, root)
    target = output or local_part(locate(root)) / "tad" / f"{folder.name}-{toolkit}"
    wanted = Wanted(
        toolkit=toolkit,
        preset=preset,
        train_subset=train_subset,
        test_subset=test_subset,
        sliding=sliding,
        checkout=checkout,
    )
    exported = export_features(annotations, folder, wanted=wanted, folder=target)
    fitted = exported.fitted
    for name, problem in exported.problems.items():
        warn(f"{annotations}: entry {name!r} {problem}; left out")
    for line in describe_changes(fitted):
        warn(line)
    if exported.missing:
        warn(f"{counted(len(exported.missing), 'annotated video')} without features; see {target / MISSING}")
    fields = {
        "num_train": fitted.num_train,
        "train_subset": exported.subsets.train,
        "num_test": fitted.num_test,
        "test_subset": exported.subsets.test,
        "num_classes": len(fitted.categories),
        "num_missing": len(exported.missing),
        "num_failed": len(exported.problems),
        "num_unlabelled": fitted.num_unlabelled,
        "num_segments_left_out": fitted.left_out.total(),
        "segments_left_out": dict(fitted.left_out),
        "num_segments_cut": fitted.num_cut,
        "num_segments_overlapping": fitted.num_overlapping,
        "classes_only_tested": fitted.only_tested,
        "num_without_annotations": exported.num_without_annotations,
        "files": [str(path) for path in exported.files],
        "commands": exported.commands,
    }
    text = (
        f"{fitted.num_train} videos of {exported.subsets.train!r} to train on, {fitted.num_test} of "
        f"{exported.subsets.test!r} to test on, {len(fitted.categories)} classes; {exported.files[-1]}"
    )
    result("\n".join([text, *exported.commands]), fields, as_json=json)
    if exported.problems:
        raise typer.Exit(3)
