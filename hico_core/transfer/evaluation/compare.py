"""Compares encoders on labelled clips: the same probes on the same folds, with intervals and paired differences.

    split         the fold in which each clip is tested; depends on the list alone
    features      computed once per encoder and kept; clips that one encoder cannot read are left out for all
    predictions   of linear probe and nearest neighbours, fold by fold; kept
    rows          accuracies, their intervals, and differences from the first encoder

The linear probe is that of `hico probe`, except for the scale of the features: see `scaled_alike`.
"""

# N clips, V views of a clip, F feature width.

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from hico_core.base.errors import HicoError, UsageError, counted
from hico_core.base.version import __version__
from hico_core.checkpoints.content import EncoderOrigin
from hico_core.checkpoints.frozen import FrozenEncoder, load_frozen
from hico_core.corpus.sources.grouped_lists import GroupedClip, GroupedList
from hico_core.training.run_folder import part_done
from hico_core.transfer.evaluation.clip_features import Computing, features_of_clips, hash_of, keep, read_kept
from hico_core.transfer.evaluation.comparison import ComparedRow, Comparison, Probe
from hico_core.transfer.evaluation.folds import SplitClips, choosing_parts, split_into_folds
from hico_core.transfer.evaluation.intervals import bootstrap_interval, paired_difference, percent
from hico_core.transfer.evaluation.probe import LabelledRows, knn_predictions, linear_probe_of_scaled, scaled_alike
from hico_core.transfer.evaluation.segments import segments_in
from hico_core.transfer.extraction.manifest import require_features

# Show how far the classes can be predicted without any understanding of video.
BASELINES = ("pixels", "motion")

# Below ROOT/compare: features and predictions that other comparisons reuse.
KEPT = ".kept"

# With at most this many training rows, all parts choose the settings of a probe; with more, the first part suffices.
_FEW_ROWS = 2000

# A bootstrap over fewer groups gives intervals that are too narrow.
_ENOUGH_GROUPS = 10

_SEED = 0

# Goes up whenever the probes change, so that predictions of before are not reused.
_PROCEDURE = 2


def encoders_to_compare(
    texts: Sequence[str], *, runs: Sequence[Path], with_baselines: bool, warn: Callable[[str], None]
) -> dict[str, FrozenEncoder]:
    """Row name -> encoder, in order: those named, those of runs, baselines.

    Args:
        texts: names as `load_frozen` accepts them.
        runs: exported encoders of runs, see `finished_runs`.
        with_baselines: add the baselines that are not named.
        warn: called with warnings of `load_frozen`.

    Raises:
        UsageError: there are no encoders, one is named twice, or one does not exist.
        HicoError: the weights of an encoder cannot be read.

    """
    named = [*texts, *map(str, runs)]
    if not named:
        raise UsageError("no encoder given; use --encoder NAME (`hico config encoders` lists them), or --runs")
    repeated = [text for text, count in Counter(named).items() if count > 1]
    if repeated:
        raise UsageError(f"--encoder {repeated[0]}: is given twice")
    named += [name for name in BASELINES if with_baselines and name not in named]
    loaded = {text: load_frozen(text, warn=warn) for text in named}
    # For an encoder of the table, the typed text includes the weights; for a file, its run says more than its path.
    names = {text: text if encoder.table_name else encoder.name for text, encoder in loaded.items()}
    count = Counter(names.values())
    return {names[text] if count[names[text]] == 1 else text: encoder for text, encoder in loaded.items()}


def finished_runs(root: Path) -> list[Path]:
    """The encoders that the runs of a workspace have exported.

    Raises:
        UsageError: there are no exported encoders.

    """
    found = sorted((root / "runs").glob("*/export/encoder.safetensors"))
    if not found:
        raise UsageError(f"{root / 'runs'}: no run has exported an encoder; run `hico pretrain`, or leave --runs out")
    return found


