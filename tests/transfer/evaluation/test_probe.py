"""Probes know what is in the features, choose without the test videos, and agree with scikit-learn."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

from hico_core.base.errors import HicoError
from hico_core.transfer.evaluation.probe import (
    LabelledRows,
    _held_out_rows,
    _in_few_directions,
    few_shot,
    knn,
    linear_probe,
    linear_probe_of_scaled,
    mean_and_error,
    probe_splits,
    train_classifiers,
    video_means,
)


def blobs(seed: int, *, videos: int, spread: float = 1.0, first: int = 0, classes: int = 3) -> LabelledRows:
    """Videos of 4 rows around the centre of their class, which is the same for all seeds."""
    centres = np.random.default_rng(0).normal(size=(classes, 16))
    rng = np.random.default_rng(seed)
    numbers = np.repeat(np.arange(videos), 4)
    labels = numbers % classes
    rows = centres[labels] + spread * rng.normal(size=(len(numbers), 16))
    return LabelledRows(rows.astype(np.float32), labels, numbers + first)


def test_a_linear_probe_is_logistic_regression() -> None:
    """The same minimum as scikit-learn's, of mean cross-entropy and half the squared weights."""
    rows = blobs(1, videos=60)
    decay = 1e-2
    weights = train_classifiers(rows, 3, [(0.1, decay), (0.3, decay)], steps=3000, seed=0)
    theirs = LogisticRegression(C=1 / (decay * len(rows.labels)), tol=1e-8, max_iter=5000)
    theirs.fit(rows.features, rows.labels)
    # Biases may all be shifted alike.
    for ours in weights.numpy():
        np.testing.assert_allclose(ours[:, :-1], theirs.coef_, atol=2e-3)
        np.testing.assert_allclose(ours[:, -1] - ours[:, -1].mean(), theirs.intercept_, atol=2e-3)


@pytest.mark.parametrize("unit", [1e-15, 1e-9, 1e6])
def test_the_unit_of_features_does_not_count(unit: float) -> None:
    """Features of an untrained S3D-G are about 1e-15, and had the accuracy of a guess."""
    train, test = blobs(1, videos=30, spread=2.0), blobs(2, videos=60, spread=2.0, first=100)
    accuracies = [
        linear_probe(*(rows._replace(features=rows.features * one) for rows in (train, test)), seed=0, steps=50)
        for one in (np.float32(1), np.float32(unit))
    ]
    assert accuracies[0].accuracy == accuracies[1].accuracy > 0.5


def test_few_rows_of_many_features_are_probed_in_few_directions() -> None:
    """Each score is what descent in all features gives."""
    rng = np.random.default_rng(0)
    rows = [blobs(seed, videos=6, first=100 * seed) for seed in (1, 2)]
    train, test = (one._replace(features=(one.features @ rng.normal(size=(16, 64))).astype(np.float32)) for one in rows)
    pairs = (train, test), _in_few_directions(train, test)
    assert pairs[1][0].features.shape == pairs[1][1].features.shape == (24, 24)
    scores = []
    for first, second in pairs:
        weights = train_classifiers(first, 3, [(0.003, 1e-2)], steps=200, seed=0)[0].numpy()
        scores.append(second.features @ weights[:, :-1].T + weights[:, -1])
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-3, atol=1e-3)
    assert np.abs(scores[0]).max() > 1


def test_accuracies_are_near_scikit_learns() -> None:
    train, test = blobs(1, videos=90, spread=2.0), blobs(2, videos=300, spread=2.0, first=1000)
    found = linear_probe(train, test, seed=0, steps=300)
    theirs = LogisticRegression(C=0.01, max_iter=1000).fit(train.features, train.labels)
    scores = theirs.predict_proba(test.features).reshape(300, 4, 3).mean(axis=1)
    by_video = (scores.argmax(axis=1) == test.labels[::4]).mean()
    assert found.accuracy == pytest.approx(by_video, abs=0.03)
    assert 0.6 < found.accuracy < 1.0
    assert found.accuracy == (found.predictions == test.labels[::4]).mean()
    assert len(found.held_out_accuracies) == 20 and max(found.held_out_accuracies) > 0.5


def test_what_is_held_out_is_whole_videos_of_each_class() -> None:
    rows = blobs(1, videos=31)
    (held_out,) = _held_out_rows(rows, seed=3)
    for video in np.unique(rows.videos):
        assert len(set(held_out[rows.videos == video].tolist())) == 1
    counts = Counter(rows.labels[held_out].tolist())
    assert counts == {0: 8, 1: 8, 2: 8}, "two of ten or eleven videos, of four rows each"
    assert (held_out != _held_out_rows(rows, seed=4)[0]).any()


def test_parts_choose_together_each_by_its_videos() -> None:
    train, test = blobs(1, videos=40, spread=2.5), blobs(2, videos=20, first=1000)
    parts = [(train.videos >= first) & (train.videos < end) for first, end in ((0, 10), (10, 15), (15, 40))]

    def held_out_accuracies(held_out: list[np.ndarray]) -> list[float]:
        return linear_probe_of_scaled(train, test, held_out=held_out, steps=20, seed=0).held_out_accuracies

    alone = [held_out_accuracies([part]) for part in parts]
    together = [(10 * one + 5 * two + 25 * three) / 40 for one, two, three in zip(*alone, strict=True)]
    assert held_out_accuracies(parts) == pytest.approx(together)
    assert alone[0] != alone[1]
    assert held_out_accuracies([]) == [0.0] * 20


