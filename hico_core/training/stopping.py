"""The messages between a signal handler and a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from hico_core.base.errors import Interrupted
from hico_core.training.distributed import World, largest


class StopRequest:
    """A signal that asks a run to end, which it does between two steps.

    While the run waits for clips or measures its weights, there is no step to finish, and either may last for ever: a
    read from a dead network disk cannot be cancelled. A handler may raise `Interrupted` then, and only then.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.waiting = False

    @contextmanager
    def may_interrupt(self) -> Iterator[None]:
        """Context for work that a handler may interrupt."""
        self.waiting = True
        try:
            yield
        finally:
            self.waiting = False


def end_if_asked(stop: StopRequest, world: World) -> None:
    """End the work of all processes that do it together if any of them was asked to end.

    Raises:
        Interrupted: one was.

    """
    (number,) = largest([float(stop.signal_number or 0)], world)
    if number:
        raise Interrupted(int(number), "stopped")
