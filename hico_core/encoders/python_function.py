"""Encoders that a user's own Python function returns."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hico_core.base.errors import UsageError
from hico_core.encoders.entry import EncoderEntry

# Prefix of the names of such encoders.
PYTHON = "python:"


def python_entry(where: str, *, shown: EncoderEntry) -> EncoderEntry:
    """The entry for a function's result: an entry, or a network that gets the same input as another encoder.

    Args:
        where: package.module:function, on Python's path or in the current folder.
        shown: the entry whose picture and clips a plain network gets.

    Raises:
        UsageError: there is no such function, or it returns something else.

    """
    function = _function(where)
    made = function()
    if isinstance(made, EncoderEntry):
        return made
    require_network(made, where)
    size = shown.picture.size
    with torch.inference_mode():
        features = made.eval()(torch.zeros(1, 3, shown.clip.num_frames, size, size))
    if features.dim() not in (2, 5):
        raise UsageError(f"python:{where}: returned {tuple(features.shape)} for a clip, neither a row (1, F) nor maps")
    return replace(
        shown,
        build=function,
        pretrained=lambda: _the_same_twice(function, where),
        is_whole=True,
        shortest_window=1,
        feature_dim=features.shape[1],
        gives="rows" if features.dim() == 2 else "maps",
        licence="its author's",
    )


def module_of_function(name: str) -> nn.Module:
    """Call the function that a user named, which runs their code, to get a network for training.

    Args:
        name: python:package.module:function; the function returns a network, or an entry that builds one.

    Raises:
        UsageError: there is no such function, or it returns something else.

    """
    where = name.removeprefix(PYTHON)
    made = _function(where)()
    return require_network(made.build() if isinstance(made, EncoderEntry) else made, where)


def require_network(made: object, where: str) -> nn.Module:
    """Check that a function returned a network.

    Raises:
        UsageError: it returned something else.

    """
    if not isinstance(made, nn.Module):
        raise UsageError(f"python:{where}: returned a {type(made).__name__}, not a network (torch.nn.Module)")
    return made


def _function(where: str) -> Callable[[], Any]:
    module, _, name = where.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        function = getattr(importlib.import_module(module), name, None) if module and name else None
    except ModuleNotFoundError as error:
        raise UsageError(f"python:{where}: {error}; write python:package.module:function") from error
    if not callable(function):
        raise UsageError(f"python:{where}: no such function; write python:package.module:function")
    return function


def _the_same_twice(function: Callable[[], Any], where: str) -> nn.Module:
    """The network that a function returns, which must have the same weights each time.

    Raises:
        UsageError: the weights are random.

    """
    first: nn.Module = function()
    second: nn.Module = function()
    others = second.state_dict()
    if any(not torch.equal(value, others[name]) for name, value in first.state_dict().items()):
        raise UsageError(
            f"python:{where}: gets different weights on each call; write python:{where}=FILE, or python:{where}=random"
        )
    return first
