"""Encoders that a user's own Python function returns."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hico_core.base.errors import UsageError, short_reason
from hico_core.encoders.entry import EncoderEntry

# Prefix of the names of such encoders.
PYTHON = "python:"

# What networks raise for clips of another size than theirs.
REFUSALS = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)

# What a user's own code raises if there is a mistake in it, or a file of it is missing.
_MISTAKES = (*REFUSALS, AttributeError, ImportError, NameError, OSError, SyntaxError)


def python_entry(where: str, *, shown: EncoderEntry) -> EncoderEntry:
    """The entry for a function's result: an entry, or a network that gets the same input as another encoder.

    Args:
        where: package.module:function, on Python's path or in the current folder.
        shown: the entry whose picture and clips a plain network gets.

    Raises:
        UsageError: there is no such function, it fails, or it returns something else.

    """
    function = _function(where)
    made = _made_by(function, where)
    if isinstance(made, EncoderEntry):
        if made.pretrained is None and made.is_whole:
            return replace(made, pretrained=lambda: _the_same_twice(made.build, where))
        return made
    require_network(made, where)
    features = _features_of_clip(made, where, num_frames=shown.clip.num_frames, size=shown.picture.size)
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


def _features_of_clip(network: nn.Module, where: str, *, num_frames: int, size: int) -> Tensor:
    """The features of a black clip: a row or maps.

    Raises:
        UsageError: the network does not accept such a clip, or returns something else.

    """
    try:
        with torch.inference_mode():
            made = network.eval()(torch.zeros(1, 3, num_frames, size, size))
    except REFUSALS as error:
        clip = f"{num_frames} frames of {size} x {size} pixels"
        raise UsageError(
            f"python:{where}: does not accept a clip of {clip} ({short_reason(error)}); return an EncoderEntry to set "
            "frames and pixels"
        ) from error
    if not isinstance(made, Tensor) or made.dim() not in (2, 5):
        what = tuple(made.shape) if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise UsageError(f"python:{where}: returned {what} for a clip, neither a row (1, F) nor maps")
    return made


def module_of_function(name: str) -> nn.Module:
    """Call the function that a user named, which runs their code, to get a network for training.

    Args:
        name: python:package.module:function; the function returns a network, or an entry that builds one.

    Raises:
        UsageError: there is no such function, it fails, or it returns something else.

    """
    where = name.removeprefix(PYTHON)
    made = _made_by(_function(where), where)
    return require_network(made.build() if isinstance(made, EncoderEntry) else made, where)


def _made_by(function: Callable[[], Any], where: str) -> Any:  # noqa: ANN401 - checked by the caller
    """Call a user's function.

    Raises:
        UsageError: it fails.

    """
    try:
        return function()
    except _MISTAKES as error:
        what = f"{type(error).__name__}: {short_reason(error)}"
        raise UsageError(
            f"python:{where}: failed with {what}; mend the function (`hico --debug` shows where)"
        ) from error


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
    is_absolute = module and not module.startswith(".")
    try:
        function = getattr(importlib.import_module(module), name, None) if is_absolute and name else None
    except ModuleNotFoundError as error:
        raise UsageError(f"python:{where}: {error}; write python:package.module:function") from error
    except _MISTAKES as error:
        raise UsageError(f"python:{where}: cannot be imported ({short_reason(error)}); mend the module") from error
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
