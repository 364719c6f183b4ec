"""How many processes read, what tells that one has died, and what ends all of them."""

import time
from contextlib import redirect_stderr
from io import StringIO
from multiprocessing import current_process
from multiprocessing.connection import Client
from multiprocessing.resource_sharer import DupFd

import pytest
from torch.utils.data import DataLoader, Dataset

from hico_core.base.engine import available_cores
from hico_core.base.errors import NoRoom
from hico_core.data.workers import _means_a_death, as_it_is, num_workers, outliving_a_death, worker_options


def test_workers_share_the_cores() -> None:
    cores = available_cores()
    assert num_workers(None) == cores
    assert num_workers(None, processes=cores) == num_workers(None, processes=100 * cores) == 1
    assert num_workers(0, processes=8) == 0 and num_workers(12, processes=8) == 12


@pytest.mark.parametrize(
    ("error", "death"),
    [
        (RuntimeError("DataLoader worker (pid 5) is killed by signal: Killed."), True),
        (RuntimeError("CUDA error"), False),
        (EOFError(), True),
        (ConnectionResetError(104, "Connection reset by peer"), True),
        (FileNotFoundError(2, "No such file or directory"), True),
        (FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0."), False),
        (PermissionError(13, "Permission denied"), False),
    ],
)
def test_what_means_the_death_of_a_worker(error: Exception, death: bool) -> None:
    assert _means_a_death(error) == death


class WithoutReceiver(Dataset[str]):
    """What a worker prints if a process that wants to fetch a tensor from it goes at once."""

    def __getitem__(self, number: int) -> str:
        printed = StringIO()
        with redirect_stderr(printed):
            address, _ = DupFd(0)._id  # type: ignore[attr-defined]
            Client(address, authkey=current_process().authkey).close()
            time.sleep(0.3)
        return printed.getvalue()

    def __len__(self) -> int:
        return 1


@pytest.mark.processes
def test_a_worker_does_not_report_that_its_receiver_has_gone() -> None:
    """After Ctrl-C, the process that wanted its batch may end before the worker does."""
    (printed,) = DataLoader(WithoutReceiver(), batch_size=None, **worker_options(1))
    assert printed == ""


class OnAFullDisk(Dataset[int]):
    def __getitem__(self, number: int) -> int:
        raise NoRoom("/cache: No space left on device; free some space")

    def __len__(self) -> int:
        return 3


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_full_disk_ends_all_with_one_line(workers: int) -> None:
    def loader() -> DataLoader[int]:
        return DataLoader(OnAFullDisk(), batch_size=None, collate_fn=as_it_is, **worker_options(workers))

    with pytest.raises(NoRoom) as raised:
        list(outliving_a_death(loader, lambda: "nothing"))
    assert str(raised.value) == "/cache: No space left on device; free some space"
