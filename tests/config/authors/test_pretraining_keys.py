"""The authors' YAML files run as they are: layers merge as theirs do, and each key means here what it meant there."""

from pathlib import Path
from typing import Any

import pytest
from authors_files import GOLDEN, write_config, write_tree

from hico_core.base.errors import UsageError
from hico_core.config import flat_settings, preset
from hico_core.config.authors.pretraining_keys import load_any_config, read_authors_config
from hico_core.config.authors.yaml_layers import content_of_ours, resolve_authors_yaml

# Their file -> the preset that stands for it.
PRESETS = {
    "pt-hacs/s3dg-hico-s.yaml": "hacs-hico-s",
    "pt-hacs/s3dg-hico-l.yaml": "hacs-hico-l",
    "pt-hacs/s3dg-baseline-s.yaml": "hacs-simclr-s",
    "pt-k400/s3dg-hico-l.yaml": "k400-hico-l",
    "pt-k400f/s3dg-hico-l.yaml": "uk400-hico-l",
}


@pytest.mark.parametrize("case", GOLDEN["synthetic"], ids=lambda case: case["note"])
def test_layers(case: dict[str, Any], tmp_path: Path) -> None:
    """As recorded from their loader; where that loses a key, the key counts and a note says so."""
    layered = resolve_authors_yaml(write_tree(tmp_path, case["files"]) / case["load"])
    if "quirk" not in case:
        assert layered.values == case["resolved"]
        assert layered.notes == []
    else:
        assert layered.values["OPT"] == {**case["resolved"]["OPT"], "BASE_LR": 0.2}
        assert len(layered.notes) == 1 and "OPT.BASE_LR" in layered.notes[0]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-6", 1e-6), ("12e-3", 12e-3), ("-1e-3", -1e-3), ("1E-3", 1e-3), (".5e1", 5.0), ("ae-x", "ae-x")],
)
def test_numbers_that_yaml_takes_for_text(text: str, value: object, tmp_path: Path) -> None:
    write_tree(tmp_path, {"pool/base.yaml": "A: {B: 1}", "a.yaml": f"A: {{C: {text}}}"})
    assert resolve_authors_yaml(tmp_path / "a.yaml").values == {"A": {"B": 1, "C": value}}


@pytest.mark.parametrize("name", PRESETS)
def test_each_file_is_its_preset(name: str, tmp_path: Path) -> None:
    authors = read_authors_config(write_config(tmp_path, name))
    theirs, ours = flat_settings(authors.config), flat_settings(preset(PRESETS[name]))
    different = {key for key, value in ours.items() if theirs[key] != value}
    # The presets name no number of workers, and count each video of a step once for the rate.
    assert different - {"recipe"} == {"data.workers", "optim.scale_lr"}
    assert authors.data_root == GOLDEN["configs"][name]["DATA"]["DATA_ROOT_DIR"]
    assert authors.anno_dir == GOLDEN["configs"][name]["DATA"]["ANNO_DIR"]
    assert {"PAI", "NUM_GPUS", "OUTPUT_DIR"} <= set(authors.ignored)
    assert len(set(authors.ignored)) == len(authors.ignored)
    assert any("scale_lr" in note for note in authors.notes)


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({"HICO.GRAUDAL_SAMPLING.MAX_DIS": [0.5, 2.0]}, {"sampling.start_seconds": 0.5, "sampling.end_seconds": 2.0}),
        (
            {"HICO.GRAUDAL_SAMPLING.ENABLE": False, "HICO.VCL.ENABLE": True, "HICO.VCL.MAX_DIS": 0.7},
            {"sampling.distance": "fixed", "sampling.end_seconds": 0.7},
        ),
        ({"HICO.GRAUDAL_SAMPLING.ENABLE": False}, {"sampling.distance": "any"}),
        ({"HICO.TCL.ENABLE": False}, {"sampling.topical": False}),
        ({"OPTIMIZER.WEIGHT_DECAY": "1e-4"}, {"optim.weight_decay": 1e-4}),
        # An unscaled rate: what we scale it by, 32 videos of 3 clips over 256, is undone beforehand.
        ({"OPTIMIZER.ADJUST_LR": False}, {"optim.base_lr": 0.3 * 256 / 96, "optim.scale_lr": "global"}),
        ({"MY.OWN": 3}, {}),
    ],
)
def test_meanings(changes: dict[str, Any], settings: dict[str, Any], tmp_path: Path) -> None:
    if "MY.OWN" in changes:
        path = write_config(tmp_path, "pt-hacs/s3dg-hico-s.yaml")
        path.write_text(path.read_text() + "MY: {OWN: 3}\n")
        assert "MY.OWN" in read_authors_config(path).ignored
        return
    flat = flat_settings(read_authors_config(write_config(tmp_path, "pt-hacs/s3dg-hico-s.yaml", changes)).config)
    assert {key: flat[key] for key in settings} == pytest.approx(settings)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"MODEL.EMA.ENABLE": True}, ["MODEL.EMA.ENABLE", "write MODEL.EMA.ENABLE: False"]),
        ({"OPTIMIZER.OPTIM_METHOD": "adam"}, ["OPTIMIZER.OPTIM_METHOD: adam", "write OPTIMIZER.OPTIM_METHOD: lars"]),
        ({"PRETRAIN.LOSS": "MoCo"}, ["PRETRAIN.LOSS: MoCo", "write HiCo or Contrastive"]),
        ({"VIDEO.HEAD.NAME": "BaseHead"}, ["VIDEO.HEAD.NAME", "write ContrastiveHeadTopicPred"]),
        ({"TRAIN.DATASET": "ucf101"}, ["TRAIN.DATASET: ucf101", "longvideo or kinetics400"]),
        ({"DATA.MEAN": [0.1, 0.2]}, ["DATA.MEAN", "must be a list of 3 numbers"]),
        ({"TRAIN.CHECKPOINT_FILE_PATH": "a.pyth"}, ["TRAIN.CHECKPOINT_FILE_PATH", "--init-from"]),
        ({"OPTIMIZER.BASE_LR": None}, ["OPTIMIZER.BASE_LR is missing"]),
        ({"TRAIN.BATCH_SIZE": "many"}, ["train.batch_size cannot be 'many'"]),
        ({"HICO.GRAUDAL_SAMPLING.MAX_DIS": 2.0}, ["HICO.GRAUDAL_SAMPLING.MAX_DIS: 2.0: must be a list of 2 numbers"]),
        ({"DATA.MEAN": 0.45}, ["DATA.MEAN: 0.45: must be a list of 3 numbers"]),
        ({"OPTIMIZER.BASE_LR": "much"}, ["OPTIMIZER.BASE_LR: much: must be a number"]),
    ],
)
def test_what_hico_does_not_do_is_refused(changes: dict[str, Any], parts: list[str], tmp_path: Path) -> None:
    path = write_config(tmp_path, "pt-hacs/s3dg-hico-s.yaml", changes)
    with pytest.raises(UsageError) as caught:
        read_authors_config(path)
    assert all(part in str(caught.value) for part in [*parts, str(path)])
    assert "\n" not in str(caught.value)


