"""The authors' YAML files: put together from their layers.

A file of theirs names up to three others by paths seen from its own folder, and `configs/pool/base.yaml` lies under
all of them. Later wins, key by key:

    base.yaml < _BASE_MODEL < _BASE_RUN < _BASE < the file itself
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hico_core.base.errors import UsageError
from hico_core.config import flat_values, merge, parse_override, read_yaml_file

# Keys that name the layers below a file, lowest first.
_LAYERS = ("_BASE_MODEL", "_BASE_RUN", "_BASE")

# Where their base.yaml lies, seen from some folder above a file.
_BASE_FILES = ("configs/pool/base.yaml", "pool/base.yaml")

# YAML 1.1 reads 1e-6 as text, because it has no point.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


# Theirs are three deep.
_LONGEST_TRAIL = 20


class Layered(NamedTuple):
    """The merged content of a file and all below it."""

    values: dict[str, Any]
    notes: list[str]


def is_authors_config(path: Path) -> bool:
    """Whether a file is in the authors' format: its keys are capitals.

    Raises:
        UsageError: it cannot be read as YAML.

    """
    return any(key in _LAYERS or key.isupper() for key in map(str, read_yaml_file(path)))


def resolve_authors_yaml(path: Path) -> Layered:
    """Merge a file of theirs with all the files that it names, and with base.yaml.

    Raises:
        UsageError: a file is missing or no YAML, or files name each other in a circle.

    """
    merged = _merged_layers(path.resolve(), trail=())
    base = _find_base(path.resolve())
    return Layered(merge(with_numbers(read_yaml_file(base)), merged.values), merged.notes)


def _merged_layers(path: Path, *, trail: tuple[Path, ...]) -> Layered:
    if path in trail:
        raise UsageError(f"{path}: files name each other in a circle")
    if len(trail) == _LONGEST_TRAIL:
        raise UsageError(f"{path}: files name each other through more than {_LONGEST_TRAIL} layers")
    own = with_numbers(read_yaml_file(path))
    below: dict[str, Any] = {}
    notes: list[str] = []
    for key in _LAYERS:
        named = own.pop(key, None)
        if named is None:
            continue
        layer_path = (path.parent / named).resolve()
        if not layer_path.is_file():
            raise UsageError(f"{path}: {key}: {named}: there is no {layer_path}")
        layer = _merged_layers(layer_path, trail=(*trail, path))
        notes += layer.notes
        notes += [
            f"{lost} of {layer_path} counts here; the authors' loader drops it without a word"
            for lost in _dropped_by_authors(layer.values, below)
        ]
        below = merge(below, layer.values)
    return Layered(merge(below, own), notes)


def _dropped_by_authors(over: Mapping[str, Any], under: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keys with BASE in their names that their merge loses, since it takes them for names of files."""
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
        f"{path}: no {_BASE_FILES[0]} in any folder above; keep the file where it lies in the authors' repository"
    )


def with_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with 1e-6 as a number wherever it is text."""
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
    """Put the overrides that name keys of theirs, which are capitals, over merged values; the others are ours.

    Raises:
        UsageError: a key of theirs is not in the values; the message names the nearest one that is.

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
    """Check the values that can only be what hico does.

    Raises:
        UsageError: one is something else.

    """
    for key, allowed in fixed.items():
        if key in theirs and theirs[key] != allowed:
            raise UsageError(f"{origin}: {key}: {theirs[key]} is not what hico does; write {key}: {allowed}")


def needed(theirs: Mapping[str, Any], key: str, origin: str) -> Any:  # noqa: ANN401 - numbers and lists of them
    """A value that must be there.

    Raises:
        UsageError: it is not.

    """
    if theirs.get(key) is None:
        raise UsageError(f"{origin}: {key} is missing; write it")
    return theirs[key]
