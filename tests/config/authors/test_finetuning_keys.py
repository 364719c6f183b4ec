"""The authors' finetuning files run as they are, and each key means here what it meant there."""

from pathlib import Path
from typing import Any

import pytest
from authors_files import GOLDEN, write_config, write_tree

from hico_core.base.errors import UsageError
from hico_core.config import flat_settings, load_finetuning_config
from hico_core.config.authors.finetuning_keys import is_finetuning, load_any_finetuning, read_authors_finetuning

HMDB = "ft-hmdb/ft-s3dg-hico-s.yaml"

# Their file -> the recipe that stands for it, and what differs.
FILES: dict[str, tuple[str, dict[str, Any]]] = {
    HMDB: ("finetune-hmdb51", {"num_classes": 51}),
    "ft-ucf101/ft-s3dg-hico-s.yaml": ("finetune-ucf101", {"num_classes": 101}),
    "ft-hmdb/lft-s3dg-hico-s.yaml": (
        "finetune-hmdb51",
        {"num_classes": 51, "train.tune": "head", "train.statistics": "drift"},
    ),
    "ft-ucf101/lft-s3dg-hico-s.yaml": (
        "finetune-ucf101",
        {"num_classes": 101, "train.tune": "head", "train.statistics": "drift"},
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_each_file_is_its_recipe(name: str, tmp_path: Path) -> None:
    recipe, changes = FILES[name]
    path = write_config(tmp_path, name)
    assert is_finetuning(path)
    authors = read_authors_finetuning(path)
    expected = flat_settings(load_finetuning_config(base=recipe)) | changes | {"data.workers": 4}
    assert flat_settings(authors.config) == expected
    recorded = GOLDEN["configs"][name]
    assert authors.data_root == recorded["DATA"]["DATA_ROOT_DIR"]
    assert authors.anno_dir == recorded["DATA"]["ANNO_DIR"]
    assert authors.checkpoint == recorded["TRAIN"]["CHECKPOINT_FILE_PATH"]
    assert {"PAI", "NUM_GPUS", "OUTPUT_DIR"} <= set(authors.ignored)
    assert bool(authors.notes) == ("lft" in name)


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({"TEST.NUM_ENSEMBLE_VIEWS": 10, "TEST.NUM_SPATIAL_CROPS": 3}, {"test.views": 10, "test.crops": 3}),
        ({"DATA.TEST_SCALE": 256}, {"test.crop_part": 1.0}),
        ({"AUGMENTATION.COLOR_AUG": False}, {"augment.colour_probability": 0.0}),
        ({"OPTIMIZER.WEIGHT_DECAY": "1e-4"}, {"optim.weight_decay": 1e-4}),
    ],
)
def test_meanings(changes: dict[str, Any], settings: dict[str, Any], tmp_path: Path) -> None:
    flat = flat_settings(read_authors_finetuning(write_config(tmp_path, HMDB, changes)).config)
    assert {key: flat[key] for key in settings} == settings


def test_overrides_may_name_their_keys_or_ours(tmp_path: Path) -> None:
    path = write_config(tmp_path, HMDB)
    config = read_authors_finetuning(path, overrides=["TRAIN.BATCH_SIZE=8", "train.epochs=70"]).config
    assert (config.train.batch_size, config.train.epochs) == (8, 70)
    with pytest.raises(UsageError, match=r"has no key TRAIN\.BATCHSIZE; the nearest is TRAIN\.BATCH_SIZE"):
        read_authors_finetuning(path, overrides=["TRAIN.BATCHSIZE=8"])


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"OPTIMIZER.OPTIM_METHOD": "sgd"}, ["OPTIMIZER.OPTIM_METHOD: sgd", "write OPTIMIZER.OPTIM_METHOD: adam"]),
        ({"TRAIN.LOSS_FUNC": "bce"}, ["TRAIN.LOSS_FUNC", "cross_entropy"]),
        ({"TRAIN.DATASET": "epickitchen100"}, ["TRAIN.DATASET: epickitchen100", "HMDB51 or UCF101"]),
        ({"TEST.DATASET": "UCF101"}, ["TEST.DATASET: UCF101", "for both"]),
        ({"DATA.TEST_CROP_SIZE": 224}, ["DATA.TEST_CROP_SIZE: 224", "write 112"]),
        ({"TEST.SPATIAL_CROPS": "ll"}, ["TEST.SPATIAL_CROPS: ll", "write cc"]),
        ({"TEST.NUM_SPATIAL_CROPS": 2}, ["test.crops cannot be 2"]),
        ({"DATA.TEST_SCALE": None}, ["DATA.TEST_SCALE is missing"]),
        ({"PRETRAIN.ENABLE": True}, ["hico pretrain --config"]),
    ],
)
def test_what_hico_does_not_do_is_refused(changes: dict[str, Any], parts: list[str], tmp_path: Path) -> None:
    path = write_config(tmp_path, HMDB, changes)
    with pytest.raises(UsageError) as caught:
        read_authors_finetuning(path)
    assert all(part in str(caught.value) for part in [*parts, str(path)])
    assert "\n" not in str(caught.value)


def test_ours_and_theirs_are_told_apart(tmp_path: Path) -> None:
    ours = write_tree(tmp_path, {"ours.yaml": "base: finetune-ucf101\ntrain: {epochs: 30}"}) / "ours.yaml"
    assert is_finetuning(ours)
    loaded = load_any_finetuning(ours, base="finetune-hmdb51")
    assert (loaded.config.dataset, loaded.config.train.epochs, loaded.authors) == ("ucf101", 30, None)
    assert loaded.names_recipe
    assert not is_finetuning(write_tree(tmp_path, {"other.yaml": "train: {epochs: 30}"}) / "other.yaml")
    loaded = load_any_finetuning(write_config(tmp_path, HMDB), base="finetune-ucf101")
    assert loaded.config.dataset == "hmdb51" and loaded.authors is not None
