"""The labelled videos of an index, and the classes given by their labels."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from hico_core.base.addresses import Location
from hico_core.base.cache import LocalCache
from hico_core.base.errors import HicoError, UsageError
from hico_core.corpus.index import read_index_table
from hico_core.data.videos import COLUMNS, IndexedVideos


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSets:
    """The labelled videos of an index."""

    train: IndexedVideos
    val: IndexedVideos
    test: IndexedVideos
    labels: dict[str, int]
    num_classes: int


def labelled_sets(
    root: Location, *, batch_size: int, num_classes: int | None, processes: int, cache: LocalCache
) -> LabelledSets:
    """Find the videos for training, validation and testing.

    Args:
        root: the workspace with index.parquet.
        batch_size: videos per step, over all processes.
        num_classes: None: one more than the largest label.
        processes: number of processes that train together.
        cache: cache for files in buckets.

    Raises:
        HicoError: there are no training videos, or too few, or a label is not a class.
        UsageError: the batch cannot be split evenly among the processes.

    """
    table = read_index_table(root, columns=COLUMNS)
    labelled: pa.Table = table.filter(pc.is_valid(table["label"]))
    train, val, test = (
        IndexedVideos(labelled, root=root, subset=subset, cache=cache) for subset in ("train", "val", "test")
    )
    if len(train) == 0:
        raise HicoError(
            f"{root}: its index has no labelled videos to train on; add them with "
            "`hico index --list FILE`, a list of `<path> <label>`"
        )
    if batch_size > len(train):
        raise HicoError(
            f"{root}: train.batch_size {batch_size} is too large for {len(train)} labelled videos; "
            f"use --batch-size {len(train)} or fewer"
        )
    if batch_size % processes:
        raise UsageError(
            f"train.batch_size {batch_size} is the number of videos over all processes, so it must be a "
            f"multiple of their number, {processes}"
        )
    labels = {videos.video_id(n): _label(videos, n) for videos in (train, val, test) for n in range(len(videos))}
    last = max(labels, key=labels.__getitem__)
    if num_classes is not None and labels[last] >= num_classes:
        raise HicoError(f"{last} has label {labels[last]}, but num_classes is {num_classes}")
    return LabelledSets(train=train, val=val, test=test, labels=labels, num_classes=num_classes or labels[last] + 1)


def _label(videos: IndexedVideos, number: int) -> int:
    label = videos.label(number)
    assert label is not None  # only labelled videos were taken
    return label
