"""Writes the files for training and evaluating an unmodified ActionFormer or OpenTAD on a folder of features."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from hico_core.base.choices import DetectionPreset, Toolkit
from hico_core.base.errors import HicoError, UsageError, counted
from hico_core.base.storage import write_text
from hico_core.transfer.extraction.manifest import ManifestRow, require_features
from hico_core.transfer.localisation.actionformer import actionformer_config
from hico_core.transfer.localisation.annotations import (
    AMBIGUOUS,
    Annotations,
    VideoLength,
    ids_of,
    read_segments,
    require_seconds,
)
from hico_core.transfer.localisation.fitting import (
    TEST,
    TRAIN,
    FeatureGrid,
    Fitted,
    Places,
    Subsets,
    choose_subsets,
    feature_grid,
    fit_annotations,
    preset_of,
)
from hico_core.transfer.localisation.opentad import base_files, last_checkpoint, opentad_config
from hico_core.transfer.localisation.recipes import RECIPES, Recipe, checkpoint_interval, num_epochs

ANNOTATIONS = "annotations.json"
MISSING = "missing_files.txt"
CATEGORIES = "category_idx.txt"
CONFIGS: dict[Toolkit, str] = {"actionformer": "actionformer.yaml", "opentad": "opentad.py"}
RUNS = "runs"  # the folder for checkpoints
RUN = "hico"  # ActionFormer's name for a run


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The export to write."""

    toolkit: Toolkit
    preset: DetectionPreset | None  # source of sizes and settings; None: the one whose windows the features have
    train_subset: str | None  # None: the names of the subsets decide
    test_subset: str | None
    sliding: bool  # OpenTAD: overlapping windows instead of whole videos
    checkout: Path | None  # where the toolkit was cloned to


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """The files written for a toolkit, and what had to be left out."""

    fitted: Fitted
    subsets: Subsets
    missing: list[str]  # annotated videos without features
    num_without_annotations: int  # number of videos with features but without annotations
    problems: dict[str, str]  # name of a video -> why its entry cannot be used
    files: list[Path]  # the configuration is last
    commands: list[str]  # for training and evaluation


def export_features(annotations: Path, features: Path, *, wanted: Wanted, folder: Path) -> Exported:
    """Write the files that a toolkit needs for training and evaluation on a folder of features.

    Args:
        annotations: see `read_segments`.
        features: the folder of features.
        wanted: the toolkit and its settings.
        folder: receives the files.

    Raises:
        HicoError: the features do not lie on one grid; the annotations cannot be read, fit no features or are not in
            seconds; or it is unclear which videos to train and test on.

    """
    manifest = require_features(features)
    grid = feature_grid(manifest, features, wanted.toolkit)
    preset = wanted.preset or preset_of(next(iter(manifest.values())), features)
    bases = _require_bases(wanted, preset)
    found = read_segments(annotations)
    row_of = _rows_of(found, manifest, origin=annotations)
    lengths = {name: VideoLength(row.duration_seconds, row.source_fps) for name, row in row_of.items()}
    require_seconds(found.segments, lengths, origin=annotations)
    subsets = choose_subsets(found, _num_usable(found, row_of), train=wanted.train_subset, test=wanted.test_subset)
    fitted = fit_annotations(found, row_of, subsets)
    for role, subset in zip((TRAIN, TEST), subsets, strict=True):
        if not any(entry["subset"] == role and entry["annotations"] for entry in fitted.database.values()):
            raise HicoError(f"no segment of subset {subset!r} lies within its video", subject=annotations)
    missing = sorted(found.videos.keys() - row_of.keys())
    folder = folder.absolute()
    where = Places(folder / ANNOTATIONS, folder / CATEGORIES, features.absolute(), folder / RUNS)
    texts = {
        ANNOTATIONS: json.dumps({"database": fitted.database}),
        MISSING: _lines(missing),
        CATEGORIES: _lines(fitted.categories),
        CONFIGS[wanted.toolkit]: _configuration(wanted, grid, fitted, RECIPES[preset], bases=bases, places=where),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return Exported(
        fitted=fitted,
        subsets=subsets,
        missing=missing,
        num_without_annotations=len(manifest) - len(row_of),
        problems=found.problems,
        files=[folder / name for name in texts],
        commands=_commands(
            wanted,
            epochs=num_epochs(RECIPES[preset], num_train=fitted.num_train),
            config=folder / CONFIGS[wanted.toolkit],
            output=where.output,
        ),
    )


def _require_bases(wanted: Wanted, preset: DetectionPreset) -> list[Path]:
    """The toolkit's files on which the configuration is based."""
    if wanted.toolkit != "opentad":
        if wanted.sliding:
            raise UsageError(f"--sliding only works with --for opentad; {wanted.toolkit} reads whole videos")
        return []
    if wanted.checkout is None:
        raise UsageError("--for opentad needs --checkout, the folder of OpenTAD, whose configs/_base_ is extended")
    bases = base_files(wanted.checkout.absolute(), preset, sliding=wanted.sliding)
    for path in bases:
        if not path.is_file():
            raise UsageError(f"--checkout {wanted.checkout}: is not a checkout of OpenTAD; it has no {path}")
    return bases


def _rows_of(found: Annotations, manifest: Mapping[str, ManifestRow], *, origin: Path) -> dict[str, ManifestRow]:
    """The manifest row of each annotated video that has features."""
    by_id = {row.video_id: row for row in manifest.values()}
    row_of = {name: by_id[video_id] for name, video_id in ids_of(found.videos, by_id).items()}
    if not row_of:
        raise HicoError(
            f"has {counted(len(found.videos), 'video')}, none with features; its first video is "
            f"{next(iter(found.videos))!r}, the first with features is {min(by_id)!r}",
            subject=origin,
        )
    return row_of


def _num_usable(found: Annotations, row_of: Mapping[str, ManifestRow]) -> Counter[str]:
    """Number of videos of each subset that have features and segments."""
    labelled = {segment.video for segment in found.segments if segment.label != AMBIGUOUS}
    subsets = (found.videos[name].subset for name in row_of if name in labelled)
    return Counter(subset for subset in subsets if subset is not None)


def _configuration(
    wanted: Wanted, grid: FeatureGrid, fitted: Fitted, recipe: Recipe, *, bases: list[Path], places: Places
) -> str:
    if wanted.toolkit == "actionformer":
        config = actionformer_config(grid, fitted, recipe, places=places)
        return yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return opentad_config(grid, fitted, recipe, bases=bases, sliding=wanted.sliding, places=places)


def _commands(wanted: Wanted, *, epochs: int, config: Path, output: Path) -> list[str]:
    """The toolkit's commands for training and evaluation, to be run in its folder."""
    quoted = shlex.quote(str(config))
    into = [f"cd {shlex.quote(str(wanted.checkout.absolute()))}"] if wanted.checkout else []
    if wanted.toolkit == "actionformer":
        run = shlex.quote(f"{output}/{config.stem}_{RUN}")
        train = f"python train.py {quoted} --output {RUN} --ckpt-freq {checkpoint_interval(epochs)}"
        return [*into, train, f"python eval.py {quoted} {run}"]
    start = "torchrun --nnodes=1 --nproc_per_node=1 --rdzv_backend=c10d --rdzv_endpoint=localhost:0"
    checkpoint = shlex.quote(str(last_checkpoint(output, epochs=epochs)))
    return [*into, f"{start} tools/train.py {quoted}", f"{start} tools/test.py {quoted} --checkpoint {checkpoint}"]


def _lines(names: Sequence[str]) -> str:
    return "".join(f"{name}\n" for name in names)