def notes_on_encoders(encoders: Mapping[str, FrozenEncoder], runs: Sequence[Path]) -> list[str]:
    """What a reader of a comparison should know about its encoders, one sentence each.

    Args:
        encoders: by row name. Baselines always have an input of their own.
        runs: exported encoders of runs, see `finished_runs`.

    Raises:
        HicoError: a run has checkpoints, but none can be read.

    """
    notes = []
    parts = {file.parents[1].name: part_done(file.parents[1]) for file in runs}
    unfinished = [f"{name} (after {done})" for name, done in parts.items() if done]
    if unfinished:
        notes.append(f"unfinished training: {', '.join(unfinished)}")
    names_of: dict[str, list[str]] = {}
    for name, encoder in encoders.items():
        if name not in BASELINES:
            clip, size = encoder.entry.clip, encoder.entry.picture.size
            text = f"{clip.num_frames} frames of {size} x {size} at {clip.fps:g} per second"
            names_of.setdefault(text, []).append(name)
    if len(names_of) > 1:
        inputs = "; ".join(f"{', '.join(names)}: {text}" for text, names in names_of.items())
        notes.append(f"the encoders differ in their input, which may explain differences in accuracy: {inputs}")
    return notes


def notes_on_results(rows: Sequence[ComparedRow]) -> list[str]:
    """What a reader of a comparison should know about its accuracies and intervals, one sentence each."""
    notes = []
    if rows[0].num_test_groups < _ENOUGH_GROUPS:
        few = counted(rows[0].num_test_groups, "test group")
        notes.append(f"only {few}: with fewer than ten, the intervals are too narrow; add clips of other groups")
    own = [row for row in rows if row.encoder not in BASELINES]
    if own and all(row.accuracy <= row.most_frequent_class for row in own):
        guess = percent(own[0].most_frequent_class)
        notes.append(
            f"no encoder is better than always naming the most frequent class ({guess}), so differences between them "
            "mean little"
        )
    return notes


class ComparedSegments(NamedTuple):
    """The result of comparing folders of features of segments."""

    comparison: Comparison
    remarks: list[str]  # what a reader of the results should know


class ProbeSettings(NamedTuple):
    """How features are extracted and probed."""

    num_views: int
    num_neighbours: int


def compare(
    encoders: Mapping[str, FrozenEncoder],
    split: SplitClips,
    kept: Path,
    *,
    settings: ProbeSettings,
    computing: Computing,
    on_progress: Callable[[float, str], None] = lambda done, text: None,
) -> Comparison:
    """Probe encoders on the same clips and folds.

    Args:
        encoders: by row name; the others are compared with the first one.
        split: from `folds.split_into_folds` or `folds.split_as_listed`.
        kept: folder for features and predictions; existing ones are reused.
        settings: for features and probes.
        computing: device and workers.
        on_progress: called with the number of finished parts, out of 2 x encoders, and what was finished.

    Raises:
        UsageError: no clip can be read.
        HicoError: too few clips can be read, features are damaged or not finite, or another process is computing them.

    """
    features = _features_by_name(encoders, split, kept, settings=settings, computing=computing, on_progress=on_progress)
    readable = np.array(
        [all(column[clip] is not None for column in features.values()) for clip in range(len(split.clips))]
    )
    if not readable.any():
        raise UsageError(f"no clip in the list can be read, such as {split.clips[0].path}")
    split = _only_readable(split, readable)
    predicted: dict[str, dict[Probe, np.ndarray]] = {}
    for name, column in features.items():

        def on_fold(number: int, num_folds: int, name: str = name) -> None:
            part = (number - 1) / num_folds
            on_progress(len(encoders) + len(predicted) + part, f"{name}: probes, fold {number} of {num_folds}")

        rows = [array for array, is_readable in zip(column, readable, strict=True) if is_readable and array is not None]
        predicted[name] = _kept_predictions(rows, split, kept, num_neighbours=settings.num_neighbours, on_fold=on_fold)
        on_progress(len(encoders) + len(predicted), f"{name}: probes")
    origins = {name: encoder.origin for name, encoder in encoders.items()}
    return Comparison(_rows(origins, predicted, split), _predictions_table(predicted, split), int((~readable).sum()))


def _only_readable(split: SplitClips, readable: np.ndarray) -> SplitClips:
    """Leave out clips that cannot be read; a fold all of whose clips are left out is not tested.

    Raises:
        HicoError: without them, fewer than two groups are tested, or fewer than two classes are trained on.

    """
    kept = split.only(readable)
    if readable.all():
        return kept
    tested = np.unique(kept.tested_in[kept.tested_in >= 0])
    is_testable = len(set(kept.only(kept.tested_in >= 0).groups)) > 1
    is_trainable = all(len(set(kept.only(kept.tested_in != fold).labels)) > 1 for fold in tested)
    if not is_testable or not is_trainable:
        missing = "two classes to train on in each fold" if is_testable else "two groups to test on"
        first = split.clips[int(np.argmin(readable))].path
        raise HicoError(
            f"{counted(int((~readable).sum()), 'clip')} cannot be read, such as {first}; the others lack {missing}: "
            "replace these files, or add clips to the list"
        )
    return kept


