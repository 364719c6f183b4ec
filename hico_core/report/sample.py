"""A look through a run's encoder at some videos of its workspace: neighbours, and a map."""

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
from hico_core.training.loop import first_encoder, max_distance
from hico_core.training.started import Started

# As many as the paper's model encodes in 20 s on two cores; the encoder before training takes as long again.
_VIDEOS, _CLIPS_OF_EACH = 24, 3
_NEIGHBOURS, _QUERIES = 4, 6
_FRAMES = 6  # of a moment


def num_moments(num_videos: int) -> int:
    """How many clips of a workspace of so many videos are encoded."""
    return min(num_videos, _VIDEOS) * _CLIPS_OF_EACH


class Moment(NamedTuple):
    """A clip of a video."""

    video_id: str
    seconds: float  # its middle
    class_name: str | None
    frames: list[Image.Image]  # some of them in order, as the encoder sees them


class NeighbourMoment(NamedTuple):
    """A moment that is like another."""

    moment: Moment
    similarity: float  # cosine


class EncodedMoments(NamedTuple):
    """Some moments, and what an encoder makes of them."""

    moments: list[Moment]
    features: np.ndarray  # (N, F)

    def neighbours(self) -> list[tuple[Moment, list[NeighbourMoment]]]:
        """For some moments, those of other videos that are most alike."""
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
        """The two directions in which the features differ most: places (N, 2), and each one's part of the variance."""
        centred = self.features - self.features.mean(axis=0)
        left, values, _ = np.linalg.svd(centred, full_matrices=False)
        shares = values**2 / max((values**2).sum(), 1e-12)
        return (left * values)[:, :2], shares[:2]

    def spread(self) -> float:
        """Mean cosine similarity of moments of different videos: near 1 where the encoder tells nothing apart."""
        similarity, different = self._similarity()
        return float(similarity[different].mean()) if different.any() else float("nan")

    def same_video(self) -> Agreement | None:
        """How often the nearest clip is of the same video; None where no video has two clips."""
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
        """Cosine of each two moments, and whether they are of different videos: both (N, N)."""
        features = self.features.astype(np.float64)  # those of an untrained S3D-G are as small as 1e-15
        units = features / np.linalg.norm(features, axis=1, keepdims=True).clip(1e-300)
        ids = np.array([moment.video_id for moment in self.moments])
        return units @ units.T, ids[:, None] != ids[None, :]


def _agreement(similarity_NN: np.ndarray, same_NN: np.ndarray, *, among: np.ndarray) -> Agreement | None:
    """Of the nearest clip among some, and of a random one of them; None where none is of the same kind."""
    asking = among.any(axis=1)
    if not (same_NN & among).any():
        return None
    nearest = np.where(among, similarity_NN, -np.inf).argmax(axis=1)
    found = same_NN[np.arange(len(nearest)), nearest]
    chance = (same_NN & among).sum(axis=1) / among.sum(axis=1).clip(1)
    return Agreement(float(found[asking].mean()), float(chance[asking].mean()), int(asking.sum()))


class Sample(NamedTuple):
    """Some clips of a workspace's videos, as an encoder is shown them."""

    moments: list[Moment]
    clips: torch.Tensor  # (N, T, S, S, 3) uint8
    picture: Picture

    def encoded(self, network: nn.Module) -> EncodedMoments:
        """What an encoder makes of them."""
        features = encode_clips(PooledEncoder(network), self.clips, self.picture)
        return EncodedMoments(self.moments, features.numpy())


def sample_clips(encoder: FrozenEncoder, root: Path, data: DataConfig) -> Sample:
    """Read some clips of some of a workspace's videos, evenly spread over both.

    Videos that cannot be read are left out.

    Args:
        encoder: that they are for.
        root: the workspace.
        data: how videos are read; for an encoder of the table, clips are as long as those that it takes.

    Raises:
        HicoError: none can be read.

    """
    picture, clip_shape = encoder.entry.picture, encoder.entry.clip
    if encoder.table_name is not None:
        changes = {"num_frames": clip_shape.num_frames, "target_fps": clip_shape.fps, "frame_stride": 1}
        data = data.model_copy(update=changes)
    videos = open_videos(root, data=data)
    names = read_class_names(root)
    moments: list[Moment] = []
    clips: list[torch.Tensor] = []
    reason = "there are none that are long enough"
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
    # Videos differ in shape, their middle squares do not where pictures are scaled to one side.
    shape = clips[0].shape if clips else None
    same = [place for place, clip in enumerate(clips) if clip.shape == shape]
    if not same:
        raise HicoError(f"{root}: no video can be read; {reason}")
    return Sample([moments[place] for place in same], torch.stack([clips[place] for place in same]), picture)


def network_before(config: Config, started: Started) -> nn.Module:
    """The encoder of a run as the run began with it, on a CPU.

    Args:
        config: of the run.
        started: what it was started from.

    Raises:
        HicoError: the file of its first weights is gone, or has other weights now; or the encoder is a user's function,
            which no file of a run may name for us to call.

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
    """Frames of a clip, as many as look like a film."""
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
        samples: how many videos, at most.
        at: progress of the run, 0 to 1, which decides how far near clips lie apart.
        seed: of the choice and of everything drawn.

    Raises:
        HicoError: no video is long enough, or none can be decoded.

    """
    data = config.data
    videos = open_videos(root, subset="train", data=data)
    if not len(videos):
        raise HicoError(f"{root}: no training video is as long as one clip, {data.span_seconds:.2f} s")
    dataset = ClipDataset(videos, data=data, sampling=config.sampling, augment=config.augment)
    distance = max_distance(at, config.sampling)
    return preview_clips(dataset, samples=samples, max_distance_seconds=distance, seed=seed)


def data_of(settings: dict[str, object]) -> DataConfig:
    """How a run reads clips, of either kind of training."""
    if "sampling" in settings:
        return compose_config(Config, settings, origin="config.yaml").data
    return compose_config(FinetuneConfig, settings, origin="config.yaml").data
