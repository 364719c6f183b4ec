"""The optimiser: LARS (You et al., 2017), and the parameter groups that HiCo gives it."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hico_core.config import OptimConfig

ZeroNorm = Literal["authors", "unscaled"]


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

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient. No value leaves the device."""
        if closure is not None:
            raise ValueError("LARS does not evaluate closures; call backward() first")
        for group in self.param_groups:
            weights = [p for p in group["params"] if p.grad is not None]
            if not weights:
                continue
            gradients = [p.grad for p in weights]
            updates = self._updates(weights, gradients, group)
            self._descend(weights, updates, group)
        return None

    def _updates(self, weights: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """u of each tensor."""
        decay = group["weight_decay"]
        updates = list(torch._foreach_add(gradients, weights, alpha=decay))
        if group["lars_exclude"]:
            torch._foreach_mul_(updates, group["lr"])
            return updates
        w_norm = torch.stack(torch._foreach_norm(weights))
        g_norm = torch.stack(torch._foreach_norm(gradients))
        denominator = g_norm + decay * w_norm
        trust = torch.where(denominator == 0, 1.0, group["eta"] * w_norm / denominator)
        if self._zero_norm == "unscaled":
            trust = torch.where(w_norm == 0, 1.0, trust)
        torch._foreach_mul_(updates, list((trust * group["lr"]).unbind()))
        return updates

    def _descend(self, weights: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
        """Move the weights along their momentum."""
        momentum = group["momentum"]
        for weight in weights:
            if "momentum_buffer" not in self.state[weight]:
                self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
        buffers = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, updates)
        if group["nesterov"]:
            torch._foreach_add_(updates, buffers, alpha=momentum)
            torch._foreach_sub_(weights, updates)
        else:
            torch._foreach_sub_(weights, buffers)
