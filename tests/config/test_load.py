"""Configurations refuse what is wrong in one line, and presets say what the recipes say."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from hico_core.base.errors import UsageError
from hico_core.config import (
    Config,
    FinetuneConfig,
    as_override,
    compose_config,
    dump_config,
    finetuning_preset_names,
    load_config,
    load_finetuning_config,
    parse_override,
    preset,
    preset_names,
)

# dataset-recipe: clips, epochs, warm-up, batch norms excluded from LARS
RECIPES = {
    "hacs-simclr-s": (2, 120, 5, False),
    "hacs-hico-s": (3, 120, 5, False),
    "hacs-hico-l": (3, 600, 60, True),
    "k400-hico-l": (3, 200, 20, True),
    "uk400-hico-l": (3, 500, 50, True),
    "k400-simclr-s": (2, 120, 5, True),
    "uk400-simclr-s": (2, 120, 5, True),
}


def test_all_recipes_are_there() -> None:
    assert preset_names() == sorted(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str) -> None:
    clips, epochs, warmup, exclude = RECIPES[name]
    config = preset(name)
    assert f"{config.dataset}-{config.recipe}" == name
    assert config.sampling.clips_per_video == clips
    assert (config.train.epochs, config.optim.warmup_epochs) == (epochs, warmup)
    assert config.optim.lars_exclude_bn == exclude
    assert config.optim.lars_zero_norm == "authors"
    assert config.augment.blur == "authors"
    assert (config.loss.name == "simclr") == (clips == 2) == (not config.sampling.topical)


# What the authors' configurations and the paper's settings say: rate, warm-up's start, videos a step.
FINETUNING = {"finetune-hmdb51": (0.001, 0.00002, 64), "finetune-ucf101": (0.002, 0.0002, 128)}


def test_recipes_of_finetuning() -> None:
    assert finetuning_preset_names() == sorted(FINETUNING)
    for name, (rate, start, batch_size) in FINETUNING.items():
        config = load_finetuning_config(base=name)
        assert (config.optim.base_lr, config.optim.warmup_start_lr, config.train.batch_size) == (
            rate,
            start,
            batch_size,
        )
        assert (config.train.epochs, config.optim.warmup_epochs, config.optim.weight_decay) == (300, 10, 0.001)
        assert (config.augment.colour_probability, config.augment.grey_first) == (1.0, True)
        assert (config.train.tune, config.train.statistics, config.test.views) == ("all", "frozen", 1)


def test_finetuning_has_keys_of_its_own() -> None:
    assert load_finetuning_config(overrides=["test.views=10"]).test.views == 10
    with pytest.raises(UsageError, match=r"unknown key test\.view; the nearest known key is test\.views"):
        load_finetuning_config(overrides=["test.view=10"])


def test_later_wins(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {epochs: 70, seed: 3}\noptim: {weight_decay: 1e-4}\n")
    config = load_config(file, base="hacs-hico-l", overrides=["train.seed=4", "data.workers=null"])
    assert (config.train.epochs, config.train.seed) == (70, 4)
    assert config.optim.weight_decay == 1e-4
    assert config.optim.warmup_epochs == 60


def test_a_file_may_stand_on_a_recipe_or_another_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "below.yaml").write_text("base: hacs-hico-l\ntrain: {seed: 3, batch_size: 8}\n")
    file = tmp_path / "sub" / "mine.yaml"
    file.write_text("base: ../below.yaml\ntrain: {batch_size: 4}\n")
    config = load_config(file, base="k400-simclr-s")
    assert (config.train.epochs, config.train.seed, config.train.batch_size) == (600, 3, 4)
    assert (config.dataset, config.loss.name) == ("hacs", "hico")


@pytest.mark.parametrize(
    ("base", "message"),
    [("nowhere", "no such recipe or file"), ("mine.yaml", "cycle"), ("[1]", "must be the name")],
)
def test_wrong_bases(base: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"base: {base}")
    with pytest.raises(UsageError, match=message):
        load_config(tmp_path / "mine.yaml")


def test_dump_reads_back(tmp_path: Path) -> None:
    config = load_config(overrides=["augment.hue=0.1", "train.max_steps=5"])
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "config.yaml", base="uk400-hico-l") == config
    finetuning = load_finetuning_config(overrides=["train.tune=head"])
    (tmp_path / "finetune.yaml").write_text(dump_config(finetuning))
    assert load_finetuning_config(tmp_path / "finetune.yaml", base="finetune-ucf101") == finetuning


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.base_lrr=1", "unknown key optim.base_lrr; the nearest known key is optim.base_lr"),
        ("optm.base_lr=1", "unknown key optm.base_lr; the nearest known key is optim.base_lr"),
        ("epochs=3", "the nearest known key is train.epochs"),
        ("optim.base_lr=fast", "optim.base_lr cannot be 'fast'"),
        ("optim.base_lr=-1", "optim.base_lr cannot be -1: must be more than 0"),
        ("loss.temperature=0.01", "loss.temperature cannot be 0.01: must be at least 0.02"),
        ("train.batch_size", "must be key=value"),
        ("sampling.distance=far", "cannot be 'far': must be 'gradual', 'fixed' or 'any'"),
        ("optim=3", "optim cannot be 3: must be a section with keys"),
        ("optim.base_lr=.inf", "must be a finite number"),
        (f"train.seed={10**32}", "must be less than"),
        ("train.epochs=1.5", "must be a whole number"),
        (f"loss.name={['x' * 99] * 99}", "must be"),
        ("train.epochs=[", "not YAML"),
        ("optim.steps={10: 0.1}", "unknown key optim.steps.10; the nearest known key is"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(overrides=[override])
    assert message in str(caught.value)
    assert override in str(caught.value)
    assert "\n" not in str(caught.value)


# Nine lists, each of nine times the one before: 9 ** 9 values.
BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must consist of sections"),
        ("a: [", "not YAML"),
        ("train: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("train: &t\n  epochs: *t", "aliases (*name) expand to more than 100000 values"),
        (BOMB, "aliases (*name) expand to more than 100000 values"),
        ("loss: {visual_weight: 0, topical_weight: 0}", "nothing would be learned"),
        ("!!python/object/apply:os.system [ls]", "not YAML"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"wrong\.yaml") as caught:
        load_config(file)
    assert message in str(caught.value)


def test_a_chain_of_bases_without_end(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.yaml").write_text(f"base: {number + 1}.yaml")
    with pytest.raises(UsageError, match=r"50\.yaml: its chain of base files is longer than 50"):
        load_config(tmp_path / "0.yaml")


def _wrong_values(schema: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Overrides that nearly all are wrong: each kind of value for each key."""
    for name, field in schema.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _wrong_values(field.annotation, f"{prefix}{name}.")
        yield from (
            f"{prefix}{name}={value}" for value in ("-1", "x", "[1]", "[a, b]", "{a: 1}", "1e99", "null", "-2.5")
        )


