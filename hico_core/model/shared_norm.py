"""Batch norm over the rows of all processes that train together."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn


class _NormOverProcesses(torch.autograd.Function):
    """Several batch norms over the rows of all processes: one exchange forward and one backward for all of them.

    N rows of this process, of which every process has as many, C channels:

        mean = average of the processes' means       variance = average of their mean squares - mean^2
        x' = (x - mean) / sqrt(variance + eps)       y = weight x' + bias
        dx = weight / sqrt(variance + eps) (dy - mean(dy) - x' mean(dy x'))       means over all rows of all processes

    The gradients of weight and bias are those of the own rows; they are averaged like all others.
    """

    @staticmethod
    def forward(context: Any, epsilons: Sequence[float], *tensors: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Of n norms the rows (N, C, ...), weights, biases -> n results of the rows' shapes, n means, n variances."""
        n = len(epsilons)
        rows, weights, biases = tensors[:n], tensors[n : 2 * n], tensors[2 * n :]
        own = []
        for x in rows:
            own_variance, own_mean = torch.var_mean(x, _dims(x), correction=0)
            own += [own_mean, own_variance + own_mean.square()]
        moments = torch.cat(own)
        dist.all_reduce(moments)
        moments /= dist.get_world_size()
        parts = moments.split([part.numel() for part in own])
        means = parts[::2]
        variances = [(square - mean.square()).clamp_(min=0) for mean, square in zip(means, parts[1::2], strict=True)]
        scales = [(variance + eps).rsqrt() for variance, eps in zip(variances, epsilons, strict=True)]
        normal = [
            (x - _shaped(mean, x)) * _shaped(scale, x) for x, mean, scale in zip(rows, means, scales, strict=True)
        ]
        context.save_for_backward(*normal, *weights, *scales)
        context.mark_non_differentiable(*means, *variances)
        results = [
            x * _shaped(weight, x) + _shaped(bias, x) for x, weight, bias in zip(normal, weights, biases, strict=True)
        ]
        return (*results, *means, *variances)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        saved = context.saved_tensors
        n = len(saved) // 3
        normal, weights, scales = saved[:n], saved[n : 2 * n], saved[2 * n :]
        gradients = gradients[:n]
        own = []
        for dy, x in zip(gradients, normal, strict=True):
            own += [dy.sum(_dims(dy)), (dy * x).sum(_dims(dy))]
        sums = torch.cat(own)
        dist.all_reduce(sums)
        of_all = sums.split([part.numel() for part in own])
        dx = []
        for number, (dy, x, weight, scale) in enumerate(zip(gradients, normal, weights, scales, strict=True)):
            count = dist.get_world_size() * dy.numel() // dy.shape[1]
            mean_dy, mean_product = (_shaped(part / count, dy) for part in of_all[2 * number : 2 * number + 2])
            dx.append((dy - mean_dy - x * mean_product) * _shaped(weight * scale, dy))
        return (None, *dx, *own[1::2], *own[::2])


def _dims(x: Tensor) -> list[int]:
    """All but the channels'."""
    return [d for d in range(x.dim()) if d != 1]


def _shaped(of_channels: Tensor, x: Tensor) -> Tensor:
    """(C,) as it goes with (N, C, ...)."""
    return of_channels.view([1, -1, *([1] * (x.dim() - 2))])


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all processes, of which each has as many.

    Its parameters and buffers have the names of PyTorch's. PyTorch's own for several processes works on GPUs only, and
    asks each of them how many rows it has.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any shape (N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        if not self.training:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        (normalised,) = _over_processes([self], [input])
        return normalised


def _over_processes(norms: Sequence[SharedBatchNorm], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The inputs of several norms, normalised in one exchange; running statistics follow."""
    n = len(norms)
    exact = [x.float() if x.dtype == torch.bfloat16 else x for x in inputs]
    found = _NormOverProcesses.apply(
        [norm.eps for norm in norms], *exact, *(norm.weight for norm in norms), *(norm.bias for norm in norms)
    )
    with torch.no_grad():
        for norm, x, mean, variance in zip(norms, exact, found[n : 2 * n], found[2 * n :], strict=True):
            assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
            count = dist.get_world_size() * x.numel() // x.shape[1]
            norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    return [y.to(x.dtype) for y, x in zip(found[:n], inputs, strict=True)]


def normalised(norms: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[Tensor]:
    """What batch norms side by side make of their inputs; with several processes, in one exchange."""
    shared = [norm for norm in norms if isinstance(norm, SharedBatchNorm) and norm.training]
    if len(shared) == len(norms):
        return _over_processes(shared, inputs)
    return [norm(x) for norm, x in zip(norms, inputs, strict=True)]


def share_batch_norms(module: nn.Module) -> nn.Module:
    """Replace each batch norm by one that sees the rows of all processes, with the same parameters and names."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            shared = SharedBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            shared.to(child.weight.device, child.weight.dtype)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norms(child)
    return module
