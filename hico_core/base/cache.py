"""A cache of local copies of files from buckets, bounded in size and shared by any number of processes."""

import fcntl
import hashlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

from hico_core.base.errors import BadVideo, HicoError, short_reason
from hico_core.base.files import pass_point, room_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from upath import UPath

logger = logging.getLogger(__name__)

# How full a cache is after an eviction, as a fraction of its size.
_AFTER_EVICTION = 0.9

# Default size of a cache.
_USUAL_BYTES = 20 * 10**9

_FETCHING = ".fetching-"
_ABANDONED_AFTER_SECONDS = 3600

# A cache scans its folder again after adding this fraction of its size.
_LOOK_AFTER = 0.02


def default_cache_folder() -> Path:
    """The default folder for copies from buckets: `$XDG_CACHE_HOME/hico` or `~/.cache/hico`."""
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
    """Copies of files from buckets, evicted by least recent use, in a folder that any number of processes may share."""

    def __init__(self, folder: Path, *, size_bytes: int) -> None:
        """Keep copies in a folder, which is created when it is needed.

        Args:
            folder: must hold nothing but copies.
            size_bytes: total size that the copies may have.

        """
        self._folder = folder
        self._size_bytes = size_bytes
        self._added = size_bytes  # scan the folder after the first addition

    def __reduce__(self) -> "tuple[Callable[[Path, int], LocalCache], tuple[Path, int]]":
        """Unpickle to the receiving process's own cache, which all places sent to it share; see `local_cache`."""
        return local_cache, (self._folder, self._size_bytes)

    @contextmanager
    def local(self, address: "UPath", *, size_bytes: int | None = None) -> Iterator[Path]:
        """A local file with the content of an object; it exists while the context lasts.

        Args:
            address: the object's address in a bucket.
            size_bytes: expected size, for a file that the index describes: a copy of that size is read without any
                request; None: a copy is read only if it is of the object's present version.

        Raises:
            HicoError: the size differs, so the file has been replaced.
            NoRoom: the disk is full, and deleting unused copies did not free enough.
            OSError: the object does not exist, or cannot be fetched.

        """
        path = self._path(address, _version_of(address) if size_bytes is None else str(size_bytes))
        while True:
            if not path.exists():
                size = self._fetch(address, path, size_bytes)
                if size_bytes is None:  # a copy of an earlier version may have the same size
                    self._path(address, str(size)).unlink(missing_ok=True)
            with _held(path, fcntl.LOCK_SH) as in_use:
                if in_use:
                    with suppress(PermissionError):  # another user's copy
                        os.utime(path)
                    yield path
                    return

    def _path(self, address: "UPath", version: str) -> Path:
        return self._folder / (hashlib.sha256(f"{address}|{version}".encode()).hexdigest()[:32] + address.suffix)

    def _fetch(self, address: "UPath", path: Path, size_bytes: int | None) -> int:
        """Fetch a file, make room for it if necessary, and return its size."""
        try:
            size = self._fetch_once(address, path, size_bytes)
        except OSError as error:
            if room_error(error, self._folder) is None:
                raise
            logger.warning("%s: %s; deleting unused copies", self._folder, error.strerror)
            self._make_room(0)
            self._added = 0
            try:
                size = self._fetch_once(address, path, size_bytes)
            except OSError as again:
                raise room_error(again, self._folder) or again from again
        self._added += size
        if self._added > _LOOK_AFTER * self._size_bytes:
            self._make_room(_AFTER_EVICTION * self._size_bytes, but_for=path)
            self._added = 0
        return size

    def _fetch_once(self, address: "UPath", path: Path, size_bytes: int | None) -> int:
        """Fetch a file and return its size; one of another size than expected is not kept."""
        self._folder.mkdir(parents=True, exist_ok=True)
        beside = self._folder / f"{_FETCHING}{secrets.token_hex(8)}"  # not by mkstemp, so that all users may read it
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

    def _make_room(self, most_bytes: float, *, but_for: Path | None = None) -> None:
        """Delete the least recently used files until at most this much is left, but none that are in use, nor one."""
        # A folder in it is that of `scratch_folder`.
        files = [_CachedFile.of(entry) for entry in os.scandir(self._folder) if entry.is_file()]
        total = sum(file.size_bytes for file in files)
        now = time.time()
        for file in sorted(files, key=lambda file: file.used_at):
            with suppress(OSError):  # it is in use, or another user's
                if file.path.name.startswith(_FETCHING):
                    if now - file.used_at > _ABANDONED_AFTER_SECONDS:
                        file.path.unlink(missing_ok=True)
                elif total > most_bytes and file.path != but_for:
                    with _held(file.path, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
                        if alone:
                            file.path.unlink(missing_ok=True)
                            total -= file.size_bytes


def require_size(place: object, found: int, expected: int) -> None:
    """Check that a file has the size that the index records.

    Raises:
        BadVideo: it has another size.

    """
    if found != expected:
        raise BadVideo(
            str(place), f"has {found} bytes instead of {expected}; `hico index --check` lists all such files"
        )


@cache
def local_cache(folder: Path | str | None = None, size_bytes: int = _USUAL_BYTES) -> LocalCache:
    """The cache of a folder: one object per process, because it counts what it has added.

    Args:
        folder: None: see `default_cache_folder`.
        size_bytes: total size that the copies may have.

    """
    return LocalCache(Path(folder or default_cache_folder()), size_bytes=size_bytes)


def fetch(address: "UPath", target: Path) -> None:
    """Copy an object to a local file.

    Raises:
        OSError: the object does not exist, or cannot be read.
        HicoError: the bucket cannot be reached.

    """
    with _driver_errors(address):
        address.fs.get_file(address.path, str(target))


def _version_of(address: "UPath") -> str:
    """A text that tells an object's present content from what it contained before.

    Raises:
        OSError: the object does not exist, or cannot be read.
        HicoError: the bucket cannot be reached.

    """
    with _driver_errors(address):
        info = address.fs.info(address.path, refresh=True)
    return str([info.get(fact) for fact in ("ETag", "size", "LastModified")])


@contextmanager
def _driver_errors(address: "UPath") -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each driver has its own exceptions, without a common base class
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
    """Lock a cached file; yield False if it has just been deleted.

    Raises:
        OSError: it cannot be locked, for example because it is in use.

    """
    try:
        opened = _opened(path)
    except FileNotFoundError:
        yield False
        return
    with opened:
        fcntl.flock(opened, operation)
        # By now the name may refer to another file, or to none.
        yield path.exists() and path.stat().st_ino == os.fstat(opened.fileno()).st_ino


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("r+b")  # NFS locks a file for one process alone only if it is open for writing
    except PermissionError:  # another user's copy
        return path.open("rb")
