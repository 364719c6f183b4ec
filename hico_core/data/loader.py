"""The planned steps of a training run with their batches, read ahead by worker processes."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import chain, islice

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hico_core.data.batches import Batch, BatchReader
from hico_core.data.dataset import ClipRequest, Sample
from hico_core.data.plan import PlannedStep
from hico_core.data.shared_memory import PREFETCHED, SLOTS
from hico_core.data.workers import as_it_is, outliving_a_death, worker_options


def read_batches(
    dataset: Dataset[Sample], plans: Iterable[PlannedStep], *, workers: int, pin_memory: bool
) -> Generator[tuple[PlannedStep, Batch], None, None]:
    """Each planned step with its batch, in order, read ahead; the result does not depend on the number of workers.

    A batch's pixels remain valid until the next batch is requested.

    The first death of a worker (out of memory, a crashing decoder) is tolerated: new workers read again everything that
    the old ones had not delivered.

    Args:
        dataset: makes the items.
        plans: the steps; consumed a few steps ahead.
        workers: processes that read; 0 reads in this process. They are fresh processes, so a script that calls this
            needs the usual `if __name__ == "__main__":`.
        pin_memory: copy batches to pinned memory, for a GPU.

    Raises:
        HicoError: a second worker died.
        NoRoom: shared memory is full, or the disk that holds copies from buckets.

    """
    remaining = iter(plans)
    ahead: deque[PlannedStep] = deque()  # requested, not yet delivered

    def requests(first: list[PlannedStep]) -> Iterator[list[ClipRequest]]:
        for plan in chain(first, remaining):
            ahead.append(plan)  # PyTorch delivers batches in the order of requests, so the oldest comes next
            yield plan.requests

    def loader() -> DataLoader[Batch]:
        undelivered = list(ahead)  # of a loader whose worker died
        ahead.clear()
        return DataLoader(
            BatchReader(dataset),
            sampler=requests(undelivered),
            batch_size=None,
            collate_fn=as_it_is,
            pin_memory=pin_memory,
            prefetch_factor=PREFETCHED if workers else None,
            **worker_options(workers),
        )

    def next_ones() -> str:
        return "videos number " + ", ".join(str(r.video) for plan in islice(ahead, 1) for r in plan.requests)

    # PyTorch recognises shared memory as long as a reference to it exists; otherwise each batch would be mapped anew.
    held: deque[Tensor | None] = deque(maxlen=SLOTS * max(workers, 1))
    for batch in outliving_a_death(loader, next_ones):
        if workers:
            held.append(batch.pixels if batch.shared is None else batch.shared)
        yield ahead.popleft(), batch
