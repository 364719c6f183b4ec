"""A sample of a workspace's videos, encoded by a run's encoder: nearest neighbours and a map."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import nn

from hico_core.base.addresses import Location
from hico_core.base.errors import BadVideo, HicoError
from hico_core.checkpoints.frozen import FrozenEncoder
from hico_core.config import Config, DataConfig, FinetuneConfig, compose_config
from hico_core.corpus.index import read_class_names
from hico_core.data.dataset import ClipDataset
from hico_core.data.pictures import Picture, clip_around
from hico_core.data.preview import ClipPreview, preview_clips
from hico_core.data.videos import open_videos
from hico_core.encoders.python_function import PYTHON
from hico_core.encoding.encoder import encode_clips
from hico_core.model.pooling import PooledEncoder
from hico_core.report.verdict import Agreement
from hico_core.training.loop import first_encoder
from hico_core.training.schedule import distances_of
from hico_core.training.started import Started

# What the paper's model encodes in 20 s on two cores; the encoder before training takes as long again.
_VIDEOS, _CLIPS_OF_EACH = 24, 3
_NEIGHBOURS, _QUERIES = 4, 6
_FRAMES = 6  # per moment


def num_moments(num_videos: int) -> int:
    """Number of clips that are encoded for a workspace with this many videos."""
    return min(num_videos, _VIDEOS) * _CLIPS_OF_EACH


class Moment(NamedTuple):
    """A clip of a video."""

    video_id: str
    seconds: float  # its middle
    class_name: str | None
    frames: list[Image.Image]  # a selection in order, as the encoder sees them


class NeighbourMoment(NamedTuple):
    """A moment that is similar to another."""

    moment: Moment
    similarity: float  # cosine


class EncodedMoments(NamedTuple):
    """Some moments and their features."""

    moments: list[Moment]
    features: np.ndarray  # (N, F)

    def neighbours(self) -> list[tuple[Moment, list[NeighbourMoment]]]:
        """Pair some moments with the most similar moments of other videos."""
        similarity, different = self._similarity()
        similarity[~different] = -np.inf
        queries = np.linspace(0, len(similarity) - 1, min(_QUERIES, len(similarity))).astype(int)
        return [
            (
                self.moments[query],
                [
                    NeighbourMoment(self.moments[place], float(similarity[query, place]))
                    for place in np.argsort(-similarity[query], kind="stable")[:_NEIGHBOURS]
                    if np.isfinite(similarity[query, place])
                ],
            )
            for query in dict.fromkeys(queries.tolist())
        ]

    def map(self) -> tuple[np.ndarray, np.ndarray]:
        """Project on the two principal components: points (N, 2), and each component's fraction of the variance."""
        centred = self.features - self.features.mean(axis=0)
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        shares = values**2 / max((values**2).sum(), 1e-12)
        return (left * values)[:, :2], shares[:2]

    def spread(self) -> float | None:
        """Mean cosine similarity of moments of different videos; near 1 if the encoder does not distinguish them.

        None if all are of one video.
        """
        similarity, different = self._similarity()
        return float(similarity[different].mean()) if different.any() else None

    def same_video(self) -> Agreement | None:
        """How often the nearest clip is of the same video; None if no video has two clips."""
        similarity, different = self._similarity()
        return _agreement(similarity, ~different, among=~np.eye(len(different), dtype=bool))

    def same_class(self) -> Agreement | None:
        """How often the nearest clip of another video is of the same class; None without labels."""
        similarity, different = self._similarity()
        names = [moment.class_name for moment in self.moments]
        known = np.array([name is not None for name in names])
        same = np.array([[one == other for other in names] for one in names])
        return _agreement(similarity, same, among=different & known[:, None] & known[None, :])

    def _similarity(self) -> tuple[np.ndarray, np.ndarray]:
        """Cosine similarity of each pair of moments, and whether they are of different videos: both (N, N)."""
        features = self.features.astype(np.float64)  # features of an untrained S3D-G are as small as 1e-15
        units = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-300)
        ids = np.array([moment.video_id for moment in self.moments])
        return units @ units.T, ids[:, None] != ids[None, :]


def _agreement(similarity_NN: np.ndarray, same_NN: np.ndarray, *, among: np.ndarray) -> Agreement | None:
    """Agreement of each clip's nearest neighbour within `among`, and of a random one; None if no pair is alike."""
    asking = among.any(axis=1)
    if not (same_NN & among).any():
        return None
    nearest = np.where(among, similarity_NN, -np.inf).argmax(axis=1)
    found = same_NN[np.arange(len(nearest)), nearest]
    chance = (same_NN & among).sum(axis=1) / among.sum(axis=1).clip(1)
    return Agreement(float(found[asking].mean()), float(chance[asking].mean()), int(asking.sum()))


