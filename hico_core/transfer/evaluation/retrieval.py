"""Search for videos and moments that are similar to a query, in a folder of features, and measures of retrieval."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hico_core.base.addresses import Location, absolute, name_from
from hico_core.base.choices import DeviceName, RetrievalProtocol
from hico_core.base.errors import HicoError, counted
from hico_core.base.storage import write_text
from hico_core.corpus.sources.ids import video_id
from hico_core.encoding.neighbours import unit_rows
from hico_core.transfer.evaluation.probe import LabelledRows, video_means
from hico_core.transfer.extraction.jobs import encoder_of_runs, frozen_of
from hico_core.transfer.extraction.manifest import ADOPTED, ManifestRow, features_of
from hico_core.transfer.features import FeatureExtractor

RANKS = (1, 5, 10, 20, 50)

# The folder of a workspace for measurements.
RESULTS = "retrieval"

# Queries compared with a gallery in one product: 512 x 100,000 similarities take 200 MB.
_QUERIES_AT_ONCE = 512

# Gallery rows that are read from the disk together.
_ROWS_AT_ONCE = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMoment:
    """A moment of a video that is similar to a moment of the query."""

    video_id: str
    start_seconds: float
    end_seconds: float
    similarity: float  # cosine
    query_seconds: float  # start of the query's moment
    source: str


def extractor_of(
    row: ManifestRow, *, encoder: str | None, device: DeviceName, root: Path | None = None
) -> FeatureExtractor:
    """The extractor that made a row of a manifest, for encoding a query in the same way.

    Args:
        row: of the manifest.
        encoder: its current place, as `load_frozen` accepts it; None: as in the row, or among the runs of `root`.
        device: where to compute.
        root: the workspace; its runs are searched for the encoder by hash if the row's path does not exist.

    Raises:
        HicoError: the file is gone, or has changed.

    """
    if row.encoder == ADOPTED:
        raise HicoError(f"{row.file}: comes from another tool, so hico cannot encode a query; use --protocol")
    text = encoder or row.encoder_text
    if encoder is None and row.encoder is None and not Path(text).exists():
        found = encoder_of_runs(root, row.checkpoint_sha256) if root is not None else None
        if found is None:
            raise HicoError(f"{text}: the encoder of these features is missing; name it with --encoder")
        text = str(found)
    extractor = FeatureExtractor.from_checkpoint(
        text,
        window=row.window,
        stride=row.stride,
        fps=None if row.native_fps else row.fps,
        align=row.align,
        tail=row.tail,
        pool=row.pool,
        layer=row.layer,
        device=device,
    )
    frozen = frozen_of(extractor)
    if (frozen.table_name, frozen.sha256) != (row.encoder, row.checkpoint_sha256):
        raise HicoError(f"{text}: is not the encoder of these features; name theirs with --encoder")
    return extractor


class _Block(NamedTuple):
    """Gallery rows that are read together."""

    features: np.ndarray  # (n, F)
    files: np.ndarray  # (n,) number of each row's file
    places: np.ndarray  # (n,) index of each row in its file


def search(
    queries: np.ndarray,
    query_starts: np.ndarray,
    folder: Location,
    rows: Sequence[ManifestRow],
    *,
    top: int,
    excluded: frozenset[str] = frozenset(),
    one_per_video: bool = False,
) -> list[FoundMoment]:
    """Find the gallery's rows that are most similar to any row of a query, each once, best first.

    The gallery is read file by file, so it may be larger than memory.

    Args:
        queries: (Q, F) features of the query's windows.
        query_starts: (Q,) seconds.
        folder: of the gallery's features.
        rows: the folder's manifest.
        top: number of matches.
        excluded: ids of videos to ignore.
        one_per_video: whether only the best row of each video counts.

    Raises:
        HicoError: a file does not match the manifest, or has another width than the query.

    """
    units_QF = unit_rows(torch.from_numpy(queries.astype(np.float32)))
    best: list[tuple[float, int, int, int]] = []  # similarity, file, row in the file, row of the query
    gallery = [row for row in rows if row.video_id not in excluded]
    for block in _blocks(folder, gallery):
        if block.features.shape[1] != queries.shape[1]:
            raise HicoError(
                f"{folder}: has {block.features.shape[1]} numbers per row, the query has {queries.shape[1]}"
            )
        similarity_QG = units_QF @ unit_rows(torch.from_numpy(block.features)).T
        values, which = similarity_QG.max(dim=0)
        if one_per_video:
            values = _best_of_each(values, torch.from_numpy(block.files))
        for place in values.topk(min(top, int((values != -torch.inf).sum()))).indices.tolist():
            best.append((float(values[place]), int(block.files[place]), int(block.places[place]), int(which[place])))
        best = sorted(best, key=lambda found: (-found[0], *found[1:]))[:top]
    return [
        FoundMoment(
            video_id=gallery[file].video_id,
            start_seconds=gallery[file].start_seconds[place],
            end_seconds=gallery[file].end_seconds[place],
            similarity=similarity,
            query_seconds=float(query_starts[query]),
            source=gallery[file].source,
        )
        for similarity, file, place, query in best
    ]


def _best_of_each(values_G: Tensor, files_G: Tensor) -> Tensor:
    """Similarities (G,), set to -inf except for the first best one of each file; blocks never divide a file."""
    best_of = torch.full((int(files_G.max()) + 1,), -torch.inf).scatter_reduce(0, files_G, values_G, "amax")
    candidates = (values_G == best_of[files_G]).nonzero().flatten()
    first = candidates[np.unique(files_G[candidates].numpy(), return_index=True)[1]]
    return torch.full_like(values_G, -torch.inf).index_copy(0, first, values_G[first])


class FoundMoments(NamedTuple):
    """The matches of a search for a video, best first."""

    moments: list[FoundMoment]
    window_seconds: float  # length of a query moment


def search_video(
    query: Path,
    folder: Location,
    rows: Sequence[ManifestRow],
    *,
    extractor: FeatureExtractor,
    top: int,
    own: bool,
    one_per_video: bool,
) -> FoundMoments:
    """Find the moments in a folder's videos that are most similar to any moment of a video.

    Args:
        query: the query video.
        folder: of features.
        rows: the folder's manifest.
        extractor: from `extractor_of`.
        top: number of matches.
        own: whether moments of the query itself count, if it is in the folder.
        one_per_video: see `search`.

    Raises:
        BadVideo: the query cannot be read.
        HicoError: see `search`.

    """
    features = extractor.extract(query)
    of_query = {row.video_id for row in rows if row.source == str(absolute(query)) or row.video_id == video_id(query)}
    moments = search(
        features.array.reshape(len(features.array), -1),
        features.times[:, 0],
        folder,
        rows,
        top=top,
        excluded=frozenset() if own else frozenset(of_query),
        one_per_video=one_per_video,
    )
    return FoundMoments(moments, float(features.times[0, 1] - features.times[0, 0]))


def _blocks(folder: Location, rows: Sequence[ManifestRow]) -> Iterator[_Block]:
    """Yield all rows of a folder in order, in blocks of convenient size; files are not divided."""
    arrays: list[np.ndarray] = []
    numbers: list[int] = []
    for number, row in enumerate(rows):
        arrays.append(np.asarray(features_of(folder, row), dtype=np.float32).reshape(row.rows, -1))
        numbers.append(number)
        if sum(map(len, arrays)) >= _ROWS_AT_ONCE or number == len(rows) - 1:
            lengths = [len(array) for array in arrays]
            yield _Block(
                np.concatenate(arrays), np.repeat(numbers, lengths), np.concatenate([np.arange(n) for n in lengths])
            )
            arrays, numbers = [], []


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """How well queries find videos of their class."""

    protocol: RetrievalProtocol
    num_queries: int
    gallery_size: int
    recall: dict[int, float]  # R@k: fraction of the queries with a video of their class among the first k
    mean_average_precision: float | None  # over the whole ranking; None if not requested
    chance: dict[int, float]  # R@k of a random ranking


def retrieval(
    queries: LabelledRows,
    gallery: LabelledRows,
    *,
    protocol: RetrievalProtocol,
    ranks: Sequence[int] = RANKS,
    mean_average_precision: bool = True,
) -> Retrieval:
    """Recall at k and mean average precision of a search by cosine similarity.

    video: a video is the mean of its windows. clip: each window is a query, and is searched for among all windows.
    coclr: as video, but the mean of all queries is subtracted from each, and likewise for the gallery, as in CoCLR's
        code.

    Args:
        queries: rows of the query videos.
        gallery: rows that are searched; no video may be in both.
        protocol: see above.
        ranks: the k of R@k; those beyond the size of the gallery are left out.
        mean_average_precision: whether to compute it; it needs the whole ranking, which takes longer than everything
            else.

    Raises:
        HicoError: one side is empty, or a video is on both.

    """
    _require_two_sides(queries, gallery)
    if protocol != "clip":
        queries, gallery = video_means(queries), video_means(gallery)
    if protocol == "coclr":
        queries, gallery = (side._replace(features=_centred(side.features)) for side in (queries, gallery))
    ranks = [k for k in ranks if k <= len(gallery.labels)]
    found = rank(queries, gallery, deepest=max(ranks, default=1), whole=mean_average_precision)
    return Retrieval(
        protocol=protocol,
        num_queries=len(queries.labels),
        gallery_size=len(gallery.labels),
        recall=found.recall(ranks),
        mean_average_precision=found.mean_average_precision,
        chance={k: chance_of_recall(queries.labels, gallery.labels, k=k) for k in ranks},
    )


def _centred(features: np.ndarray) -> np.ndarray:
    rows = torch.from_numpy(features)
    centred: np.ndarray = (rows - rows.mean(dim=0)).numpy()
    return centred


class Ranked(NamedTuple):
    """What was found in each query's ranking of a gallery."""

    found_Qk: Tensor  # bool: whether a row of the query's class is among the first 1, 2, ...
    precision_Q: Tensor | None  # average precision; None if not requested

    def recall(self, ranks: Sequence[int]) -> dict[int, float]:
        """R@k of each k."""
        return {k: float(self.found_Qk[:, k - 1].double().mean()) for k in ranks}

    @property
    def mean_average_precision(self) -> float | None:
        """The mean over the queries; None if not requested."""
        return None if self.precision_Q is None else float(self.precision_Q.mean())