def test_test_labels_choose_nothing() -> None:
    train, test = blobs(1, videos=40), blobs(2, videos=40, first=1000)
    found = linear_probe(train, test, seed=0, steps=50)
    wrong = linear_probe(train, test._replace(labels=(test.labels + 1) % 3), seed=0, steps=50)
    assert (found.rate, found.held_out_accuracies) == (wrong.rate, wrong.held_out_accuracies)
    np.testing.assert_array_equal(found.predictions, wrong.predictions)


def test_a_setting_that_diverges_is_not_chosen() -> None:
    train, test = blobs(1, videos=40), blobs(2, videos=40, first=1000)
    found = linear_probe(train, test, seed=0, rates=(1e3, 0.1), weight_decays=(1.0,), steps=200)
    assert found.rate == 0.1 and found.accuracy > 0.9


def test_knn_is_a_vote_by_hand() -> None:
    train, test = blobs(1, videos=40, spread=3.0), blobs(2, videos=50, spread=3.0, first=1000)
    gallery, queries = video_means(train), video_means(test)
    right = 0
    for row, label in zip(queries.features, queries.labels, strict=True):
        similarity = gallery.features @ row / np.linalg.norm(gallery.features, axis=1) / np.linalg.norm(row)
        votes: Counter[int] = Counter()
        for place in np.argsort(-similarity)[:7]:
            votes[int(gallery.labels[place])] += np.exp(similarity[place] / 0.07)
        right += votes.most_common(1)[0][0] == label
    assert knn(train, test, k=7) == right / 50


def test_few_shot_with_all_videos_is_the_nearest_centroid() -> None:
    train, test = blobs(1, videos=30, spread=2.0), blobs(2, videos=60, spread=2.0, first=1000)
    gallery, queries = video_means(train), video_means(test)
    unit = gallery.features / np.linalg.norm(gallery.features, axis=1, keepdims=True)
    centroids = NearestCentroid().fit(unit, gallery.labels).centroids_
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    expected = ((queries.features @ centroids.T).argmax(axis=1) == queries.labels).mean()
    assert few_shot(train, test, shots=10, seed=0) == expected
    assert len({few_shot(train, test, shots=1, seed=seed) for seed in range(5)}) > 1
    with pytest.raises(HicoError, match="class 0 has 10 training videos, fewer than 11"):
        few_shot(train, test, shots=11, seed=0)


def test_video_means() -> None:
    rows = LabelledRows(np.array([[1.0], [5.0], [3.0]], np.float32), np.array([1, 0, 1]), np.array(["b", "a", "b"]))
    found = video_means(rows)
    assert (found.features.tolist(), found.labels.tolist(), found.videos.tolist()) == (
        [[5.0], [2.0]],
        [0, 1],
        ["a", "b"],
    )


def test_mean_and_error() -> None:
    assert mean_and_error([0.5]) == (0.5, None, [0.5])
    of_three = mean_and_error([1.0, 2.0, 3.0])
    assert (of_three.mean, of_three.standard_error) == pytest.approx((2.0, 1 / 3**0.5))
    of_splits = mean_and_error([1.0, 1.0, 1.0, 2.0, 3.0, 4.0], num_splits=2)
    assert (of_splits.mean, of_splits.standard_error) == pytest.approx((2.0, 1.0)), "of 1 and 3; seeds add nothing"
    assert len(of_splits.values) == 6


@pytest.mark.slow
def test_a_report_over_splits_and_seeds() -> None:
    splits = [
        (blobs(1, videos=30), blobs(2, videos=30, first=1000)),
        (blobs(3, videos=30), blobs(4, videos=12, first=99)),
    ]
    said: list[str] = []
    report = probe_splits(splits, seeds=[0, 1], k=5, shots=[1, 2], on_done=said.append)
    assert len(report.linear.values) == len(report.chosen) == 4 and len(report.knn.values) == 2
    assert {count: len(value.values) for count, value in report.few_shot.items()} == {1: 4, 2: 4}
    assert (report.num_train, report.num_test) == ([30, 30], [30, 12])
    assert (report.k, report.chance) == (5, 1 / len(np.unique(splits[0][0].labels)))
    assert len(said) == 6
    assert report.linear.mean > 0.9


def test_no_more_neighbours_vote_than_there_are_training_videos() -> None:
    splits = [(blobs(1, videos=9), blobs(2, videos=6, first=99)), (blobs(1, videos=6), blobs(2, videos=6, first=99))]
    assert probe_splits(splits, seeds=[0], k=20, shots=[]).k == 6


GOOD = blobs(1, videos=6)
EMPTY = LabelledRows(np.empty((0, 16), np.float32), np.empty(0, np.int64), np.empty(0, np.int64))


@pytest.mark.parametrize(
    ("train", "test", "problem"),
    [
        (EMPTY, GOOD, "no labelled videos to train on"),
        (GOOD, EMPTY, "no labelled videos to test on"),
        (
            GOOD._replace(labels=np.full(24, 4)),
            blobs(2, videos=6, first=100),
            "all training videos have the same label, 4",
        ),
        (GOOD, GOOD, "the training and the test set share 6 videos, such as 0"),
        (GOOD._replace(features=np.full((24, 16), np.nan)), blobs(2, videos=6, first=100), "are not finite"),
    ],
)
@pytest.mark.parametrize("measure", ["linear", "knn", "few"])
def test_what_cannot_be_probed(train: LabelledRows, test: LabelledRows, problem: str, measure: str) -> None:
    measures: dict[str, Any] = {
        "linear": lambda: linear_probe(train, test, seed=0, steps=1),
        "knn": lambda: knn(train, test, k=1),
        "few": lambda: few_shot(train, test, shots=1, seed=0),
    }
    with pytest.raises(HicoError, match=problem):
        measures[measure]()
