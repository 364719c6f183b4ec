"""Settings come from a recipe, then a file, then options, then overrides; --epochs keeps the warm-up's part."""

from pathlib import Path

import pytest

from hico_core.base.errors import UsageError
from hico_core.config.authors.finetuning_keys import load_any_finetuning
from hico_core.config.authors.pretraining_keys import load_any_config
from hico_core.config.resolve import Asked, resolve_training


def test_later_wins(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text("train: {seed: 1, batch_size: 8, max_steps: 5}")
    options: dict[str, float | str | None] = {"train.batch_size": 6, "train.max_steps": 4, "data.workers": None}
    asked = Asked(recipe="hacs-hico-s", file=file, options=options, overrides=["train.max_steps=3"])
    resolved = resolve_training(load_any_config, asked)
    train = resolved.config.train
    assert (train.seed, train.batch_size, train.max_steps) == (1, 6, 3)
    assert resolved.authors is None and resolved.config.data.workers is None


@pytest.mark.parametrize(("epochs", "warmup"), [(12, 0.5), (240, 10.0)])
def test_epochs_keep_the_part_of_the_warm_up(epochs: int, warmup: float) -> None:
    config = resolve_training(load_any_config, Asked(recipe="hacs-hico-s", options={}, epochs=epochs)).config
    assert (config.train.epochs, config.optim.warmup_epochs) == (epochs, warmup)
    finetuned = resolve_training(load_any_finetuning, Asked(recipe="finetune-hmdb51", options={}, epochs=30)).config
    assert (finetuned.train.epochs, finetuned.optim.warmup_epochs) == (30, 1.0)


def test_epochs_mend_a_file_whose_warm_up_does_not_fit(tmp_path: Path) -> None:
    file = tmp_path / "few.yaml"
    file.write_text("train: {epochs: 3}")
    asked = Asked(recipe="hacs-hico-s", file=file, options={}, epochs=6)  # 5 of 120 in the recipe
    config = resolve_training(load_any_config, asked).config
    assert (config.train.epochs, config.optim.warmup_epochs) == (6, 0.25)


def test_options_with_text_are_taken_literally() -> None:
    for folder in ("/my cache #1", "/a: b", "null"):
        asked = Asked(recipe="hacs-hico-s", options={"data.cache_dir": folder})
        assert resolve_training(load_any_config, asked).config.data.cache_dir == folder


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (Asked(recipe="hacs-hico-s", options={"train.batch_size": None}), False),
        (Asked(recipe="hacs-hico-s", options={"train.batch_size": 4}), True),
        (Asked(recipe="hacs-hico-s", options={}, file=Path("any.yaml")), True),
        (Asked(recipe="hacs-hico-s", options={}, overrides=["train.batch_size = 4"]), True),
        (Asked(recipe="hacs-hico-s", options={}, overrides=["train.seed=4"]), False),
    ],
)
def test_a_batch_that_was_asked_for_is_not_lowered(asked: Asked, named: bool) -> None:
    assert asked.names("train.batch_size") == named


def test_a_wrong_key_is_named() -> None:
    with pytest.raises(UsageError, match=r"optim\.base_lr"):
        resolve_training(load_any_config, Asked(recipe="hacs-hico-s", options={}, overrides=["optim.base_lrr=1"]))
