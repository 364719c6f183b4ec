"""Batch norm over the rows of all processes that train together.

Shape letters: N rows of this process (the same number in every process), C channels; any axes may follow C.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from hico_core.base.errors import HicoError


class _NormOverProcesses(torch.autograd.Function):
    """A batch norm over the rows of all processes: one exchange forward and one backward.

        mean = average of the processes' means       variance = average of their mean squares - mean^2
        x' = (x - mean) / sqrt(variance + eps)       y = weight x' + bias
        dx = weight / sqrt(variance + eps) (dy - mean(dy) - x' mean(dy x'))       means over all rows of all processes

    The gradients of weight and bias are those of this process's rows; they are averaged like all others.

    The backward pass is written out because autograd's own, through `torch.distributed.nn.functional.all_reduce`, sends
    as many messages but keeps x as well as x': 312 MB where this keeps 196 (S3D-G, 4 clips of 16 x 64 x 64). Folded
    into scale * x + offset, autograd keeps as little, but cancellation moves the gradients by 2e-4 in float32.
    """

    @staticmethod
    def forward(context: Any, x_NC: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> tuple[Tensor, ...]:  # noqa: ANN401
        """Rows (N, C, ...) -> the result (N, C, ...), the mean and the variance (C,)."""
        own_variance_C, own_mean_C = torch.var_mean(x_NC, _all_but_channels(x_NC), correction=0)
        # Mean squares can be averaged over the processes; variances cannot.
        moments_2C = torch.cat([own_mean_C, own_variance_C + own_mean_C.square()])
        dist.all_reduce(moments_2C)
        moments_2C /= dist.get_world_size()
        mean_C, square_C = moments_2C.chunk(2)
        variance_C = (square_C - mean_C.square()).clamp_(min=0)  # negative only by rounding, if rows are nearly equal
        scale_C = (variance_C + eps).rsqrt()
        normal_NC = (x_NC - _per_channel(mean_C, x_NC)) * _per_channel(scale_C, x_NC)
        context.save_for_backward(normal_NC, weight_C, scale_C)
        context.mark_non_differentiable(mean_C, variance_C)
        return normal_NC * _per_channel(weight_C, x_NC) + _per_channel(bias_C, x_NC), mean_C, variance_C

    @staticmethod
    def backward(context: Any, dy_NC: Tensor, *of_statistics: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """The gradient of the result -> those of the inputs of `forward`."""
        normal_NC, weight_C, scale_C = context.saved_tensors
        dims = _all_but_channels(dy_NC)
        own_2C = torch.cat([dy_NC.sum(dims), (dy_NC * normal_NC).sum(dims)])  # the gradients of bias and weight
        of_all_2C = own_2C.clone()
        dist.all_reduce(of_all_2C)
        count = dist.get_world_size() * dy_NC.numel() // dy_NC.shape[1]  # rows of all processes, positions included
        mean_dy, mean_product = (_per_channel(part_C, dy_NC) for part_C in (of_all_2C / count).chunk(2))
        dx_NC = (dy_NC - mean_dy - normal_NC * mean_product) * _per_channel(weight_C * scale_C, dy_NC)
        bias_gradient_C, weight_gradient_C = own_2C.chunk(2)
        return dx_NC, weight_gradient_C, bias_gradient_C, None


def _all_but_channels(x_NC: Tensor) -> list[int]:
    """The axes of (N, C, ...) over which a channel's statistics are taken."""
    return [axis for axis in range(x_NC.dim()) if axis != 1]


def _per_channel(values_C: Tensor, x_NC: Tensor) -> Tensor:
    """(C,) -> (1, C, 1, ...), which broadcasts with (N, C, ...)."""
    return values_C.view([1, -1, *([1] * (x_NC.dim() - 2))])


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the rows of all processes, each of which has the same number.

    Its parameters and buffers have the names of PyTorch's. PyTorch's own batch norm for several processes works on GPUs
    only, and exchanges the number of rows.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any shape (N, C, ...)."""

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        if not self.training:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        exact_NC = input.to(torch.promote_types(input.dtype, torch.float32))
        y_NC, mean_C, variance_C = _NormOverProcesses.apply(exact_NC, self.weight, self.bias, self.eps)
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        with torch.no_grad():
            count = dist.get_world_size() * input.numel() // input.shape[1]
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean_C, self.momentum)
            # As in PyTorch: rows are normalised by their own variance, but the running variance estimates the
            # population's.
            self.running_var.lerp_(variance_C * (count / (count - 1)), self.momentum)
        result: Tensor = y_NC.to(input.dtype)
        return result


def share_batch_norms(module: nn.Module) -> nn.Module:
    """Replace each batch norm by one over the rows of all processes, with the same tensors and names.

    Raises:
        HicoError: a batch norm has no weights, no running statistics, or no fixed momentum.

    """
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            if not child.affine or not child.track_running_stats or child.momentum is None:
                raise HicoError(
                    f"the batch norm {name} ({child}) cannot be shared by several processes: it needs weights, running "
                    "statistics and a momentum; train in one process"
                )
            shared = SharedBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            # The tensors themselves and not copies, so that those that are not to be trained stay so.
            shared.weight, shared.bias = child.weight, child.bias
            shared.running_mean, shared.running_var = child.running_mean, child.running_var
            shared.num_batches_tracked = child.num_batches_tracked
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norms(child)
    return module
