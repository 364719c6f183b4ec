"""What goes wrong for a user. Each message names the file or value and says what to do about it."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import cast, get_args

from hico_core.base.choices import DeviceName

# Of what a program writes, the end says most.
_STDERR_TAIL = 20


def counted(number: int, noun: str) -> str:
    """1, "video" -> "1 video"; 3, "video" -> "3 videos"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def short_reason(error: Exception) -> str:
    """An error of a library in a few words: without the path, which the message around it names, and in one line."""
    return next(iter(str(getattr(error, "strerror", None) or error).splitlines()), type(error).__name__)


class HicoError(Exception):
    """A failure that a person can act on; the command line prints it as one line."""

    exit_code = 1

    def __init__(self, reason: str, *, subject: object = None) -> None:
        """Say what is wrong, and with what.

        Args:
            reason: in words, with what to do.
            subject: the file or value, which stands before the reason; None: the reason names it, or there is none.

        """
        super().__init__(reason if subject is None else f"{subject}: {reason}")
        self.reason = reason


class UsageError(HicoError):
    """The command or its configuration is wrong, before any work was done."""

    exit_code = 2


class BadVideo(HicoError):
    """One video cannot be used; the work goes on with the others."""

    def __init__(
        self, path: Path | str, reason: str, *, stage: str = "probe", stderr_lines: Sequence[str] = ()
    ) -> None:
        """Say what is wrong with a video.

        Args:
            path: the video.
            reason: in words.
            stage: of the work on it.
            stderr_lines: what a program wrote about it; the last ones are kept.

        """
        super().__init__(reason, subject=path)
        self.args = (str(path), reason)  # what a process that gets it makes it of again
        self.path = str(path)
        self.stage = stage
        self.stderr_tail = list(stderr_lines[-_STDERR_TAIL:])

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"

    def said_of(self, subject: object) -> str:
        """The reason where the subject is named already; what is wrong with another file, a clip of it, names that."""
        return self.reason if self.path == str(subject) else str(self)


class NoRoom(HicoError):
    """A disk or quota is full, which is the fault of no video."""


class Interrupted(HicoError):
    """A signal asked the run to end; what was done is saved and the same command continues."""

    def __init__(self, signal_number: int, advice: str) -> None:
        super().__init__(advice)
        self.exit_code = 128 + signal_number


class ProcessLost(HicoError):
    """Another of the processes that train together has ended, so this one cannot go on."""


def how_to_install(extra: str) -> str:
    """What to type for the packages of an extra; hico itself is installed from a checkout, not from a registry."""
    return f"pip install '.[{extra}]' in the checkout of hico"


def require_package(package: str, *, extra: str, wanted_by: str) -> None:
    """Check that an optional package is there.

    Args:
        package: as it is imported.
        extra: of hico, which brings it.
        wanted_by: the option, setting or address that needs it.

    Raises:
        UsageError: it is not installed.

    """
    if find_spec(package) is None:
        raise UsageError(f"{wanted_by}: needs the package {package}; {how_to_install(extra)}")


def require_device(name: str) -> DeviceName:
    """Check that something is a device that hico computes on, whether this machine has it or not.

    Raises:
        UsageError: it is none.

    """
    if name == "mps":
        raise UsageError("--device mps: hico has never been tried on the GPU of a Mac; use --device cpu")
    if name not in get_args(DeviceName):
        raise UsageError(f"--device {name}: {name!r} is not one of {', '.join(map(repr, get_args(DeviceName)))}")
    return cast(DeviceName, name)
