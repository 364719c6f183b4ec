"""What a signal handler and a run tell each other."""

from collections.abc import Iterator
from contextlib import contextmanager


class StopRequest:
    """A signal that asked a run to end, which it does between two steps.

    While the run waits for clips there is nothing to finish, and a wait may last for ever: a read from a dead network
    disk cannot be ended. A handler may raise `Interrupted` then, and only then.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.waiting = False

    @contextmanager
    def may_interrupt(self) -> Iterator[None]:
        """Around a wait."""
        self.waiting = True
        try:
            yield
        finally:
            self.waiting = False