@pytest.mark.parametrize("schema", [Config, FinetuneConfig])
def test_no_words_of_the_validator(schema: type[BaseModel]) -> None:
    refused = 0
    for override in _wrong_values(schema):
        try:
            compose_config(schema, {"dataset": "hacs"} if schema is Config else {}, origin="x", overrides=[override])
        except UsageError as error:
            refused += 1
            assert not re.search("Input|should|Value error|valid ", str(error)), error
    assert refused > 100


def test_a_setting_that_is_gone(tmp_path: Path) -> None:
    """Old files that have its default are read; one that asks for what is gone is refused by that."""
    file = tmp_path / "old.yaml"
    file.write_text("loss: {topical_ids: videos, gamma: 1}")
    assert load_config(file) == load_config(overrides=["loss.gamma=1", "loss.topical_ids=videos"])
    file.write_text("loss: {topical_ids: mixed}")
    for origin, path, overrides in (
        (str(file), file, []),
        ("-o loss.topical_ids=mixed", None, ["loss.topical_ids=mixed"]),
    ):
        with pytest.raises(UsageError, match=r"loss\.topical_ids=mixed is no longer supported") as caught:
            load_config(path, overrides=overrides)
        assert str(caught.value).startswith(f"{origin}: ")


def test_missing_file_and_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: cannot be read"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="hacs-hico-x: no such recipe; the recipes are hacs-hico-l"):
        preset("hacs-hico-x")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["sampling.clips_per_video=2"], "no two clips are near; use 3 clips, or sampling.topical=false"),
        (["sampling.start_seconds=2"], "start_seconds=2.0 is more than sampling.end_seconds=1.0"),
        (["optim.warmup_epochs=121"], "optim.warmup_epochs=121 is longer than train.epochs=120"),
        (["train.epochs=4"], "optim.warmup_epochs=5 is longer than train.epochs=4; change both"),
        (["augment.crop_jitter=[224, 168]"], "augment.crop_jitter cannot be [224, 168]: must be two"),
        (["augment.crop_ratio=[1.2, 0.8]"], "the smaller one first"),
        (["train.compile=true", "train.recompute=true"], "do not work together"),
    ],
)
def test_contradictions(overrides: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_config(overrides=overrides)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"-o {overrides[-1]}: ")


@pytest.mark.parametrize(
    "overrides",
    [
        ["sampling.clips_per_video=2", "sampling.topical=false"],
        ["sampling.topical=false", "sampling.clips_per_video=2"],
        ["sampling.clips_per_video=2", "loss.visual_weight=0"],
        ["sampling.clips_per_video=2", "loss.name=simclr"],  # far positives: the baseline of the paper's claim
        ["sampling.start_seconds=2", "sampling.end_seconds=3"],
        ["sampling.start_seconds=2", "sampling.distance=fixed"],
        ["train.epochs=4", "optim.warmup_epochs=4"],
        ["augment.crop_jitter=[168, 168]"],
    ],
)
def test_overrides_that_only_make_sense_together(overrides: list[str]) -> None:
    load_config(overrides=overrides)
    load_config(overrides=overrides[::-1])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("eval.knn_list", None),
        ("eval.knn_list", "my list #1.txt"),
        ("eval.knn_list", "a: b"),
        ("eval.knn_list", "[a"),
        ("eval.knn_list", "1"),
        ("data.short_side", None),
        ("augment.crop_jitter", (168, 224)),
        ("train.compile", True),
        ("model.encoder", "python:made_encoders:tiny"),
    ],
)
def test_an_override_is_read_as_what_it_was_made_of(key: str, value: object) -> None:
    section, name = key.split(".")
    found = parse_override(as_override(key, value))[section][name]
    assert (tuple(found) if isinstance(found, list) else found) == value
