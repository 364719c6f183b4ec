"""Schedules are pure functions with known values."""

from typing import Any

import pytest
from goldens import load_json

from hico_core.config import Config, compose_config
from hico_core.training.schedule import distances_of, learning_rate, peak_learning_rate, rates_of, sampling_distance

CASES = load_json("lr_schedule.json")


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['config']}-{c['gpus_per_node']}x{c['nodes']}")
def test_learning_rate(case: dict[str, Any]) -> None:
    for epoch, expected in zip(case["epochs"], case["lr"], strict=True):
        actual = learning_rate(
            epoch,
            peak=case["base_lr_effective"],
            start=case["warmup_start_lr"],
            warmup_epochs=case["warmup_epochs"],
            total_epochs=case["max_epoch"],
        )
        assert actual == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", [c for c in CASES if c["adjust_lr"]], ids=lambda c: c["config"])
def test_peak_rate_from_the_same_inputs(case: dict[str, Any]) -> None:
    """The authors multiply by the number of GPUs although their batch size already is that of a node."""
    nodes = case["nodes"] if case["PAI"] else 1
    peak = peak_learning_rate(
        base_lr=case["base_lr_in_config"],
        videos_per_step=nodes * case["batch_size"],
        clips_per_video=case["clips_per_video"],
        authors_processes=case["gpus_per_node"],
    )
    assert peak == pytest.approx(case["base_lr_effective"], abs=1e-12)


def test_peak_rate_counts_each_clip_once() -> None:
    assert peak_learning_rate(base_lr=0.3, videos_per_step=64, clips_per_video=4) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [
        (0, 0.1),  # the start
        (1, 0.1 + (0.75 - 0.1) / 2),  # half-way up the line
        (2, 0.75),  # the warm-up meets the cosine at a third of the way: (1 + cos 60 degrees) / 2
        (3, 0.5),  # half of the cosine
        (6, 0.0),
    ],
)
def test_warmup_meets_the_cosine(epoch: float, expected: float) -> None:
    assert learning_rate(epoch, peak=1.0, start=0.1, warmup_epochs=2, total_epochs=6) == pytest.approx(expected)


def test_no_warmup_starts_at_the_peak() -> None:
    assert learning_rate(0, peak=1.0, start=0.1, warmup_epochs=0, total_epochs=6) == 1.0


@pytest.mark.parametrize(("progress", "expected"), [(0.0, 0.0), (0.25, 0.25), (1.0, 1.0), (1.5, 1.0), (-1.0, 0.0)])
def test_sampling_distance(progress: float, expected: float) -> None:
    assert sampling_distance(progress) == expected
    assert sampling_distance(progress, start_seconds=2.0, end_seconds=4.0) == 2.0 + 2.0 * expected


@pytest.mark.parametrize(
    ("distance", "at_start", "at_end"), [("gradual", 0.0, 1.0), ("fixed", 1.0, 1.0), ("any", None, None)]
)
def test_distances_of(distance: str, at_start: float | None, at_end: float | None) -> None:
    config = compose_config(Config, {}, origin="test", overrides=[f"sampling.distance={distance}"])
    distances = distances_of(config.sampling)
    assert (distances.at(0.0), distances.at(1.0)) == (at_start, at_end)


def test_a_warm_up_begins_at_the_peak_at_most() -> None:
    """Of small batches, the scaled peak may lie below the first rate of the settings."""
    rates = rates_of(compose_config(Config, {}, origin="test"), peak=0.0004)
    warm_up = [rates.at(epoch) for epoch in range(6)]
    assert rates.start == 0.0004 and warm_up == sorted(warm_up, reverse=True)
    assert rates_of(compose_config(Config, {}, origin="test"), peak=0.1).start == 0.001
