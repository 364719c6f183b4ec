"""Nearest neighbours, and the k-NN accuracy of an encoder's features on a labelled list during training."""

# N videos, F feature width, Q queries, G rows of the gallery, k neighbours, C classes.

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hico_core.base.errors import HicoError
from hico_core.corpus.sources.ids import Source
from hico_core.data.pictures import Picture
from hico_core.encoding.encoder import encode_videos
from hico_core.encoding.hardware import Precision
from hico_core.encoding.lanes import Reading, WholeVideo
from hico_core.encoding.windows import Views
from hico_core.model.pooling import PooledEncoder

logger = logging.getLogger(__name__)

# Shorter rows count as zeros: the squares of their entries are below float32's smallest number.
_SHORTEST = 1e-18

# Temperature of the neighbours' votes.
_TEMPERATURE = 0.07

# Queries compared with the whole gallery at the same time: 1024 x 100,000 similarities take 400 MB.
_QUERIES_AT_ONCE = 1024


class LabelledFeatures(NamedTuple):
    """Features of the videos that could be read."""

    features: Tensor  # (N, F) on the CPU
    labels: list[int]  # N


def read_features(
    backbone: nn.Module,
    videos: Sequence[Source],
    views: Views,
    picture: Picture,
    *,
    precision: Precision,
    workers: int,
) -> LabelledFeatures:
    """Features of the first of the given views of each video.

    Videos that cannot be read are left out and named in the log.
    """
    rows: list[Tensor] = []
    labels: list[int] = []
    encoded = encode_videos(
        PooledEncoder(backbone),
        [WholeVideo(video.path, []) for video in videos],
        Reading(layout=views, picture=picture),
        precision=precision,
        workers=workers,
    )
    for source, video in zip(videos, encoded, strict=True):
        if video.rows is None:
            logger.warning("left out of the nearest neighbours: %s", video.bad)
        elif source.label is not None:
            rows.append(video.rows[0])
            labels.append(source.label)
    return LabelledFeatures(torch.stack(rows) if rows else torch.empty(0, 0), labels)


class Neighbours(NamedTuple):
    """The most similar rows of a gallery, best first."""

    similarities: Tensor  # (Q, k)
    places: Tensor  # (Q, k) int64, rows of the gallery


def nearest(queries_QF: Tensor, gallery_GF: Tensor, *, k: int, without_itself: bool = False) -> Neighbours:
    """The k rows of a gallery that are most similar to each query by dot product, computed in blocks of queries.

    Args:
        queries_QF: unit vectors for cosine similarity.
        gallery_GF: the same.
        k: number of rows, or fewer if the gallery has fewer.
        without_itself: the queries are the gallery, and no row counts as its own neighbour.

    """
    k = min(k, len(gallery_GF) - without_itself)
    similarities, places = [], []
    for start in range(0, len(queries_QF), _QUERIES_AT_ONCE):
        found_QG = queries_QF[start : start + _QUERIES_AT_ONCE] @ gallery_GF.T
        if without_itself:
            rows = torch.arange(len(found_QG))
            found_QG[rows, start + rows] = -torch.inf  # the diagonal of the whole matrix
        top = found_QG.topk(k, dim=1)
        similarities.append(top.values)
        places.append(top.indices)
    return Neighbours(torch.cat(similarities), torch.cat(places))


def unit_rows(features: Tensor) -> Tensor:
    """Scale rows to length 1, except rows of zeros: (N, F) float32 -> (N, F).

    Rows of an untrained S3D-G are about 1e-15 long, far below the length that PyTorch treats as zero by default.
    """
    return F.normalize(features, dim=1, eps=_SHORTEST)


def neighbour_votes(similarities_Qk: Tensor, labels_Qk: Tensor, num_classes: int) -> Tensor:
    """The neighbours' votes for each class, (Q, C), from their similarities and labels (Q, k).

    Each votes with exp(similarity / 0.07), as in Wu et al., CVPR 2018.
    """
    votes_QC = similarities_Qk.new_zeros(len(labels_Qk), num_classes)
    return votes_QC.scatter_add_(1, labels_Qk, (similarities_Qk / _TEMPERATURE).exp())


def knn_accuracy(features: Tensor, labels: Tensor, *, k: int) -> float:
    """Fraction of the videos whose class is predicted correctly by their nearest neighbours among the others.

    Args:
        features: (N, F).
        labels: (N,) whole numbers from 0.
        k: neighbours that vote, weighted by cosine similarity; fewer if there are not so many videos.

    Raises:
        HicoError: there are fewer than two videos.

    """
    if len(features) < 2:
        raise HicoError(f"eval.knn_list: only {len(features)} of its videos can be read; at least 2 are needed")
    unit_NF = unit_rows(features)
    found = nearest(unit_NF, unit_NF, k=k, without_itself=True)
    votes_NC = neighbour_votes(found.similarities, labels[found.places], int(labels.max()) + 1)
    return float((votes_NC.argmax(dim=1) == labels).double().mean())
