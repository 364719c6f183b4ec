"""The translation of an authors' configuration file, as far as pretraining and finetuning share it."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from hico_core.config import Config, FinetuneConfig, compose_config, compose_content, nested_values
from hico_core.config.authors.yaml_layers import content_of_ours

Settings = TypeVar("Settings", bound=Config | FinetuneConfig)

# Their key -> ours, for settings that differ only in name, in pretraining and in finetuning.
SAME_IN_BOTH = {
    "TRAIN.BATCH_SIZE": "train.batch_size",
    "TRAIN.NUM_FOLDS": "data.epochs_per_round",
    "DATA.NUM_INPUT_FRAMES": "data.num_frames",
    "DATA.SAMPLING_RATE": "data.frame_stride",
    "DATA.TARGET_FPS": "data.target_fps",
    "DATA.TRAIN_CROP_SIZE": "data.crop_size",
    "DATA.TRAIN_JITTER_SCALES": "augment.crop_jitter",
    "DATA_LOADER.NUM_WORKERS": "data.workers",
    "AUGMENTATION.BRIGHTNESS": "augment.brightness",
    "AUGMENTATION.CONTRAST": "augment.contrast",
    "AUGMENTATION.SATURATION": "augment.saturation",
    "AUGMENTATION.HUE": "augment.hue",
    "AUGMENTATION.GRAYSCALE": "augment.grey_probability",
    "OPTIMIZER.MAX_EPOCH": "train.epochs",
    "OPTIMIZER.WEIGHT_DECAY": "optim.weight_decay",
    "OPTIMIZER.WARMUP_EPOCHS": "optim.warmup_epochs",
    "OPTIMIZER.WARMUP_START_LR": "optim.warmup_start_lr",
    "RANDOM_SEED": "train.seed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorsConfig(Generic[Settings]):
    """The content of a file of theirs, translated."""

    origin: str  # the file
    config: Settings
    data_root: str | None  # folder of the videos or clips
    anno_dir: str | None  # folder of the lists
    checkpoint: str | None  # file with the encoder from which training starts
    ignored: list[str]  # keys without a meaning here
    notes: list[str]  # remarks about surprising behaviour


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded(Generic[Settings]):
    """The settings of a training, and what else the file says that they come from."""

    config: Settings
    authors: AuthorsConfig[Settings] | None = None  # if the file is one of theirs
    names_recipe: bool = False  # the file itself says which recipe it is based on


def load_either(
    schema: type[Settings],
    path: Path | None,
    *,
    base: str,
    overrides: Iterable[str],
    theirs: Callable[..., AuthorsConfig[Settings]],
) -> Loaded[Settings]:
    """Read a configuration in our format or in the authors'.

    Args:
        schema: Config or FinetuneConfig.
        path: the file; None: only the preset and the overrides.
        base: name of the preset to start from, for a file of ours.
        overrides: `section.key=value`; they take precedence over the file.
        theirs: path, overrides -> the translation of a file of theirs.

    Raises:
        UsageError: a file cannot be read, or a key or value is wrong.

    """
    ours = {} if path is None else content_of_ours(path)
    if ours is None:
        authors = theirs(path, overrides=overrides)
        return Loaded(config=authors.config, authors=authors, names_recipe=True)
    config = compose_content(schema, ours, origin=path, base=base, overrides=overrides)
    return Loaded(config=config, names_recipe="base" in ours)


def translated(
    schema: type[Settings],
    settings: Mapping[str, Any],
    theirs: Mapping[str, Any],
    *,
    known: Collection[str],
    origin: str,
    overrides: Iterable[str],
    notes: Iterable[str],
) -> AuthorsConfig[Settings]:
    """Assemble the translation of a file.

    Args:
        schema: Config or FinetuneConfig.
        settings: our settings, by dotted key.
        theirs: all values of the file, by dotted key.
        known: keys of theirs that have a meaning here.
        origin: source of the values, for messages.
        overrides: `section.key=value` of ours; they take precedence over the settings.
        notes: remarks about surprising behaviour.

    Raises:
        UsageError: a value is invalid.

    """
    return AuthorsConfig(
        origin=origin,
        config=compose_config(schema, nested_values(settings), origin=origin, overrides=overrides),
        data_root=theirs.get("DATA.DATA_ROOT_DIR"),
        anno_dir=theirs.get("DATA.ANNO_DIR"),
        checkpoint=theirs.get("TRAIN.CHECKPOINT_FILE_PATH") or None,
        ignored=[key for key in theirs if key not in known],
        notes=list(notes),
    )
