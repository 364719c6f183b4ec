"""Compose a configuration from a preset, then a YAML file, then `key=value` overrides; the last value wins.

A preset (presets/*.yaml) or file contains only what differs from its `base:`, or from the defaults.
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from hico_core.base.choices import Dataset
from hico_core.base.errors import UsageError
from hico_core.base.texts import read_text
from hico_core.config.explain import shown, what_is_wrong
from hico_core.config.finetuning import FinetuneConfig
from hico_core.config.pretraining import Config

Schema = TypeVar("Schema", bound=BaseModel)

# Prefix of the names of finetuning presets; all others are for pretraining.
_FINETUNING = "finetune-"

# More than any configuration has, and far less than a file with aliases can expand to.
_MOST_VALUES = 100_000
_LONGEST_TRAIL = 50

# Removed settings, each with the only value still allowed: older versions wrote them into every config.yaml.
_RETIRED = {"loss.topical_ids": "videos"}


def _flat_keys(section: type[BaseModel], prefix: str = "") -> list[str]:
    """All keys that can be set, in dotted form."""
    keys: list[str] = []
    for name, field in section.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _flat_keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _explain(error: ValidationError, schema: type[BaseModel], origin: str) -> UsageError:
    """An error that states the first problem of a configuration in one line."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        inner = problem["input"]
        while isinstance(inner, dict) and inner:  # an unknown section: the whole key is clearer than its first part
            key, inner = next(iter(inner.items()))
            path.append(str(key))
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, _flat_keys(schema), n=1, cutoff=0)
        return UsageError(f"{origin}: unknown key {key}; the nearest known key is {near[0]}")
    if not key:
        return UsageError(f"{origin}: {what_is_wrong(problem)}")
    return UsageError(f"{origin}: {key} cannot be {shown(problem['input'])}: {what_is_wrong(problem)}")


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge sections key by key; other values are replaced."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _parse_yaml(text: str, origin: str) -> object:
    """The content of a YAML text, limited in size so that it can be traversed quickly.

    Raises:
        UsageError: the text is not YAML, is nested too deeply, or expands to too many values.

    """
    try:
        content: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{origin}: not YAML ({' '.join(str(error).split())})") from error
    except RecursionError:
        raise UsageError(f"{origin}: is nested too deeply") from None
    # An alias may refer to a part that contains the alias itself, or ten aliases to a part with ten others, and so on.
    left, count = [content], 0
    while left:
        part = left.pop()
        count += 1
        if count > _MOST_VALUES:
            raise UsageError(f"{origin}: its aliases (*name) expand to more than {_MOST_VALUES} values; write them out")
        if isinstance(part, dict):
            left += part.values()
        elif isinstance(part, list):
            left += part
    return content


def _read_yaml(text: str, origin: str) -> dict[str, Any]:
    content = _parse_yaml(text, origin)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError(f"{origin}: must consist of sections with keys, not of a {type(content).__name__}")
    return content


def parse_override(text: str) -> dict[str, Any]:
    """`optim.base_lr=0.1` -> {"optim": {"base_lr": 0.1}}; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"-o {text}: must be key=value, for example -o optim.base_lr=0.1")
    return nested_values({key: _parse_yaml(value, f"-o {text}")})


def _with_base(
    values: dict[str, Any], *, folder: Path | None, origin: str, trail: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Put a file's values over those of its `base:`, a preset or, if `folder` is given, a file relative to it.

    Raises:
        UsageError: there is no such base, or the bases form a cycle.

    """
    values = dict(values)
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise UsageError(f"{origin}: base must be the name of a recipe or a file, not {base!r}")
    if base in trail:
        raise UsageError(f"{origin}: base forms a cycle: {' -> '.join([*trail, base])}")
    if len(trail) == _LONGEST_TRAIL:
        raise UsageError(f"{origin}: its chain of base files is longer than {_LONGEST_TRAIL}")
    if base in _presets():
        below, folder_below = _read_yaml(_presets()[base], f"preset {base}"), None
    elif folder is not None and (folder / base).is_file():
        below, folder_below = read_yaml_file(folder / base), (folder / base).parent
    else:
        raise UsageError(
            f"{origin}: base {base}: no such recipe or file; the recipes are {', '.join(sorted(_presets()))}"
        )
    below = _with_base(below, folder=folder_below, origin=base, trail=(*trail, base))
    return merge(below, values)


def read_yaml_file(path: Path) -> dict[str, Any]:
    """The sections of a YAML file.

    Raises:
        UsageError: it cannot be read, or does not contain sections.

    """
    return _read_yaml(read_text(path), str(path))


@cache
def _presets() -> dict[str, str]:
    """Name -> YAML text of each preset."""
    folder = resources.files("hico_core.config") / "presets"
    return {
        entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }


def preset_names() -> list[str]:
    """The names of the pretraining recipes: dataset-recipe."""
    return sorted(name for name in _presets() if not name.startswith(_FINETUNING))


def finetuning_preset_names() -> list[str]:
    """The names of the finetuning recipes: finetune-dataset."""
    return sorted(name for name in _presets() if name.startswith(_FINETUNING))


def default_recipe(dataset: Dataset) -> str:
    """The default recipe of a dataset for `hico pretrain`."""
    return "hico-s" if dataset == "hacs" else "hico-l"


