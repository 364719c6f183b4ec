"""`hico probe`: how much of the classes frozen features hold."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import counting, progress, raising_on_signals, result, warn
from hico_cli.features import feature_folder
from hico_cli.labels import LISTS, ListFolder, labelled
from hico_cli.options import CacheDir, CacheSize, Device, Encoder, Json, Readers, Root, read_size
from hico_core.base.addresses import DEFAULT_ROOT, local_part, locate_root
from hico_core.base.errors import counted

if TYPE_CHECKING:
    from hico_core.transfer.evaluation.labelled import LabelledSet
    from hico_core.transfer.evaluation.probe import MeanAndError
    from hico_core.transfer.evaluation.probing import Probed


def probe(
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
        Path | None, typer.Option("--output", "-O", help="JSON file to write. Default: ROOT/probes/NAME.json.")
    ] = None,
    workers: Readers = None,
    device: Device = "auto",
    cache_dir: CacheDir = None,
    cache_size: CacheSize = "20GB",
    folds: Annotated[
        int, typer.Option(min=2, help="Folds of cross-validation over annotated segments; a video is never divided.")
    ] = 5,
    json: Json = False,
) -> None:
    """Train classifiers on frozen features of labelled videos and test them: linear, k-NN, few-shot.

    The linear probe tries 20 combinations of learning rate and weight decay and keeps the one with the best accuracy on
    a fifth of the training videos, held out by video; test videos are never used for this choice. Features of segments
    (`hico extract-features --segments`) bring their classes with them and are tested in folds by video. Exit code 3:
    some videos, or lines of a list, cannot be used.
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

    if len(train or []) != len(test or []):
        raise typer.BadParameter(f"{len(test or [])} lists, but --train has {len(train or [])}", param_hint="--test")
    place = locate_root(root)
    if features is None:
        cache = local_cache(cache_dir, read_size(cache_size))
        frozen = load_frozen(encoder_named(encoder, local_part(place)), warn=warn)
        probed = features_of_videos(frozen, num_views=views, device=device, workers=workers, cache=cache)
    else:
        probed = features_in_folder(feature_folder(features, root))
    manifest = require_features(probed.folder) if probed.folder else {}
    to_train, to_test = list["LabelledSet"](), list["LabelledSet"]()
    run: partial[Probed]
    if probed.folder and are_segments(manifest):
        if train:
            raise typer.BadParameter("segments are tested in folds by video; leave lists out", param_hint="--train")
        num_splits, what = folds, "segments"
        run = partial(probe_segments, probed.folder, manifest, num_folds=folds)
    else:
        to_train = labelled(train, place=place, subset="train", data_root=data_root)
        known = {label: name for one in to_train for label, name in one.classes.items()}
        to_test = labelled(test, place=place, subset="test", data_root=data_root, known=known or None)
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
        f"linear probe: {_describe_mean(found.linear)}",
        f"k-NN, k {neighbours}: {_describe_mean(found.knn)}",
        *(f"{count}-shot: {_describe_mean(value)}" for count, value in found.few_shot.items()),
        f"{sum(found.num_train)} training and {sum(found.num_test)} test {what} in {counted(num_splits, 'split')}",
        str(target),
    ]
    result("\n".join(lines), {**fields, "file": str(target)}, as_json=json)
    num_given = sum(len(one.videos) for one in (*to_train, *to_test))
    if any(one.num_bad for one in (*to_train, *to_test)) or (features is None and num_read < num_given):
        raise typer.Exit(3)


def _describe_mean(value: "MeanAndError") -> str:
    error = "" if value.standard_error is None else f" ± {value.standard_error:.2%} (standard error)"
    return f"{value.mean:.2%}{error}, {len(value.values)} measured"
