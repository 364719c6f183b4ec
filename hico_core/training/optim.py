"""The optimiser: LARS (You et al., 2017), and the parameter groups that HiCo gives it."""

# W tensors in a group, P numbers in all of them.

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from hico_core.base.choices import ZeroNorm
from hico_core.config import OptimConfig
from hico_core.model.parameters import parameter_groups
from hico_core.training.flat_parameters import FlatParameters

__all__ = ["LARS", "build_optimizer", "parameter_groups"]


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser of pretraining, set to the learning rate at which the warm-up starts."""
    groups = parameter_groups(model, weight_decay=optim.weight_decay, lars_exclude_bn=optim.lars_exclude_bn)
    if optim.name == "adamw":
        return torch.optim.AdamW(groups, **adam_options(model, optim.warmup_start_lr))
    return LARS(
        groups,
        lr=rate_of(model, optim.warmup_start_lr),
        momentum=optim.momentum,
        eta=optim.eta,
        nesterov=optim.nesterov,
        zero_norm=optim.lars_zero_norm,
    )


def rate_of(model: nn.Module, rate: float) -> float | Tensor:
    """A learning rate for a model's optimiser, which `set_rate` can change.

    On a GPU, it is a tensor in GPU memory, where a captured step reads the current value; a Python number would stay as
    it was when the step was captured.
    """
    device = next(model.parameters()).device
    return torch.full((), rate, device=device) if device.type == "cuda" else rate


def adam_options(model: nn.Module, rate: float) -> dict[str, Any]:
    """Options for PyTorch's Adam and AdamW that keep the counting and skipping of steps on the GPU."""
    lr = rate_of(model, rate)
    return {"lr": lr, "fused": True} if isinstance(lr, Tensor) else {"lr": lr}


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Change the learning rate of all parameters."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class LARS(torch.optim.Optimizer):
    """SGD whose learning rate for each tensor is scaled by the ratio of its norm to that of its gradient.

        trust = eta * |w| / (|g| + weight_decay * |w|)      1 where the denominator is 0
        u     = (g + weight_decay * w) * trust * lr
        m     = momentum * m + u                            u at the first step
        w    -= u + momentum * m  (Nesterov)  or  m

    The learning rate is inside the momentum, so a change of it does not rescale old momentum, unlike in
    torch.optim.SGD. A group with `lars_exclude` has trust 1.

    Args:
        params: parameters or groups of them.
        lr: learning rate before the trust ratio; a tensor on the device of the parameters may be changed in place.
        momentum: m above.
        weight_decay: default for groups that set none.
        eta: trust coefficient.
        nesterov: look one momentum step ahead.
        zero_norm: how to treat a tensor of norm 0. By the formula its trust is 0 and it never moves, which in the
            authors' short recipes holds for every batch-norm bias ("authors"); "unscaled" gives it trust 1.

    """

    # `torch.amp.GradScaler` sets `found_inf` for a step: 1 on the device if gradients overflowed. The optimiser then
    # skips the step itself, so that the host need not wait for the device.
    _step_supports_amp_scaling = True
    found_inf: Tensor | None = None

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float | Tensor,
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
        self._flat: dict[int, FlatParameters] = {}  # by group number

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update all parameters that have a gradient. No value leaves the device."""
        if closure is not None:
            raise ValueError("LARS does not evaluate closures; call backward() first")
        for number, group in enumerate(self.param_groups):
            weights = [p for p in group["params"] if p.grad is not None]
            if weights:
                self._update(self._flat_parameters(number, weights), group)
        return None

    def _update(self, flat: FlatParameters, group: dict[str, Any]) -> None:
        """Apply the formula above to all tensors of a group; rows belong to one tensor, everything else to all."""
        w_rows, g_rows, u_rows = flat.weight_rows(), flat.gradient_rows(), flat.update_rows
        u_P, m_P = flat.updates_P, flat.momentum_P
        # Values shared by all tensors are applied to the flat memory, values that differ between tensors to its rows.
        torch._foreach_copy_(u_rows, g_rows)
        torch._foreach_add_(u_rows, w_rows, alpha=group["weight_decay"])
        if group["lars_exclude"]:
            u_P.mul_(group["lr"])
        else:
            u_P.mul_(flat.spread(self._trust(w_rows, g_rows, group) * group["lr"]))
        m_before_P = None if self.found_inf is None else m_P.clone()
        m_P.mul_(group["momentum"]).add_(u_P)  # it starts at 0, so the first is u
        step_P = u_P.add_(m_P, alpha=group["momentum"]) if group["nesterov"] else m_P
        if self.found_inf is not None and m_before_P is not None:
            is_skipped = self.found_inf > 0
            step_P = step_P.masked_fill(is_skipped, 0.0)
            m_P.copy_(m_before_P.where(is_skipped, m_P))
        torch._foreach_sub_(w_rows, step_P.split(flat.lengths))

    def _trust(self, w_rows: list[Tensor], g_rows: list[Tensor], group: dict[str, Any]) -> Tensor:
        """The trust ratio of each of W tensors: (W,)."""
        w_norm_W = torch.stack(torch._foreach_norm(w_rows))
        g_norm_W = torch.stack(torch._foreach_norm(g_rows))
        denominator_W = g_norm_W + group["weight_decay"] * w_norm_W
        # 0 / 0 if a tensor and its gradient are 0; `where` drops it without a transfer from the device.
        trust_W = torch.where(denominator_W == 0, 1.0, group["eta"] * w_norm_W / denominator_W)
        return torch.where(w_norm_W == 0, 1.0, trust_W) if self._zero_norm == "unscaled" else trust_W

    def _flat_parameters(self, number: int, weights: list[Tensor]) -> FlatParameters:
        """A group's flat memory, with the momentum of the state, even if that was just loaded."""
        flat = self._flat.get(number)
        if flat is None or not flat.fits(weights):
            flat = self._flat[number] = FlatParameters.of(weights)
        # The state's buffers are views of the flat momentum, so checkpoints look like those of any optimiser. After one
        # is loaded, or a gradient has appeared or vanished, the state holds other buffers: their numbers are copied.
        for weight, view in zip(weights, flat.momentum_views, strict=True):
            old = self.state[weight].get("momentum_buffer")
            if old is not view:
                if old is not None:
                    view.copy_(old)
                self.state[weight]["momentum_buffer"] = view
        return flat
