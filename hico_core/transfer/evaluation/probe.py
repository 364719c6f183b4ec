"""Probes how well frozen features separate classes: linear probe, nearest neighbours, few examples.

Arrays in, numbers out. N rows are windows of videos; the prediction for a video is made from all its rows, and every
choice is made by video, so that windows of one video are never on both sides of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hico_core.base.errors import HicoError, counted
from hico_core.encoding.neighbours import nearest, neighbour_votes, unit_rows
from hico_core.transfer.evaluation.folds import choosing_parts

# The sweep: each learning rate with each weight decay.
RATES = (0.3, 0.1, 0.03, 0.01, 0.003)
WEIGHT_DECAYS = (0.0, 1e-4, 1e-3, 1e-2)

_MOMENTUM = 0.9
_BATCH = 1024
_STEPS = 800

# Fraction of the training videos that is held out to choose the settings.
_HELD_OUT = 0.2

# Root mean square length of rows after `scaled_alike`; at this length, the largest learning rate does not diverge.
_LENGTH = 5.0

# Added to the spread of each feature, as a fraction of the largest: those of an untrained S3D-G are about 1e-15.
_LEAST_SPREAD = 1e-6

# Number of rows whose scores are held in memory together.
_SCORED_AT_ONCE = 8192


class LabelledRows(NamedTuple):
    """Features of videos with known classes."""

    features: np.ndarray  # (N, F)
    labels: np.ndarray  # (N,) integers from 0: class of the row's video
    videos: np.ndarray  # (N,) the number or id of the row's video
    groups: np.ndarray | None = None  # (N,) if videos belong together, as segments of one video do

    def only(self, chosen_N: np.ndarray) -> "LabelledRows":
        """Some of the rows, (N,) bool."""
        groups = None if self.groups is None else self.groups[chosen_N]
        return LabelledRows(self.features[chosen_N], self.labels[chosen_N], self.videos[chosen_N], groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearProbe:
    """The accuracy of a linear classifier on frozen features."""

    accuracy: float  # fraction of the test videos whose class has the largest mean probability
    rate: float  # the chosen learning rate
    weight_decay: float
    held_out_accuracies: list[float]  # of each setting, learning rate by learning rate, on the held-out training videos
    predictions: np.ndarray  # (V,) class of each test video, in order of their numbers
    probabilities: np.ndarray  # (V, C) of each class, from the linear classifier


class MeanAndError(NamedTuple):
    """The mean of several measurements and its standard error."""

    mean: float
    standard_error: float | None  # None for a single measurement; over splits if there are several
    values: list[float]


def mean_and_error(values: Sequence[float], *, num_splits: int = 1) -> MeanAndError:
    """The mean, and the sample standard deviation divided by the square root of the count.

    With several splits, whose measurements follow each other, both are of the splits' means: measurements on the same
    videos are not independent.
    """
    parts = values if num_splits == 1 else np.reshape(values, (num_splits, -1)).mean(axis=1).tolist()
    error = stdev(parts) / len(parts) ** 0.5 if len(parts) > 1 else None
    return MeanAndError(fmean(parts), error, list(values))


def video_means(rows: LabelledRows) -> LabelledRows:
    """One row per video, the mean of its rows, in order of the videos' numbers."""
    videos, first, place = np.unique(rows.videos, return_index=True, return_inverse=True)
    sums = np.zeros((len(videos), rows.features.shape[1]))
    np.add.at(sums, place, rows.features)
    means = sums / np.bincount(place)[:, None]
    return LabelledRows(means.astype(np.float32), rows.labels[first], videos)


def require_classes(train: LabelledRows, test: LabelledRows) -> int:
    """Check that rows can be probed; return the number of classes.

    Raises:
        HicoError: there are no rows to train or test on, only one class, a value that is not finite, or a video on both
            sides.

    """
    if not len(train.labels) or not len(test.labels):
        side = "test" if len(train.labels) else "train"
        raise HicoError(f"no labelled videos to {side} on; add some with `hico index --list FILE --subset {side}`")
    for rows in (train, test):
        if not np.isfinite(rows.features).all():
            raise HicoError("some features are not finite (NaN or infinite); extract them again")
    if len(np.unique(train.labels)) < 2:
        raise HicoError(f"all training videos have the same label, {train.labels[0]}; a probe needs two classes")
    both = np.intersect1d(train.videos, test.videos)
    if len(both):
        raise HicoError(f"the training and the test set share {counted(len(both), 'video')}, such as {both[0]}")
    return int(max(train.labels.max(), test.labels.max())) + 1


