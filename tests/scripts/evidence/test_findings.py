"""Means, paired differences and the rule, against their definitions."""

import math

import pandas as pd
import pytest
from findings import means, paired, table_of, verdicts


def rows(arm: str, values: list[float], *, trimmed: bool = False, design: str = "scenes") -> list[dict[str, object]]:
    setting = {
        "design": design,
        "look": 0.5,
        "steps": 600,
        "trimmed": trimmed,
        "videos": 0,
        "rate": 3e-3,
        "seconds": 1.0,
    }
    return [
        {**setting, "arm": arm, "seed": seed, "probe": "action-linear", "accuracy": value, "chance": 0.125}
        for seed, value in enumerate(values, start=1)
    ]


def test_paired_difference() -> None:
    results = pd.DataFrame(rows("hico", [0.5, 0.7, 0.6]) + rows("simclr-far-3", [0.4, 0.3, 0.7, 0.2]))
    found = paired(results, "hico", "simclr-far-3", "action-linear")
    differences = [0.1, 0.4, -0.1]
    mean = sum(differences) / 3
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / 2)
    assert (found.num_seeds, found.won) == (3, 2)
    assert found.mean == pytest.approx(mean)
    assert found.standard_error == pytest.approx(deviation / math.sqrt(3))
    assert paired(results, "hico", "nobody", "action-linear").num_seeds == 0
    with pytest.raises(ValueError, match="measured twice"):
        paired(pd.concat([results, results]), "hico", "simclr-far-3", "action-linear")


FAR = [0.3] * 10


@pytest.mark.parametrize(
    ("hico", "met"),
    [
        ([0.6 + 0.01 * seed for seed in range(10)], True),
        ([0.6] * 8 + [0.2, 0.2], False),  # two seeds lost
        ([0.31, 0.9, *[0.301] * 7, 0.2], False),  # one lost, but a mean within 2 errors
        ([0.2] * 10, False),
    ],
)
def test_the_rule(hico: list[float], met: bool) -> None:
    results = pd.DataFrame(rows("hico", hico) + rows("simclr-far-3", FAR))
    assert [verdict.met for verdict in verdicts(results, steps=600)] == [met]


@pytest.mark.parametrize(("gap", "met"), [(0.04, True), (-0.04, True), (0.06, False)])
def test_the_rule_for_trimmed_videos(gap: float, met: bool) -> None:
    results = pd.DataFrame(rows("hico", [0.3 + gap] * 10, trimmed=True) + rows("simclr-far-3", FAR, trimmed=True))
    (verdict,) = verdicts(results, steps=600)
    assert (verdict.setting, verdict.met) == ("scenes, trimmed", met)


def test_the_seed_that_settings_were_chosen_on_does_not_count() -> None:
    results = pd.DataFrame(rows("hico", [0.6] * 10) + rows("simclr-far-3", FAR))
    zero = results.copy()
    zero["seed"] = 0
    assert verdicts(pd.concat([results, zero.iloc[[0, 10]]]), steps=600)[0].difference.num_seeds == 10


def test_tables_show_means_and_errors() -> None:
    results = pd.DataFrame(rows("hico", [0.5, 0.7]) + rows("random", [0.2]))
    table = table_of(results, ["action-linear", "topic-knn"], ["random", "hico", "pixels"])
    assert table.to_dict("index") == {
        "random": {"action-linear": "20.0", "topic-knn": ""},
        "hico": {"action-linear": "60.0 ± 10.0", "topic-knn": ""},
    }
    assert means(results).set_index("arm")["seeds"].to_dict() == {"hico": 2, "random": 1}