def test_overrides_may_name_their_keys_or_ours(tmp_path: Path) -> None:
    path = write_config(tmp_path, "pt-hacs/s3dg-hico-s.yaml")
    given = ["OPTIMIZER.WEIGHT_DECAY=1e-4", "HICO.GRAUDAL_SAMPLING.MAX_DIS=[0, 2]", "train.epochs=70"]
    config = read_authors_config(path, overrides=given).config
    assert (config.optim.weight_decay, config.sampling.end_seconds, config.train.epochs) == (1e-4, 2, 70)
    with pytest.raises(UsageError, match=r"has no key OPTIMIZER\.BASELR; the nearest is OPTIMIZER\.BASE_LR"):
        read_authors_config(path, overrides=["OPTIMIZER.BASELR=1"])


def test_finetuning_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="hico finetune --config"):
        read_authors_config(write_config(tmp_path, "ft-hmdb/ft-s3dg-hico-s.yaml"))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.yaml": "TRAIN: {}"}, "no configs/pool/base.yaml"),
        ({"a.yaml": "_BASE: b.yaml", "pool/base.yaml": ""}, "_BASE: b.yaml: no such file"),
        ({"a.yaml": "_BASE: b.yaml", "b.yaml": "_BASE: a.yaml", "pool/base.yaml": ""}, "cycle"),
        ({"a.yaml": "A: ["}, "not YAML"),
        ({}, "cannot be read"),
    ],
)
def test_broken_trees(files: dict[str, str], message: str, tmp_path: Path) -> None:
    write_tree(tmp_path, files)
    with pytest.raises(UsageError, match=message):
        read_authors_config(tmp_path / "a.yaml")


def test_the_format_is_told_by_the_keys(tmp_path: Path) -> None:
    theirs = write_config(tmp_path, "pt-hacs/s3dg-hico-s.yaml")
    ours = write_tree(tmp_path, {"ours.yaml": "train: {epochs: 300}"}) / "ours.yaml"
    assert content_of_ours(theirs) is None and content_of_ours(ours)
    loaded = load_any_config(ours, base="hacs-hico-s")
    assert loaded.config.train.epochs == 300 and loaded.authors is None and not loaded.names_recipe
    loaded = load_any_config(theirs, base="hacs-hico-l", overrides=["train.epochs=70"])
    assert loaded.config.train.epochs == 70 and loaded.authors is not None and loaded.names_recipe
