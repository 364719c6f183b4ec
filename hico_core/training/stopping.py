"""The messages between a signal handler and a run."""

from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """A signal that asks a run to end, which it does between two steps.

    While the run waits for clips, there is no step to finish, and the wait may last for ever: a read from a dead
    network disk cannot be cancelled. A handler may raise `Interrupted` then, and only then.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.waiting = False

    @contextmanager
    def may_interrupt(self) -> Iterator[None]:
        """Context for a wait that a handler may interrupt."""
        self.waiting = True
        try:
            yield
        finally:
            self.waiting = False
