"""The shared memory in which workers deliver batches: how much they need, and whether there is enough."""

import shutil
from pathlib import Path

from hico_core.base.errors import HicoError
from hico_core.data.batches import SLOTS

# Processes on Linux pass tensors to each other through this folder.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - that is where it is


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

    Containers have 64 MB of it by default, and a worker that finds it full is killed by a signal.

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
            "for batches; start the container with more (docker run --shm-size=8g), or use fewer workers "
            "(-o data.workers=N; 0: none)"
        )


def free_shared_memory() -> int | None:
    """Free bytes of shared memory; None if the system has no such folder."""
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None
