"""The parameter groups of a model for the optimiser."""

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, *, weight_decay: float, lars_exclude_bn: bool) -> list[dict[str, Any]]:
    """Split the trainable parameters: batch norms (never decayed), then the encoder, then the heads.

    Each group carries the names of its parameters under `names`, in the order of `params`.

    Args:
        model: its encoder is the attribute `backbone`.
        weight_decay: weight decay of everything except batch norms.
        lars_exclude_bn: update batch norms at the plain learning rate, without a trust ratio.

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
        # Both weights and biases of all batch norms, including those in the heads.
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