def linear_probe(
    train: LabelledRows,
    test: LabelledRows,
    *,
    seed: int,
    rates: Sequence[float] = RATES,
    weight_decays: Sequence[float] = WEIGHT_DECAYS,
    steps: int = _STEPS,
) -> LinearProbe:
    """Multinomial logistic regression on standardised features; settings are chosen without the test videos.

    All settings are trained together on four fifths of the training videos; the one most accurate on the remaining
    fifth is trained on all training videos, then tested.

    Args:
        train: rows for training.
        test: rows for testing.
        seed: for the choice of held-out videos and the order of rows.
        rates: learning rates of gradient descent with momentum, with a cosine schedule.
        weight_decays: factors of half the squared weights, which are added to the mean cross-entropy.
        steps: number of steps, of up to 1024 rows each.

    Raises:
        HicoError: see `require_classes`.

    """
    require_classes(train, test)
    mean, spread = train.features.mean(axis=0), train.features.std(axis=0)
    scale = spread + _LEAST_SPREAD * (spread.max() or 1.0)
    train, test = (
        rows._replace(features=((rows.features - mean) / scale).astype(np.float32)) for rows in (train, test)
    )
    settings = [(rate, decay) for rate in rates for decay in weight_decays]
    held_out = _held_out_rows(train, seed=seed)
    return linear_probe_of_scaled(train, test, settings=settings, held_out=held_out, steps=steps, seed=seed)


def linear_probe_of_scaled(
    train: LabelledRows,
    test: LabelledRows,
    *,
    settings: Sequence[tuple[float, float]] = tuple(product(RATES, WEIGHT_DECAYS)),
    held_out: Sequence[np.ndarray],
    steps: int = _STEPS,
    seed: int,
) -> LinearProbe:
    """The same on features as they are, with the held-out rows given.

    Args:
        train: what to train on.
        test: what to test on.
        settings: pairs of learning rate and weight decay.
        held_out: parts of the training rows, each (N,) bool: a setting is trained on the rows outside a part and judged
            on those in it. Without any parts, the first setting is taken.
        steps: number of steps, of up to 1024 rows each.
        seed: for the order of rows.

    Raises:
        HicoError: see `require_classes`.

    """
    num_classes = require_classes(train, test)
    train, test = _in_few_directions(train, test)
    accuracies_PS = np.zeros((len(held_out), len(settings)))
    for part, is_held_out in enumerate(held_out):
        known, judging = (train.only(chosen) for chosen in (~is_held_out, is_held_out))
        weights = train_classifiers(known, num_classes, settings, steps=steps, seed=seed)
        accuracies_PS[part] = [
            _right(judging, found.argmax(axis=1)) for found in _video_probabilities(judging, weights)
        ]
    num_judging = [len(np.unique(train.videos[is_held_out])) for is_held_out in held_out]
    accuracies = np.average(accuracies_PS, axis=0, weights=num_judging) if len(held_out) else np.zeros(len(settings))
    best = int(np.argmax(accuracies))
    (probabilities,) = _video_probabilities(
        test, train_classifiers(train, num_classes, [settings[best]], steps=steps, seed=seed)
    )
    predictions = probabilities.argmax(axis=1)
    rate, weight_decay = settings[best]
    return LinearProbe(
        accuracy=_right(test, predictions),
        rate=rate,
        weight_decay=weight_decay,
        held_out_accuracies=accuracies.tolist(),
        predictions=predictions,
        probabilities=probabilities,
    )


def scaled_alike(train: LabelledRows, test: LabelledRows) -> tuple[LabelledRows, LabelledRows]:
    """Normalise rows to length 1, as for nearest neighbours, subtract the training mean, and scale by a single factor.

    With one factor per feature, features that respond to only a few clips would weigh as much as the others.
    """
    units = [_unit(rows.features).numpy() for rows in (train, test)]
    mean = units[0].mean(axis=0)
    scale = _LENGTH / np.sqrt(np.square(units[0] - mean).sum(axis=1).mean()).clip(1e-12)
    scaled = [
        rows._replace(features=(scale * (unit - mean)).astype(np.float32))
        for rows, unit in zip((train, test), units, strict=True)
    ]
    return scaled[0], scaled[1]


