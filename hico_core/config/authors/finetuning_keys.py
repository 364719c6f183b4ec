"""Translate the authors' YAML files for finetuning into our configuration."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hico_core.base.errors import UsageError
from hico_core.config import FinetuneConfig, finetuning_preset_names, flat_values
from hico_core.config.authors.pretraining_keys import FIXED, is_pretraining, normalisation
from hico_core.config.authors.reading import SAME_IN_BOTH, AuthorsConfig, Loaded, load_either, translated
from hico_core.config.authors.yaml_layers import (
    content_of_ours,
    needed,
    needed_numbers,
    override_values,
    require_fixed,
    resolve_authors_yaml,
)

# Their key -> ours, for settings that differ only in name.
_SAME = {
    **SAME_IN_BOTH,
    "AUGMENTATION.RATIO": "augment.crop_ratio",
    "AUGMENTATION.GRAY_FIRST": "augment.grey_first",
    "OPTIMIZER.BASE_LR": "optim.base_lr",
    "VIDEO.HEAD.NUM_CLASSES": "num_classes",
    "TEST.NUM_ENSEMBLE_VIEWS": "test.views",
    "TEST.NUM_SPATIAL_CROPS": "test.crops",
}

# Prefixes of the keys whose values are fixed as in pretraining.
_AS_IN_PRETRAINING = (
    *("TASK_TYPE", "TRAIN.ENABLE", "TRAIN.LR_REDUCE", "TRAIN.CHECKPOINT_INFLATE", "DATA.", "MODEL.EMA."),
    *("VIDEO.BACKBONE.", "OPTIMIZER.LR_POLICY", "BN.", "AUGMENTATION."),
)

# Their key -> the only value that hico supports. Any other would change the training.
_FIXED: dict[str, object] = {
    **{key: value for key, value in FIXED.items() if key.startswith(_AS_IN_PRETRAINING) and key not in _SAME},
    "TRAIN.FINE_TUNE": True,
    "TRAIN.CHECKPOINT_PRE_PROCESS.ENABLE": False,
    "TRAIN.TRAIN_VAL_COMBINE": False,
    "TRAIN.LOSS_FUNC": "cross_entropy",
    "TEST.AUTOMATIC_MULTI_SCALE_TEST": True,
    "DATA.MULTI_LABEL": False,
    "DATA.ENSEMBLE_METHOD": "sum",
    "MODEL.NAME": "S3DG",
    "VIDEO.HEAD.NAME": "BaseHead",
    "VIDEO.HEAD.ACTIVATION": "softmax",
    "VIDEO.HEAD.DROPOUT_RATE": 0.0,
    "OPTIMIZER.ADJUST_LR": False,
    "OPTIMIZER.OPTIM_METHOD": "adam",
}

# Read by the function below.
_OTHERS = {
    *("PRETRAIN.ENABLE", "TRAIN.DATASET", "TRAIN.ONLY_LINEAR", "TRAIN.CHECKPOINT_FILE_PATH", "TEST.DATASET"),
    *("DATA.DATA_ROOT_DIR", "DATA.ANNO_DIR", "DATA.MEAN", "DATA.STD", "DATA.TEST_SCALE", "DATA.TEST_CROP_SIZE"),
    *("TEST.ENABLE", "TEST.SPATIAL_CROPS", "AUGMENTATION.COLOR_AUG"),
}

# The frame height to which their test scales refer: a scale of 224 is 224/256 of the shorter side.
_REFERENCE_SIDE = 256

_DATASETS = {"HMDB51": "hmdb51", "UCF101": "ucf101"}


def load_any_finetuning(path: Path | None, *, base: str, overrides: Iterable[str] = ()) -> Loaded[FinetuneConfig]:
    """Read a finetuning configuration in our format or in the authors'.

    Raises:
        UsageError: see `load_finetuning_config` and `read_authors_finetuning`.

    """
    return load_either(FinetuneConfig, path, base=base, overrides=overrides, theirs=read_authors_finetuning)


def is_finetuning(path: Path) -> bool:
    """Whether a file, ours or theirs, is for finetuning, judged by its `base:` or by what it enables.

    Raises:
        UsageError: it cannot be read.

    """
    ours = content_of_ours(path)
    if ours is None:
        return not is_pretraining(flat_values(resolve_authors_yaml(path).values))
    return str(ours.get("base")) in finetuning_preset_names()


def read_authors_finetuning(path: Path | str, *, overrides: Iterable[str] = ()) -> AuthorsConfig[FinetuneConfig]:
    """Read a finetuning configuration of the authors' code.

    Args:
        path: the file, in a folder tree like theirs.
        overrides: `section.key=value` of ours, or `SECTION.KEY=value` of theirs; they take precedence over the file.

    Raises:
        UsageError: a file cannot be read, or requires something unsupported; the message says what to write.

    """
    origin = str(path)
    values, notes = resolve_authors_yaml(Path(path))
    values, ours = override_values(values, overrides, origin=origin)
    theirs = flat_values(values)
    if is_pretraining(theirs):
        raise UsageError(f"{origin}: PRETRAIN.ENABLE is true: this is a file for `hico pretrain --config`")
    require_fixed(theirs, _FIXED, origin)
    settings = {key: theirs[name] for name, key in _SAME.items() if name in theirs}
    settings |= normalisation(theirs, origin) | _dataset(theirs, origin) | _test(theirs, origin)
    settings["augment.colour_probability"] = 1.0 if theirs.get("AUGMENTATION.COLOR_AUG") else 0.0
    settings["augment.blur_probability"] = 0.0
    if theirs.get("TRAIN.ONLY_LINEAR"):
        settings |= {"train.tune": "head", "train.statistics": "drift"}
        notes = [
            *notes,
            "the encoder's batch norms adapt, as the authors' do; freeze them with -o train.statistics=frozen",
        ]
    known = _SAME.keys() | _FIXED.keys() | _OTHERS
    return translated(FinetuneConfig, settings, theirs, known=known, origin=origin, overrides=ours, notes=notes)


def _dataset(theirs: Mapping[str, Any], origin: str) -> dict[str, Any]:
    name = needed(theirs, "TRAIN.DATASET", origin)
    if str(name).upper() not in _DATASETS or theirs.get("TEST.DATASET", name) != name:
        raise UsageError(
            f"{origin}: TRAIN.DATASET: {name}, TEST.DATASET: {theirs.get('TEST.DATASET')}: write "
            f"{' or '.join(_DATASETS)} for both, or use `hico index --list` and `hico finetune` for other videos"
        )
    return {"dataset": _DATASETS[str(name).upper()]}


def _test(theirs: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The test views: the scale refers to a frame 256 pixels high, and test crops must be as large as in training."""
    size, train_size = theirs.get("DATA.TEST_CROP_SIZE"), theirs.get("DATA.TRAIN_CROP_SIZE")
    if size != train_size:
        raise UsageError(f"{origin}: DATA.TEST_CROP_SIZE: {size}: hico tests at training size; write {train_size}")
    if theirs.get("TEST.NUM_SPATIAL_CROPS") == 1 and theirs.get("TEST.SPATIAL_CROPS", "cc") != "cc":
        raise UsageError(
            f"{origin}: TEST.SPATIAL_CROPS: {theirs['TEST.SPATIAL_CROPS']}: a single crop is the central one; write cc"
        )
    (side,) = needed_numbers(theirs, "DATA.TEST_SCALE", origin, count=1)
    return {"test.crop_part": side / _REFERENCE_SIDE}
