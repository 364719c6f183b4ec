"""What batches take of shared memory is reported before it is missing, and if it is missing after all, in one line."""

from types import SimpleNamespace

import pytest
import torch
from full_disks import files_of_at_most

from hico_core.base.errors import HicoError, NoRoom
from hico_core.config import AugmentConfig, DataConfig
from hico_core.data import batches, shared_memory
from hico_core.data.augment import AugmentDraw, ColourDraw, Crop
from hico_core.data.batches import BatchReader
from hico_core.data.dataset import ClipRequest, Sample
from hico_core.data.shared_memory import batch_bytes, require_room_for_batches, require_shared_memory, share


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
        (449e6, 1, False),
        (451e6, 1, True),
        (899e6, 2, False),
        (3.7e9, 8, True),
        (0, 0, True),
    ],
)
def test_shared_memory(free: float, workers: int, fits: bool) -> None:
    """Three batches of each worker and one that grows, each with an eighth in reserve."""
    if fits:
        require_shared_memory(100_000_000, free=int(free), workers=workers)
        return
    told = rf"{free / 1e6:.0f} MB of shared memory are free, but .* about {450 * workers} MB"
    with pytest.raises(HicoError, match=told):
        require_shared_memory(100_000_000, free=int(free), workers=workers)


@pytest.mark.parametrize(
    ("workers", "processes", "short_side", "fits"),
    [(2, 1, None, True), (2, 2, None, False), (4, 1, None, False), (0, 9, None, True), (2, 2, 50, True)],
)
def test_room_for_all_workers_of_a_machine(
    monkeypatch: pytest.MonkeyPatch, workers: int, processes: int, short_side: int | None, fits: bool
) -> None:
    """A batch of 2 clips of 8 frames of 100 pixels is 0.5 MB."""
    monkeypatch.setattr(shared_memory, "free_shared_memory", lambda: 5_000_000)

    def check() -> None:
        require_room_for_batches(
            DataConfig(num_frames=8, short_side=short_side),
            AugmentConfig(),
            clips=2,
            largest_short_side=100,
            workers=workers,
            processes=processes,
        )

    if fits:
        check()
        return
    with pytest.raises(HicoError, match="of shared memory are free"):
        check()


def test_a_batch_that_does_not_fit_is_an_error_of_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "get_worker_info", lambda: SimpleNamespace(id=0))
    crop = torch.zeros(2, 300, 300, 3, dtype=torch.uint8)
    draw = AugmentDraw(Crop(0, 0, 300, 300), ColourDraw([], None, grey=False), flip=False)
    sample = Sample(crops=[crop], draws=[draw], video=0, video_id="a", windows=[(0.0, 1.0)], unusable=[])
    reader = BatchReader({ClipRequest(0, 0, None): sample})  # type: ignore[arg-type]
    with files_of_at_most(100_000), pytest.raises(NoRoom, match=r"^/dev/shm: no room for another 0\.6 MB"):
        reader[[ClipRequest(0, 0, None)]]
    assert reader[[ClipRequest(0, 0, None)]].video_ids == ["a"]


def test_pixels_that_do_not_fit_are_an_error_where_they_are_made() -> None:
    pixels = torch.ones(300_000, dtype=torch.uint8)
    with (
        files_of_at_most(100_000),
        pytest.raises(NoRoom, match=r"^/dev/shm: no room for another 0\.3 MB .*--workers N"),
    ):
        share(pixels)
    share(pixels)
    assert pixels.is_shared() and bool(pixels.all())