def _preset_values(name: str) -> dict[str, Any]:
    if name not in _presets():
        alike = finetuning_preset_names() if name.startswith(_FINETUNING) else preset_names()
        raise UsageError(f"{name}: no such recipe; the recipes are {', '.join(alike)}")
    return _with_base({"base": name}, folder=None, origin=f"preset {name}")


def preset(name: str) -> Config:
    """The recipe with a given name, such as `hacs-hico-s`.

    Raises:
        UsageError: there is no such recipe.

    """
    return compose_config(Config, _preset_values(name), origin=f"preset {name}")


def load_config(path: Path | str | None = None, *, base: str = "hacs-hico-s", overrides: Iterable[str] = ()) -> Config:
    """Compose a configuration: preset `base`, then the file, then the overrides.

    Args:
        path: YAML with the same sections, containing only differences. Its own `base:` replaces `base`. None: no file.
        base: name of the preset to start from.
        overrides: `section.key=value`, values as in YAML.

    Raises:
        UsageError: a file, key or value is wrong; the message names it, and the nearest known key.

    """
    return _load(Config, path, base=base, overrides=overrides)


def load_finetuning_config(
    path: Path | str | None = None, *, base: str = "finetune-hmdb51", overrides: Iterable[str] = ()
) -> FinetuneConfig:
    """Compose a finetuning configuration; see `load_config`.

    Raises:
        UsageError: a file, key or value is wrong; the message names it, and the nearest known key.

    """
    return _load(FinetuneConfig, path, base=base, overrides=overrides)


def _load(schema: type[Schema], path: Path | str | None, *, base: str, overrides: Iterable[str]) -> Schema:
    file = None if path is None else Path(path)
    content = {} if file is None else read_yaml_file(file)
    return compose_content(schema, content, origin=file, base=base, overrides=overrides)


def compose_content(
    schema: type[Schema], content: dict[str, Any], *, origin: Path | None, base: str, overrides: Iterable[str] = ()
) -> Schema:
    """Compose a configuration from the content of a file, as `load_config` does.

    Args:
        schema: Config or FinetuneConfig.
        content: of the file, as read; empty if there is none.
        origin: the file; None: there is none.
        base: name of the preset to start from; the content's own `base:` replaces it.
        overrides: `section.key=value`, values as in YAML.

    Raises:
        UsageError: a key or value is wrong; the message names it, and the nearest known key.

    """
    values = _preset_values(base)  # a wrong name is a mistake even if the file names its own
    if origin is None:
        return compose_config(schema, values, origin=f"preset {base}", overrides=overrides)
    own = _with_base(content, folder=origin.parent, origin=str(origin))
    values = own if "base" in content else merge(values, own)
    return compose_config(schema, values, origin=str(origin), overrides=overrides)


def compose_config(
    schema: type[Schema], values: Mapping[str, Any], *, origin: str, overrides: Iterable[str] = ()
) -> Schema:
    """Apply overrides to values and validate the result; two overrides may be valid only together.

    Args:
        schema: Config or FinetuneConfig.
        values: by section and key; missing values have their defaults.
        origin: source of the values, for messages.
        overrides: `section.key=value`, values as in YAML.

    Raises:
        UsageError: a key or value is wrong; the message names it.

    """
    overrides = list(overrides)
    values = _without_retired(values, origin=origin)
    for override in overrides:
        values = merge(values, _without_retired(parse_override(override), origin=f"-o {override}"))
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise _explain(error, schema, _who_set(error, overrides) or origin) from None


def _without_retired(values: Mapping[str, Any], *, origin: str) -> Mapping[str, Any]:
    """Values without removed settings.

    Raises:
        UsageError: a removed setting has a value that is no longer supported.

    """
    for retired, only in _RETIRED.items():
        section, key = retired.split(".")
        inner = values[section] if isinstance(values, Mapping) and section in values else None
        if isinstance(inner, Mapping) and key in inner:
            if inner[key] != only:
                raise UsageError(
                    f"{origin}: {retired}={inner[key]} is no longer supported, every run has {only}; remove the key"
                )
            values = {**values, section: {name: value for name, value in inner.items() if name != key}}
    return values


def _who_set(error: ValidationError, overrides: list[str]) -> str | None:
    """The override that caused the first problem: it sets the key, or the message about a contradiction names it."""
    problem = error.errors()[0]
    key = ".".join(str(part) for part in problem["loc"])
    keys = {override: override.partition("=")[0] for override in overrides}
    for override in reversed(overrides):
        own = keys[override]
        if (key and (key.startswith(own) or own.startswith(key))) or (not key and own in problem["msg"]):
            return f"-o {override}"
    return None


def as_override(key: str, value: object) -> str:
    """`KEY=VALUE` as `parse_override` reads it; None is null, and text that YAML would read otherwise is quoted."""
    try:
        is_plain = isinstance(value, str) and yaml.safe_load(value) == value
    except yaml.YAMLError:
        is_plain = False
    return f"{key}={value if is_plain else json.dumps(value)}"


def dump_config(config: BaseModel) -> str:
    """The whole configuration as YAML, which `load_config` can read."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def flat_settings(config: BaseModel) -> dict[str, Any]:
    """All settings by their dotted keys: {"train.epochs": 120, ...}."""
    return flat_values(config.model_dump())


def flat_values(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{A: {B: 1}} -> {"A.B": 1}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flat_values(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def nested_values(flat: Mapping[str, Any]) -> dict[str, Any]:
    """{"A.B": 1} -> {A: {B: 1}}."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, last = key.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return nested
