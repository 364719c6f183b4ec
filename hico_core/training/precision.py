"""In which number format the encoder computes: what the hardware does fast."""

from typing import Literal, NamedTuple

import torch

PrecisionName = Literal["auto", "fp32", "bf16"]


class Precision(NamedTuple):
    """A choice and why it was made. Weights, heads, losses and the optimiser are float32 in either."""

    name: Literal["fp32", "bf16"]
    reason: str

    @property
    def is_bf16(self) -> bool:
        """Whether the encoder computes in bfloat16."""
        return self.name == "bf16"


FP32 = Precision("fp32", "full precision")


def choose_precision(name: PrecisionName, device: torch.device) -> Precision:
    """`auto` takes bfloat16 where the hardware has instructions for it. Emulated, it is slower than float32."""
    if name != "auto":
        return Precision(name, "as asked for")
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision("bf16" if fast else "fp32", f"the GPU has {'' if fast else 'no '}bfloat16 arithmetic")
    # New in PyTorch; an older one does not tell.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    having = [name for name in ("amx_bf16", "avx512_bf16") if capabilities.get(name)]
    if having:
        return Precision("bf16", f"the CPU has {having[0]}")
    return Precision("fp32", "the CPU has no bfloat16 arithmetic that PyTorch knows of")