def rank(queries: LabelledRows, gallery: LabelledRows, *, deepest: int, whole: bool) -> Ranked:
    """Rank a gallery by cosine similarity to each query, without the rows of the query's own group if it has one.

    Args:
        queries: rows.
        gallery: rows.
        deepest: the largest k of R@k.
        whole: whether to rank the whole gallery, for average precision.

    """
    units_GF = unit_rows(torch.from_numpy(gallery.features))
    labels_G = torch.from_numpy(gallery.labels.astype(np.int64))
    found, precisions = [], []
    for start in range(0, len(queries.labels), _QUERIES_AT_ONCE):
        chunk = slice(start, start + _QUERIES_AT_ONCE)
        similarity_QG = unit_rows(torch.from_numpy(queries.features[chunk])) @ units_GF.T
        if queries.groups is not None and gallery.groups is not None:
            similarity_QG[torch.from_numpy(queries.groups[chunk, None] == gallery.groups)] = -torch.inf
        if whole:
            sorted_QG, order_QG = similarity_QG.sort(dim=1, descending=True, stable=True)
        else:
            sorted_QG, order_QG = similarity_QG.topk(deepest, dim=1)
        own_Q1 = torch.from_numpy(queries.labels[chunk].astype(np.int64))[:, None]
        relevant_QG = (labels_G[order_QG] == own_Q1) & (sorted_QG > -torch.inf)
        if whole:
            precisions.append(average_precision(relevant_QG))
        found.append(relevant_QG[:, :deepest].cumsum(dim=1) > 0)
    return Ranked(torch.cat(found), torch.cat(precisions) if precisions else None)


