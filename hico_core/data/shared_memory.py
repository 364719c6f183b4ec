"""The memory through which workers hand batches over: how much they take, and whether there is enough."""

import shutil
from pathlib import Path

from hico_core.base.errors import HicoError
from hico_core.data.batches import SLOTS

# Through which Linux's processes hand tensors to each other.
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - that is where it is


def batch_bytes(*, clips: int, num_frames: int, short_side: int, largest_area: float) -> int:
    """About what a batch takes between a worker and the training process, with the largest crops of wide frames.

    Args:
        clips: of the batch.
        num_frames: of a clip.
        short_side: of the frames, pixels.
        largest_area: of a crop, as a part of the frame's.

    """
    pixels = short_side * short_side * 16 / 9 * largest_area
    return round(clips * num_frames * pixels * 3)


def require_shared_memory(needed: int, *, free: int, workers: int) -> None:
    """Say beforehand that batches will not fit into the memory through which workers hand them over.

    Containers have 64 MB of it unless they are told otherwise, and a worker that finds it full is killed by a signal.

    Args:
        needed: bytes of a batch.
        free: bytes of shared memory.
        workers: how many there are.

    Raises:
        HicoError: there is not enough for the batches that each worker keeps.

    """
    least = needed * SLOTS * workers
    if least > free:
        need = f"{workers} workers need" if workers > 1 else "a worker needs"
        raise HicoError(
            f"{_SHARED_MEMORY}: {free / 1e6:.0f} MB of shared memory are free, and {need} about {least / 1e6:.0f} MB "
            "for batches; give a container more (docker run --shm-size=8g), or take fewer workers "
            "with --workers N, 0 for none"
        )


def free_shared_memory() -> int | None:
    """Bytes of shared memory that are free; None where the system has no such folder."""
    return shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None
