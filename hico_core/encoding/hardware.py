"""Devices and precision, and the memory of processes and GPUs."""

import ctypes
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from hico_core.base.choices import DeviceName, PrecisionName
from hico_core.base.errors import HicoError, UsageError, require_device


def choose_device(name: DeviceName) -> torch.device:
    """Choose a device; `auto` uses a GPU if there is one.

    Raises:
        UsageError: a GPU is requested and there is none, or it is a Mac's.

    """
    require_device(name)
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise UsageError("--device cuda: PyTorch sees no GPU here; use --device cpu, or auto")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")


class Precision(NamedTuple):
    """A chosen precision and the reason; weights, heads, losses and the optimiser are always float32."""

    name: Literal["fp32", "tf32", "bf16", "fp16"]
    reason: str

    def autocast(self, device: torch.device) -> torch.autocast:
        """A context in which an encoder computes in 16 bits, if that was chosen."""
        types = {"bf16": torch.bfloat16, "fp16": torch.float16}
        return torch.autocast(device.type, types.get(self.name, torch.bfloat16), enabled=self.name in types)


FP32 = Precision("fp32", "full precision")


# From this compute capability on (V100, T4), GPUs have tensor cores for float16; some older ones are slower with it.
_FAST_FP16 = (7, 0)


def choose_precision(name: PrecisionName, device: torch.device, *, training: bool = False) -> Precision:
    """Choose a precision; `auto` uses bfloat16 where hardware makes it faster than float32: newer GPUs, CPUs with AMX.

    AVX-512's bfloat16 instructions alone were slower than float32 in a whole step (docs/benchmarks-cpu.md).

    Args:
        name: the requested precision.
        device: where to compute.
        training: the model is, or was, trained by hico. Training scales the loss and detects overflows, so `auto` uses
            float16 on GPUs without bfloat16 that are fast with float16. Other encoders stay in float32.

    Raises:
        UsageError: TF32, which only GPUs have, is requested on a CPU.

    """
    if name == "tf32" and device.type != "cuda":
        raise UsageError("train.precision=tf32: only GPUs support it; use fp32, bf16 or auto")
    if name != "auto":
        return Precision(name, "as requested")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16", "the GPU has bfloat16 arithmetic")
        fp16 = training and torch.cuda.get_device_capability(device) >= _FAST_FP16
        return Precision("fp16" if fp16 else "fp32", "the GPU has no bfloat16 arithmetic")
    # Only newer versions of PyTorch report this.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if capabilities.get("amx_bf16"):
        return Precision("bf16", "the CPU has AMX")
    return Precision("fp32", "the CPU has no AMX, with which bfloat16 would be faster")


def use_precision(name: PrecisionName, device: torch.device) -> Precision:
    """Choose a precision for a training process, and switch TF32 (10 bits of mantissa) in convolutions on or off.

    PyTorch's default uses TF32 on GPUs even if float32 is requested. See `choose_precision`.
    """
    precision = choose_precision(name, device, training=True)
    torch.backends.cudnn.allow_tf32 = precision.name == "tf32"
    return precision


@contextmanager
def computing_in(precision: Precision, device: torch.device) -> Iterator[None]:
    """A context that computes in a precision, TF32 and 16 bits included; afterwards, the TF32 setting is restored."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = precision.name == "tf32"
    try:
        with precision.autocast(device):
            yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Make the C library keep freed memory, for a training process on a CPU, whose memory then never shrinks.

    Each step frees and allocates the same gigabytes. By default they are returned to the system each time, which hands
    them out again page by page, zeroed, and that takes a fifth of the step. Only glibc supports this.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if set_option is not None:
        set_option(_M_MMAP_MAX, 0)
        set_option(_M_TRIM_THRESHOLD, 2**31 - 1)


def peak_memory_bytes(device: torch.device) -> int:
    """The peak memory of this process so far, on the GPU or on the machine."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_memory_bytes(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Memory that this process may still allocate on the machine or in its container; None if it is not known.

    Args:
        meminfo: Linux's file of memory figures, in kB.
        cgroup: folder of the container's limits (cgroup version 2).

    """
    if not meminfo.exists():
        return None
    free = int(_fields(meminfo, ":")["MemAvailable"].removesuffix("kB")) * 1024
    limit = cgroup / "memory.max"
    if limit.exists() and (most := limit.read_text().strip()) != "max":
        # The page cache does not count, because the system can drop it.
        free = min(free, int(most) - int(_fields(cgroup / "memory.stat", " ")["anon"]))
    return free


def _fields(path: Path, separator: str) -> dict[str, str]:
    lines = (line.partition(separator) for line in path.read_text().splitlines())
    return {name: value.strip() for name, _, value in lines}


@contextmanager
def telling_full_memory(videos: int, device: torch.device) -> Iterator[None]:
    """A context for training steps with this many videos that reports full memory in one line.

    Raises:
        HicoError: a step does not fit into the memory of the GPU, or into what the system allows this process.

    """
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)):
            raise
        raise HicoError(
            f"a step of {videos} videos does not fit into the memory of {device}; use a smaller batch size"
        ) from error
