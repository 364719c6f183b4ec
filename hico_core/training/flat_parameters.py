"""Parameters whose updates and momenta are contiguous, so that a few operations handle all of them.

A GPU then gets a dozen operations per step, not a dozen for each of the paper's 327 tensors; a CPU gains nothing.
"""

# W tensors in a group, P numbers in all of them.

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatParameters:
    """The tensors of a group, and flat memory for the updates and momenta of all."""

    weights: list[Tensor]  # W, owned by the model
    lengths: list[int]  # W
    lengths_W: Tensor  # the same on the device
    updates_P: Tensor
    update_rows: list[Tensor]  # W views into the updates
    momentum_P: Tensor
    momentum_views: list[Tensor]  # W views into the momentum, each in its weight's shape: what a checkpoint stores

    @classmethod
    def of(cls, weights: list[Tensor]) -> "FlatParameters":
        """Allocate memory for these parameters, which share one dtype and device; the momentum is 0."""
        lengths = [weight.numel() for weight in weights]
        updates_P, momentum_P = (weights[0].new_zeros(sum(lengths)) for _ in range(2))
        views = [
            row.as_strided(weight.size(), weight.stride(), row.storage_offset())
            for row, weight in zip(momentum_P.split(lengths), weights, strict=True)
        ]
        lengths_W = torch.tensor(lengths, device=updates_P.device)
        return cls(
            weights=weights,
            lengths=lengths,
            lengths_W=lengths_W,
            updates_P=updates_P,
            update_rows=list(updates_P.split(lengths)),
            momentum_P=momentum_P,
            momentum_views=views,
        )

    def fits(self, weights: list[Tensor]) -> bool:
        """Whether this was made for these parameters as they lie in memory now."""
        return len(weights) == len(self.weights) and all(
            weight is own and weight.stride() == view.stride()
            for weight, own, view in zip(weights, self.weights, self.momentum_views, strict=True)
        )

    def weight_rows(self) -> list[Tensor]:
        """W views of the weights, each a row in memory order."""
        return [_as_row(weight) for weight in self.weights]

    def gradient_rows(self) -> list[Tensor]:
        """W rows of gradients, in the memory order of their weights."""
        return [_as_row(_laid_out_like(weight, weight.grad)) for weight in self.weights]

    def spread(self, values_W: Tensor) -> Tensor:
        """Repeat each tensor's value for each of its numbers: (W,) -> (P,)."""
        # With the size given, the GPU need not be asked for the sum of the lengths.
        return values_W.repeat_interleave(self.lengths_W, output_size=len(self.updates_P))


def _as_row(dense: Tensor) -> Tensor:
    """A view of a tensor's numbers in memory order."""
    return dense.as_strided((dense.numel(),), (1,), dense.storage_offset())


def _laid_out_like(weight: Tensor, gradient: Tensor | None) -> Tensor:
    """The gradient in the memory order of its weight, which it usually has already.

    The stride of a dimension of length 1 does not matter.
    """
    assert gradient is not None
    steps = zip(weight.shape, weight.stride(), gradient.stride(), strict=True)
    if all(length == 1 or one == other for length, one, other in steps):
        return gradient
    return torch.empty_like(weight).copy_(gradient)
