"""Collapse is seen in numbers that are known for simple embeddings."""

import math

import pytest
import torch
import torch.nn.functional as F

from hico_core.training.collapse import PATIENCE, CollapseWatch, effective_rank, embedding_std, has_collapsed


def slow_effective_rank(values: list[float]) -> float:
    """The definition, from singular values."""
    parts = [value / sum(values) for value in values if value > 0]
    return math.exp(-sum(part * math.log(part) for part in parts))


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0, 1.0], [3.0, 2.0, 1.0], [5.0, 0.0, 0.1]])
def test_effective_rank_is_that_of_its_singular_values(values: list[float]) -> None:
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0] for _ in range(2))
    matrix = left[:, : len(values)] @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right[: len(values)]
    assert effective_rank(matrix) == pytest.approx(slow_effective_rank(values), rel=1e-9)


def test_alike_embeddings() -> None:
    alike = F.normalize(torch.ones(12, 128), dim=1)
    assert effective_rank(alike) == pytest.approx(1.0, abs=1e-3)
    assert embedding_std(alike) == pytest.approx(0.0, abs=1e-6)


def test_embeddings_spread_evenly() -> None:
    spread = F.normalize(torch.randn(2000, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    assert embedding_std(spread) == pytest.approx(1 / math.sqrt(128), rel=0.01)
    assert effective_rank(spread) > 120


@pytest.mark.parametrize(
    ("stds", "collapsed"),
    [
        ([0.001] * PATIENCE, True),
        ([0.001] * (PATIENCE - 1), False),  # not long enough
        ([0.001] * (PATIENCE - 1) + [0.08], False),
        ([0.08] * 5 + [0.001] * PATIENCE, True),
        ([0.08] * PATIENCE, False),
    ],
)
def test_has_collapsed(stds: list[float], collapsed: bool) -> None:
    assert has_collapsed(stds, width=128) == collapsed


@pytest.mark.parametrize(
    ("stds", "collapsed"),
    [([], False), ([0.001] * 3, True), ([0.001, 0.08], False), ([0.08] * 3 + [0.001] * PATIENCE, True)],
)
def test_the_end_of_a_run_looks_collapsed_after_few_steps_too(stds: list[float], collapsed: bool) -> None:
    watch = CollapseWatch(width=128)
    for std in stds:
        watch.look(std, 1.0)
    assert watch.at_end() == collapsed
