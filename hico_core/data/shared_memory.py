"""The shared memory in which workers deliver pictures: how much they need, and whether there is enough."""

import shutil
from pathlib import Path

from torch import Tensor

from hico_core.base.errors import HicoError, NoRoom, short_reason
from hico_core.config import AugmentConfig, DataConfig
from hico_core.data.augment import crop_area_range

# Processes on Linux pass tensors to each other through this folder.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - that is where it is

# Batches that a worker reads ahead.
PREFETCHED = 2

# Batches of a worker whose memory is in use at the same time: those requested, and the one being trained on.
SLOTS = PREFETCHED + 1


def with_reserve(num_bytes: int) -> int:
    """The size of a slot for a batch of this many bytes; an eighth is added for later batches with larger crops."""
    return num_bytes * 9 // 8


_REMEDY = (
    "start the container with more (docker run --shm-size=8g), or use fewer workers (--workers N or -o data.workers=N; "
    "0: none)"
)


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
    """Check that the batches of all workers fit into shared memory, and a larger slot beside the one that it replaces.

    Containers have 64 MB of it by default, and a run whose worker finds it full ends (see `share`).

    Args:
        needed: bytes of a batch.
        free: free bytes of shared memory.
        workers: number of workers.

    Raises:
        HicoError: there is not enough for the batches that each worker keeps.

    """
    least = with_reserve(needed) * (SLOTS + 1) * workers
    if least > free:
        need = f"{workers} workers need" if workers > 1 else "a worker needs"
        raise HicoError(
            f"{_SHARED_MEMORY}: {free / 1e6:.0f} MB of shared memory are free, but {need} about {least / 1e6:.0f} MB "
            f"for batches; {_REMEDY}"
        )


def require_room_for_batches(
    data: DataConfig, augment: AugmentConfig, *, clips: int, largest_short_side: int, workers: int, processes: int
) -> None:
    """Check before training that shared memory, of which each training process has its share, is large enough.

    Args:
        data: how frames are read.
        augment: how large their crops are.
        clips: number of clips in a batch of one process.
        largest_short_side: of the videos, in pixels.
        workers: of one process.
        processes: training processes on this machine.

    Raises:
        HicoError: it is too small.

    """
    free = free_shared_memory()
    if free is None or not workers:
        return
    needed = batch_bytes(
        clips=clips,
        num_frames=data.num_frames,
        short_side=min(data.short_side or largest_short_side, largest_short_side),
        largest_area=crop_area_range(augment.crop_jitter)[1],
    )
    require_shared_memory(needed, free=free // processes, workers=workers)


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
