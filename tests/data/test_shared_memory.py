"""What batches take of shared memory is reported before it is missing, and if it is missing after all, in one line."""

import pytest
import torch
from full_disks import files_of_at_most

from hico_core.base.errors import HicoError, NoRoom
from hico_core.data.shared_memory import batch_bytes, require_shared_memory, share


def test_the_size_of_a_batch() -> None:
    """32 videos of 3 clips: between 170 and 350 MB, as was measured on videos of 192 and 256 pixels."""
    largest = 224**2 / (256 * 340)
    sizes = [batch_bytes(clips=96, num_frames=16, short_side=side, largest_area=largest) for side in (192, 256)]
    assert 150e6 < sizes[0] < sizes[1] < 350e6
    assert batch_bytes(clips=1, num_frames=1, short_side=9, largest_area=1.0) == 9 * 16 * 3


@pytest.mark.parametrize(
    ("free", "workers", "fits"),
    [
        (64e6, 2, False),  # docker's default
        (299e6, 1, False),
        (301e6, 1, True),
        (599e6, 2, False),
        (2.5e9, 8, True),
        (0, 0, True),
    ],
)
def test_shared_memory(free: float, workers: int, fits: bool) -> None:
    """Three batches of each worker."""
    if fits:
        require_shared_memory(100_000_000, free=int(free), workers=workers)
        return
    told = rf"{free / 1e6:.0f} MB of shared memory are free, but .* about {300 * workers} MB"
    with pytest.raises(HicoError, match=told):
        require_shared_memory(100_000_000, free=int(free), workers=workers)


def test_pixels_that_do_not_fit_are_an_error_where_they_are_made() -> None:
    pixels = torch.ones(300_000, dtype=torch.uint8)
    with (
        files_of_at_most(100_000),
        pytest.raises(NoRoom, match=r"^/dev/shm: no room for another 0\.3 MB .*--workers N"),
    ):
        share(pixels)
    share(pixels)
    assert pixels.is_shared() and bool(pixels.all())
