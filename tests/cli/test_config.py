"""`hico config`: recipes and files can be looked at before anything is run."""

import json
from pathlib import Path

import pytest
import yaml
from commands import assert_one_line, hico

from hico_core.config import finetuning_preset_names, preset, preset_names


def test_list_and_show() -> None:
    assert hico("config", "list").stdout.split() == preset_names() + finetuning_preset_names()
    shown = yaml.safe_load(hico("config", "show", "k400-hico-l").stdout)
    assert shown == preset("k400-hico-l").model_dump(mode="json")


def test_what_is_shown_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(hico("config", "show", "uk400-hico-l").stdout)
    assert hico("config", "validate", path).stdout == f"{path}: valid\n"
    assert hico("config", "diff", "uk400-hico-l", path).stdout == ""


def test_recipes_of_finetuning(tmp_path: Path) -> None:
    assert yaml.safe_load(hico("config", "show", "finetune-ucf101").stdout)["train"]["batch_size"] == 128
    path = tmp_path / "mine.yaml"
    path.write_text("base: finetune-ucf101\ntest: {views: 10}\n")
    assert hico("config", "validate", path).stdout == f"{path}: valid\n"
    assert hico("config", "diff", "finetune-ucf101", path).stdout == "test.views: 1 -> 10\n"
    assert_one_line(hico("config", "diff", "hacs-hico-s", path), 2, "mine.yaml", "finetuning")


def test_json(tmp_path: Path) -> None:
    assert "hacs-hico-s" in json.loads(hico("config", "list", "--json").stdout)["recipes"]
    assert json.loads(hico("config", "show", "hacs-hico-s", "--json").stdout)["train"]["epochs"] == 120
    differing = json.loads(hico("config", "diff", "hacs-hico-s", "hacs-hico-l", "--json").stdout)
    assert differing["train.epochs"] == [120, 600] and "train.batch_size" not in differing
    assert json.loads(hico("config", "diff", "hacs-hico-s", "hacs-hico-s", "--json").stdout) == {}
    assert hico("config", "diff", "hacs-hico-s", "hacs-hico-s").stdout == ""
    (tmp_path / "mine.yaml").write_text("train: {epochs: 30}\n")
    assert json.loads(hico("config", "validate", tmp_path / "mine.yaml", "--json").stdout)["valid"] is True


def test_diff() -> None:
    lines = hico("config", "diff", "hacs-hico-s", "hacs-hico-l").stdout.splitlines()
    assert "train.epochs: 120 -> 600" in lines
    assert "optim.warmup_epochs: 5.0 -> 60.0" in lines
    assert not any(line.startswith("sampling.") for line in lines)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("optim: {base_lrr: 1}", ["unknown key optim.base_lrr", "optim.base_lr"]),
        ("train: {epochs: many}", ["train.epochs cannot be 'many'"]),
        ("a: [", ["not YAML"]),
        ("- 1", ["must consist of sections with keys"]),
    ],
)
def test_what_is_wrong_is_one_line(text: str, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    assert_one_line(hico("config", "validate", path), 2, "wrong.yaml", *parts)


def test_a_recipe_that_is_not_there() -> None:
    assert_one_line(
        hico("config", "show", "hacs-hico-xl"), 2, "hacs-hico-xl: neither a recipe nor a file", "hacs-hico-l"
    )
