"""Gradient checkpointing: an encoder keeps only its units' inputs and recomputes the rest in the backward pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute_units(encoder: nn.Module) -> None:
    """Make an encoder's units recompute their activations in training: less memory, slower steps, same gradients."""
    for unit in _units(encoder):
        setattr(unit, "forward", partial(_recomputed, unit, unit.forward))  # noqa: B010 - no assigning to methods


def _units(encoder: nn.Module) -> list[nn.Module]:
    """The children of an encoder; if it has only one, that child's children, and so on."""
    parts = list(dict.fromkeys(_called(encoder)))
    return _units(parts[0]) if len(parts) == 1 and any(parts[0].children()) else parts


def _called(module: nn.Module) -> Iterator[nn.Module]:
    """The children of a module, with those that are never called, such as lists of modules, replaced by their own."""
    for child in module.children():
        if type(child).forward is nn.Module.forward:
            yield from _called(child)
        else:
            yield child


def _recomputed(unit: nn.Module, forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:  # noqa: ANN401 - as units have them
    """A unit's output, with only its inputs kept for the backward pass."""
    if not unit.training or not torch.is_grad_enabled():
        return forward(*inputs, **named)
    contexts = partial(_contexts, unit)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)


def _contexts(unit: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For the first pass through a unit and for the one that repeats it."""
    return nullcontext(), _without_running_statistics(unit)


@contextmanager
def _without_running_statistics(unit: nn.Module) -> Iterator[None]:
    """Keep batch-norm statistics unchanged during a pass that only repeats another."""
    norms = [m for m in unit.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # leaves the statistics as they are
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.sub_(1)
