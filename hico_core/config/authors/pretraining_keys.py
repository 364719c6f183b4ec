"""Translate the authors' YAML files for pretraining into our configuration, and back."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hico_core.base.errors import UsageError
from hico_core.config import Config, flat_settings, flat_values, nested_values, one_or_three
from hico_core.config.authors.reading import SAME_IN_BOTH, AuthorsConfig, Loaded, load_either, translated
from hico_core.config.authors.yaml_layers import (
    needed_numbers,
    override_values,
    require_fixed,
    resolve_authors_yaml,
    with_numbers,
)

# Their key -> ours, for settings that differ only in name.
_SAME = {
    **SAME_IN_BOTH,
    "PRETRAIN.NUM_CLIPS_PER_VIDEO": "sampling.clips_per_video",
    "PRETRAIN.CONTRASTIVE.TEMPERATURE": "loss.temperature",
    "TRAIN.CHECKPOINT_PERIOD": "train.checkpoint_epochs",
    "AUGMENTATION.COLOR": "augment.colour_probability",
    "AUGMENTATION.BLUR": "augment.blur_probability",
    "OPTIMIZER.MOMENTUM": "optim.momentum",
    "OPTIMIZER.NESTEROV": "optim.nesterov",
    "OPTIMIZER.BN_LARS_EXCLUDE": "optim.lars_exclude_bn",
    "HICO.TCL.ENABLE": "sampling.topical",
    "HICO.LOSS.GAMA": "loss.gamma",
    "HICO.LOSS.VCL_WEIGHT": "loss.visual_weight",
    "HICO.LOSS.TCL_WEIGHT": "loss.topical_weight",
}

# Their key -> the only value that hico supports. Any other would change the training.
FIXED: dict[str, object] = {
    "TASK_TYPE": "classification",
    "TRAIN.ENABLE": True,
    "TRAIN.FINE_TUNE": False,
    "TRAIN.ONLY_LINEAR": False,
    "TRAIN.LR_REDUCE": False,
    "TRAIN.CHECKPOINT_INFLATE": False,
    "PRETRAIN.GENERATOR": "ContrastiveGenerator",
    "PRETRAIN.LOSS_WEIGHTS": [1],
    "PRETRAIN.CONTRASTIVE.WITH_ONE": True,
    "PRETRAIN.CONTRASTIVE.HEAD_BN": True,
    "PRETRAIN.CONTRASTIVE.FINAL_BN": False,
    "PRETRAIN.CONTRASTIVE.SIM_FUNC_POS": "linear",
    "PRETRAIN.CONTRASTIVE.SIM_FUNC_NEG": "linear",
    "PRETRAIN.CONTRASTIVE.POS_OPTIM_TARGET": 1.0,
    "PRETRAIN.CONTRASTIVE.HEAD_MID_DIM": 1024,
    "PRETRAIN.CONTRASTIVE.HEAD_OUT_DIM": 128,
    "PRETRAIN.CONTRASTIVE.INS_MIL": False,
    "DATA.SAMPLING_MODE": "interval_based",
    "DATA.MINUS_INTERVAL": False,
    "DATA.NUM_INPUT_CHANNELS": 3,
    "MODEL.NAME": "ContrastiveModel",
    "MODEL.EMA.ENABLE": False,
    "VIDEO.BACKBONE.META_ARCH": "Inception3D",
    "VIDEO.BACKBONE.NUM_INPUT_CHANNELS": 3,
    "VIDEO.BACKBONE.NUM_OUT_FEATURES": 1024,
    "VIDEO.BACKBONE.BRANCH.NAME": "STConv3d",
    "VIDEO.BACKBONE.BRANCH.GATING": True,
    "VIDEO.BACKBONE.STEM.NAME": "STConv3d",
    "VIDEO.BACKBONE.NONLOCAL.ENABLE": False,
    "VIDEO.BACKBONE.INITIALIZATION": None,
    "VIDEO.HEAD.DROPOUT_RATE": 0,
    "OPTIMIZER.OPTIM_METHOD": "lars",
    "OPTIMIZER.LR_POLICY": "cosine",
    "OPTIMIZER.DAMPENING": 0.0,
    "BN.WB_LOCK": False,
    "BN.FREEZE": False,
    "BN.WEIGHT_DECAY": 0.0,
    "BN.MOMENTUM": 0.1,
    "BN.EPS": 0.001,
    "BN.SYNC_BN": True,
    "AUGMENTATION.CONSISTENT": True,
    "AUGMENTATION.SHUFFLE": True,
    "AUGMENTATION.RATIO": [1, 1],
    "AUGMENTATION.MIXUP.ENABLE": False,
    "AUGMENTATION.CUTMIX.ENABLE": False,
    "AUGMENTATION.RANDOM_ERASING.ENABLE": False,
    "AUGMENTATION.LABEL_SMOOTHING": 0.0,
}

# Read by the functions below.
_OTHERS = {
    *("PRETRAIN.ENABLE", "PRETRAIN.LOSS", "VIDEO.HEAD.NAME", "TRAIN.DATASET", "TRAIN.CHECKPOINT_FILE_PATH"),
    *("DATA.MEAN", "DATA.STD", "DATA.DATA_ROOT_DIR", "DATA.ANNO_DIR", "OPTIMIZER.BASE_LR", "OPTIMIZER.ADJUST_LR"),
    *("HICO.GRAUDAL_SAMPLING.ENABLE", "HICO.GRAUDAL_SAMPLING.MAX_DIS", "HICO.VCL.ENABLE", "HICO.VCL.MAX_DIS"),
}

_LOSSES = {"HiCo": ("hico", "ContrastiveHeadTopicPred"), "Contrastive": ("simclr", "ContrastiveHead")}


def load_any_config(path: Path | None, *, base: str, overrides: Iterable[str] = ()) -> Loaded[Config]:
    """Read a pretraining configuration in our format or in the authors'.

    Raises:
        UsageError: see `load_config` and `read_authors_config`.

    """
    return load_either(Config, path, base=base, overrides=overrides, theirs=read_authors_config)


def read_authors_config(path: Path | str, *, overrides: Iterable[str] = ()) -> AuthorsConfig[Config]:
    """Read a pretraining configuration of the authors' code.

    Args:
        path: the file, in a folder tree like theirs.
        overrides: `section.key=value` of ours, or `SECTION.KEY=value` of theirs; they take precedence over the file.

    Raises:
        UsageError: a file cannot be read, or requires something unsupported; the message says what to write.

    """
    values, notes = resolve_authors_yaml(Path(path))
    values, ours = override_values(values, overrides, origin=str(path))
    authors = read_authors_values(values, origin=str(path), overrides=ours)
    return replace(authors, notes=[*notes, *authors.notes])


def read_authors_values(
    values: Mapping[str, Any], *, origin: str, overrides: Iterable[str] = ()
) -> AuthorsConfig[Config]:
    """Translate merged values of theirs, such as those in a checkpoint.

    Args:
        values: by section and key.
        origin: source of the values, for messages; its file name gives the recipe's name.
        overrides: `section.key=value` of ours; they take precedence over the values.

    Raises:
        UsageError: see `read_authors_config`.

    """
    theirs = flat_values(with_numbers(values))
    if not is_pretraining(theirs):
        raise UsageError(f"{origin}: PRETRAIN.ENABLE is not true: this is a file for `hico finetune --config`")
    require_fixed(theirs, FIXED, origin)
    if theirs.get("TRAIN.CHECKPOINT_FILE_PATH"):
        raise UsageError(
            f"{origin}: TRAIN.CHECKPOINT_FILE_PATH: {theirs['TRAIN.CHECKPOINT_FILE_PATH']}: remove it, and give the "
            "file with --init-from"
        )
    ours: dict[str, Any] = {key: theirs[name] for name, key in _SAME.items() if name in theirs}
    for translate in (_dataset, _loss, _distance, normalisation, _rate):
        ours |= translate(theirs, origin)
    notes = []
    if ours["optim.scale_lr"] == "authors":
        notes.append(
            "as in the authors' code, the learning rate counts a machine's processes twice; avoid this with "
            "-o optim.scale_lr=global"
        )
    ours["optim.lars_zero_norm"] = "authors"
    known = _SAME.keys() | FIXED.keys() | _OTHERS
    return translated(Config, ours, theirs, known=known, origin=origin, overrides=overrides, notes=notes)


def is_pretraining(theirs: Mapping[str, Any]) -> bool:
    """Whether flat values are for pretraining rather than finetuning."""
    return bool(theirs.get("PRETRAIN.ENABLE"))


# Keys that their files have and that have no meaning here.
_MEANINGLESS: dict[str, object] = {
    "LOCALIZATION.ENABLE": False,
    "TEST.ENABLE": False,
    "VISUALIZATION.ENABLE": False,
    "SUBMISSION.ENABLE": False,
    "OSS.ENABLE": False,
    "NUM_GPUS": 1,
    "SHARD_ID": 0,
    "NUM_SHARDS": 1,
    "OUTPUT_DIR": "output",
    "OUTPUT_CFG_FILE": "configuration.log",
    "LOG_PERIOD": 10,
    "DIST_BACKEND": "nccl",
    "LOG_MODEL_INFO": True,
    "LOG_CONFIG_INFO": True,
    "USE_MULTISEG_VAL_DIST": False,
    "PAI": False,
}


def to_authors_values(config: Config) -> dict[str, Any]:
    """A configuration of ours in their sections and keys, which `read_authors_values` can read."""
    settings = flat_settings(config)
    gradual, fixed = (config.sampling.distance == name for name in ("gradual", "fixed"))
    loss = next(name for name, (ours, _) in _LOSSES.items() if ours == config.loss.name)
    theirs = {
        **_MEANINGLESS,
        **FIXED,
        **{name: settings[key] for name, key in _SAME.items()},
        "PRETRAIN.ENABLE": True,
        "PRETRAIN.LOSS": loss,
        "VIDEO.HEAD.NAME": _LOSSES[loss][1],
        "TRAIN.DATASET": "kinetics400" if config.dataset == "k400" else "longvideo",
        "DATA.DATA_ROOT_DIR": "k400-full" if config.dataset == "uk400" else config.dataset,
        "DATA.MEAN": list(config.augment.channel_means),
        "DATA.STD": list(config.augment.channel_stds),
        "OPTIMIZER.BASE_LR": config.optim.base_lr,
        "OPTIMIZER.ADJUST_LR": True,
        "HICO.GRAUDAL_SAMPLING.ENABLE": gradual,
        "HICO.GRAUDAL_SAMPLING.MAX_DIS": [config.sampling.start_seconds, config.sampling.end_seconds],
        "HICO.VCL.ENABLE": fixed,
        "HICO.VCL.MAX_DIS": config.sampling.end_seconds,
    }
    return nested_values(theirs)


def _choice(theirs: Mapping[str, Any], key: str, choices: Collection[str], origin: str) -> str:
    """A value that must be one of the choices.

    Raises:
        UsageError: it is not, or is missing.

    """
    value = theirs.get(key)
    if value not in choices:
        raise UsageError(f"{origin}: {key}: {value} is not supported; write {' or '.join(choices)}")
    return str(value)


def _dataset(theirs: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The dataset; like the authors' loader, this recognises Kinetics' untrimmed videos by the name of the folder."""
    kind = _choice(theirs, "TRAIN.DATASET", ("longvideo", "kinetics400"), origin)
    folder = str(theirs.get("DATA.DATA_ROOT_DIR") or "")
    return {"dataset": "k400" if kind == "kinetics400" else "uk400" if "k400" in folder else "hacs"}


