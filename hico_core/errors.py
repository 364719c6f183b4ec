"""What goes wrong for a user. Each message names the file or value and says what to do about it."""

from pathlib import Path


class HicoError(Exception):
    """A failure that a person can act on; the command line prints it as one line."""

    exit_code = 1


class UsageError(HicoError):
    """The command or its configuration is wrong, before any work was done."""

    exit_code = 2


class BadVideo(HicoError):
    """One video cannot be used; the work goes on with the others."""

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(str(path), reason)
        self.path = Path(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Interrupted(HicoError):
    """A signal asked the run to end; what was done is saved and the same command goes on."""

    def __init__(self, signal_number: int, advice: str) -> None:
        super().__init__(advice)
        self.exit_code = 128 + signal_number
