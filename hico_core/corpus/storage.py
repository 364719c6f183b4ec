"""Where videos and the workspace lie: local folders, or buckets (s3://, oss://) through fsspec.

A local place is a `pathlib.Path`, one in a bucket a `UPath` that is used in the same way, so the code that walks a
workspace is the same for both. What differs is here: a file becomes visible by a rename or by one PUT, and a reader
of a bucket goes through a local cache of bounded size.
"""

import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from hico_core.errors import HicoError, UsageError

if TYPE_CHECKING:
    from upath import UPath

Location: TypeAlias = "Path | UPath"


class _Driver(NamedTuple):
    """What reads a kind of bucket."""

    module: str
    extra: str  # of hico, that installs it


_DRIVERS = {"s3": _Driver("s3fs", "s3"), "oss": _Driver("ossfs", "oss")}

# How full a cache is after room was made, as a part of its size.
_AFTER_EVICTION = 0.9

_FETCHING = ".fetching-"
_ABANDONED_AFTER_SECONDS = 3600

# A cache looks at its folder again after adding this part of its size.
_LOOK_AFTER = 0.02


def locate(text: str | Path) -> Location:
    """A place from its name: a local path, or an address in a bucket.

    Raises:
        UsageError: the address is of another kind, or what reads it is not installed.

    """
    text = str(text)
    if "://" not in text:
        return Path(text)
    protocol = text.split("://")[0]
    if protocol not in _DRIVERS:
        known = ", ".join(f"{name}://" for name in _DRIVERS)
        raise UsageError(f"{text}: {protocol}:// is not supported; use a local path or one of {known}")
    driver = _DRIVERS[protocol]
    if find_spec(driver.module) is None:
        raise UsageError(f"{text}: needs the package {driver.module}; pip install 'hico[{driver.extra}]'")
    from upath import UPath  # slow to import, and most workspaces are local

    return UPath(text)


def path_of(root: Location, path: str) -> Location:
    """Where the file of a row lies: relative to the root, or, for an untrimmed video, anywhere."""
    if "://" in path or path.startswith("/"):
        return locate(path)
    return root / path


def is_remote(location: Location) -> bool:
    """Whether a place lies in a bucket."""
    return not isinstance(location, Path)


def require_reachable(location: Location) -> None:
    """Look into a bucket before work is handed out; a local place is not looked at.

    Raises:
        HicoError: the bucket does not exist, or does not let us in.

    """
    if isinstance(location, Path):
        return
    from fsspec.core import url_to_fs

    filesystem, path = url_to_fs(str(location))
    bucket = path.split("/")[0]
    try:
        filesystem.ls(bucket, refresh=True)
    except FileNotFoundError:
        raise HicoError(f"{location}: there is no bucket {bucket!r}") from None
    except Exception as error:  # each driver has its own exceptions, of no common kind
        reason = str(error).splitlines()[0]
        raise HicoError(f"{location}: cannot be reached ({reason}); check address and credentials") from error


def write_atomically(location: Location, text: str) -> None:
    """Write a text file so that it is there whole or not at all. Two writers of one file need a lock."""
    if isinstance(location, Path):
        location.parent.mkdir(parents=True, exist_ok=True)
        beside = location.with_name(f".{location.name}.tmp")
        beside.write_text(text, encoding="utf-8")
        beside.replace(location)
    else:
        location.fs.pipe_file(location.path, text.encode())


def publish(file: Path, target: Location) -> None:
    """Move a finished local file to its final name, in one step that readers see whole or not at all."""
    if isinstance(target, Path):
        file.replace(target)
    else:
        # Never streamed to the final name: an upload that is broken off would leave a short object.
        target.fs.put_file(str(file), target.path)
        file.unlink()


def fetch(location: Location, target: Path) -> None:
    """Copy a file from a bucket to a local name.

    Raises:
        OSError: it is not there, or cannot be read.
        HicoError: the bucket cannot be reached.

    """
    if isinstance(location, Path):
        raise TypeError(f"{location} is local already")
    try:
        location.fs.get_file(location.path, str(target))
    except OSError:
        raise
    except Exception as error:  # each driver has its own exceptions, of no common kind
        raise HicoError(f"{location}: cannot be fetched ({str(error).splitlines()[0]})") from error


@contextmanager
def locked(file: Path, *, shared: bool = False, wait: bool = False) -> Iterator[bool]:
    """Hold a lock between processes, which ends with the process however that ends.

    Yields:
        Whether the lock was taken; always True with `wait`.

    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as opened:
        try:
            fcntl.flock(opened, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def default_cache_folder() -> Path:
    """Where copies from buckets are kept if nothing else is said: `$XDG_CACHE_HOME/hico` or `~/.cache/hico`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hico"


class LocalCache:
    """Copies of files from buckets, used least recently first to go. Any number of processes may share its folder."""

    def __init__(self, folder: Path, *, size_bytes: int) -> None:
        self._folder = folder
        self._size_bytes = size_bytes
        self._added = size_bytes  # look at the folder after the first addition

    @contextmanager
    def local(self, location: Location, *, size_bytes: int | None = None) -> Iterator[Path]:
        """A local file with the content of `location`, which stays there while the context lasts.

        Args:
            location: a local path is given back as it is.
            size_bytes: what the file should have; one of another size is fetched anew. None: not checked.

        Raises:
            HicoError: what was fetched has another size.
            OSError: it cannot be fetched.

        """
        if isinstance(location, Path):
            yield location
            return
        name = hashlib.sha256(f"{location}|{size_bytes}".encode()).hexdigest()[:32] + location.suffix
        path = self._folder / name
        while True:
            if not path.exists():
                self._fetch(location, path, size_bytes)
            with _held(path, fcntl.LOCK_SH) as in_use:
                if in_use:
                    os.utime(path)
                    yield path
                    return

    def _fetch(self, location: Location, path: Path, size_bytes: int | None) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_FETCHING, dir=self._folder)
        os.close(handle)
        beside = Path(name)
        try:
            fetch(location, beside)
            size = beside.stat().st_size
            if size_bytes is not None and size != size_bytes:
                raise HicoError(f"{location}: has {size} bytes instead of {size_bytes}; run `hico index --check`")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        self._added += size
        if self._added > _LOOK_AFTER * self._size_bytes:
            self._make_room()
            self._added = 0

    def _make_room(self) -> None:
        """Delete the files used longest ago, but none that is in use."""
        files = [_CachedFile.of(entry) for entry in os.scandir(self._folder)]
        total = sum(file.size_bytes for file in files)
        now = time.time()
        for file in sorted(files, key=lambda file: file.used_at):
            if file.path.name.startswith(_FETCHING):
                if now - file.used_at > _ABANDONED_AFTER_SECONDS:
                    file.path.unlink(missing_ok=True)
            elif total > _AFTER_EVICTION * self._size_bytes:
                with _held(file.path, fcntl.LOCK_EX | fcntl.LOCK_NB) as alone:
                    if alone:
                        file.path.unlink(missing_ok=True)
                        total -= file.size_bytes


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
