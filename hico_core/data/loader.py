"""The planned steps of a training with their batches, read ahead by worker processes."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from itertools import chain, islice

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from hico_core.data.batches import PREFETCHED, SLOTS, Batch, BatchReader
from hico_core.data.dataset import ClipRequest, Sample
from hico_core.data.plan import PlannedStep
from hico_core.data.workers import as_it_is, outliving_a_death, worker_options


def read_batches(
    dataset: Dataset[Sample], plans: Iterable[PlannedStep], *, workers: int, pin_memory: bool
) -> Generator[tuple[PlannedStep, Batch], None, None]:
    """Each planned step with its batch, in order, read ahead. Nothing in them depends on the number of workers.

    A batch's pixels are there until the next one is asked for.

    A worker that dies (out of memory, a decoder that crashes) is survived once: what it and the others had not
    delivered is read again by new ones.

    Args:
        dataset: makes the items.
        plans: the steps; taken a few ahead.
        workers: processes that read; 0 reads in this one. They start anew, so a script that calls this needs the usual
            `if __name__ == "__main__":`.
        pin_memory: for a GPU.

    Raises:
        HicoError: a second worker died.

    """
    remaining = iter(plans)
    ahead: deque[PlannedStep] = deque()  # handed out, not yet delivered

    def requests(first: list[PlannedStep]) -> Iterator[list[ClipRequest]]:
        for plan in chain(first, remaining):
            ahead.append(plan)  # PyTorch gives batches in the order of requests: the oldest is the next one
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

    # Memory that was handed over is known again as long as somebody holds it; else each batch would be mapped anew.
    held: deque[Tensor | None] = deque(maxlen=SLOTS * max(workers, 1))
    for batch in outliving_a_death(loader, next_ones):
        if workers:
            held.append(batch.pixels if batch.shared is None else batch.shared)
        yield ahead.popleft(), batch
