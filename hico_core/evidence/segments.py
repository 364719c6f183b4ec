"""Probes of frozen features on the segments of a synthetic corpus: one clip from the middle of each segment.

N segments; T frames per clip, S its side in pixels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hico_core.base.addresses import Location
from hico_core.base.errors import HicoError
from hico_core.config import DataConfig
from hico_core.data.pictures import Picture, clip_around
from hico_core.data.videos import open_videos
from hico_core.evidence.corpus import SegmentLabel
from hico_core.transfer.evaluation.probe import LabelledRows, knn, linear_probe

_NEIGHBOURS = 10

# The project's own sweep, with fewer settings, since there are few rows.
_RATES, _DECAYS, _STEPS = (0.3, 0.1, 0.03), (1e-4, 1e-2), 400


class SegmentClips(NamedTuple):
    """The middle second of each segment of a corpus, read after split and index."""

    labels: list[SegmentLabel]  # N
    clips: Tensor  # (N, T, S, S, 3) uint8

    def of_subset(self, subset: str) -> "SegmentClips":
        """The segments of a subset: train for training a probe, test for testing it."""
        chosen = [place for place, label in enumerate(self.labels) if label.subset == subset]
        return SegmentClips([self.labels[place] for place in chosen], self.clips[chosen])


def read_segments(root: Location, labels: Sequence[SegmentLabel], data: DataConfig, picture: Picture) -> Tensor:
    """Decode the middle clip of each segment from the files that an index lists: (N, T, S, S, 3) uint8.

    Raises:
        HicoError: a video is not in the index, or cannot be decoded.

    """
    videos = open_videos(root)
    place = {videos.video_id(number): number for number in range(len(videos))}
    clips = []
    for label in labels:
        if label.video not in place:
            raise HicoError(f"{root}: its index has no video {label.video}; split the corpus and index it again")
        middle = (label.start + label.end) / 2
        clips.append(clip_around(videos, place[label.video], middle, data=data, picture=picture))
    return torch.stack(clips)


class Score(NamedTuple):
    """The accuracy of one probe over the test segments that it applies to."""

    probe: str  # such as action-linear
    accuracy: float
    chance: float


class LabelledSegments(NamedTuple):
    """Features of segments."""

    features: np.ndarray  # (N, F) float32
    labels: list[SegmentLabel]  # N


def probe_segments(train: LabelledSegments, test: LabelledSegments, *, seed: int, linear: bool = True) -> list[Score]:
    """Probe features: predict the content of each test segment after training on the training segments.

    Fillers count only in the question whether a segment is a filler; all other questions are about the other segments.

    Args:
        train: segments of training videos.
        test: segments of videos that were not used for training.
        seed: of the linear probes.
        linear: False: leave out the linear probes.

    """
    topical = [_chosen(part, lambda label: label.filler is None) for part in (train, test)]
    questions = {
        "action": lambda label: label.action,
        "scene": lambda label: label.scene,
        "topic": lambda label: str(label.topic),
    }
    scores = [
        score for name, answer in questions.items() for score in _ask(name, answer, *topical, seed=seed, linear=linear)
    ]
    if len(topical[0].labels) < len(train.labels):
        scores += _ask("filler", lambda label: str(label.filler is not None), train, test, seed=seed, linear=linear)
    return scores + _neighbour_scores(_standardised(topical[1].features, train.features), topical[1].labels)


def _chosen(segments: LabelledSegments, keep: Callable[[SegmentLabel], bool]) -> LabelledSegments:
    places = [place for place, label in enumerate(segments.labels) if keep(label)]
    return LabelledSegments(segments.features[places], [segments.labels[place] for place in places])


def _ask(
    name: str,
    answer: Callable[[SegmentLabel], str | None],
    train: LabelledSegments,
    test: LabelledSegments,
    *,
    seed: int,
    linear: bool,
) -> list[Score]:
    """Probe for one question, on the test segments whose true answer occurs among the training segments."""
    number = {value: place for place, value in enumerate(sorted({str(answer(label)) for label in train.labels}))}
    rows = []
    for side, part in (("train", train), ("test", _chosen(test, lambda label: str(answer(label)) in number))):
        classes = np.array([number[str(answer(label))] for label in part.labels])
        # To the probe, each segment is a video of its own, since it has its own answer.
        ids = np.array([f"{side} {place}" for place in range(len(classes))], dtype=object)
        rows.append(LabelledRows(part.features, classes, ids))
    chance = float(np.bincount(rows[1].labels).max() / len(rows[1].labels))
    scores = []
    if linear:
        found = linear_probe(rows[0], rows[1], seed=seed, rates=_RATES, weight_decays=_DECAYS, steps=_STEPS)
        scores.append(Score(f"{name}-linear", found.accuracy, chance))
    standard = [part._replace(features=_standardised(part.features, rows[0].features)) for part in rows]
    return [*scores, Score(f"{name}-knn", knn(standard[0], standard[1], k=_NEIGHBOURS), chance)]


def _standardised(features: np.ndarray, like: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = ((features - like.mean(axis=0)) / (like.std(axis=0) + 1e-6)).astype(np.float32)
    return scaled


def _neighbour_scores(features: np.ndarray, labels: Sequence[SegmentLabel]) -> list[Score]:
    """How often the nearest other test segment is of the same video, and the nearest in another video of its topic."""
    units = torch.nn.functional.normalize(torch.from_numpy(features), dim=1)
    similarity = (units @ units.T).fill_diagonal_(-torch.inf)
    videos = np.unique([label.video for label in labels], return_inverse=True)[1]
    topics = np.array([label.topic for label in labels])
    same_video = videos[:, None] == videos[None, :]
    nearest = similarity.argmax(dim=1).numpy()
    elsewhere = similarity.masked_fill(torch.from_numpy(same_video), -torch.inf).argmax(dim=1).numpy()
    others = len(labels) - 1
    same_topic = (topics[:, None] == topics[None, :]) & ~same_video
    return [
        Score("video-r1", float((videos[nearest] == videos).mean()), float(((same_video.sum(1) - 1) / others).mean())),
        Score("topic-r1", float((topics[elsewhere] == topics).mean()), float(same_topic.sum() / (~same_video).sum())),
    ]
