"""Batch norm over the rows of all processes that train together.

Shape letters: N rows of this process, of which every process has as many, C channels; the axes after C are any.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from hico_core.model.s3dg import InceptionBlock, normalise_each


class _NormOverProcesses(torch.autograd.Function):
    """Several batch norms over the rows of all processes: one exchange forward and one backward for all of them.

        mean = average of the processes' means       variance = average of their mean squares - mean^2
        x' = (x - mean) / sqrt(variance + eps)       y = weight x' + bias
        dx = weight / sqrt(variance + eps) (dy - mean(dy) - x' mean(dy x'))       means over all rows of all processes

    The gradients of weight and bias are those of the own rows; they are averaged like all others.

    The backward pass is written out because autograd's own, through `torch.distributed.nn.functional.all_reduce`, sends
    as many messages but keeps x as well as x': 312 MB where this keeps 196 (S3D-G, 4 clips of 16 x 64 x 64). Folded to
    scale * x + offset it keeps as little, but cancellation moves the gradients by 2e-4 in float32.
    """

    @staticmethod
    def forward(context: Any, epsilons: Sequence[float], *tensors: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Of n norms the rows (N, C, ...), weights, biases (C,) -> n results (N, C, ...), n means, n variances (C,)."""
        n = len(epsilons)
        rows, weights, biases = tensors[:n], tensors[n : 2 * n], tensors[2 * n :]
        own: list[Tensor] = []  # 2n of (C,)
        for x_NC in rows:
            own_variance_C, own_mean_C = torch.var_mean(x_NC, _all_but_channels(x_NC), correction=0)
            # Mean squares can be averaged over the processes, variances cannot.
            own += [own_mean_C, own_variance_C + own_mean_C.square()]
        moments = torch.cat(own)  # all norms in one message
        dist.all_reduce(moments)
        moments /= dist.get_world_size()
        parts = moments.split([part.numel() for part in own])
        means = parts[::2]
        # Below 0 by rounding alone, where all rows are nearly equal.
        variances = [(square - mean.square()).clamp_(min=0) for mean, square in zip(means, parts[1::2], strict=True)]
        scales = [(variance + eps).rsqrt() for variance, eps in zip(variances, epsilons, strict=True)]
        normal = [
            (x - _per_channel(mean, x)) * _per_channel(scale, x)
            for x, mean, scale in zip(rows, means, scales, strict=True)
        ]
        context.save_for_backward(*normal, *weights, *scales)
        context.mark_non_differentiable(*means, *variances)
        results = [
            x * _per_channel(weight, x) + _per_channel(bias, x)
            for x, weight, bias in zip(normal, weights, biases, strict=True)
        ]
        return (*results, *means, *variances)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Of n gradients of the results (N, C, ...), and 2n that are none -> those of the inputs of `forward`."""
        saved = context.saved_tensors
        n = len(saved) // 3
        normal, weights, scales = saved[:n], saved[n : 2 * n], saved[2 * n :]
        gradients = gradients[:n]
        own: list[Tensor] = []  # 2n of (C,): the gradients of bias and weight
        for dy_NC, x_NC in zip(gradients, normal, strict=True):
            dims = _all_but_channels(dy_NC)
            own += [dy_NC.sum(dims), (dy_NC * x_NC).sum(dims)]
        sums = torch.cat(own)
        dist.all_reduce(sums)
        of_all = sums.split([part.numel() for part in own])
        dx = []
        for number, (dy, x, weight, scale) in enumerate(zip(gradients, normal, weights, scales, strict=True)):
            count = dist.get_world_size() * dy.numel() // dy.shape[1]  # rows of all processes, positions included
            mean_dy, mean_product = (_per_channel(part / count, dy) for part in of_all[2 * number : 2 * number + 2])
            dx.append((dy - mean_dy - x * mean_product) * _per_channel(weight * scale, dy))
        return (None, *dx, *own[1::2], *own[::2])


def _all_but_channels(x_NC: Tensor) -> list[int]:
    """The axes of (N, C, ...) that a channel's statistics are taken over."""
    return [axis for axis in range(x_NC.dim()) if axis != 1]


def _per_channel(values_C: Tensor, x_NC: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), as it goes with (N, C, ...)."""
    return values_C.view([1, -1, *([1] * (x_NC.dim() - 2))])


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
        for norm, x_NC, mean_C, variance_C in zip(norms, exact, found[n : 2 * n], found[2 * n :], strict=True):
            assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
            count = dist.get_world_size() * x_NC.numel() // x_NC.shape[1]
            norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            norm.running_mean.lerp_(mean_C, norm.momentum)
            # As PyTorch's: rows are normalised by their own variance, but the running one estimates the population's.
            norm.running_var.lerp_(variance_C * (count / (count - 1)), norm.momentum)
    return [y.to(x.dtype) for y, x in zip(found[:n], inputs, strict=True)]


def normalise_over_processes(norms: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[Tensor]:
    """What batch norms side by side make of their inputs, in one exchange while they train; see `InceptionBlock`."""
    shared = [norm for norm in norms if isinstance(norm, SharedBatchNorm) and norm.training]
    return _over_processes(shared, inputs) if len(shared) == len(norms) else normalise_each(norms, inputs)


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
    if isinstance(module, InceptionBlock):
        module.normalise = normalise_over_processes
    return module
