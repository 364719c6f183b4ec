"""Local copies of files from buckets: of bounded size, shared by any number of processes."""

import fcntl
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hico_core.base.errors import BadVideo, HicoError, short_reason
from hico_core.base.files import pass_point, room_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from upath import UPath

logger = logging.getLogger(__name__)

# How full a cache is after room was made, as a part of its size.
_AFTER_EVICTION = 0.9

# What the copies may take if nothing else is said.
_USUAL_BYTES = 20 * 10**9

_FETCHING = ".fetching-"
_ABANDONED_AFTER_SECONDS = 3600

# A cache looks at its folder again after adding this part of its size.
_LOOK_AFTER = 0.02


def default_cache_folder() -> Path:
    """Where copies from buckets are kept if nothing else is said: `$XDG_CACHE_HOME/hico` or `~/.cache/hico`."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "hico"
    try:
        return Path.home() / ".cache" / "hico"
    except RuntimeError:  # a user without a home, as in containers
        folder = Path(tempfile.gettempdir()) / f"hico-{os.getuid()}"
        logger.info("this user has no home folder; copies of files in buckets go to %s", folder)
        return folder


class LocalCache:
    """Copies of files from buckets, used least recently first to go. Any number of processes may share its folder."""

    def __init__(self, folder: Path, *, size_bytes: int) -> None:
        """Keep copies in a folder, which is made when it is needed.

        Args:
            folder: whose files are all copies.
            size_bytes: what they may take.

        """
        self._folder = folder
        self._size_bytes = size_bytes
        self._added = size_bytes  # look at the folder after the first addition

    def __reduce__(self) -> "tuple[Callable[[Path, int], LocalCache], tuple[Path, int]]":
        """Another process has one of its own, for all places that it is sent: see `local_cache`."""
        return local_cache, (self._folder, self._size_bytes)

    @contextmanager
    def local(self, address: "UPath", *, size_bytes: int | None = None) -> Iterator[Path]:
        """A local file with the content of an object, which stays there while the context lasts.

        Args:
            address: in a bucket.
            size_bytes: what the file should have; None: not checked.

        Raises:
            HicoError: the file has another size, so it is another file.
            NoRoom: the disk is full, and nothing on it is a copy that nobody uses.
            OSError: it is not there, or cannot be fetched.

        """
        name = hashlib.sha256(f"{address}|{size_bytes}".encode()).hexdigest()[:32] + address.suffix
        path = self._folder / name
        while True:
            if not path.exists():
                self._fetch(address, path, size_bytes)
            with _held(path, fcntl.LOCK_SH) as in_use:
                if in_use:
                    os.utime(path)
                    yield path
                    return

    def _fetch(self, address: "UPath", path: Path, size_bytes: int | None) -> None:
        try:
            self._added += self._fetch_once(address, path, size_bytes)
        except OSError as error:
            if room_error(error, self._folder) is None:
                raise
            logger.warning("%s: %s; the copies that nobody uses are deleted", self._folder, error.strerror)
            self._make_room(0)
            try:
                self._added = self._fetch_once(address, path, size_bytes)
            except OSError as again:
                raise room_error(again, self._folder) or again from again
        if self._added > _LOOK_AFTER * self._size_bytes:
            self._make_room(_AFTER_EVICTION * self._size_bytes)
            self._added = 0

    def _fetch_once(self, address: "UPath", path: Path, size_bytes: int | None) -> int:
        """Fetch a file; its size."""
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_FETCHING, dir=self._folder)
        os.close(handle)
        beside = Path(name)
        try:
            pass_point("cache.fetch")
            fetch(address, beside)
            size = beside.stat().st_size
            if size_bytes is not None:
                require_size(address, size, size_bytes)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return size

    def _make_room(self, most_bytes: float) -> None:
        """Delete the files used longest ago until so much is left, but none that is in use."""
        files = [_CachedFile.of(entry) for entry in os.scandir(self._folder)]
        total = sum(file.size_bytes for file in files)
        now = time.time()
        for file in sorted(files, key=lambda file: file.used_at):
            if file.path.name.startswith(_FETCHING):
                if now - file.used_at > _ABANDONED_AFTER_SECONDS:
                    file.path.unlink(missing_ok=True)
            elif total > most_bytes:
                with _held(file.path, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
                    if alone:
                        file.path.unlink(missing_ok=True)
                        total -= file.size_bytes


def require_size(place: object, found: int, expected: int) -> None:
    """Check that a file is the one that the index knows.

    Raises:
        BadVideo: it is not.

    """
    if found != expected:
        raise BadVideo(
            str(place), f"has {found} bytes instead of {expected}; `hico index --check` names all such files"
        )


@cache
def local_cache(folder: Path | str | None = None, size_bytes: int = _USUAL_BYTES) -> LocalCache:
    """The cache of a folder: one for all of a process, as it counts what it has added.

    Args:
        folder: None: see `default_cache_folder`.
        size_bytes: what the copies may take.

    """
    return LocalCache(Path(folder or default_cache_folder()), size_bytes=size_bytes)


def fetch(address: "UPath", target: Path) -> None:
    """Copy an object to a local name.

    Raises:
        OSError: it is not there, or cannot be read.
        HicoError: the bucket cannot be reached.

    """
    try:
        address.fs.get_file(address.path, str(target))
    except OSError:
        raise
    except Exception as error:  # each driver has its own exceptions, of no common kind
        raise HicoError(f"{address}: cannot be fetched ({short_reason(error)})") from error


class _CachedFile(NamedTuple):
    path: Path
    size_bytes: int
    used_at: float  # seconds since the epoch

    @staticmethod
    def of(entry: "os.DirEntry[str]") -> "_CachedFile":
        try:
            stat = entry.stat()
        except FileNotFoundError:  # another process was faster
            return _CachedFile(Path(entry.path), 0, 0.0)
        return _CachedFile(Path(entry.path), stat.st_size, stat.st_mtime)


@contextmanager
def _held(path: Path, operation: int) -> Iterator[bool]:
    """Lock a cached file. False: it is in use, or was deleted just now."""
    try:
        opened = path.open("rb")
    except FileNotFoundError:
        yield False
        return
    with opened:
        try:
            fcntl.flock(opened, operation)
        except BlockingIOError:
            yield False
            return
        # The name may stand for another file by now, or for none.
        yield path.exists() and path.stat().st_ino == os.fstat(opened.fileno()).st_ino
