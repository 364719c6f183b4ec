"""Several processes that train one model: their ranks, and how they exchange data.

A process that was started alone is a world of one, for which every function here does nothing.
"""

import io
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from hico_core.base.errors import HicoError, ProcessLost, UsageError, counted

Item = TypeVar("Item")


class World(NamedTuple):
    """A process among all those that train together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # rank among the processes of this machine
    local_size: int = 1  # number of processes on this machine

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes files and reports."""
        return self.rank == 0


# Variables that give a process its rank, set by torchrun or by a launcher that follows its convention.
_PLACE = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def place_among_processes(environment: Mapping[str, str]) -> World | None:
    """Find this process's rank among those started together; None if it was started alone.

    Raises:
        UsageError: it was started with others, but some of the variables it needs to join them are missing.

    """
    missing = [name for name in _PLACE if not environment.get(name)]
    if not missing:
        rank, size, local_rank, local_size = (int(environment[name]) for name in _PLACE[:4])
        return World(rank, size, local_rank, local_size)
    if int(environment.get("WORLD_SIZE") or 1) > 1:
        raise UsageError(
            f"WORLD_SIZE={environment['WORLD_SIZE']} announces one of several training processes, but "
            f"{', '.join(missing)} are not set; start them with torchrun or --nproc, or unset WORLD_SIZE"
        )
    return None


def own_place() -> World:
    """Find this process's rank, whether it was started alone or not; see `place_among_processes`."""
    return place_among_processes(os.environ) or World()


@contextmanager
def joined_world(device: torch.device) -> Iterator[World]:
    """Join the processes that were started together, if this one was not started alone.

    Args:
        device: its type decides the backend by which processes communicate.

    Raises:
        HicoError: they cannot find each other, or there are fewer GPUs than processes.
        ProcessLost: another process ended in the middle of the work.

    """
    world = place_among_processes(os.environ)
    if world is None:
        yield World()
        return
    own_gpu = None
    if device.type == "cuda":
        if world.local_size > torch.cuda.device_count():  # all processes see this, so that none waits for the others
            raise UsageError(
                f"{world.local_size} training processes on this machine have "
                f"{counted(torch.cuda.device_count(), 'GPU')}; start one process per GPU"
            )
        own_gpu = torch.device("cuda", world.local_rank)
        # Before any exchange: NCCL calls that name no device use the current GPU, which is otherwise the first one for
        # all processes.
        torch.cuda.set_device(own_gpu)
    try:
        # Values on which the processes agree are kept and exchanged on CPUs, so that nothing waits for a GPU.
        backend = "gloo" if own_gpu is None else "cpu:gloo,cuda:nccl"
        store = _store_of_joining(world)
        dist.init_process_group(backend, store=store, rank=world.rank, world_size=world.size, device_id=own_gpu)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise HicoError(
            f"the training processes cannot find each other ({reason}); check that the port is free"
        ) from error
    try:
        yield world
    except RuntimeError as error:
        if not _tells_a_lost_process(error):
            raise
        # The group is not destroyed: that may wait for the process that is gone.
        raise ProcessLost("another training process has ended") from error
    except HicoError:
        if world.size == 1:  # no process to wait for, and NCCL prints a warning about a group that is not destroyed
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _store_of_joining(world: World) -> Store:
    """The store in which processes exchange their addresses, with its own prefix each time that they join.

    Otherwise, a process that joins again could read an address left over from the time before.
    """
    store = _meeting_point(world.rank, os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"])
    return PrefixStore(str(store.add(f"joined by {world.rank}", 1)), store)


@cache
def _meeting_point(rank: int, address: str, port: str) -> Store:
    """The store that the environment names; kept, as others may connect to it after its process has left the group."""
    store: Store = next(rendezvous("env://"))[0]
    return store


def own_device(chosen: torch.device, world: World) -> torch.device:
    """The device of a process: with several GPUs, the one whose number is its local rank."""
    return torch.device("cuda", world.local_rank) if chosen.type == "cuda" else chosen


def _tells_a_lost_process(error: RuntimeError) -> bool:
    """Whether an error comes from communication with the other processes; Gloo's errors have no class of their own."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def gather_rows(rows: Tensor, world: World) -> Tensor:
    """Concatenate the rows (n, ...) of all processes in order of rank: (size * n, ...).

    Gradients flow only through this process's own rows; the rows of others are constants here and get their gradient in
    their own process.

    Args:
        rows: of this process; every process must have the same number.
        world: this process among all.

    """
    if world.size == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world.size)]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[world.rank] = rows
    return torch.cat(parts)


def largest(values: list[float], world: World) -> list[float]:
    """The largest value over all processes, for each of the values, so that all make the same decision."""
    if world.size == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return [float(value) for value in tensor]


def gather_objects(own: Item, world: World) -> list[Item]:
    """Each process's item, in order of rank; few plain values only, since every process receives all of them."""
    if world.size == 1:
        return [own]
    found = [own] * world.size
    dist.all_gather_object(found, own)
    return found


def gather_to_first(own: Item, world: World) -> list[Item]:
    """Each process's item, in order of rank, in the first process; an empty list in the others."""
    if world.size == 1:
        return [own]
    found: list[Item] = [own] * world.size if world.is_first else []
    dist.gather_object(own, found if world.is_first else None)
    return found


def from_first(own: Item, world: World) -> Item:
    """The first process's item, sent to all; the items of the others are ignored.

    Tensors are sent one by one as tensors and arrive on the CPU, so that a received tensor takes only its own size; a
    pickled tensor that is a view would bring its whole storage along.
    """
    if world.size == 1:
        return own
    pickled = io.BytesIO()
    pickler = _PicklerWithoutTensors(pickled)
    if world.is_first:
        pickler.dump(own)
    sent = pickler.tensors
    box = [(pickled.getvalue(), [torch.empty_like(tensor, device="meta") for tensor in sent])]
    dist.broadcast_object_list(box, src=0)
    value, layouts = box[0]
    if world.is_first:
        for tensor in sent:
            _broadcast(torch.empty_like(tensor, device="cpu").copy_(tensor))
        return own
    received = [torch.empty_like(layout, device="cpu") for layout in layouts]
    for tensor in received:
        _broadcast(tensor)
    found: Item = _UnpicklerWithTensors(io.BytesIO(value), received).load()
    return found


class _PicklerWithoutTensors(pickle.Pickler):
    """Pickles a number in place of each tensor, and collects the tensors."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.tensors: list[Tensor] = []

    def persistent_id(self, obj: Any) -> int | None:  # noqa: ANN401 - whatever is pickled
        if not isinstance(obj, Tensor):
            return None
        self.tensors.append(obj.detach())
        return len(self.tensors) - 1


class _UnpicklerWithTensors(pickle.Unpickler):
    """Puts the tensors back in place of their numbers."""

    def __init__(self, file: io.BytesIO, tensors: Sequence[Tensor]) -> None:
        super().__init__(file)
        self._tensors = tensors

    def persistent_load(self, pid: int) -> Tensor:
        return self._tensors[pid]


def _broadcast(dense: Tensor) -> None:
    """Overwrite a contiguous tensor with the first process's, byte by byte."""
    dist.broadcast(dense.as_strided((dense.numel(),), (1,)).view(torch.uint8), src=0)


def mean_over_processes(values: list[float], world: World) -> list[float]:
    """The mean over all processes, for each of the values."""
    if world.size == 1:
        return values
    tensor = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(tensor)
    return [float(value) / world.size for value in tensor]
