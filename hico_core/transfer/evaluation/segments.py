"""Features of annotated segments, one row each: probes in folds by video, and retrieval among other videos."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hico_core.base.choices import RetrievalProtocol
from hico_core.base.errors import HicoError, UsageError
from hico_core.transfer.evaluation.folds import folds_by_group
from hico_core.transfer.evaluation.probe import LabelledRows
from hico_core.transfer.evaluation.retrieval import RANKS, Retrieval, chance_of_match, rank
from hico_core.transfer.extraction.manifest import ManifestRow, features_of


class LabelledSegments(NamedTuple):
    """Segments as rows to probe: each counts by itself, in the group of its video."""

    rows: LabelledRows
    classes: list[str]  # by label
    names: list[str]  # of each segment: video, start and end


def are_segments(manifest: Mapping[str, ManifestRow]) -> bool:
    """Whether the rows of a folder's features are segments, not windows."""
    return any(row.rows_of == "segments" for row in manifest.values())


def segments_in(folder: Path, manifest: Mapping[str, ManifestRow]) -> LabelledSegments:
    """Read all segments of a folder.

    Args:
        folder: of features of segments.
        manifest: of the folder.

    Raises:
        HicoError: the folder has none, or a file does not match the manifest.

    """
    if not are_segments(manifest):
        raise HicoError("its rows are windows, not segments; extract again with --segments", subject=folder)
    rows = sorted(manifest.values(), key=lambda row: row.video_id)
    classes, label_N = np.unique([label for row in rows for label in row.labels or []], return_inverse=True)
    times = [(row.video_id, *ends) for row in rows for ends in zip(row.start_seconds, row.end_seconds, strict=True)]
    arrays = [np.asarray(features_of(folder, row), dtype=np.float32).reshape(row.rows, -1) for row in rows]
    groups = np.repeat(np.array([row.video_id for row in rows]), [row.rows for row in rows])
    labelled = LabelledRows(np.concatenate(arrays), label_N, np.arange(len(times)), groups)
    return LabelledSegments(
        labelled, classes.tolist(), [f"{video} {start:.3f}-{end:.3f}" for video, start, end in times]
    )


def folds_of_segments(rows: LabelledRows, num_folds: int) -> list[tuple[LabelledRows, LabelledRows]]:
    """Rows for training and testing, one pair per fold; segments of one video are tested together.

    Raises:
        UsageError: there are fewer videos than folds.

    """
    assert rows.groups is not None
    tested_in = folds_by_group(rows.labels, rows.groups, num_folds)
    return [(rows.only(tested_in != fold), rows.only(tested_in == fold)) for fold in range(num_folds)]


def retrieval_among_videos(rows: LabelledRows, *, protocol: RetrievalProtocol) -> Retrieval:
    """Recall at k and mean average precision, searching for each segment among those of all other videos.

    Args:
        rows: segments.
        protocol: see `retrieval`; coclr subtracts the mean of all segments.

    Raises:
        UsageError: all segments are of one video.

    """
    assert rows.groups is not None
    videos, group_N = np.unique(rows.groups, return_inverse=True)
    if len(videos) < 2:
        raise UsageError(f"all segments are of one video, {str(videos[0])!r}; matches are searched in other videos")
    # Centred with all segments, as those of one video would lose what they have in common.
    features = rows.features - rows.features.mean(axis=0) if protocol == "coclr" else rows.features
    rows = rows._replace(features=features, groups=group_N)
    sizes_V = len(rows.labels) - np.bincount(group_N)  # of the gallery, which lacks the video of the query
    ranks = [k for k in RANKS if k <= sizes_V.min()]
    found = rank(rows, rows, deepest=max(ranks, default=1), whole=True)
    pairs, counts = np.unique(np.stack([group_N, rows.labels]), axis=1, return_counts=True)
    relevant = np.bincount(rows.labels)[pairs[1]] - counts
    return Retrieval(
        protocol=protocol,
        num_queries=len(rows.labels),
        gallery_size=len(rows.labels),
        recall=found.recall(ranks),
        mean_average_precision=found.mean_average_precision,
        chance={k: float(np.average(_chances(relevant, sizes_V[pairs[0]], k=k), weights=counts)) for k in ranks},
    )


def _chances(relevant: np.ndarray, sizes: np.ndarray, *, k: int) -> list[float]:
    return [chance_of_match(int(one), int(size), k=k) for one, size in zip(relevant, sizes, strict=True)]
