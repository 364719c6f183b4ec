"""How commands talk: progress to stderr, results to stdout, signals to a clean end."""

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from hico_core.errors import Interrupted

if TYPE_CHECKING:
    from hico_core.corpus.events import VideoEvent

# (how much is done, what happened in words, the same for programs)
Report = Callable[[float, str, dict[str, Any]], None]


@contextmanager
def progress(title: str, *, total: float, as_json: bool) -> Iterator[Report]:
    """Report on a piece of work: a bar in a terminal, lines in a log, JSON lines for programs."""
    if as_json:
        yield lambda done, text, fields: print(json.dumps(fields), file=sys.stderr, flush=True)
    elif not sys.stderr.isatty():
        yield lambda done, text, fields: print(text, file=sys.stderr, flush=True)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done, text, fields: bar.update(task, completed=done, description=f"{title}: {text}")


def result(text: str, fields: dict[str, Any], *, as_json: bool) -> None:
    """Print what a command made."""
    print(json.dumps(fields) if as_json else text)


def complain(text: str) -> None:
    """One line about something that went wrong while the work goes on; of several processes, the first one's."""
    if os.environ.get("RANK", "0") == "0":
        print(f"hico: {_one_line(text)}", file=sys.stderr, flush=True)


def _one_line(text: str) -> str:
    """The text with what a terminal would not show as it is, such as line breaks in names of files, written out."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)


def telling(report: Report, *, done: str, parts: str) -> "Callable[[VideoEvent], None]":
    """What to do at each video: move the progress on, and say what failed or is worth knowing.

    Args:
        report: from `progress`.
        done: what happened to a video that is done, in one word.
        parts: what its parts are called.

    """

    def on_event(event: "VideoEvent") -> None:
        if event.note and event.outcome != "failed before":
            complain(f"{event.source}: {event.note}")
        outcome = done if event.outcome == "done" else event.outcome
        count = f"{event.num_done}/{event.num_videos}"
        fields = {"video": event.video_id, "outcome": outcome, parts: event.num_parts}
        report(event.num_done, f"{count} {event.video_id}: {outcome}, {event.num_parts} {parts}", fields)

    return on_event


@contextmanager
def raising_on_signals(advice: str) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted`, so that everything on the way out is put in order.

    Raises:
        Interrupted: with `advice` on how to go on.

    """

    def raise_interrupted(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number, advice)

    with _handling(raise_interrupted):
        yield


@contextmanager
def noting_signals() -> Iterator[Callable[[], int | None]]:
    """Note Ctrl-C and SIGTERM for work that asks between its steps; a second signal ends it at once.

    Yields:
        A function that says which signal came, or None.

    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            raise Interrupted(number, "stopped at once; the last checkpoint is the one to go on from")
        noted.append(number)
        complain("ending after this step; once more to end at once")

    with _handling(note):
        yield lambda: noted[0] if noted else None


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)
