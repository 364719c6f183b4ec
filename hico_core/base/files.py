"""Local files: flushing to disk, lines of JSON, locks, and errors about full disks."""

import errno
import json
import os
import signal
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from filelock import FileLock, Timeout

from hico_core.base.errors import HicoError, NoRoom

# Characters other than \n at which Python and other languages also end a line.
_OTHER_LINE_ENDS = {ord(c): f"\\u{ord(c):04x}" for c in "\x85\u2028\u2029"}

# System errors for a full disk, an exhausted quota or a file size limit; never the fault of a video.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# System errors for folders whose file system has no fsync for them.
_CANNOT_WAIT = frozenset({errno.EBADF, errno.EINVAL})

# A process killed while it starts a program leaves behind a fork, which holds its locks until the program runs.
VANISHING_SECONDS = 1.0

# Suffix of unfinished files.
TEMPORARY = ".tmp"

_FAULT_VARIABLE = "HICO_FAULT"
_passed: dict[str, int] = {}  # fault -> how often this process has passed its point


def pass_point(name: str) -> None:
    """A named point between two steps that belong together, at which a test can make the process fail.

    HICO_FAULT=commit.record kills the process there (SIGKILL), commit.clip:3 on the third pass; commit.clip:3=ENOSPC
    raises that system error instead.
    """
    fault = os.environ.get(_FAULT_VARIABLE)
    if fault is None:
        return
    where, _, error = fault.partition("=")
    point, _, count = where.partition(":")
    if point != name:
        return
    _passed[fault] = _passed.get(fault, 0) + 1
    if _passed[fault] != int(count or 1):
        return
    if error:
        number = getattr(errno, error)
        raise OSError(number, os.strerror(number), f"fault point {name}")
    os.kill(os.getpid(), signal.SIGKILL)


def sync(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on disk.

    Otherwise a power failure could preserve a later rename without the content. Some file systems, such as those of
    older Linux for SMB and those of virtual machines for shared folders, cannot wait for names.
    """
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in _CANNOT_WAIT or not path.is_dir():
            raise
    finally:
        os.close(opened)


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files of killed writers from a folder, which nothing else may be writing to."""
    for path in folder.glob(f".*{TEMPORARY}"):
        if path.is_file():
            path.unlink(missing_ok=True)


def json_line(fields: Mapping[str, Any]) -> bytes:
    r"""One line of JSON in UTF-8; other line endings, and bytes of names that are not UTF-8, are written as \uXXXX."""
    text = json.dumps(fields, ensure_ascii=False).translate(_OTHER_LINE_ENDS)
    return text.encode("utf-8", "backslashreplace") + b"\n"


class Readable(Protocol):
    """A file, on a disk or in a bucket."""

    def read_bytes(self) -> bytes:
        """The whole content."""
        ...


class JsonLines(NamedTuple):
    """The lines of a file that could be read, and how many could not."""

    rows: list[dict[str, Any]]
    num_unreadable: int


def read_json_lines(file: Readable) -> JsonLines:
    """The JSON objects of a file with one per line (a missing file has none), and the number of unreadable lines."""
    try:
        lines = file.read_bytes().split(b"\n")
    except FileNotFoundError:
        return JsonLines([], 0)
    found = [_object_in(line) for line in lines if line.strip()]
    rows = [row for row in found if row is not None]
    return JsonLines(rows, len(found) - len(rows))


def _object_in(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def cut_json_lines(path: Path, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Truncate a local file before its first line that is incomplete or not to be kept; nothing is ever rewritten."""
    if not path.exists():
        return
    length = 0
    with path.open("rb") as opened:
        for line in opened:
            row = _object_in(line) if line.endswith(b"\n") else None
            if row is None or not keep(row):
                break
            length += len(line)
    if length < path.stat().st_size:
        os.truncate(path, length)


@contextmanager
def lock(file: Path, *, refusal: str, wait_seconds: float = VANISHING_SECONDS) -> Iterator[None]:
    """Keep other processes out of this block; the lock ends with the process, however that ends.

    Args:
        file: the lock file; it is empty and is not removed.
        refusal: the error message if another process holds the lock.
        wait_seconds: time to wait for the other process before raising that error.

    Raises:
        HicoError: another process holds the lock.

    """
    file.parent.mkdir(parents=True, exist_ok=True)
    taken = FileLock(file, timeout=wait_seconds)
    try:
        taken.acquire()
    except Timeout:
        raise HicoError(refusal) from None
    try:
        yield
    finally:
        taken.release()


def is_locked(file: Path) -> bool:
    """Whether any process currently holds a lock."""
    try:
        with lock(file, refusal="", wait_seconds=0.0):
            return False
    except HicoError:
        return True


def room_error(error: OSError, folder: Path) -> NoRoom | None:
    """The error to raise for a system error that means a full disk or quota; None for any other."""
    if error.errno not in NO_ROOM:
        return None
    return NoRoom(f"{folder}: {error.strerror}; free some space, and the same command continues")


def says_no_room(lines: Collection[str]) -> bool:
    """Whether a program's messages report a full disk or quota."""
    return any(os.strerror(number) in line for number in NO_ROOM for line in lines)