def _loss(theirs: Mapping[str, Any], origin: str) -> dict[str, Any]:
    name, head = _LOSSES[_choice(theirs, "PRETRAIN.LOSS", _LOSSES, origin)]
    if theirs.get("VIDEO.HEAD.NAME") != head:
        raise UsageError(f"{origin}: VIDEO.HEAD.NAME: {theirs.get('VIDEO.HEAD.NAME')}: with this loss, write {head}")
    return {"loss.name": name, "recipe": Path(origin).stem.removeprefix("s3dg-")}


def _distance(theirs: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The distance of near clips; VCL.ENABLE selects a fixed distance, and applies only without gradual sampling."""
    if theirs.get("HICO.GRAUDAL_SAMPLING.ENABLE"):
        start, end = needed_numbers(theirs, "HICO.GRAUDAL_SAMPLING.MAX_DIS", origin, count=2)
        return {"sampling.distance": "gradual", "sampling.start_seconds": start, "sampling.end_seconds": end}
    if theirs.get("HICO.VCL.ENABLE"):
        (seconds,) = needed_numbers(theirs, "HICO.VCL.MAX_DIS", origin, count=1)
        return {"sampling.distance": "fixed", "sampling.end_seconds": seconds}
    return {"sampling.distance": "any"}


def normalisation(theirs: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Mean and standard deviation of the colour channels.

    Raises:
        UsageError: they do not have three values each.

    """
    values = {}
    for key, ours in (("DATA.MEAN", "augment.mean"), ("DATA.STD", "augment.std")):
        if theirs.get(key) is not None:
            red, green, blue = needed_numbers(theirs, key, origin, count=3)
            values[ours] = one_or_three((red, green, blue))
    return values


def _rate(theirs: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """The learning rate, which ADJUST_LR scales with the clips per step; without it, our own scaling is cancelled."""
    (rate,) = needed_numbers(theirs, "OPTIMIZER.BASE_LR", origin, count=1)
    if theirs.get("OPTIMIZER.ADJUST_LR"):
        return {"optim.base_lr": rate, "optim.scale_lr": "authors"}
    (videos,) = needed_numbers(theirs, "TRAIN.BATCH_SIZE", origin, count=1)
    (clips,) = needed_numbers(theirs, "PRETRAIN.NUM_CLIPS_PER_VIDEO", origin, count=1)
    return {"optim.base_lr": rate * 256 / (videos * clips), "optim.scale_lr": "global"}