def write_retrieval(target: Path, found: Retrieval, *, features: Path, encoder: str, root: Location) -> None:
    """Write the file of a measurement, with features and encoder relative to the workspace."""
    places = {"features": name_from(root, absolute(features)), "encoder": name_from(root, encoder)}
    write_text(target, json.dumps({**asdict(found), **places}, indent=2) + "\n")


def _require_two_sides(queries: LabelledRows, gallery: LabelledRows) -> None:
    if not len(queries.labels) or not len(gallery.labels):
        raise HicoError(
            "retrieval needs labelled videos both among the queries and in the gallery; add them with "
            "`hico index --list FILE --subset NAME`, or name lists with --query-list and --gallery-list"
        )
    both = np.intersect1d(queries.videos, gallery.videos)
    if len(both):
        raise HicoError(f"queries and gallery share {counted(len(both), 'video')}, such as {both[0]}")


def chance_of_recall(queries: np.ndarray, gallery: np.ndarray, *, k: int) -> float:
    """R@k of a random ranking, for labels (Q,) and (G,).

    Of G rows, R are of the query's class. The probability that k random rows include none of them is (G - R) / G x (G -
    R - 1) / (G - 1) x ..., k factors.
    """
    labels, counts = np.unique(queries, return_counts=True)
    chances = [chance_of_match(int((gallery == label).sum()), len(gallery), k=k) for label in labels]
    return float(np.average(chances, weights=counts))


def chance_of_match(num_relevant: int, size: int, *, k: int) -> float:
    """The probability that k of so many rows, drawn at random, include one of the relevant rows."""
    drawn = np.arange(k)
    return 1 - float(np.prod((size - num_relevant - drawn).clip(0) / (size - drawn)))


def average_precision(relevant_QG: Tensor) -> Tensor:
    """Mean of the precision at the relevant ranks of each ranking: (Q,) float64; 0 if none is relevant.

    relevant, irrelevant, relevant  ->  (1/1 + 2/3) / 2
    """
    hits = relevant_QG.cumsum(dim=1)
    precision = hits.double() / torch.arange(1, relevant_QG.shape[1] + 1)
    return (precision * relevant_QG).sum(dim=1) / hits[:, -1].clamp(min=1)
