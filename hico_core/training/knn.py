"""How well the encoder's features tell classes apart while it trains: nearest neighbours on a labelled list."""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hico_core.config import Config
from hico_core.corpus.cache import LocalCache
from hico_core.corpus.ids import Source
from hico_core.data.lanes import WholeVideo
from hico_core.data.pictures import picture_for
from hico_core.data.windows import Views
from hico_core.errors import HicoError
from hico_core.training.encoder import encode_videos
from hico_core.training.hardware import Precision

logger = logging.getLogger(__name__)

# Weight of a neighbour: exp(cosine similarity / this), as in Wu et al., CVPR 2018.
_TEMPERATURE = 0.07


class LabelledFeatures(NamedTuple):
    """Features of the videos that could be read."""

    features: Tensor  # (N, 1024) on the CPU
    labels: list[int]  # N


def read_features(
    backbone: nn.Module,
    videos: Sequence[Source],
    config: Config,
    *,
    cache: LocalCache,
    precision: Precision,
    workers: int,
) -> LabelledFeatures:
    """Features of the middle clip of each video.

    Videos that cannot be read are left out, and named in the log.
    """
    data = config.data
    rows: list[Tensor] = []
    labels: list[int] = []
    encoded = encode_videos(
        backbone,
        [WholeVideo(video.path, []) for video in videos],
        Views(1, data.num_frames, data.frame_stride, data.target_fps),
        picture_for(data, config.augment),
        precision=precision,
        cache=cache,
        workers=workers,
    )
    for source, video in zip(videos, encoded, strict=True):
        if video.rows is None:
            logger.warning("left out of the nearest neighbours: %s", video.reason)
        elif source.label is not None:
            rows.append(video.rows[0])
            labels.append(source.label)
    return LabelledFeatures(torch.stack(rows) if rows else torch.empty(0, 0), labels)


def knn_accuracy(features: Tensor, labels: Tensor, *, k: int) -> float:
    """Part of the videos whose class is that of their nearest neighbours among the others.

    Args:
        features: (N, F).
        labels: (N,) whole numbers from 0.
        k: neighbours that vote, each by its cosine similarity; fewer where there are not so many videos.

    Raises:
        HicoError: there are fewer than two videos.

    """
    if len(features) < 2:
        raise HicoError(f"eval.knn_list: {len(features)} of its videos can be read; at least 2 are needed")
    unit = F.normalize(features, dim=1)
    similarity_NN = (unit @ unit.T).fill_diagonal_(-torch.inf)
    nearest = similarity_NN.topk(min(k, len(features) - 1), dim=1)
    votes = F.one_hot(labels[nearest.indices]) * (nearest.values / _TEMPERATURE).exp().unsqueeze(-1)
    return float((votes.sum(dim=1).argmax(dim=1) == labels).double().mean())
