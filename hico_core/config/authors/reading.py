"""What a configuration file of the authors says, in our terms; what pretraining and finetuning have in common."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from hico_core.config import Config, FinetuneConfig, compose_config, nested_values

Settings = TypeVar("Settings", bound=Config | FinetuneConfig)

# Their key -> ours, where only the name differs, in pretraining and in finetuning.
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
    """What a file of theirs says, in our terms."""

    config: Settings
    data_root: str | None  # where the videos or clips lie
    anno_dir: str | None  # where the lists lie
    checkpoint: str | None  # whose encoder is trained on
    ignored: list[str]  # keys without a meaning here
    notes: list[str]  # what one would not expect from reading the file


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
    """Put together what a file says.

    Args:
        schema: Config or FinetuneConfig.
        settings: ours, by their dotted keys.
        theirs: all values of the file, by their dotted keys.
        known: keys of theirs that have a meaning here.
        origin: of the values, for messages.
        overrides: `section.key=value` of ours, over the settings.
        notes: what one would not expect from reading the file.

    Raises:
        UsageError: a value cannot be.

    """
    return AuthorsConfig(
        config=compose_config(schema, nested_values(settings), origin=origin, overrides=overrides),
        data_root=theirs.get("DATA.DATA_ROOT_DIR"),
        anno_dir=theirs.get("DATA.ANNO_DIR"),
        checkpoint=theirs.get("TRAIN.CHECKPOINT_FILE_PATH") or None,
        ignored=[key for key in theirs if key not in known],
        notes=list(notes),
    )
