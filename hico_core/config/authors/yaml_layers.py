"""Merge the layers of the authors' YAML files.

A file of theirs names up to three others by paths relative to its own folder, and `configs/pool/base.yaml` underlies
all of them. The later file wins, key by key:

    base.yaml < _BASE_MODEL < _BASE_RUN < _BASE < the file itself
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hico_core.base.errors import UsageError
from hico_core.config import flat_values, merge, parse_override, read_yaml_file

# Keys that name the layers below a file, from the lowest up.
_LAYERS = ("_BASE_MODEL", "_BASE_RUN", "_BASE")

# Paths of their base.yaml, relative to some folder above a file.
_BASE_FILES = ("configs/pool/base.yaml", "pool/base.yaml")

# YAML 1.1 reads 1e-6 as text, because it has no decimal point.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


# The authors' files have at most three layers.
_LONGEST_TRAIL = 20


class Layered(NamedTuple):
    """The merged content of a file and of all layers below it."""

    values: dict[str, Any]
    notes: list[str]


def content_of_ours(path: Path) -> dict[str, Any] | None:
    """The content of a file in our format; None if it is in the authors', whose keys are in capitals.

    Raises:
        UsageError: it cannot be read as YAML.

    """
    content = read_yaml_file(path)
    return None if any(key in _LAYERS or key.isupper() for key in map(str, content)) else content


def resolve_authors_yaml(path: Path) -> Layered:
    """Merge a file of theirs with all the files that it names, and with base.yaml.

    Raises:
        UsageError: a file is missing or is not YAML, or files name each other in a cycle.

    """
    merged = _merged_layers(path.resolve(), trail=())
    base = _find_base(path.resolve())
    return Layered(merge(with_numbers(read_yaml_file(base)), merged.values), merged.notes)


def _merged_layers(path: Path, *, trail: tuple[Path, ...]) -> Layered:
    if path in trail:
        raise UsageError(f"{path}: its files refer to each other in a cycle")
    if len(trail) == _LONGEST_TRAIL:
        raise UsageError(f"{path}: its files refer to each other through more than {_LONGEST_TRAIL} layers")
    own = with_numbers(read_yaml_file(path))
    below: dict[str, Any] = {}
    notes: list[str] = []
    for key in _LAYERS:
        named = own.pop(key, None)
        if named is None:
            continue
        layer_path = (path.parent / named).resolve()
        if not layer_path.is_file():
            raise UsageError(f"{path}: {key}: {named}: no such file, {layer_path}")
        layer = _merged_layers(layer_path, trail=(*trail, path))
        notes += layer.notes
        notes += [
            f"hico uses {lost} of {layer_path}, which the authors' loader silently drops"
            for lost in _dropped_by_authors(layer.values, below)
        ]
        below = merge(below, layer.values)
    return Layered(merge(below, own), notes)


def _dropped_by_authors(over: Mapping[str, Any], under: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keys containing BASE that the authors' merge loses, because it takes their values for file names."""
    lost: list[str] = []
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(under.get(key), Mapping):
            lost += _dropped_by_authors(value, under[key], f"{prefix}{key}.")
        elif prefix and "BASE" in key and key not in under:
            lost.append(prefix + key)
    return lost


def _find_base(path: Path) -> Path:
    for folder in path.parents:
        for name in _BASE_FILES:
            if (folder / name).is_file():
                return folder / name
    raise UsageError(
        f"{path}: no {_BASE_FILES[0]} in any folder above; keep the file in its place in the authors' repository"
    )


def with_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same values, with text such as 1e-6 converted to numbers."""
    return {
        key: with_numbers(value)
        if isinstance(value, dict)
        else float(value)
        if isinstance(value, str) and _NUMBER.fullmatch(value)
        else value
        for key, value in values.items()
    }


def override_values(
    values: Mapping[str, Any], overrides: Iterable[str], *, origin: str
) -> tuple[dict[str, Any], list[str]]:
    """Apply overrides of the authors' keys, which are in capitals, to merged values; return the other overrides, too.

    Raises:
        UsageError: a key of theirs is not among the values; the message names the nearest known key.

    """
    changed, ours = dict(values), []
    known = flat_values(values)
    for override in overrides:
        key = override.partition("=")[0]
        if not key.isupper():
            ours.append(override)
            continue
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0)
            raise UsageError(f"-o {override}: {origin} has no key {key}; the nearest is {near[0]}")
        changed = merge(changed, with_numbers(parse_override(override)))
    return changed, ours


def require_fixed(theirs: Mapping[str, Any], fixed: Mapping[str, object], origin: str) -> None:
    """Check the values for which hico supports only one choice.

    Raises:
        UsageError: a value differs from it.

    """
    for key, allowed in fixed.items():
        if key in theirs and theirs[key] != allowed:
            raise UsageError(f"{origin}: {key}: {theirs[key]} is not supported; write {key}: {allowed}")


def needed(theirs: Mapping[str, Any], key: str, origin: str) -> Any:  # noqa: ANN401 - numbers and lists of them
    """A required value.

    Raises:
        UsageError: it is missing.

    """
    if theirs.get(key) is None:
        raise UsageError(f"{origin}: {key} is missing; add it")
    return theirs[key]


def needed_numbers(theirs: Mapping[str, Any], key: str, origin: str, *, count: int) -> tuple[float, ...]:
    """A required list of numbers; a single one may be written without brackets.

    Raises:
        UsageError: it is missing, or has another length or other values.

    """
    value = needed(theirs, key, origin)
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    if len(numbers) != count or not all(isinstance(one, int | float) for one in numbers):
        wanted = "a number" if count == 1 else f"a list of {count} numbers"
        raise UsageError(f"{origin}: {key}: {value}: must be {wanted}")
    return tuple(numbers)