def _in_few_directions(train: LabelledRows, test: LabelledRows) -> tuple[LabelledRows, LabelledRows]:
    """Rotate rows into fewer dimensions if there are fewer training rows than features.

    Gradients are sums of training rows, so descent from zero never leaves the subspace that these span; the components
    of test rows outside it meet weights of zero. After rotation into it, every step and every score is the same.
    """
    num_rows, num_features = train.features.shape
    if num_features <= num_rows:
        return train, test
    directions_FN = np.linalg.svd(train.features, full_matrices=False)[2].T
    return train._replace(features=train.features @ directions_FN), test._replace(
        features=test.features @ directions_FN
    )


def _held_out_rows(rows: LabelledRows, *, seed: int) -> list[np.ndarray]:
    """Held-out rows, (N,) bool: a fifth of the videos of each class with at least two, or a part by group; if any."""
    if rows.groups is not None:
        return choosing_parts(rows.labels, rows.groups)[:1]
    rng = np.random.default_rng(seed)
    videos, first, place = np.unique(rows.videos, return_index=True, return_inverse=True)
    labels = rows.labels[first]
    is_held_out = np.zeros(len(videos), dtype=bool)
    for label in np.unique(labels):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        count = max(round(_HELD_OUT * len(of_class)), 1) if len(of_class) > 1 else 0
        is_held_out[of_class[:count]] = True
    return [is_held_out[place]] if is_held_out.any() else []


def train_classifiers(
    rows: LabelledRows, num_classes: int, settings: Sequence[tuple[float, float]], *, steps: int, seed: int
) -> Tensor:
    """Train one classifier per setting (learning rate, decay): (S, C, F + 1), bias last; all see the same rows.

    The gradients of mean cross-entropy are the usual (softmax - one-hot) x features; written out, all settings together
    are two matrix products per step.
    """
    generator = torch.Generator().manual_seed(seed)
    features_NF = F.pad(torch.from_numpy(rows.features), (0, 1), value=1.0)
    labels_N = torch.from_numpy(rows.labels.astype(np.int64))
    count, width = features_NF.shape
    rate_S11 = torch.tensor([rate for rate, _ in settings])[:, None, None]
    decay_SCF = torch.tensor([decay for _, decay in settings])[:, None, None].repeat(1, num_classes, width)
    decay_SCF[:, :, -1] = 0.0  # the bias has no weight decay
    weights_SCF = torch.zeros(len(settings), num_classes, width)
    velocity_SCF = torch.zeros_like(weights_SCF)
    batch = min(_BATCH, count)
    order = torch.randperm(count, generator=generator)
    place = 0
    for step in range(steps):
        if place + batch > count:
            order, place = torch.randperm(count, generator=generator), 0
        chosen = order[place : place + batch]
        place += batch
        x_BF, target_BC = features_NF[chosen], F.one_hot(labels_N[chosen], num_classes).float()
        scores_BSC = (x_BF @ weights_SCF.flatten(0, 1).T).unflatten(1, (len(settings), num_classes))
        error_BSC = (scores_BSC.softmax(dim=2) - target_BC[:, None]) / batch
        gradient_SCF = (error_BSC.flatten(1).T @ x_BF).view_as(weights_SCF) + decay_SCF * weights_SCF
        velocity_SCF = _MOMENTUM * velocity_SCF + gradient_SCF
        weights_SCF -= rate_S11 * 0.5 * (1 + np.cos(np.pi * step / steps)) * velocity_SCF
    return weights_SCF


def _video_probabilities(rows: LabelledRows, weights_SCF: Tensor) -> list[np.ndarray]:
    """For each setting, the mean probability of each class: (V, C), in order of the videos' numbers."""
    _, place = np.unique(rows.videos, return_inverse=True)
    num_settings, num_classes, _ = weights_SCF.shape
    sums = torch.zeros(int(place.max()) + 1, num_settings, num_classes)
    for start in range(0, len(place), _SCORED_AT_ONCE):
        chunk = slice(start, start + _SCORED_AT_ONCE)
        x = F.pad(torch.from_numpy(rows.features[chunk]), (0, 1), value=1.0)
        scores = (x @ weights_SCF.flatten(0, 1).T).unflatten(1, (num_settings, num_classes))
        sums.index_add_(0, torch.from_numpy(place[chunk]), scores.softmax(dim=2).nan_to_num())
    return list((sums / torch.from_numpy(np.bincount(place))[:, None, None]).transpose(0, 1).numpy())


def _right(rows: LabelledRows, predictions: np.ndarray) -> float:
    """Fraction of the videos whose class was predicted."""
    _, first = np.unique(rows.videos, return_index=True)
    return float((rows.labels[first] == predictions).mean())


