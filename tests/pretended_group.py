"""A process that believes to be the first of many; nothing that it sends arrives anywhere."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from hico_core.training.distributed import World


@contextmanager
def group_of(size: int) -> Iterator[World]:
    """A block in which this process believes to be the first of many."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dist.init_process_group("fake", rank=0, world_size=size, store=FakeStore())
    try:
        yield World(0, size, 0, min(size, 8))
    finally:
        dist.destroy_process_group()
