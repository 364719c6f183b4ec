"""What a disk and a bucket do differently: how a file appears under its name, who may write, what is read from where.

Whoever reads a file under its final name sees all of it, the old one or the new one, whenever the writer is killed.
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
from hico_core.base.files import TEMPORARY, VANISHING_SECONDS, is_locked, lock, pass_point, room_error, sync

if TYPE_CHECKING:
    from upath.types import StatResultType

Place = TypeVar("Place", contravariant=True)


class Storage(Protocol[Place]):
    """What hico asks of that on which a place lies."""

    def publish(self, file: Path, target: Place) -> None:
        """Move a finished local file to its final name, in one step that readers see whole or not at all.

        The file lies where `room_for` said.
        """
        ...

    def room_for(self, target: Place) -> AbstractContextManager[Path]:
        """A local folder in which the file may be written that is then published."""
        ...

    def local_copy(self, place: Place, *, size_bytes: int | None = None) -> AbstractContextManager[Path]:
        """A local file with the content of a place, which stays there while the context lasts.

        Raises:
            BadVideo: it has another size than `size_bytes`, so it is another file.
            NoRoom: there is no room for a copy.
            OSError: it is not there, or cannot be fetched.

        """
        ...

    def fetched(self, place: Place, folder: Path | None = None) -> AbstractContextManager[Path]:
        """A local file with the content of a place that is read once: of an object, a copy that goes afterwards.

        Args:
            place: the file.
            folder: where copies go; None: among the system's temporary files.

        Raises:
            OSError: it is not there, or cannot be fetched.

        """
        ...

    def locked(
        self, file: Place, *, refusal: str, wait_seconds: float = VANISHING_SECONDS
    ) -> AbstractContextManager[None]:
        """Let no other process be in this block, where that can be had; see `files.lock`."""
        ...

    def is_locked(self, file: Place) -> bool:
        """Whether some process holds a lock now."""
        ...

    def names_in(self, folder: Place) -> list[str]:
        """The names in a folder as it is now.

        Raises:
            FileNotFoundError: it is missing.

        """
        ...

    def modified_ns(self, stat: "os.stat_result | StatResultType") -> int:
        """When a file was last changed, in nanoseconds since 1970, from its `stat()`."""
        ...

    def for_arrow(self, place: Place) -> "Path | IO[bytes]":
        """What Arrow reads a file through."""
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
        if size_bytes is not None and not place.is_dir():  # a frame folder's many files are not looked at each time
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
        # Never streamed to the final name: an upload that is broken off would leave a short object.
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
    """That on which a place lies."""
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
    """A temporary local name, which becomes the target if the block ends well.

    It has nothing of the target's name, which may be as long as a name can be.

    Raises:
        HicoError: the disk has no room.

    """
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
    """Write a text file so that it is there whole or not at all. Two writers of one file need a lock."""
    with written_beside(location) as beside:
        beside.write_text(text, encoding="utf-8", newline="\n")