def knn(train: LabelledRows, test: LabelledRows, *, k: int) -> float:
    """k-NN accuracy over the test videos; see `knn_predictions`."""
    return _right(test, knn_predictions(train, test, k=k))


def knn_predictions(train: LabelledRows, test: LabelledRows, *, k: int) -> np.ndarray:
    """The class that the k nearest training videos vote for, weighted by cosine similarity: (V,), as in `LinearProbe`.

    Raises:
        HicoError: see `require_classes`.

    """
    num_classes = require_classes(train, test)
    gallery, queries = video_means(train), video_means(test)
    found = nearest(_unit(queries.features), _unit(gallery.features), k=k)
    labels = torch.from_numpy(gallery.labels.astype(np.int64))
    predictions: np.ndarray = (
        neighbour_votes(found.similarities, labels[found.places], num_classes).argmax(dim=1).numpy()
    )
    return predictions


def few_shot(train: LabelledRows, test: LabelledRows, *, shots: int, seed: int) -> float:
    """Accuracy from a few training videos per class: predict the class whose mean is nearest by cosine similarity.

    Args:
        train: rows from which the few videos are drawn.
        test: rows for testing.
        shots: number of videos per class.
        seed: for the draw.

    Raises:
        HicoError: a class has too few videos; or see `require_classes`.

    """
    num_classes = require_classes(train, test)
    gallery, queries = video_means(train), video_means(test)
    rng = np.random.default_rng(seed)
    units = unit_rows(torch.from_numpy(gallery.features))
    means = torch.full((num_classes, units.shape[1]), torch.nan)
    for label in np.unique(gallery.labels):
        of_class = np.flatnonzero(gallery.labels == label)
        if len(of_class) < shots:
            raise HicoError(f"class {label} has {len(of_class)} training videos, fewer than {shots} (--shots)")
        means[label] = units[rng.choice(of_class, shots, replace=False)].mean(dim=0)
    similarity = _unit(queries.features) @ unit_rows(means).T
    return float((similarity.nan_to_num(nan=-torch.inf).argmax(dim=1).numpy() == queries.labels).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """The results of all probes of the features, over splits and seeds."""

    linear: MeanAndError
    knn: MeanAndError  # over splits only: nothing in it is random
    few_shot: dict[int, MeanAndError]  # by the number of videos per class
    chosen: list[tuple[float, float]]  # learning rate and weight decay of each linear probe
    num_train: list[int]  # number of videos in each split
    num_test: list[int]
    k: int  # number of neighbours that voted
    chance: float  # accuracy of guessing one of the classes


def probe_splits(
    splits: Sequence[tuple[LabelledRows, LabelledRows]],
    *,
    seeds: Sequence[int],
    k: int,
    shots: Sequence[int],
    on_done: Callable[[str], None] = lambda what: None,
) -> ProbeReport:
    """Probe features on each split, with each seed.

    Args:
        splits: rows to train on and rows to test on.
        seeds: for all random draws.
        k: number of neighbours that vote; fewer if a split has fewer training videos.
        shots: training videos of each class, for `few_shot`.
        on_done: called with each finished probe.

    Raises:
        HicoError: see `require_classes` and `few_shot`.

    """
    linear: list[LinearProbe] = []
    neighbours: list[float] = []
    few: dict[int, list[float]] = {count: [] for count in shots}
    num_train = [len(np.unique(train.videos)) for train, _ in splits]
    k = min(k, *num_train)
    for train, test in splits:
        neighbours.append(knn(train, test, k=k))
        on_done(f"nearest neighbours {neighbours[-1]:.1%}")
        for seed in seeds:
            for count in shots:
                few[count].append(few_shot(train, test, shots=count, seed=seed))
            linear.append(linear_probe(train, test, seed=seed))
            on_done(f"linear probe {linear[-1].accuracy:.1%}")
    return ProbeReport(
        linear=mean_and_error([found.accuracy for found in linear], num_splits=len(splits)),
        knn=mean_and_error(neighbours),
        few_shot={count: mean_and_error(values, num_splits=len(splits)) for count, values in few.items()},
        chosen=[(found.rate, found.weight_decay) for found in linear],
        num_train=num_train,
        num_test=[len(np.unique(test.videos)) for _, test in splits],
        k=k,
        chance=fmean(1 / len(np.union1d(train.labels, test.labels)) for train, test in splits),
    )


def _unit(features: np.ndarray) -> Tensor:
    return unit_rows(torch.from_numpy(features))
