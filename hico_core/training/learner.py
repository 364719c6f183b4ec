"""What a training changes and saves: a model where it computes, what is called of it, and its optimiser."""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hico_core.base.choices import PrecisionName
from hico_core.encoding.hardware import FP32, Precision, keep_freed_memory, use_precision
from hico_core.training.distributed import World
from hico_core.training.scaling import LossScaling
from hico_core.training.shared_norm import share_batch_norms

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner(Generic[Model]):
    """What a run changes and saves."""

    model: Model
    replica: nn.Module  # what is called: the model, averaging its gradients over all processes
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
        """A model where it computes, with what is called of it: None: itself."""
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
    """A model ready to be trained, the same in all processes.

    Args:
        model: on a CPU; what is not to be trained of it wants no gradients.
        optimizer_of: makes the optimiser of the model where it computes.
        device: of this process.
        world: this process among all.
        precision: as `choose_precision` takes it.
        recompute: the model trades time for memory, so freed memory goes back to the system.

    """
    # Convolutions in three dimensions are faster on channels that lie side by side.
    model.to(device).to(memory_format=torch.channels_last_3d)
    if device.type == "cpu" and not recompute:
        keep_freed_memory()
    replica = replica_of(model, device, world).train()
    return Learner.of(model, optimizer_of(model), replica=replica, precision=use_precision(precision, device))


def replica_of(model: nn.Module, device: torch.device, world: World) -> nn.Module:
    """What is called in training: the model itself, or, with several processes, one that keeps them alike."""
    if world.size == 1:
        return model
    share_batch_norms(model)
    # Of the sides of length 1 of a pointwise convolution, it does not matter how far apart their elements lie.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    ids = [device.index] if device.type == "cuda" else None
    # Batch norms have the same statistics in all processes, since each computes those of all rows: there is nothing to
    # send before each step. PyTorch has given the option that says so another name.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {"gradient_as_bucket_view": True, name: False}
    return DistributedDataParallel(model, device_ids=ids, **options)
