"""Local copies of files from buckets: of bounded size, shared by any number of processes."""

import fcntl
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hico_core.corpus.addresses import Location
from hico_core.corpus.files import fetch, pass_point, room_error
from hico_core.errors import BadVideo

logger = logging.getLogger(__name__)

# How full a cache is after room was made, as a part of its size.
_AFTER_EVICTION = 0.9

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

    def __init__(self, folder: Path | str | None = None, *, size_bytes: int = 20 * 10**9) -> None:
        """Keep copies in a folder, which is made when it is needed.

        Args:
            folder: None: see `default_cache_folder`.
            size_bytes: what they may take.

        """
        self._folder = default_cache_folder() if folder is None else Path(folder)
        self._size_bytes = size_bytes
        self._added = size_bytes  # look at the folder after the first addition

    @contextmanager
    def local(self, location: Location, *, size_bytes: int | None = None) -> Iterator[Path]:
        """A local file with the content of `location`, which stays there while the context lasts.

        Args:
            location: a local path is given back as it is.
            size_bytes: what the file should have; None: not checked.

        Raises:
            HicoError: the file has another size, so it is another file.
            NoRoom: the disk is full, and nothing on it is a copy that nobody uses.
            OSError: it is not there, or cannot be fetched.

        """
        if isinstance(location, Path):
            if size_bytes is not None:
                _require_size(location, location.stat().st_size, size_bytes)
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
        try:
            self._added += self._fetch_once(location, path, size_bytes)
        except OSError as error:
            if room_error(error, self._folder) is None:
                raise
            logger.warning("%s: %s; the copies that nobody uses are deleted", self._folder, error.strerror)
            self._make_room(0)
            try:
                self._added = self._fetch_once(location, path, size_bytes)
            except OSError as again:
                raise room_error(again, self._folder) or again from again
        if self._added > _LOOK_AFTER * self._size_bytes:
            self._make_room(_AFTER_EVICTION * self._size_bytes)
            self._added = 0

    def _fetch_once(self, location: Location, path: Path, size_bytes: int | None) -> int:
        """Fetch a file; its size."""
        self._folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_FETCHING, dir=self._folder)
        os.close(handle)
        beside = Path(name)
        try:
            pass_point("cache.fetch")
            fetch(location, beside)
            size = beside.stat().st_size
            if size_bytes is not None:
                _require_size(location, size, size_bytes)
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


def _require_size(location: Location, found: int, expected: int) -> None:
    if found != expected:
        raise BadVideo(
            str(location), f"has {found} bytes instead of {expected}; `hico index --check` names all such files"
        )


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
