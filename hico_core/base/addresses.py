"""Locations of videos and workspaces: local folders, or buckets (s3://, oss://) through fsspec.

A local place is a `pathlib.Path`; a place in a bucket is a `BucketPath` with the same methods, so the same code walks
both kinds of workspace. The operations that differ between a disk and a bucket are in storage.py.
"""

import os
import shlex
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
    """A place in a bucket, used like a `pathlib.Path`, with the cache through which its files are read.

    Places derived from it share its cache, so only the code that creates the first one has to supply the cache.
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
        """The suffix of the last part, with its dot."""
        return self.address.suffix

    @property
    def parent(self) -> "BucketPath":
        """All parts but the last."""
        return BucketPath(self.address.parent, self.cache)

    @property
    def filesystem(self) -> Any:  # noqa: ANN401 - fsspec has no types
        """The fsspec file system that reads the bucket; its methods take `key`."""
        return self.address.fs

    @property
    def key(self) -> str:
        """The address without its protocol, bucket first; for oss://, after a slash."""
        return self.address.path

    def exists(self) -> bool:
        """Whether an object or a folder exists here."""
        return self.address.exists()

    def is_dir(self) -> bool:
        """Whether objects lie below it."""
        return self.address.is_dir()

    def is_file(self) -> bool:
        """Whether an object exists here."""
        return self.address.is_file()

    def iterdir(self) -> "Iterator[BucketPath]":
        """The entries of the folder."""
        return (BucketPath(address, self.cache) for address in self.address.iterdir())

    def glob(self, pattern: str) -> "Iterator[BucketPath]":
        """The entries of the folder whose names match the pattern."""
        return (BucketPath(address, self.cache) for address in self.address.glob(pattern))

    def stat(self) -> "StatResultType":
        """Size and modification time."""
        return self.address.stat()

    def open(self, mode: str = "r") -> "IO[Any]":
        """Open the object as a file."""
        return self.address.open(mode)

    def read_bytes(self) -> bytes:
        """The whole object, in one request."""
        return self.filesystem.cat_file(self.key)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole object as text."""
        return self.address.read_text(encoding=encoding)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the object."""
        self.address.unlink(missing_ok=missing_ok)


Location: TypeAlias = Path | BucketPath

# The workspace if none is given.
DEFAULT_ROOT = "hico-data"


class _Driver(NamedTuple):
    """The package that reads one kind of bucket."""

    module: str
    extra: str  # the extra of hico that installs it


_DRIVERS = {"s3": _Driver("s3fs", "s3"), "oss": _Driver("ossfs", "oss")}


def locate(text: "str | Location", cache: LocalCache | None = None) -> Location:
    """Turn a name (a local path or an address in a bucket) into a place; return a place unchanged.

    Args:
        text: the name.
        cache: the cache through which files of a bucket are read; None: the default one.

    Raises:
        UsageError: the protocol is not supported, or the package that reads it is not installed.

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
    """The same place, with files in a bucket read through this cache."""
    return place if isinstance(place, Path) else BucketPath(place.address, cache)


def absolute(path: Location) -> Location:
    """A local path made absolute, with links among its folders resolved; the file itself may still be a link."""
    return path.parent.resolve() / path.name if isinstance(path, Path) else path


def locate_root(text: "str | Location", cache: LocalCache | None = None) -> Location:
    """A workspace by its name, checked before any work is done.

    Raises:
        UsageError: it has no name, is a file, or lies below one.
        HicoError: its bucket cannot be reached.

    """
    if text == "":  # of a variable that is not set
        raise UsageError("--root: is empty; name a folder")
    root = locate(text, cache)
    require_reachable(root)
    if isinstance(root, Path):
        existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
        if not existing.is_dir():
            raise UsageError(f"--root {root}: {existing} is a file; name a folder, which is created if missing")
    return root


def absolute_root(root: "Location | str") -> Location:
    """A workspace by its name; a local path is made absolute, the form in which the workspace's files record it."""
    place = locate(root)
    return place.absolute() if isinstance(place, Path) else place


def local_part(root: Location) -> Path:
    """The local folder for runs: the workspace itself, or ./hico-data if the workspace lies in a bucket."""
    return root if isinstance(root, Path) else Path(DEFAULT_ROOT)


def path_of(root: Location, path: str, cache: LocalCache | None = None) -> Location:
    """The location of a row's file: below the root, or anywhere for a video that is read in place.

    Args:
        root: the workspace.
        path: as recorded in the row.
        cache: see `locate`; a file below a root in a bucket uses the root's cache.

    Raises:
        HicoError: the path leads out of the root; hico never writes such a path.

    """
    if "://" in path or path.startswith("/"):
        return locate(path, cache)
    if not path or ".." in path.split("/"):
        raise HicoError(f"{root}: {path!r} points outside the workspace; run `hico index --root {quoted(root)}` again")
    return root / path


def quoted(place: "Location | str") -> str:
    """A place as it is typed in a shell."""
    return shlex.quote(str(place))


def name_from(root: Location, place: "Location | str") -> str:
    """The name of a place in the workspace's files: relative to the root if it lies below, so that both can be moved.

    Args:
        root: the workspace.
        place: an absolute path, or an address in a bucket; a relative name is returned unchanged.

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
    """The workspace of ROOT/features/NAME or ROOT/runs/NAME; None for any other folder."""
    folder = folder.absolute() if isinstance(folder, Path) else folder
    return folder.parent.parent if folder.parent.name in {"features", "runs"} else None


def is_local(location: Location) -> "TypeIs[Path]":
    """Whether a place lies on a disk of this machine, where files can be renamed and locked."""
    return isinstance(location, Path)


def is_there(location: Location) -> bool:
    """Whether something is seen at a place; False for a name too long for the system, or that one may not look up."""
    if isinstance(location, Path):
        return os.path.exists(location)  # noqa: PTH110 - Path raises
    try:
        return location.exists()
    except PermissionError:  # credentials for all that lies in a folder need not cover an object with its name
        return False


def require_reachable(location: Location) -> None:
    """Check that a place in a bucket can be listed before work is handed out; a local place is not checked.

    Nothing has to be there, and credentials need not reach beyond it.

    Raises:
        HicoError: the bucket does not exist, or denies access.

    """
    if isinstance(location, Path):
        return
    bucket, _, below = location.key.strip("/").partition("/")  # for oss://, it begins with one
    try:
        if not is_there(location):
            location.filesystem.find(bucket, prefix=f"{below}/", max_items=1)  # fails unless this may be listed
    except FileNotFoundError:
        raise HicoError(f"{location}: no such bucket, {bucket!r}") from None
    except Exception as error:  # each driver has its own exceptions, without a common base class
        raise HicoError(
            f"{location}: cannot be reached ({short_reason(error)}); check the address and the credentials"
        ) from error
