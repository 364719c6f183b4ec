"""What a configuration file of the authors says, in our terms; what pretraining and finetuning have in common."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from hico_core.config import Config, FinetuneConfig, compose_config
from hico_core.config.authors.yaml_layers import is_authors_config, nested_values

Settings = TypeVar("Settings", bound=Config | FinetuneConfig)


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


def load_any(
    path: Path | None, ours: Callable[[], Settings], theirs: Callable[[Path], AuthorsConfig[Settings]]
) -> tuple[Settings, AuthorsConfig[Settings] | None]:
    """Read a configuration in our format or in the authors'; of theirs, also what else the file says."""
    if path is None or not is_authors_config(path):
        return ours(), None
    authors = theirs(path)
    return authors.config, authors
