"""The shared memory in which workers deliver pictures: how much they need, and whether there is enough."""

import shutil
from pathlib import Path

from torch import Tensor

from hico_core.base.errors import HicoError, NoRoom, short_reason

# Processes on Linux pass tensors to each other through this folder.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - that is where it is

# Batches that a worker reads ahead.
PREFETCHED = 2

# Batches of a worker whose memory is in use at the same time: those requested, and the one being trained on.
SLOTS = PREFETCHED + 1

_REMEDY = "start the container with more (docker run --shm-size=8g), or use fewer workers (--workers N; 0: none)"


def batch_bytes(*, clips: int, num_frames: int, short_side: int, largest_area: float) -> int:
    """Approximate size of a batch in shared memory, with the largest crops of wide frames.

    Args:
        clips: number of clips in the batch.
        num_frames: number of frames in a clip.
        short_side: of the frames, in pixels.
        largest_area: of a crop, as a fraction of the frame's.

    """
    pixels = short_side * short_side * 16 / 9 * largest_area
    return round(clips * num_frames * pixels * 3)


def require_shared_memory(needed: int, *, free: int, workers: int) -> None:
    """Check before training that the batches of all workers fit into shared memory.

    Containers have 64 MB of it by default, and a run whose worker finds it full ends (see `share`).

    Args:
        needed: bytes of a batch.
        free: free bytes of shared memory.
        workers: number of workers.

    Raises:
        HicoError: there is not enough for the batches that each worker keeps.

    """
    least = needed * SLOTS * workers
    if least > free:
        need = f"{workers} workers need" if workers > 1 else "a worker needs"
        raise HicoError(
            f"{_SHARED_MEMORY}: {free / 1e6:.0f} MB of shared memory are free, but {need} about {least / 1e6:.0f} MB "
            f"for batches; {_REMEDY}"
        )


def free_shared_memory() -> int | None:
    """Free bytes of shared memory; None if the system has no such folder."""
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None


def share(pixels: Tensor) -> None:
    """Move a worker's pixels into shared memory.

    PyTorch would do so itself, but in a thread of the worker whose errors reach nobody: the pixels would be lost, and
    the main process would wait for them for ever.

    Raises:
        NoRoom: shared memory is full.

    """
    try:
        pixels.share_memory_()
    except RuntimeError as error:  # PyTorch has no exception class for this
        size = f"{pixels.nbytes / 1e6:.1f} MB"
        raise NoRoom(f"{_SHARED_MEMORY}: no room for another {size} ({short_reason(error)}); {_REMEDY}") from error
