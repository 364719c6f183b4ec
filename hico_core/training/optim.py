"""The optimiser: LARS (You et al., 2017), and the parameter groups that HiCo gives it."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hico_core.choices import ZeroNorm
from hico_core.config import OptimConfig


def parameter_groups(model: nn.Module, *, weight_decay: float, lars_exclude_bn: bool) -> list[dict[str, Any]]:
    """Split the trained parameters: batch norms (never decayed), then the encoder, then the heads.

    Each group carries the names of its parameters under `names`, in the order of `params`.

    Args:
        model: its encoder is the attribute `backbone`.
        weight_decay: of everything but batch norms.
        lars_exclude_bn: let batch norms move at the plain learning rate, without a trust ratio.

    """
    of_batch_norm = {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, _ in module.named_parameters(recurse=False)
    }
    chosen: dict[str, list[str]] = {"batch_norm": [], "backbone": [], "heads": []}
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name in parameters:
        is_bn = name in of_batch_norm
        group = "batch_norm" if is_bn else "backbone" if name.startswith("backbone.") else "heads"
        chosen[group].append(name)
    return [
        {
            "params": [parameters[name] for name in names],
            "names": names,
            "weight_decay": 0.0 if group == "batch_norm" else weight_decay,
            "lars_exclude": group == "batch_norm" and lars_exclude_bn,
        }
        for group, names in chosen.items()
        if names
    ]


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of pretraining; it starts at the rate at which the warm-up does."""
    groups = parameter_groups(model, weight_decay=optim.weight_decay, lars_exclude_bn=optim.lars_exclude_bn)
    if optim.name == "adamw":
        return torch.optim.AdamW(groups, lr=optim.warmup_start_lr)
    return LARS(
        groups,
        lr=optim.warmup_start_lr,
        momentum=optim.momentum,
        eta=optim.eta,
        nesterov=optim.nesterov,
        zero_norm=optim.lars_zero_norm,
    )


class LARS(torch.optim.Optimizer):
    """SGD whose rate for each tensor is scaled by the ratio of its norm to that of its gradient.

        trust = eta * |w| / (|g| + weight_decay * |w|)      1 where the denominator is 0
        u     = (g + weight_decay * w) * trust * lr
        m     = momentum * m + u                            u at the first step
        w    -= u + momentum * m  (Nesterov)  or  m

    The rate is inside the momentum, so a change of the rate does not rescale old momentum, unlike in
    torch.optim.SGD. A group with `lars_exclude` has trust 1.

    Args:
        params: parameters or groups of them.
        lr: learning rate before the trust ratio.
        momentum: m above.
        weight_decay: default of the groups that set none.
        eta: trust coefficient.
        nesterov: look one momentum step ahead.
        zero_norm: what a tensor of norm 0 does. By the formula its trust is 0 and it never moves, which in
            the authors' short recipes holds for every batch-norm bias ("authors"); "unscaled" gives it trust 1.

    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 0.001,
        nesterov: bool = True,
        *,
        zero_norm: ZeroNorm = "authors",
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "eta": eta,
            "nesterov": nesterov,
            "lars_exclude": False,
        }
        super().__init__(params, defaults)
        self._zero_norm = zero_norm
        self._flat: dict[int, _FlatGroup] = {}  # by the number of the group

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient. No value leaves the device."""
        if closure is not None:
            raise ValueError("LARS does not evaluate closures; call backward() first")
        for number, group in enumerate(self.param_groups):
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                flat = self._flat_group(number, weights)
                self._fill_updates(flat, group)
                self._descend(flat, group)
        return None

    def _flat_group(self, number: int, weights: list[Tensor]) -> "_FlatGroup":
        """A group's memory, with the momentum that the state holds: also one that was just loaded."""
        flat = self._flat.get(number)
        if flat is None or not flat.fits(weights):
            flat = self._flat[number] = _FlatGroup.of(weights)
        for weight, view in zip(weights, flat.momentum_views, strict=True):
            old = self.state[weight].get("momentum_buffer")
            if old is not view:
                if old is not None:
                    view.copy_(old)
                self.state[weight]["momentum_buffer"] = view
        return flat

    def _fill_updates(self, flat: "_FlatGroup", group: dict[str, Any]) -> None:
        """u of each tensor."""
        decay, rows = group["weight_decay"], flat.update_rows
        weights = [_as_row(weight) for weight in flat.weights]
        gradients = [_as_row(_laid_out_like(weight, weight.grad)) for weight in flat.weights]
        torch._foreach_copy_(rows, gradients)
        torch._foreach_add_(rows, weights, alpha=decay)
        if group["lars_exclude"]:
            flat.updates.mul_(group["lr"])
            return
        w_norm = torch.stack(torch._foreach_norm(weights))
        g_norm = torch.stack(torch._foreach_norm(gradients))
        denominator = g_norm + decay * w_norm
        trust = torch.where(denominator == 0, 1.0, group["eta"] * w_norm / denominator)
        if self._zero_norm == "unscaled":
            trust = torch.where(w_norm == 0, 1.0, trust)
        flat.updates.mul_((trust * group["lr"]).repeat_interleave(flat.sizes, output_size=len(flat.updates)))

    def _descend(self, flat: "_FlatGroup", group: dict[str, Any]) -> None:
        """Move the weights along their momentum."""
        flat.momentum.mul_(group["momentum"]).add_(flat.updates)
        if group["nesterov"]:
            flat.updates.add_(flat.momentum, alpha=group["momentum"])
        rows = flat.update_rows if group["nesterov"] else flat.momentum.split(flat.lengths)
        torch._foreach_sub_([_as_row(weight) for weight in flat.weights], rows)


