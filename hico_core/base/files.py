"""Local files: flushed to the disk, lines of JSON, locks, and what is said where a disk is full."""

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

# What a system says when a disk or a quota has no room left, or a file may not grow. It is never the video's fault.
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# A process that is killed while it starts a program leaves a copy of itself, which holds its locks until the program
# runs.
VANISHING_SECONDS = 1.0

# How names of files end that are not finished.
TEMPORARY = ".tmp"

_FAULT_VARIABLE = "HICO_FAULT"
_passed: dict[str, int] = {}  # fault -> how often this process came by


def pass_point(name: str) -> None:
    """A named moment between two steps that belong together, at which a test can let the process die.

    HICO_FAULT=commit.record kills it (SIGKILL) there, commit.clip:3 at the third passing, commit.clip:3=ENOSPC lets
    the system answer with that error instead.
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
    """Wait until a file's content is on the disk, so that a rename after it cannot survive a crash alone."""
    with path.open("rb") as opened:
        os.fsync(opened.fileno())


def remove_abandoned(folder: Path) -> None:
    """Remove what killed writers left in a folder. Only for one that nobody else writes to now."""
    for path in folder.glob(f".*{TEMPORARY}"):
        if path.is_file():
            path.unlink(missing_ok=True)


def json_line(fields: Mapping[str, Any]) -> bytes:
    r"""One line of JSON in UTF-8. Other line ends, and bytes of names that are no UTF-8, are written as \uXXXX."""
    text = json.dumps(fields, ensure_ascii=False).translate(_OTHER_LINE_ENDS)
    return text.encode("utf-8", "backslashreplace") + b"\n"


class Readable(Protocol):
    """A file, on a disk or in a bucket."""

    def read_bytes(self) -> bytes:
        """All of it."""
        ...


class JsonLines(NamedTuple):
    """The lines of a file that could be read, and how many could not."""

    rows: list[dict[str, Any]]
    num_unreadable: int


def read_json_lines(file: Readable) -> JsonLines:
    """The objects in a file of one a line; a missing file has none. Lines that are none are left out and counted."""
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
    """Cut a local file off before its first line that is not whole or not to be kept; nothing is ever rewritten."""
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
    """Let no other process be in this block; the lock ends with the process, however that ends.

    Args:
        file: stands for what is locked; stays there, empty.
        refusal: what to tell where somebody else has it.
        wait_seconds: for the other to finish, before that.

    Raises:
        HicoError: with the refusal.

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
    """Whether some process holds a lock now."""
    try:
        with lock(file, refusal="", wait_seconds=0.0):
            return False
    except HicoError:
        return True


def room_error(error: OSError, folder: Path) -> NoRoom | None:
    """What to say of an error that only means that a disk or quota has no room; None of any other."""
    if error.errno not in NO_ROOM:
        return None
    return NoRoom(f"{folder}: {error.strerror}; free some space, and the same command continues")


def says_no_room(lines: Collection[str]) -> bool:
    """Whether a program's messages tell that a disk or quota has no room."""
    return any(os.strerror(number) in line for number in NO_ROOM for line in lines)
