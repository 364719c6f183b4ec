"""Packages whose names are imported on first use."""

from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A `__getattr__` for a package: PyTorch and pandas take seconds to load, and few names need them.

    Args:
        package: its `__name__`.
        homes: name -> the module that defines it.

    """

    def load(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return load
