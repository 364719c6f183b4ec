"""What a training updates and saves: a model on its device, the module called in training, and the optimiser."""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hico_core.base.choices import PrecisionName
from hico_core.encoding.encoder import with_channels_last
from hico_core.encoding.hardware import FP32, Precision, keep_freed_memory, use_precision
from hico_core.training.distributed import World
from hico_core.training.scaling import LossScaling
from hico_core.training.shared_norm import share_batch_norms

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner(Generic[Model]):
    """What a run updates and saves."""

    model: Model
    replica: nn.Module  # the module to call: the model, which averages its gradients over all processes
    optimizer: torch.optim.Optimizer
    device: torch.device
    precision: Precision
    scaling: LossScaling

    @classmethod
    def of(
        cls,
        model: Model,
        optimizer: torch.optim.Optimizer,
        *,
        replica: nn.Module | None = None,
        precision: Precision = FP32,
    ) -> "Learner[Model]":
        """Combine a model on its device with the module to call in training; None: the model itself."""
        device = next(model.parameters()).device
        scaling = LossScaling(device, enabled=precision.name == "fp16")
        return cls(
            model=model,
            replica=replica or model,
            optimizer=optimizer,
            device=device,
            precision=precision,
            scaling=scaling,
        )


def learner_of(
    model: Model,
    optimizer_of: Callable[[Model], torch.optim.Optimizer],
    *,
    device: torch.device,
    world: World,
    precision: PrecisionName,
    recompute: bool = False,
) -> Learner[Model]:
    """Make a model ready to be trained; it is the same in all processes.

    Args:
        model: on a CPU; parameters that are not to be trained have requires_grad off.
        optimizer_of: makes the optimiser for the model on its device.
        device: of this process.
        world: this process among all.
        precision: see `choose_precision`.
        recompute: the model trades time for memory, so freed memory is returned to the system.

    """
    with_channels_last(model.to(device))
    if device.type == "cpu" and not recompute:
        keep_freed_memory()
    replica = replica_of(model, device, world).train()
    return Learner.of(model, optimizer_of(model), replica=replica, precision=use_precision(precision, device))


def replica_of(model: nn.Module, device: torch.device, world: World) -> nn.Module:
    """The module to call in training: the model, or, with several processes, a wrapper that keeps them in step."""
    if world.size == 1:
        return model
    share_batch_norms(model)
    # In a pointwise convolution, the strides of dimensions of length 1 do not matter.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    ids = [device.index] if device.type == "cuda" else None
    # Batch norms have the same statistics in all processes, since each computes them over all rows, so nothing has to
    # be sent before each step. The option's name depends on PyTorch's version.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {"gradient_as_bucket_view": True, name: False}
    return DistributedDataParallel(model, device_ids=ids, **options)
