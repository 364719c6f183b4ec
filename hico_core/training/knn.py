"""How well the encoder's features tell classes apart while it trains: nearest neighbours on a labelled list."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hico_core.config import Config
from hico_core.corpus.cache import LocalCache
from hico_core.corpus.ids import Source
from hico_core.corpus.probe import frame_rate, probe
from hico_core.data.decode import decode_frames
from hico_core.data.reading import local_file
from hico_core.data.sampling import view_indices
from hico_core.errors import BadVideo, HicoError
from hico_core.training.hardware import Precision

logger = logging.getLogger(__name__)

# Clips that go through the encoder together, and are in memory at a time.
_CLIPS_AT_ONCE = 16

# Weight of a neighbour: exp(cosine similarity / this), as in Wu et al., CVPR 2018.
_TEMPERATURE = 0.07


class LabelledFeatures(NamedTuple):
    """Features of the videos that could be read."""

    features: Tensor  # (N, 1024) on the CPU
    labels: list[int]  # N


def read_central_clip(video: Source, config: Config, cache: LocalCache) -> Tensor:
    """The middle of a video as the encoder gets it, without anything random: (3, T, S, S).

    Raises:
        BadVideo: it cannot be read.

    """
    data, size = config.data, config.data.crop_size
    with local_file(video.path, cache=cache) as path:
        seconds = probe(path).frame_seconds
        frames = view_indices(
            total_frames=len(seconds),
            fps=frame_rate(seconds).fps,
            view=0,
            num_views=1,
            num_frames=data.num_frames,
            stride=data.frame_stride,
            target_fps=data.target_fps,
        )
        pictures_THWC = decode_frames(path, frames, decoder=data.decoder, short_side=round(size * 8 / 7))
    top, left = ((side - size) // 2 for side in pictures_THWC.shape[1:3])
    central = pictures_THWC[:, top : top + size, left : left + size]
    return (central.permute(3, 0, 1, 2).float() / 255 - config.augment.mean) / config.augment.std


def read_features(
    backbone: nn.Module,
    videos: Sequence[Source],
    config: Config,
    *,
    cache: LocalCache,
    precision: Precision,
    workers: int,
) -> LabelledFeatures:
    """Features of the middle of each video, by a backbone that is put back into its mode afterwards.

    Videos that cannot be read are left out, and named in the log.
    """
    device = next(backbone.parameters()).device
    was_training = backbone.training
    backbone.eval()
    rows: list[Tensor] = []
    labels: list[int] = []

    def read(video: Source) -> Tensor | None:
        try:
            return read_central_clip(video, config, cache)
        except BadVideo as bad:
            logger.warning("left out of the nearest neighbours: %s", bad)
            return None

    with ThreadPoolExecutor(max(workers, 1)) as threads, torch.no_grad():
        for first in range(0, len(videos), _CLIPS_AT_ONCE):
            some = videos[first : first + _CLIPS_AT_ONCE]
            read_clips = [(clip, video.label) for clip, video in zip(threads.map(read, some), some, strict=True)]
            clips = [(clip, label) for clip, label in read_clips if clip is not None and label is not None]
            if not clips:
                continue
            with torch.autocast(device.type, torch.bfloat16, enabled=precision.is_bf16):
                maps = backbone(torch.stack([clip for clip, _ in clips]).to(device))
            rows.append(maps.float().mean(dim=(2, 3, 4)).cpu())
            labels += [label for _, label in clips]
    backbone.train(was_training)
    return LabelledFeatures(torch.cat(rows) if rows else torch.empty(0, 0), labels)


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
