"""Write access to a workspace: locks, temporary folders, and cleaning up after killed runs."""

import os
import secrets
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from hico_core.base.addresses import Location, is_local
from hico_core.base.errors import HicoError
from hico_core.base.files import VANISHING_SECONDS, is_locked, lock, remove_abandoned
from hico_core.base.storage import storage_of
from hico_core.corpus.workspace.commit import SCRATCH, finish_commits

# How long a shard waits for other shards of its job that are just starting.
_START_SECONDS = 30.0


class Shard(NamedTuple):
    """A part of the videos, for one of several jobs: `number` (from 1) of `total`."""

    number: int
    total: int

    def has(self, video_id: str) -> bool:
        """Whether a video belongs to this part; adding videos does not move others between parts."""
        return zlib.crc32(video_id.encode("utf-8", "surrogateescape")) % self.total == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"


@contextmanager
def opened_workspace(root: Location, *, shard: Shard | None = None) -> Iterator[None]:
    """Lock a workspace against writers other than shards of the same job, and complete interrupted commits.

    A bucket cannot be locked.

    Raises:
        HicoError: another process is writing.

    """
    busy = f"{root}: another hico command is writing here; wait for it to end, or use another --root"
    with sole_writer(root, shard=shard, busy=busy):
        if shard is None and is_local(root):  # a shard finishes each video's commit by itself
            finish_commits(root)
        yield


@contextmanager
def sole_writer(folder: Location, *, shard: Shard | None, busy: str) -> Iterator[None]:
    """Lock a folder against writers other than shards with the same total.

    A bucket cannot be locked.

    Args:
        folder: holds the lock files.
        shard: the part to be written; None: everything.
        busy: the error message if another process is writing.

    Raises:
        HicoError: another process is writing.

    """
    locked = storage_of(folder).locked
    whole = locked(folder / ".lock", refusal=busy, wait_seconds=_START_SECONDS if shard else VANISHING_SECONDS)
    with ExitStack() as stack:
        if shard is None:
            stack.enter_context(whole)
            _require_free(folder, but_for="", busy=busy)
        else:
            with whole:  # during start-up only; afterwards the shard holds just the lock of its own part
                stack.enter_context(locked(folder / f".shard-{shard.number}-of-{shard.total}.lock", refusal=busy))
                _require_free(folder, but_for=f"-of-{shard.total}.lock", busy=busy)
        yield


def _require_free(folder: Location, *, but_for: str, busy: str) -> None:
    """Check that no shard is at work, except those whose lock files end with `but_for`."""
    for other in folder.glob(".shard-*.lock"):
        if not (but_for and other.name.endswith(but_for)) and storage_of(other).is_locked(other):
            raise HicoError(busy)


def scratch_folder(root: Location, cache_folder: Path) -> Path:
    """The folder in which clips are made: on a local workspace's own disk, so that they can be renamed into place."""
    return root / SCRATCH if is_local(root) else cache_folder.absolute() / "split"


@contextmanager
def temporary_folder(scratch: Path) -> Iterator[Path]:
    """An empty folder for a block, removed afterwards unless it was renamed; locked, so that `sweep` leaves it alone.

    Its parent may be missing: on a node of a cluster, nothing else creates it or removes what killed processes left.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    _sweep_once(scratch)
    folder = scratch / f"{_prefix()}{os.getpid()}-{secrets.token_hex(8)}"
    with ExitStack() as stack:
        stack.callback(_lock_of(folder).unlink, missing_ok=True)
        stack.enter_context(lock(_lock_of(folder), refusal=f"{folder}: is locked already; try again"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir()
        yield folder


def _prefix() -> str:
    return f"split-{socket.gethostname()}-"


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


@cache
def _sweep_once(scratch: Path) -> None:
    sweep(scratch, alone=False)


def sweep(scratch: Path, *, alone: bool) -> None:
    """Remove the temporary folders that killed processes left, and if `alone`, their unfinished files in the workspace.

    A process is known to be alive by its lock: its number would mean nothing in another container. Unless `alone`, only
    folders of this machine are removed: on some shared file systems, locks are seen only where they are held.
    """
    left = set(scratch.glob("split-*" if alone else f"{_prefix()}*"))
    if alone:  # also locks whose folders became commits; otherwise, those of folders that are about to be made
        left |= {scratch / lock.stem.removeprefix(".") for lock in scratch.glob(".split-*.lock")}
    for folder in left:
        with suppress(PermissionError):  # another user's
            if not is_locked(_lock_of(folder)):
                shutil.rmtree(folder, ignore_errors=True)
                _lock_of(folder).unlink(missing_ok=True)
    if alone and scratch.name == SCRATCH:
        for folder in (scratch.parent, scratch.parent / "records"):
            remove_abandoned(folder)
