"""Probes features of labelled videos, from a folder of features or straight from the videos, and writes the results."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from hico_core.base.addresses import Location, absolute, name_from
from hico_core.base.cache import LocalCache
from hico_core.base.choices import DeviceName
from hico_core.base.storage import write_text
from hico_core.checkpoints.frozen import FrozenEncoder
from hico_core.transfer.evaluation.labelled import LabelledSet, LabelledVideo, rows_from_folder, rows_from_videos
from hico_core.transfer.evaluation.probe import LabelledRows, ProbeReport, probe_splits
from hico_core.transfer.evaluation.segments import folds_of_segments, segments_in
from hico_core.transfer.extraction.manifest import ManifestRow, require_features


class ProbedFeatures(NamedTuple):
    """Where the features of labelled videos come from."""

    name: str
    folder: Path | None  # None: computed from the videos
    encoder: str  # as `load_frozen` accepts it
    rows_of: Callable[[Sequence[LabelledVideo]], LabelledRows]


def features_in_folder(folder: Path) -> ProbedFeatures:
    """Use the features of a folder.

    Raises:
        HicoError: the folder has no features.

    """
    manifest = require_features(folder)
    encoder = next(iter(manifest.values())).encoder_text
    return ProbedFeatures(folder.name, folder, encoder, lambda videos: rows_from_folder(folder, manifest, videos))


def features_of_videos(
    encoder: FrozenEncoder, *, num_views: int, device: DeviceName, workers: int | None, cache: LocalCache
) -> ProbedFeatures:
    """Encode several clips of each video, see `rows_from_videos`; files in buckets are read through the cache."""

    def rows_of(videos: Sequence[LabelledVideo]) -> LabelledRows:
        here = [video._replace(video=video.video.read_through(cache)) for video in videos]
        return rows_from_videos(encoder, here, num_views=num_views, device=device, workers=workers)

    return ProbedFeatures(encoder.folder_name, None, encoder.text, rows_of)


class Probed(NamedTuple):
    """The measurements, and the number of videos behind them."""

    report: ProbeReport
    num_read: int  # videos with features, over all lists


def probe_sets(
    features: ProbedFeatures,
    train: Sequence[LabelledSet],
    test: Sequence[LabelledSet],
    *,
    seeds: Sequence[int],
    k: int,
    shots: Sequence[int],
    on_done: Callable[[str], None] = lambda what: None,
) -> Probed:
    """Probe features on each pair of sets, see `probe_splits`."""
    splits = [
        (features.rows_of(one.videos), features.rows_of(other.videos)) for one, other in zip(train, test, strict=True)
    ]
    report = probe_splits(splits, seeds=seeds, k=k, shots=shots, on_done=on_done)
    return Probed(report, sum(len(set(side.videos)) for split in splits for side in split))


def probe_segments(
    folder: Path,
    manifest: Mapping[str, ManifestRow],
    *,
    num_folds: int,
    seeds: Sequence[int],
    k: int,
    shots: Sequence[int],
    on_done: Callable[[str], None] = lambda what: None,
) -> Probed:
    """Probe features of segments in folds by video, see `probe_splits`; each segment is tested once.

    Raises:
        UsageError: there are fewer videos than folds.

    """
    rows = segments_in(folder, manifest).rows
    report = probe_splits(folds_of_segments(rows, num_folds), seeds=seeds, k=k, shots=shots, on_done=on_done)
    return Probed(report, len(rows.labels))


def write_probe(target: Path, report: ProbeReport, features: ProbedFeatures, *, root: Location) -> dict[str, object]:
    """Write the file of a probe, with features and encoder relative to the workspace; return its content."""
    encoder = name_from(root, features.encoder)
    fields: dict[str, object] = {
        **asdict(report),
        "linear": report.linear._asdict(),
        "knn": report.knn._asdict(),
        "few_shot": {count: value._asdict() for count, value in report.few_shot.items()},
        "features": encoder if features.folder is None else name_from(root, absolute(features.folder)),
        "encoder": encoder,
    }
    write_text(target, json.dumps(fields, indent=2) + "\n")
    return fields
