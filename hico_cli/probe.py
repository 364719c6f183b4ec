"""`hico probe`: how much of the classes frozen features hold."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hico_cli.console import progress, raising_on_signals, result
from hico_cli.features import feature_folder
from hico_cli.labels import LISTS, ListFolder, labelled
from hico_cli.options import CacheDir, CacheSize, Device, Json, Readers, Root, read_size
from hico_core.corpus.addresses import DEFAULT_ROOT, absolute, local_part, locate_root, name_from

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hico_core.transfer.labelled import LabelledVideo
    from hico_core.transfer.probe import LabelledRows, MeanAndError


def probe(
    features: Annotated[
        str | None, typer.Argument(help="A folder in ROOT/features, or a path. Default: straight from the videos.")
    ] = None,
    root: Root = DEFAULT_ROOT,
    train: Annotated[list[str] | None, typer.Option("--train", help=f"Videos to train on. {LISTS}")] = None,
    test: Annotated[
        list[str] | None, typer.Option("--test", help="Videos to test on; as many lists as of --train.")
    ] = None,
    data_root: ListFolder = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Whose encoder reads the videos. Default: ROOT's newest run.")
    ] = None,
    views: Annotated[int, typer.Option(min=1, help="Clips of each video, where videos are read.")] = 3,
    seeds: Annotated[int, typer.Option(min=1, help="How often all that is random is drawn.")] = 3,
    neighbours: Annotated[int, typer.Option(min=1, help="Training videos that vote in k-NN.")] = 20,
    shots: Annotated[
        list[int] | None, typer.Option("--shots", min=1, help="Training videos a class, few-shot; may be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-O", help="The JSON file to write. Default: ROOT/probes/NAME.json.")
    ] = None,
    workers: Readers = None,
    device: Device = "auto",
    cache_dir: CacheDir = None,
    cache_size: CacheSize = "20GB",
    json: Json = False,
) -> None:
    """Train classifiers on frozen features of labelled videos and test them: linear, k-NN, few-shot.

    The linear probe tries 20 pairs of rate and weight decay at once and takes the one that knows most of a fifth of the
    training videos, held out by video; test videos choose nothing. Exit code 3: some videos, or lines of a list, cannot
    be used.
    """
    from hico_core.corpus.cache import local_cache
    from hico_core.corpus.storage import write_text
    from hico_core.transfer.jobs import newest_encoder
    from hico_core.transfer.labelled import rows_from_folder, rows_from_videos
    from hico_core.transfer.manifest import require_features
    from hico_core.transfer.probe import probe_splits

    if len(train or []) != len(test or []):
        raise typer.BadParameter(f"{len(test or [])} lists, but --train has {len(train or [])}", param_hint="--test")
    place = locate_root(root)
    rows_of: Callable[[Sequence[LabelledVideo]], LabelledRows]
    if features is None:
        encoder = checkpoint or newest_encoder(local_part(place))
        name, made_with = encoder.stem, str(encoder)
        cache = local_cache(cache_dir, size_bytes=read_size(cache_size))

        def rows_of(videos: "Sequence[LabelledVideo]") -> "LabelledRows":
            return rows_from_videos(encoder, videos, num_views=views, device=device, cache=cache, workers=workers)
    else:
        folder = feature_folder(features, root)
        manifest = require_features(folder)
        name, made_with = folder.name, next(iter(manifest.values())).checkpoint

        def rows_of(videos: "Sequence[LabelledVideo]") -> "LabelledRows":
            return rows_from_folder(folder, manifest, videos)

    to_train = labelled(train, place=place, subset="train", data_root=data_root)
    known = {label: name for one in to_train for label, name in one.classes.items()}
    to_test = labelled(test, place=place, subset="test", data_root=data_root, known=known or None)
    with (
        raising_on_signals("stopped; nothing was written"),
        progress("probe", total=max(len(train or []), 1) * (seeds + 1), as_json=json) as report,
    ):
        splits = [(rows_of(one.videos), rows_of(other.videos)) for one, other in zip(to_train, to_test, strict=True)]
        done = 0

        def on_done(what: str) -> None:
            nonlocal done
            done += 1
            report(done, what, {"probe": what})

        found = probe_splits(splits, seeds=range(seeds), k=neighbours, shots=shots or [], on_done=on_done)
    target = output or local_part(place) / "probes" / f"{name}.json"
    fields = {
        **found._asdict(),
        "linear": found.linear._asdict(),
        "knn": found.knn._asdict(),
        "few_shot": {count: value._asdict() for count, value in found.few_shot.items()},
        "features": name_from(place, absolute(Path(made_with) if features is None else folder)),
        "encoder": name_from(place, absolute(Path(made_with))),
    }
    write_text(target, json_module.dumps(fields, indent=2) + "\n")
    lines = [
        f"linear probe: {_said(found.linear)}",
        f"k-NN, k {neighbours}: {_said(found.knn)}",
        *(f"{count}-shot: {_said(value)}" for count, value in found.few_shot.items()),
        f"{sum(found.num_train)} videos to train on and {sum(found.num_test)} to test on, in {len(splits)} splits",
        str(target),
    ]
    result("\n".join(lines), {**fields, "file": str(target)}, as_json=json)
    num_given = sum(len(one.videos) for one in (*to_train, *to_test))
    num_read = sum(len(set(side.videos)) for split in splits for side in split)
    if any(one.num_bad for one in (*to_train, *to_test)) or (features is None and num_read < num_given):
        raise typer.Exit(3)


def _said(value: "MeanAndError") -> str:
    error = "" if value.standard_error is None else f" ± {value.standard_error:.2%} (standard error)"
    return f"{value.mean:.2%}{error}, {len(value.values)} measured"
