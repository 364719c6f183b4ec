"""Several processes that train one model: who they are, what they tell each other, and how batch norms agree.

Without torchrun there is one process, and everything here does nothing.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from hico_core.errors import HicoError

Item = TypeVar("Item")


class World(NamedTuple):
    """A process among all that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # among those of this machine
    local_size: int = 1  # how many those are

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and reports."""
        return self.rank == 0


@contextmanager
def joined_world(device_type: str) -> Iterator[World]:
    """Join the processes that torchrun started, if it did.

    Args:
        device_type: "cuda" or "cpu"; decides how they talk.

    Raises:
        HicoError: they cannot find each other.

    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield World()
        return
    try:
        dist.init_process_group("nccl" if device_type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise HicoError(f"the training processes do not find each other ({reason}); is the port free?") from error
    try:
        local_rank, local_size = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
        yield World(dist.get_rank(), dist.get_world_size(), local_rank, local_size)
    finally:
        dist.destroy_process_group()


def share_of(items: list[Item], world: World) -> list[Item]:
    """The process's part of a step's items: consecutive, so that all parts in order of rank are the whole.

    size 2:   rank 0 | rank 1
              a b c  | d e f
    """
    each = len(items) // world.size
    return items[world.rank * each : (world.rank + 1) * each]


def gather_rows(rows: Tensor, world: World, *, gradient_scale: float = 1.0) -> Tensor:
    """The rows (n, ...) of all processes in order of rank, (size * n, ...).

    Gradients flow through this process's own rows only; those of the others are constants here, and have their
    gradient there.

    Args:
        rows: of this process; as many as every other has.
        world: this process among all.
        gradient_scale: factor of the gradient of the own rows.

    """
    return start_gathering(rows, world, gradient_scale=gradient_scale)()


def start_gathering(rows: Tensor, world: World, *, gradient_scale: float = 1.0) -> Callable[[], Tensor]:
    """Begin to gather, so that other work can be done meanwhile; what is returned waits, and gives `gather_rows`."""
    if world.size == 1:
        return lambda: rows
    parts = [torch.empty_like(rows) for _ in range(world.size)]
    sending = dist.all_gather(parts, rows.detach().contiguous(), async_op=True)

    def finish() -> Tensor:
        sending.wait()
        constant = rows.detach() * (1 - gradient_scale)
        parts[world.rank] = rows if gradient_scale == 1.0 else rows * gradient_scale + constant
        return torch.cat(parts)

    return finish


def largest(values: list[float], world: World, device: torch.device) -> list[float]:
    """Of each value, the largest that any process has: how all come to the same decision."""
    if world.size == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [float(value) for value in tensor]


def gather_objects(own: Item, world: World) -> list[Item]:
    """What each process has, in order of rank: plain values."""
    if world.size == 1:
        return [own]
    found = [own] * world.size
    dist.all_gather_object(found, own)
    return found


class _SumOverProcesses(torch.autograd.Function):
    """All-reduce whose gradient is an all-reduce, since every process's loss depends on every process's summand."""

    @staticmethod
    def forward(context: FunctionCtx, tensor: Tensor) -> Tensor:
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: FunctionCtx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class SumBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all processes, on any device; PyTorch's own works on GPUs only.

    Its parameters and buffers have the names of PyTorch's.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any shape (N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        if not self.training:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        given, exact = input.dtype, torch.float32 if input.dtype == torch.bfloat16 else input.dtype
        input = input.to(exact)
        dims = [d for d in range(input.dim()) if d != 1]
        shape = [1, -1, *([1] * (input.dim() - 2))]
        count = _SumOverProcesses.apply(input.new_tensor([input.numel() / input.shape[1]]))
        mean = _SumOverProcesses.apply(input.sum(dims)) / count
        centred = input - mean.view(shape)
        variance = _SumOverProcesses.apply(centred.square().sum(dims)) / count
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        normal = centred * (variance.view(shape) + self.eps).rsqrt()
        return (normal * self.weight.view(shape) + self.bias.view(shape)).to(given)


def share_batch_norms(module: nn.Module, device_type: str) -> nn.Module:
    """Replace each batch norm by one that sees the rows of all processes, with the same parameters and names."""
    if device_type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return converted
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            shared = SumBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            shared.to(child.weight.dtype)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norms(child, device_type)
    return module
