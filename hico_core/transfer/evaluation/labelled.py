"""Features of labelled videos, from a folder of features or straight from the videos, for probes and retrieval."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hico_core.base.addresses import Location, locate
from hico_core.base.cache import LocalCache
from hico_core.base.choices import DeviceName, Subset
from hico_core.base.errors import HicoError
from hico_core.checkpoints.frozen import FrozenEncoder
from hico_core.corpus.index import read_class_names
from hico_core.corpus.sources.benchmark_lists import numbered_as, read_split
from hico_core.corpus.sources.ids import Source
from hico_core.data.videos import IndexedVideos, open_videos
from hico_core.data.workers import num_workers
from hico_core.encoding.encoder import EncodedVideo, encode_videos, with_channels_last
from hico_core.encoding.hardware import choose_device, choose_precision
from hico_core.encoding.lanes import Reading, WholeVideo
from hico_core.encoding.windows import Views
from hico_core.model.pooling import PooledEncoder
from hico_core.transfer.evaluation.probe import LabelledRows
from hico_core.transfer.extraction.manifest import ManifestRow, features_of

logger = logging.getLogger(__name__)


class LabelledVideo(NamedTuple):
    """A video with a known class."""

    video_id: str
    label: int
    video: WholeVideo

    def read_through(self, cache: LocalCache) -> "LabelledVideo":
        """The same video, read through a cache if it lies in a bucket."""
        return self._replace(video=self.video.read_through(cache))


def labelled_of_index(root: Location, subset: Subset) -> list[LabelledVideo]:
    """The labelled videos of a subset of a workspace's index."""
    return labelled_among(open_videos(root, subset=subset))


def labelled_among(videos: IndexedVideos) -> list[LabelledVideo]:
    """The videos of an index with a known class, in order."""
    labels = [videos.label(number) for number in range(len(videos))]
    return [
        LabelledVideo(videos.video_id(number), label, WholeVideo(locate(videos.source(number)), videos.pieces(number)))
        for number, label in enumerate(labels)
        if label is not None
    ]


def labelled_of_list(sources: Sequence[Source]) -> list[LabelledVideo]:
    """The usable videos of a list from `corpus.benchmark_lists.read_split`."""
    return [
        LabelledVideo(source.video_id, source.label, WholeVideo(source.path, []))
        for source in sources
        if source.label is not None and not source.obstacle
    ]


class LabelledSet(NamedTuple):
    """Labelled videos, and label -> name for the classes that have a name."""

    videos: list[LabelledVideo]
    classes: dict[int, str]
    num_bad: int = 0  # lines of the list that cannot be used


def labelled_sets(
    lists: Sequence[str] | None,
    *,
    root: Location,
    subset: Subset,
    data_root: str | None,
    known: Mapping[int, str] | None = None,
    on_bad: Callable[[Source], None] = lambda video: None,
) -> list[LabelledSet]:
    """The labelled videos of each list, or, without lists, of a subset of the index.

    Args:
        lists: see `hico_core.corpus.sources.benchmark_lists.read_split`.
        root: the workspace.
        subset: of the index, or of a list that holds several subsets.
        data_root: folder of the videos of lists; None: that of the list.
        known: label -> class name of the other side, by which lists are numbered; None: the names of the index, for a
            list that shares any of them.
        on_bad: called with a placeholder source for each line of a list that cannot be used.

    Raises:
        UsageError: a list cannot be read, or none of its lines is valid.
        HicoError: two videos have the same id, or there is no index.

    """
    of_index = read_class_names(root) if known is None else known
    if not lists:
        return [LabelledSet(labelled_of_index(root, subset), dict(of_index))]
    found = []
    for given in lists:
        base = locate(given).parent if data_root is None else locate(data_root)
        listed = read_split(given, data_root=base, subset=subset)
        of_one_corpus = known is not None or set(listed.classes.values()) & set(of_index.values())
        listed = numbered_as(listed, of_index if of_one_corpus else {})
        bad = [video for video in listed.videos if video.obstacle]
        for video in bad:
            on_bad(video)
        found.append(LabelledSet(labelled_of_list(listed.videos), listed.classes, len(bad)))
    return found


def rows_from_folder(
    folder: Location, manifest: dict[str, ManifestRow], videos: Sequence[LabelledVideo], *, means: bool = False
) -> LabelledRows:
    """Read all windows of the videos from a folder, or one row per video: the mean of its windows.

    Files are read one by one, so that means can be computed for a folder larger than memory. Videos without features
    are left out, and their number is logged.

    Raises:
        HicoError: no video has features, or a file does not match the manifest.

    """
    by_id = {row.video_id: row for row in manifest.values()}
    known = [video for video in videos if video.video_id in by_id]
    if videos and not known:
        raise HicoError(
            f"{folder}: has no features of any labelled video, such as {videos[0].video_id!r} ({len(videos)} in all)"
        )
    if len(known) < len(videos):
        logger.warning("%s: has no features of %d of %d videos", folder, len(videos) - len(known), len(videos))
    rows = [by_id[video.video_id] for video in known]
    arrays = []
    for row in rows:
        array = np.asarray(features_of(folder, row), dtype=np.float32).reshape(row.rows, -1)
        arrays.append(array.mean(axis=0, dtype=np.float64, keepdims=True).astype(np.float32) if means else array)
    return _labelled(known, arrays)


def encoded_views(
    encoder: FrozenEncoder,
    videos: Sequence[WholeVideo],
    *,
    num_views: int,
    device: DeviceName,
    workers: int | None,
) -> Iterator[EncodedVideo]:
    """Encode clips of the encoder's usual length, `num_views` spread over each video; a single one is in the middle."""
    clip = encoder.entry.clip
    chosen = choose_device(device)
    return encode_videos(
        with_channels_last(PooledEncoder(encoder.network).to(chosen)),
        videos,
        Reading(layout=Views(num_views, clip.num_frames, 1, clip.fps), picture=encoder.entry.picture),
        precision=choose_precision("auto", chosen),
        workers=num_workers(workers),
    )


def rows_from_videos(
    encoder: FrozenEncoder,
    videos: Sequence[LabelledVideo],
    *,
    num_views: int,
    device: DeviceName,
    workers: int | None,
) -> LabelledRows:
    """Encode several clips of each video, in the form on which the encoder was trained.

    Videos that cannot be read are left out and logged.
    """
    whole = [video.video for video in videos]
    encoded = encoded_views(encoder, whole, num_views=num_views, device=device, workers=workers)
    known, arrays = [], []
    for video, found in zip(videos, encoded, strict=True):
        if found.rows is None:
            logger.warning("left out: %s", found.bad)
        else:
            known.append(video)
            arrays.append(found.rows.numpy())
    return _labelled(known, arrays)


def _labelled(videos: Sequence[LabelledVideo], arrays: Sequence[np.ndarray]) -> LabelledRows:
    lengths = [len(array) for array in arrays]
    return LabelledRows(
        np.concatenate(arrays) if arrays else np.empty((0, 0), dtype=np.float32),
        np.repeat(np.array([video.label for video in videos], dtype=np.int64), lengths),
        np.repeat(np.array([video.video_id for video in videos], dtype=object), lengths),
    )
