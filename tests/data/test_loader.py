"""What a loader needs of a machine is said before it is missing."""

import pytest
from torch.utils.data import DataLoader, Dataset

from hico_core.corpus.engine import available_cores
from hico_core.data.loader import (
    as_it_is,
    batch_bytes,
    num_workers,
    outliving_a_death,
    require_shared_memory,
    worker_options,
)
from hico_core.errors import HicoError, NoRoom


def test_workers_share_the_cores() -> None:
    cores = available_cores()
    assert num_workers(None) == cores
    assert num_workers(None, processes=cores) == num_workers(None, processes=100 * cores) == 1
    assert num_workers(0, processes=8) == 0 and num_workers(12, processes=8) == 12


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
    told = rf"{free / 1e6:.0f} MB of shared memory are free, and .* about {300 * workers} MB"
    with pytest.raises(HicoError, match=told):
        require_shared_memory(100_000_000, free=int(free), workers=workers)


class OnAFullDisk(Dataset[int]):
    def __getitem__(self, number: int) -> int:
        raise NoRoom("/cache: No space left on device; free some space")

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_ends_all_with_one_line(workers: int) -> None:
    def loader() -> DataLoader[int]:
        return DataLoader(OnAFullDisk(), batch_size=None, collate_fn=as_it_is, **worker_options(workers))

    with pytest.raises(NoRoom) as raised:
        list(outliving_a_death(loader, lambda: "nothing"))
    assert str(raised.value) == "/cache: No space left on device; free some space"