class Sample(NamedTuple):
    """Some clips of a workspace's videos, prepared for an encoder."""

    moments: list[Moment]
    clips: torch.Tensor  # (N, T, S, S, 3) uint8
    picture: Picture

    def encoded(self, network: nn.Module) -> EncodedMoments:
        """Encode the clips.

        Raises:
            HicoError: a feature is not finite.

        """
        features = encode_clips(PooledEncoder(network), self.clips, self.picture)
        if not features.isfinite().all():
            raise HicoError("the encoder gives features that are not finite (NaN or infinite)")
        return EncodedMoments(self.moments, features.numpy())


def sample_clips(encoder: FrozenEncoder, root: Path, data: DataConfig) -> Sample:
    """Read clips from some of a workspace's videos, evenly spaced over the videos and within each.

    Videos that cannot be read are left out.

    Args:
        encoder: the encoder that the clips are for.
        root: the workspace.
        data: how videos are read; for an encoder of the table, clips have the length that it takes.

    Raises:
        HicoError: no video can be read.

    """
    picture, clip_shape = encoder.entry.picture, encoder.entry.clip
    if encoder.table_name is not None:
        changes = {"num_frames": clip_shape.num_frames, "target_fps": clip_shape.fps, "frame_stride": 1}
        data = data.model_copy(update=changes)
    videos = open_videos(root, data=data)
    names = read_class_names(root)
    moments: list[Moment] = []
    clips: list[torch.Tensor] = []
    reason = "none is long enough"
    for number in _spread_over(len(videos), _VIDEOS):
        try:
            for part in range(_CLIPS_OF_EACH):
                seconds = videos.duration_seconds(number) * (part + 0.5) / _CLIPS_OF_EACH
                clip = clip_around(videos, number, seconds, data=data, picture=picture)
                name = _class_name(videos.label(number), names)
                moments.append(Moment(videos.video_id(number), seconds, name, _frames(clip)))
                clips.append(clip)
        except BadVideo as bad:
            reason = str(bad)
    # Videos differ in shape, but their central squares do not once frames are scaled to one side.
    shape = clips[0].shape if clips else None
    same = [place for place, clip in enumerate(clips) if clip.shape == shape]
    if not same:
        raise HicoError(f"{root}: no video can be read; {reason}")
    return Sample([moments[place] for place in same], torch.stack([clips[place] for place in same]), picture)


def network_before(config: Config, started: Started) -> nn.Module:
    """The encoder of a run in its state before training, on a CPU.

    Args:
        config: of the run.
        started: what it was started from.

    Raises:
        HicoError: the file of its first weights is gone or has changed; or the encoder is a user's function, which hico
            never calls because a file names it.

    """
    if config.model.encoder.startswith(PYTHON):
        raise HicoError(f"{config.model.encoder} is code, which a report does not run")
    origin = started.encoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        network, start = first_encoder(config, None if origin is None else Path(origin.path))
    if origin is not None and start is not None and start.origin.sha256 != origin.sha256:
        raise HicoError("has changed since the run was started from it", subject=origin.path)
    return network


def _frames(clip_THWC: torch.Tensor) -> list[Image.Image]:
    """Select a few frames of a clip for a film strip."""
    places = np.linspace(0, len(clip_THWC) - 1, min(_FRAMES, len(clip_THWC))).astype(int)
    return [Image.fromarray(clip_THWC[place].numpy()) for place in places]


def _class_name(label: int | None, names: Mapping[int, str]) -> str | None:
    return None if label is None else names.get(label, f"class {label}")


def _spread_over(total: int, count: int) -> Sequence[int]:
    return sorted({round(place) for place in np.linspace(0, total - 1, min(count, total))}) if total else []


def clips_as_drawn(config: Config, root: Location, *, samples: int, at: float, seed: int) -> list[ClipPreview]:
    """Clips of some videos as a pretraining run draws and augments them.

    Args:
        config: of the run.
        root: the workspace.
        samples: largest number of videos.
        at: progress of the run, 0 to 1, which decides how far apart near clips lie.
        seed: of the choice and of everything drawn.

    Raises:
        HicoError: no video is long enough, or none can be decoded.

    """
    data = config.data
    videos = open_videos(root, subset="train", data=data)
    if not len(videos):
        raise HicoError(f"{root}: no training video is as long as one clip, {data.span_seconds:.2f} s")
    dataset = ClipDataset(videos, data=data, sampling=config.sampling, augment=config.augment)
    distance = distances_of(config.sampling).at(at)
    return preview_clips(dataset, samples=samples, max_distance_seconds=distance, seed=seed)


def data_of(settings: dict[str, object]) -> DataConfig:
    """The settings by which a pretraining or finetuning run reads clips."""
    if "sampling" in settings:
        return compose_config(Config, settings, origin="config.yaml").data
    return compose_config(FinetuneConfig, settings, origin="config.yaml").data