def _features_by_name(
    encoders: Mapping[str, FrozenEncoder],
    split: SplitClips,
    kept: Path,
    *,
    settings: ProbeSettings,
    computing: Computing,
    on_progress: Callable[[float, str], None],
) -> dict[str, list[np.ndarray | None]]:
    features: dict[str, list[np.ndarray | None]] = {}
    for name, encoder in encoders.items():

        def on_clip(num_done: int, name: str = name) -> None:
            part = num_done / len(split.clips)
            on_progress(len(features) + part, f"{name}: features of {num_done}/{len(split.clips)} clips")

        features[name] = features_of_clips(
            encoder,
            [clip.path for clip in split.clips],
            kept,
            num_views=settings.num_views,
            computing=computing,
            on_clip=on_clip,
        )
        encoder.network.to("cpu")  # the next encoder needs the GPU's memory
    return features


def compare_segments(
    folders: Mapping[str, Path],
    *,
    num_folds: int,
    num_neighbours: int,
    on_done: Callable[[str], None] = lambda what: None,
) -> ComparedSegments:
    """Probe features of the same annotated segments, from several folders, in folds by video.

    Args:
        folders: by row name; the others are compared with the first one.
        num_folds: number of folds; each is tested once.
        num_neighbours: number of training segments that vote.
        on_done: called with each finished folder.

    Raises:
        UsageError: there are too few videos, or each class lies in a single video.
        HicoError: a folder has no features of segments, or of other segments, or a file is damaged.

    """
    manifests = {name: require_features(folder) for name, folder in folders.items()}
    first, *others = (segments_in(folders[name], manifest) for name, manifest in manifests.items())
    for folder, other in zip(list(folders.values())[1:], others, strict=True):
        if other.names != first.names:
            raise HicoError(f"does not have the same segments as {next(iter(folders.values()))}", subject=folder)
    assert first.rows.groups is not None
    clips = [
        GroupedClip(Path(name), first.classes[label], str(group))
        for name, label, group in zip(first.names, first.rows.labels, first.rows.groups, strict=True)
    ]
    split = split_into_folds(GroupedList(clips, has_groups=True, bad=[]), num_folds=num_folds)
    predicted: dict[str, dict[Probe, np.ndarray]] = {}
    for name, found in zip(folders, (first, *others), strict=True):
        predicted[name] = predict_by_folds(
            np.split(found.rows.features, len(clips)), split, num_neighbours=num_neighbours
        )
        on_done(name)
    rows = [next(iter(manifest.values())) for manifest in manifests.values()]
    origins = {
        name: EncoderOrigin(path=row.encoder_text, sha256=row.checkpoint_sha256)
        for name, row in zip(folders, rows, strict=True)
    }
    return ComparedSegments(
        Comparison(_rows(origins, predicted, split), _predictions_table(predicted, split), 0), split.remarks
    )


def _kept_predictions(
    features: Sequence[np.ndarray],
    split: SplitClips,
    kept: Path,
    *,
    num_neighbours: int,
    on_fold: Callable[[int, int], None],
) -> dict[Probe, np.ndarray]:
    """Predictions of the probes, read from their file if the same inputs were probed before."""
    digest = hashlib.sha256()
    for array in features:
        digest.update(repr(array.shape).encode() + array.tobytes())
    asked = {
        "features": digest.hexdigest(),
        "labels": split.labels,
        "groups": split.groups,
        "tested_in": split.tested_in.tolist(),
        "num_neighbours": num_neighbours,
        "hico": __version__,
        "procedure": _PROCEDURE,
    }
    file = kept / "predictions" / f"{hash_of(asked)}.npy"
    if not file.exists():
        found = predict_by_folds(features, split, num_neighbours=num_neighbours, on_fold=on_fold)
        keep(file, np.stack([found["linear"], found["knn"]]))
    linear, knn = read_kept(file)
    return {"linear": linear, "knn": knn}


