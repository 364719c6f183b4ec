"""Where to compute, in which number format, and how memory is handed out on a CPU."""

import ctypes
import sys
from typing import Literal, NamedTuple

import torch

from hico_core.errors import UsageError

DeviceName = Literal["auto", "cpu", "cuda"]

PrecisionName = Literal["auto", "fp32", "tf32", "bf16"]


def choose_device(name: DeviceName) -> torch.device:
    """`auto` takes a GPU if there is one.

    Raises:
        UsageError: a GPU is asked for and there is none.

    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise UsageError("--device cuda: PyTorch sees no GPU here; use --device cpu, or auto")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


class Precision(NamedTuple):
    """A choice and why it was made. Weights, heads, losses and the optimiser are float32 in either."""

    name: Literal["fp32", "tf32", "bf16"]
    reason: str

    @property
    def is_bf16(self) -> bool:
        """Whether the encoder computes in bfloat16."""
        return self.name == "bf16"


FP32 = Precision("fp32", "full precision")


def choose_precision(name: PrecisionName, device: torch.device) -> Precision:
    """`auto` takes bfloat16 where the hardware multiplies it faster than float32: on newer GPUs, and on CPUs with AMX.

    AVX-512's bfloat16 instructions alone were slower than float32 in a whole step (docs/benchmarks.md).

    Raises:
        UsageError: a CPU is asked for what only GPUs have.

    """
    if name == "tf32" and device.type != "cuda":
        raise UsageError("train.precision=tf32: only GPUs have it; take fp32, bf16 or auto")
    if name != "auto":
        return Precision(name, "as asked for")
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision("bf16" if fast else "fp32", f"the GPU has {'' if fast else 'no '}bfloat16 arithmetic")
    # New in PyTorch; an older one does not tell.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities.get("amx_bf16"):
        return Precision("bf16", "the CPU has AMX")
    return Precision("fp32", "the CPU has no AMX, with which bfloat16 would be faster")


def use_precision(name: PrecisionName, device: torch.device) -> Precision:
    """See `choose_precision`; for this process, whose convolutions then take TF32 (10 bits of each factor) or not.

    PyTorch's own default takes it wherever float32 is asked for on a GPU, which is not what the name says.
    """
    precision = choose_precision(name, device)
    torch.backends.cudnn.allow_tf32 = precision.name == "tf32"
    return precision


# glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, for a training process on a CPU: until it ends, it only grows.

    A step frees and asks for the same gigabytes again. By default they go back to the system each time, which hands
    them out again page by page, zeroed: a fifth of the step. Only glibc can do it.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        set_option(_M_MMAP_MAX, 0)
        set_option(_M_TRIM_THRESHOLD, 2**31 - 1)
