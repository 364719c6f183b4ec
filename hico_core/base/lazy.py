"""Packages whose names are loaded when they are asked for."""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """What a package takes for its `__getattr__`: PyTorch and pandas take seconds to load, which few names need.

    Args:
        package: its `__name__`.
        homes: name -> the module that has it.

    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return load