def predict_by_folds(
    features: Sequence[np.ndarray],
    split: SplitClips,
    *,
    num_neighbours: int,
    on_fold: Callable[[int, int], None] = lambda number, num_folds: None,
) -> dict[Probe, np.ndarray]:
    """The class predicted for each clip by each probe, as an index into the sorted names: (N,); -1: not tested.

    Args:
        features: (V, F) of each clip.
        split: classes, groups and folds.
        num_neighbours: number of training clips that vote.
        on_fold: called before each fold is probed, with its number, from 1, and the number of folds.

    Raises:
        HicoError: a fold has only one class to train on, or features are not finite.

    """
    _, label_N = np.unique(split.labels, return_inverse=True)
    found: dict[Probe, np.ndarray] = {"linear": np.full(len(features), -1), "knn": np.full(len(features), -1)}
    folds = np.unique(split.tested_in[split.tested_in >= 0])
    for number, fold in enumerate(folds, start=1):
        on_fold(number, len(folds))
        is_test = split.tested_in == fold
        train, test = (_rows_of(features, label_N, np.flatnonzero(side)) for side in (~is_test, is_test))
        known = split.only(~is_test)
        found["knn"][is_test] = knn_predictions(train, test, k=num_neighbours)
        parts = choosing_parts(known.labels, known.groups)
        held_out = [np.isin(train.videos, np.flatnonzero(~is_test)[part]) for part in parts]
        if len(train.labels) > _FEW_ROWS:
            held_out = held_out[:1]
        probe = linear_probe_of_scaled(*scaled_alike(train, test), held_out=held_out, seed=_SEED)
        found["linear"][is_test] = probe.predictions
    return found


def _rows_of(features: Sequence[np.ndarray], label_N: np.ndarray, clips: np.ndarray) -> LabelledRows:
    counts = [len(features[clip]) for clip in clips]
    return LabelledRows(
        np.concatenate([features[clip] for clip in clips]), np.repeat(label_N[clips], counts), np.repeat(clips, counts)
    )


def _rows(
    origins: Mapping[str, EncoderOrigin | None], predicted: Mapping[str, Mapping[Probe, np.ndarray]], split: SplitClips
) -> list[ComparedRow]:
    classes, label_N = np.unique(split.labels, return_inverse=True)
    is_tested = split.tested_in >= 0
    groups = split.only(is_tested).groups
    first = next(iter(predicted))
    rows = []
    for name, of_probe in predicted.items():
        origin = origins[name]
        for probe, found_N in of_probe.items():
            correct, reference = ((one == label_N)[is_tested] for one in (found_N, predicted[first][probe]))
            accuracy = bootstrap_interval(correct, groups, seed=_SEED)
            difference = None if name == first else paired_difference(correct, reference, groups, seed=_SEED)
            rows.append(
                ComparedRow(
                    encoder=name,
                    weights=origin.path if origin else None,
                    weights_sha256=origin.sha256 if origin else None,
                    probe=probe,
                    accuracy=accuracy.value,
                    accuracy_low=accuracy.low,
                    accuracy_high=accuracy.high,
                    difference=difference.value if difference else None,
                    difference_low=difference.low if difference else None,
                    difference_high=difference.high if difference else None,
                    num_test_clips=len(groups),
                    num_test_groups=len(set(groups)),
                    num_classes=len(classes),
                    chance=1 / len(classes),
                    most_frequent_class=float(np.bincount(label_N[is_tested]).max() / len(groups)),
                )
            )
    return rows


def _predictions_table(predicted: Mapping[str, Mapping[Probe, np.ndarray]], split: SplitClips) -> pa.Table:
    classes = np.unique(split.labels)
    is_tested = split.tested_in >= 0
    tested = split.only(is_tested)
    tables = []
    for name, of_probe in predicted.items():
        for probe, found_N in of_probe.items():
            chosen = classes[found_N[is_tested]]
            columns: dict[str, object] = {
                "encoder": [name] * len(chosen),
                "probe": [probe] * len(chosen),
                "path": [str(clip.path) for clip in tested.clips],
                "label": tested.labels,
                "group": tested.groups,
                "fold": tested.tested_in,
                "predicted": chosen.tolist(),
                "correct": chosen == np.array(tested.labels),
            }
            tables.append(pa.table(columns))
    return pa.concat_tables(tables)