class _FlatGroup(NamedTuple):
    """The parameters of a group, whose updates and momenta lie one after the other.

    A GPU is given a dozen operations for all of them, instead of some for each.
    """

    weights: list[Tensor]
    lengths: list[int]
    sizes: Tensor  # the same on the device
    updates: Tensor
    update_rows: list[Tensor]  # the updates of each parameter, in the order of its memory
    momentum: Tensor
    momentum_views: list[Tensor]  # of each parameter, in its shape

    @classmethod
    def of(cls, weights: list[Tensor]) -> "_FlatGroup":
        """Memory for these parameters, which have one type and device; the momentum is 0."""
        lengths = [weight.numel() for weight in weights]
        updates, momentum = (weights[0].new_zeros(sum(lengths)) for _ in range(2))
        views = [
            row.as_strided(weight.size(), weight.stride(), row.storage_offset())
            for row, weight in zip(momentum.split(lengths), weights, strict=True)
        ]
        sizes = torch.tensor(lengths, device=updates.device)
        return cls(weights, lengths, sizes, updates, list(updates.split(lengths)), momentum, views)

    def fits(self, weights: list[Tensor]) -> bool:
        """Whether it was made for these parameters as they lie in memory now."""
        return len(weights) == len(self.weights) and all(
            weight is own and weight.stride() == view.stride()
            for weight, own, view in zip(weights, self.weights, self.momentum_views, strict=True)
        )


def _as_row(dense: Tensor) -> Tensor:
    """A tensor's numbers in the order of its memory, a view."""
    return dense.as_strided((dense.numel(),), (1,), dense.storage_offset())


def _laid_out_like(weight: Tensor, gradient: Tensor | None) -> Tensor:
    """The gradient in the order of its weight's memory; as a rule it is that already.

    Of sides of length 1, it does not matter how far apart their elements lie.
    """
    assert gradient is not None
    steps = zip(weight.shape, weight.stride(), gradient.stride(), strict=True)
    if all(length == 1 or one == other for length, one, other in steps):
        return gradient
    return torch.empty_like(weight).copy_(gradient)
