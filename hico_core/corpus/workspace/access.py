"""Who may write to a workspace, in which temporary folders, and what is put in order before."""

import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from hico_core.base.addresses import Location, is_local
from hico_core.base.errors import HicoError
from hico_core.base.files import VANISHING_SECONDS, remove_abandoned
from hico_core.base.storage import storage_of
from hico_core.corpus.workspace.commit import SCRATCH, finish_commits

# How long a shard waits for others of its job that are just starting.
_START_SECONDS = 30.0


class Shard(NamedTuple):
    """A part of the videos, for one of several jobs: `number` (from 1) of `total`."""

    number: int
    total: int

    def has(self, video_id: str) -> bool:
        """Whether a video belongs to this part; new videos do not move the others."""
        return zlib.crc32(video_id.encode("utf-8", "surrogateescape")) % self.total == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


@contextmanager
def opened_workspace(root: Location, *, shard: Shard | None = None) -> Iterator[None]:
    """Let nobody else write to a workspace meanwhile, but for the other shards of a job; finish what was broken off.

    A bucket cannot be locked.

    Raises:
        HicoError: somebody else is writing.

    """
    busy = f"{root}: another hico command is writing here; wait for it to end, or use another --root"
    with sole_writer(root, shard=shard, busy=busy):
        if shard is None and is_local(root):  # a shard finishes each video's commit by itself
            finish_commits(root)
        yield


@contextmanager
def sole_writer(folder: Location, *, shard: Shard | None, busy: str) -> Iterator[None]:
    """Let nobody else write to a folder meanwhile, but for the other shards of the same division.

    A bucket cannot be locked.

    Args:
        folder: with the locks.
        shard: which part is written; None: all of it.
        busy: what to tell where somebody else is writing.

    Raises:
        HicoError: somebody else is.

    """
    locked = storage_of(folder).locked
    whole = locked(folder / ".lock", refusal=busy, wait_seconds=_START_SECONDS if shard else VANISHING_SECONDS)
    with ExitStack() as stack:
        if shard is None:
            stack.enter_context(whole)
            _require_free(folder, but_for="", busy=busy)
        else:
            with whole:  # while it starts; it then holds its own part only
                stack.enter_context(locked(folder / f".shard-{shard.number}-of-{shard.total}.lock", refusal=busy))
                _require_free(folder, but_for=f"-of-{shard.total}.lock", busy=busy)
        yield


def _require_free(folder: Location, *, but_for: str, busy: str) -> None:
    """No shard may be at work, but for those whose locks end so."""
    for other in folder.glob(".shard-*.lock"):
        if not (but_for and other.name.endswith(but_for)) and storage_of(other).is_locked(other):
            raise HicoError(busy)


def scratch_folder(root: Location, cache_folder: Path) -> Path:
    """Where clips are made: on the workspace's own disk, so that they can be renamed into place."""
    return root / SCRATCH if is_local(root) else cache_folder.absolute() / "split"


def make_temporary(scratch: Path) -> Path:
    """A new empty folder, named by who made it, so that those of the dead can be swept."""
    return Path(tempfile.mkdtemp(prefix=_prefix(os.getpid()), dir=scratch))


def _prefix(process_id: int) -> str:
    return f"split-{socket.gethostname()}-{process_id}-"


def sweep(scratch: Path, *, alone: bool) -> None:
    """Remove what killed runs left behind: everything if nobody else works here, else only what the dead left."""
    mine = f"split-{socket.gethostname()}-"
    for folder in scratch.glob("split-*"):
        process_id = folder.name.removeprefix(mine).split("-")[0]
        if alone or (process_id.isdigit() and not _is_alive(int(process_id))):
            shutil.rmtree(folder, ignore_errors=True)
    if alone and scratch.name == SCRATCH:
        for folder in (scratch.parent, scratch.parent / "records"):
            remove_abandoned(folder)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
