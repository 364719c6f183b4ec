"""What frozen features tell of the segments of a made corpus: one clip from the middle of each, probed.

N segments; T frames of a clip, S its side in pixels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hico_core.config import DataConfig
from hico_core.corpus.addresses import Location
from hico_core.corpus.cache import LocalCache
from hico_core.corpus.index import read_index_table
from hico_core.data.pictures import Picture, clip_around
from hico_core.data.videos import COLUMNS, IndexedVideos
from hico_core.errors import HicoError
from hico_core.evidence.corpus import SegmentLabel
from hico_core.transfer.probe import LabelledRows, knn, linear_probe

_NEIGHBOURS = 10

# The probe's sweep is the project's own, with fewer settings: there are few rows.
_RATES, _DECAYS, _STEPS = (0.3, 0.1, 0.03), (1e-4, 1e-2), 400


class SegmentClips(NamedTuple):
    """The middle second of each segment of a corpus, as it comes out of split and index."""

    labels: list[SegmentLabel]  # N
    clips: Tensor  # (N, T, S, S, 3) uint8

    def of_subset(self, subset: str) -> "SegmentClips":
        """Those to train a probe on, or to test it on."""
        chosen = [place for place, label in enumerate(self.labels) if label.subset == subset]
        return SegmentClips([self.labels[place] for place in chosen], self.clips[chosen])


def read_segments(
    root: Location, labels: Sequence[SegmentLabel], data: DataConfig, picture: Picture, *, cache: LocalCache
) -> Tensor:
    """Decode the middle clip of each segment from the files that an index lists: (N, T, S, S, 3) uint8.

    Raises:
        HicoError: a video is not in the index, or cannot be decoded.

    """
    videos = IndexedVideos(read_index_table(root, columns=COLUMNS), root=root)
    place = {videos.video_id(number): number for number in range(len(videos))}
    clips = []
    for label in labels:
        if label.video not in place:
            raise HicoError(f"{root}: its index has no video {label.video}; split the corpus and index it again")
        clips.append(
            clip_around(
                videos.pieces(place[label.video]),
                (label.start + label.end) / 2,
                data=data,
                picture=picture,
                cache=cache,
            )
        )
    return torch.stack(clips)


def pixels_of(clips: Tensor, *, side: int) -> np.ndarray:
    """The pictures themselves, scaled down, as features: (N, T * side * side * 3) float32."""
    frames = clips.flatten(0, 1).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(frames, (side, side), mode="area") / 255
    found: np.ndarray = small.unflatten(0, clips.shape[:2]).flatten(1).numpy()
    return found


class Score(NamedTuple):
    """One answer, of all test segments of which it can be asked."""

    probe: str  # such as action-linear
    accuracy: float
    chance: float


def probe_segments(
    train: np.ndarray,
    train_labels: Sequence[SegmentLabel],
    test: np.ndarray,
    test_labels: Sequence[SegmentLabel],
    *,
    seed: int,
    linear: bool = True,
) -> list[Score]:
    """Ask features of training segments, and then those of test segments, what each of them shows.

    Segments that show nothing of the topic are asked whether they are such; all else is asked of the others.

    Args:
        train: features (N, F) of segments of training videos.
        train_labels: of each.
        test: features of segments of videos that nothing was trained on.
        test_labels: of each.
        seed: of the linear probes.
        linear: leave the linear probes out where False.

    """
    scores: list[Score] = []

    def ask(name: str, value: Callable[[SegmentLabel], str], *, fillers: bool = False) -> None:
        rows = []
        classes = sorted({value(label) for label in train_labels if fillers or label.filler is None})
        number = {name: place for place, name in enumerate(classes)}
        for side, (features, labels) in (("train", (train, train_labels)), ("test", (test, test_labels))):
            known = [
                place
                for place, label in enumerate(labels)
                if (fillers or label.filler is None) and value(label) in number
            ]
            classes_of = np.array([number[value(labels[place])] for place in known])
            ids = np.array([f"{side} {place}" for place in known], dtype=object)
            rows.append(LabelledRows(features[known], classes_of, ids))
        chance = float(np.bincount(rows[1].labels).max() / len(rows[1].labels))
        if linear:
            found = linear_probe(rows[0], rows[1], seed=seed, rates=_RATES, weight_decays=_DECAYS, steps=_STEPS)
            scores.append(Score(f"{name}-linear", found.accuracy, chance))
        standard = [part._replace(features=_standardised(part.features, rows[0].features)) for part in rows]
        scores.append(Score(f"{name}-knn", knn(standard[0], standard[1], k=_NEIGHBOURS), chance))

    ask("action", lambda label: str(label.action))
    ask("scene", lambda label: str(label.scene))
    ask("topic", lambda label: str(label.topic))
    if any(label.filler is not None for label in train_labels):
        ask("filler", lambda label: str(label.filler is not None), fillers=True)
    scores += _neighbour_scores(_standardised(test, train), test_labels)
    return scores


def _standardised(features: np.ndarray, like: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = ((features - like.mean(axis=0)) / (like.std(axis=0) + 1e-6)).astype(np.float32)
    return scaled


def _neighbour_scores(features: np.ndarray, labels: Sequence[SegmentLabel]) -> list[Score]:
    """How often the nearest other test segment is of the same video; and the nearest of another video, of its topic."""
    known = [place for place, label in enumerate(labels) if label.filler is None]
    units = torch.nn.functional.normalize(torch.from_numpy(features[known]), dim=1)
    similarity = (units @ units.T).fill_diagonal_(-torch.inf)
    videos = np.unique([labels[place].video for place in known], return_inverse=True)[1]
    topics = np.array([labels[place].topic for place in known])
    same_video = videos[:, None] == videos[None, :]
    nearest = similarity.argmax(dim=1).numpy()
    elsewhere = similarity.masked_fill(torch.from_numpy(same_video), -torch.inf).argmax(dim=1).numpy()
    others = len(known) - 1
    same_topic = (topics[:, None] == topics[None, :]) & ~same_video
    return [
        Score("video-r1", float((videos[nearest] == videos).mean()), float(((same_video.sum(1) - 1) / others).mean())),
        Score("topic-r1", float((topics[elsewhere] == topics).mean()), float(same_topic.sum() / (~same_video).sum())),
    ]
