"""Errors shown to users, whose messages name the file or value and say what to do about it."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import cast, get_args

from hico_core.base.choices import DeviceName

# Lines kept of a program's error output; the last ones are the most informative.
_STDERR_TAIL = 20


def counted(number: int, noun: str) -> str:
    """1, "video" -> "1 video"; 3, "video" -> "3 videos"; 2, "process" -> "2 processes"."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{ending}"


def short_reason(error: Exception) -> str:
    """A library's error in one short line, without the path, which the surrounding message names."""
    return next(iter(str(getattr(error, "strerror", None) or error).splitlines()), type(error).__name__)


class HicoError(Exception):
    """A failure that a person can act on; the command line prints it as one line."""

    exit_code = 1

    def __init__(self, reason: str, *, subject: object = None) -> None:
        """State what is wrong, and with which file or value.

        Args:
            reason: a sentence that includes the remedy.
            subject: the file or value, printed before the reason; None: the reason names it, or there is none.

        """
        super().__init__(reason if subject is None else f"{subject}: {reason}")
        self.reason = reason


class UsageError(HicoError):
    """The command or its configuration is wrong; raised before any work is done."""

    exit_code = 2


class BadVideo(HicoError):
    """One video cannot be used; the work continues with the others."""

    def __init__(
        self, path: Path | str, reason: str, *, stage: str = "probe", stderr_lines: Sequence[str] = ()
    ) -> None:
        """State what is wrong with a video.

        Args:
            path: the video.
            reason: the problem in words.
            stage: the stage of the work that failed.
            stderr_lines: a program's error output about it; the last lines are kept.

        """
        super().__init__(reason, subject=path)
        self.args = (str(path), reason)  # a process that unpickles this error passes them to __init__
        self.path = str(path)
        self.stage = stage
        self.stderr_tail = list(stderr_lines[-_STDERR_TAIL:])

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"

    def said_of(self, subject: object) -> str:
        """The reason, preceded by the error's path if that is not the subject but another file, such as a clip."""
        return self.reason if self.path == str(subject) else str(self)


class NoRoom(HicoError):
    """A disk or quota is full, which is not the fault of any video."""


class Interrupted(HicoError):
    """A signal asked the run to end; finished work is saved, and the same command continues."""

    def __init__(self, signal_number: int, advice: str) -> None:
        super().__init__(advice)
        self.exit_code = 128 + signal_number


class ProcessLost(HicoError):
    """Another of the processes that train together has ended, so this one cannot continue."""


def how_to_install(extra: str) -> str:
    """The command that installs an extra's packages; hico is installed from a checkout, not from a registry."""
    return f"pip install '.[{extra}]' in the checkout of hico"


def require_package(package: str, *, extra: str, wanted_by: str) -> None:
    """Check that an optional package is installed.

    Args:
        package: the name by which it is imported.
        extra: the extra of hico that installs it.
        wanted_by: the option, setting or address that needs it.

    Raises:
        UsageError: it is not installed.

    """
    if find_spec(package) is None:
        raise UsageError(f"{wanted_by}: needs the package {package}: {how_to_install(extra)}")


def require_device(name: str) -> DeviceName:
    """Check that hico supports a device of this name, whether or not this machine has one.

    Raises:
        UsageError: it does not.

    """
    if name == "mps":
        raise UsageError("--device mps: hico is untested on Mac GPUs; use --device cpu")
    if name not in get_args(DeviceName):
        raise UsageError(f"--device {name}: {name!r} is not one of {', '.join(map(repr, get_args(DeviceName)))}")
    return cast(DeviceName, name)
