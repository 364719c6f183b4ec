"""Encoders of users: what a function of theirs returns, by its name."""

import importlib

from torch import nn

from hico_core.base.errors import UsageError, short_reason

# What the names of such encoders begin with.
PYTHON = "python:"


def module_of_function(name: str) -> nn.Module:
    """Call the function that a user named, which runs their code.

    Args:
        name: python:package.module:function; the module is found where Python finds others.

    Raises:
        UsageError: there is no such function, or it returns no module.

    """
    module, _, function = name.removeprefix(PYTHON).partition(":")
    try:
        made = getattr(importlib.import_module(module), function)()
    except ImportError as error:
        raise UsageError(f"{name}: {short_reason(error)}; name its folder in PYTHONPATH") from error
    except AttributeError as error:
        raise UsageError(f"{name}: {short_reason(error)}") from error
    if not isinstance(made, nn.Module):
        raise UsageError(f"{name}: returns a {type(made).__name__}, not a torch.nn.Module")
    return made
