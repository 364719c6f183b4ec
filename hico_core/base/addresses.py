"""Where videos and the workspace lie: local folders, or buckets (s3://, oss://) through fsspec.

A local place is a `pathlib.Path`, one in a bucket a `BucketPath` that is used in the same way, so the code that walks a
workspace is the same for both. What a disk and a bucket do differently is in storage.py.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeAlias

from hico_core.base.cache import LocalCache, local_cache
from hico_core.base.errors import HicoError, UsageError, require_package, short_reason

if TYPE_CHECKING:
    from typing_extensions import TypeIs
    from upath import UPath
    from upath.types import StatResultType


@dataclass(frozen=True, slots=True)
class BucketPath:
    """A place in a bucket, used as a `pathlib.Path` is, and the cache that its files are read through.

    Places that are made from it share its cache, so that only who makes the first one need know of it.
    """

    address: "UPath"
    cache: LocalCache

    def __str__(self) -> str:
        return str(self.address)

    def __truediv__(self, name: str) -> "BucketPath":
        return BucketPath(self.address / name, self.cache)

    @property
    def name(self) -> str:
        """The last part."""
        return self.address.name

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return self.address.stem

    @property
    def suffix(self) -> str:
        """Of the last part, with its dot."""
        return self.address.suffix

    @property
    def parent(self) -> "BucketPath":
        """All parts but the last."""
        return BucketPath(self.address.parent, self.cache)

    @property
    def filesystem(self) -> Any:  # noqa: ANN401 - fsspec has no types
        """What fsspec reads the bucket with; it takes `key`."""
        return self.address.fs

    @property
    def key(self) -> str:
        """The address without its protocol, bucket first."""
        return self.address.path

    def exists(self) -> bool:
        """Whether an object or a folder is there."""
        return self.address.exists()

    def is_dir(self) -> bool:
        """Whether objects lie below it."""
        return self.address.is_dir()

    def is_file(self) -> bool:
        """Whether an object is there."""
        return self.address.is_file()

    def iterdir(self) -> "Iterator[BucketPath]":
        """What lies in the folder."""
        return (BucketPath(address, self.cache) for address in self.address.iterdir())

    def glob(self, pattern: str) -> "Iterator[BucketPath]":
        """What lies in the folder and has such a name."""
        return (BucketPath(address, self.cache) for address in self.address.glob(pattern))

    def stat(self) -> "StatResultType":
        """Size and time."""
        return self.address.stat()

    def open(self, mode: str = "r") -> "IO[Any]":
        """The object as a file to read."""
        return self.address.open(mode)

    def read_bytes(self) -> bytes:
        """The whole object."""
        return self.address.read_bytes()

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole object as text."""
        return self.address.read_text(encoding=encoding)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object."""
        self.address.unlink(missing_ok=missing_ok)


Location: TypeAlias = Path | BucketPath

# The workspace, where nobody says another.
DEFAULT_ROOT = "hico-data"


class _Driver(NamedTuple):
    """What reads a kind of bucket."""

    module: str
    extra: str  # of hico, that installs it


_DRIVERS = {"s3": _Driver("s3fs", "s3"), "oss": _Driver("ossfs", "oss")}


def locate(text: "str | Location", cache: LocalCache | None = None) -> Location:
    """A place from its name: a local path, or an address in a bucket; a place is given back as it is.

    Args:
        text: the name.
        cache: through which files of a bucket are read; None: the usual one.

    Raises:
        UsageError: the address is of another kind, or what reads it is not installed.

    """
    if not isinstance(text, str):
        return text
    if "://" not in text:
        return Path(text)
    protocol = text.split("://")[0]
    if protocol not in _DRIVERS:
        known = ", ".join(f"{name}://" for name in _DRIVERS)
        raise UsageError(f"{text}: {protocol}:// is not supported; use a local path or one of {known}")
    driver = _DRIVERS[protocol]
    require_package(driver.module, extra=driver.extra, wanted_by=text)
    from upath import UPath  # slow to import, and most workspaces are local

    return BucketPath(UPath(text), cache or local_cache())


def through(place: Location, cache: LocalCache) -> Location:
    """The same place; a file in a bucket is read through this cache."""
    return place if isinstance(place, Path) else BucketPath(place.address, cache)


def absolute(path: Location) -> Location:
    """A local path from the root of the disk, its folders without links; the file itself may be one."""
    return path.parent.resolve() / path.name if isinstance(path, Path) else path


def locate_root(text: "str | Location", cache: LocalCache | None = None) -> Location:
    """A workspace by its name, which is looked at before any work is done.

    Raises:
        UsageError: it is a file, or in one.
        HicoError: its bucket cannot be reached.

    """
    root = locate(text, cache)
    require_reachable(root)
    if isinstance(root, Path):
        existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
        if not existing.is_dir():
            raise UsageError(f"--root {root}: {existing} is a file; name a folder, which is made if it is missing")
    return root


def absolute_root(root: "Location | str") -> Location:
    """A workspace by its name, from the root of the disk if it is local, as it stands in what is written there."""
    place = locate(root)
    return place.absolute() if isinstance(place, Path) else place


def local_part(root: Location) -> Path:
    """Where runs go: below the workspace, or, if that lies in a bucket, below ./hico-data."""
    return root if isinstance(root, Path) else Path(DEFAULT_ROOT)


def path_of(root: Location, path: str, cache: LocalCache | None = None) -> Location:
    """Where the file of a row lies: below the root, or, for a video that is read in place, anywhere.

    Args:
        root: the workspace.
        path: as it stands in the row.
        cache: see `locate`; a file below a root in a bucket has the root's.

    Raises:
        HicoError: the path leads out of the root, which no path does that hico wrote.

    """
    if "://" in path or path.startswith("/"):
        return locate(path, cache)
    if not path or ".." in path.split("/"):
        raise HicoError(f"{root}: {path!r} leads out of the workspace; run `hico index --root {root}` again")
    return root / path


def name_from(root: Location, place: "Location | str") -> str:
    """How the files of a workspace name a place: from the root, if it lies below it, so that both can move together.

    Args:
        root: the workspace.
        place: from the root of the disk, or in a bucket; what is a name already stays one.

    """
    text = str(place)
    if not text.startswith("/") and "://" not in text:
        return text
    for base in {root.absolute(), root.resolve()} if isinstance(root, Path) else {root}:
        below = text.removeprefix(f"{str(base).rstrip('/')}/")
        if below != text and ".." not in below.split("/"):
            return below
    return text


def place_named(root: Location, name: str) -> str:
    """The inverse of `name_from`.

    Raises:
        HicoError: the name leads out of the root.

    """
    is_whole = not name or name.startswith("/") or "://" in name
    return name if is_whole else str(absolute(path_of(root, name)))


def workspace_of(folder: Location) -> "Location | None":
    """The workspace of ROOT/features/NAME or ROOT/runs/NAME; None of a folder elsewhere."""
    folder = folder.absolute() if isinstance(folder, Path) else folder
    return folder.parent.parent if folder.parent.name in {"features", "runs"} else None


def is_local(location: Location) -> "TypeIs[Path]":
    """Whether a place lies on a disk of this machine, where files can be renamed and locked."""
    return isinstance(location, Path)


def is_there(location: Location) -> bool:
    """Whether something lies at a place. A name that is too long for the system stands for nothing."""
    return os.path.exists(location) if isinstance(location, Path) else location.exists()  # noqa: PTH110 - Path raises


def require_reachable(location: Location) -> None:
    """Look into a bucket before work is handed out; a local place is not looked at.

    Raises:
        HicoError: the bucket does not exist, or does not let us in.

    """
    if isinstance(location, Path):
        return
    bucket = location.key.split("/")[0]
    try:
        location.filesystem.ls(bucket, refresh=True)
    except FileNotFoundError:
        raise HicoError(f"{location}: there is no bucket {bucket!r}") from None
    except Exception as error:  # each driver has its own exceptions, of no common kind
        raise HicoError(
            f"{location}: cannot be reached ({short_reason(error)}); check address and credentials"
        ) from error
