"""The operations that differ between a disk and a bucket: publishing a file, locking, listing and reading.

A reader of a final name sees a complete file, either the old or the new one, even if the writer is killed.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from hico_core.base.addresses import BucketPath, Location
from hico_core.base.cache import fetch, require_size
from hico_core.base.errors import UsageError
from hico_core.base.files import TEMPORARY, VANISHING_SECONDS, is_locked, lock, pass_point, room_error, sync

if TYPE_CHECKING:
    from upath.types import StatResultType

Place = TypeVar("Place", contravariant=True)


class Storage(Protocol[Place]):
    """The operations that hico needs from a disk or a bucket."""

    def publish(self, file: Path, target: Place) -> None:
        """Move a finished local file atomically to its final name.

        The file lies in the folder that `room_for` gave.
        """
        ...

    def room_for(self, target: Place) -> AbstractContextManager[Path]:
        """A local folder in which to write the file before it is published."""
        ...

    def local_copy(self, place: Place, *, size_bytes: int | None = None) -> AbstractContextManager[Path]:
        """A local file with the content of a place; it exists while the context lasts.

        Raises:
            BadVideo: its size is not `size_bytes`, so the file has been replaced.
            NoRoom: there is no room for a copy.
            OSError: it does not exist, or cannot be fetched.

        """
        ...

    def fetched(self, place: Place, folder: Path | None = None) -> AbstractContextManager[Path]:
        """A local file with the content of a place that is read only once; the copy of an object is deleted afterwards.

        Args:
            place: the file.
            folder: the folder for copies; None: the system's temporary folder.

        Raises:
            OSError: it does not exist, or cannot be fetched.

        """
        ...

    def locked(
        self, file: Place, *, refusal: str, wait_seconds: float = VANISHING_SECONDS
    ) -> AbstractContextManager[None]:
        """Keep other processes out of this block, if the storage supports locks; see `files.lock`."""
        ...

    def is_locked(self, file: Place) -> bool:
        """Whether any process currently holds a lock."""
        ...

    def names_in(self, folder: Place) -> list[str]:
        """The names currently in a folder.

        Raises:
            FileNotFoundError: it is missing.

        """
        ...

    def modified_ns(self, stat: "os.stat_result | StatResultType") -> int:
        """When a file was last changed, in nanoseconds since 1970, from its `stat()`."""
        ...

    def for_arrow(self, place: Place) -> "Path | IO[bytes]":
        """The path or open file through which Arrow reads a file."""
        ...


class _Disk:
    """Local files."""

    def publish(self, file: Path, target: Path) -> None:
        sync(file)
        file.replace(target)

    def room_for(self, target: Path) -> AbstractContextManager[Path]:
        return nullcontext(target.parent)  # a rename stays on one disk

    @contextmanager
    def local_copy(self, place: Path, *, size_bytes: int | None = None) -> Iterator[Path]:
        if size_bytes is not None and not place.is_dir():  # a frame folder's many files are not checked
            require_size(place, place.stat().st_size, size_bytes)
        yield place

    def fetched(self, place: Path, folder: Path | None = None) -> AbstractContextManager[Path]:
        return nullcontext(place)

    locked = staticmethod(lock)
    is_locked = staticmethod(is_locked)

    def names_in(self, folder: Path) -> list[str]:
        return os.listdir(folder)  # noqa: PTH208 - names, of folders with a million of them

    def modified_ns(self, stat: "os.stat_result | StatResultType") -> int:
        return stat.st_mtime_ns

    def for_arrow(self, place: Path) -> "Path | IO[bytes]":
        return place


class _Bucket:
    """Objects, which appear whole, cannot be renamed or locked, and are read through a cache."""

    def publish(self, file: Path, target: BucketPath) -> None:
        # Never streamed to the final name: an interrupted upload would leave a truncated object.
        target.filesystem.put_file(str(file), target.key)
        file.unlink()

    @contextmanager
    def room_for(self, target: BucketPath) -> Iterator[Path]:
        with TemporaryDirectory(prefix="hico-") as folder:
            yield Path(folder)

    def local_copy(self, place: BucketPath, *, size_bytes: int | None = None) -> AbstractContextManager[Path]:
        return place.cache.local(place.address, size_bytes=size_bytes)

    @contextmanager
    def fetched(self, place: BucketPath, folder: Path | None = None) -> Iterator[Path]:
        with TemporaryDirectory(prefix="hico-", dir=folder) as beside:
            copy = Path(beside) / f"copy{place.suffix}"
            fetch(place.address, copy)
            yield copy

    def locked(
        self, file: BucketPath, *, refusal: str, wait_seconds: float = VANISHING_SECONDS
    ) -> AbstractContextManager[None]:
        return nullcontext()

    def is_locked(self, file: BucketPath) -> bool:
        return False

    def names_in(self, folder: BucketPath) -> list[str]:
        listed = folder.filesystem.ls(folder.key, detail=False, refresh=True)
        return [name.rsplit("/", 1)[-1] for name in listed]

    def modified_ns(self, stat: "os.stat_result | StatResultType") -> int:
        return round(stat.st_mtime * 1e9)

    def for_arrow(self, place: BucketPath) -> "Path | IO[bytes]":
        return place.open("rb")


_DISK: Storage[Path] = _Disk()
_BUCKET: Storage[BucketPath] = _Bucket()


def storage_of(place: Location) -> Storage[Any]:
    """The storage on which a place lies."""
    return _DISK if isinstance(place, Path) else _BUCKET


def publish(file: Path, target: Location) -> None:
    """See `Storage.publish`."""
    storage_of(target).publish(file, target)


def fetched(place: Location, folder: Path | None = None) -> AbstractContextManager[Path]:
    """See `Storage.fetched`."""
    return storage_of(place).fetched(place, folder)


def local_copy(place: Location, *, size_bytes: int | None = None) -> AbstractContextManager[Path]:
    """See `Storage.local_copy`."""
    return storage_of(place).local_copy(place, size_bytes=size_bytes)


@contextmanager
def written_beside(target: Location) -> Iterator[Path]:
    """A temporary local file, which becomes the target if the block succeeds.

    Its name does not include the target's, which may already be as long as the system allows.

    Raises:
        UsageError: the target is a folder.
        HicoError: the disk is full.

    """
    if isinstance(target, Path) and target.is_dir():
        raise UsageError(f"{target}: is a folder; name a file in it")
    with storage_of(target).room_for(target) as folder:
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{secrets.token_hex(8)}{TEMPORARY}"
        try:
            yield beside
            pass_point("file.written")
            publish(beside, target)
        except OSError as error:
            raise room_error(error, folder) or error from error
        finally:
            beside.unlink(missing_ok=True)


def write_text(location: Location, text: str) -> None:
    r"""Write a text file atomically; two writers of the same file need a lock.

    Bytes of names that are not UTF-8 are written as \uXXXX.
    """
    with written_beside(location) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
