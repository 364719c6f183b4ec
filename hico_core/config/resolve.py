"""The settings of a training: a recipe or a file, ours or the authors', and the user's changes to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hico_core.config import as_override
from hico_core.config.authors.reading import Loaded, Settings

# More than any warm-up lasts.
_MANY_EPOCHS = 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the user asks for.

    Attributes:
        recipe: the preset to start from, unless a file replaces it.
        file: one of ours, with the settings that differ, or one of the authors', unchanged.
        options: values given as command options, keyed by setting; None if an option was not given.
        epochs: passes over the videos; the warm-up changes in proportion.
        overrides: `section.key=value`; these take precedence over all the others.

    """

    recipe: str
    file: Path | None = None
    options: Mapping[str, float | str | None]
    epochs: int | None = None
    overrides: Sequence[str] = ()

    def names(self, key: str) -> bool:
        """Whether the user may have given this setting, so that hico does not choose it."""
        named = {override.partition("=")[0].strip() for override in self.overrides}
        return self.options.get(key) is not None or self.file is not None or key in named


def resolve_training(load: Callable[..., Loaded[Settings]], asked: Asked) -> Loaded[Settings]:
    """Combine the settings of a training.

    Args:
        load: reads a file of ours or of the authors' over a recipe: `load_any_config` or `load_any_finetuning`.
        asked: what the user asks for.

    Raises:
        UsageError: a file, key or value is wrong; the message names it.

    """
    overrides = [as_override(key, value) for key, value in asked.options.items() if value is not None]
    if asked.epochs is not None:
        part = _warmup_part(load, asked, [*overrides, *asked.overrides])
        overrides += [f"train.epochs={asked.epochs}", f"optim.warmup_epochs={part * asked.epochs}"]
    return load(asked.file, base=asked.recipe, overrides=[*overrides, *asked.overrides])


def _warmup_part(load: Callable[..., Loaded[Settings]], asked: Asked, overrides: Sequence[str]) -> float:
    """The fraction of the epochs that are warm-up before `--epochs`; the recipe's, if a file's do not fit."""
    many = load(asked.file, base=asked.recipe, overrides=[*overrides, f"train.epochs={_MANY_EPOCHS}"]).config
    none = load(asked.file, base=asked.recipe, overrides=[*overrides, "optim.warmup_epochs=0"]).config
    part = many.optim.warmup_epochs / none.train.epochs
    if part <= 1:
        return part
    recipe = load(None, base=asked.recipe).config
    return recipe.optim.warmup_epochs / recipe.train.epochs
