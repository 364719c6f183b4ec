"""Output of commands: progress on stderr, results on stdout; also handles signals, so that commands end cleanly."""

import io
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

import typer

from hico_core.base.errors import Interrupted, counted

if TYPE_CHECKING:
    from rich.table import Table

    from hico_core.base.tally import VideoEvent
    from hico_core.corpus.listed import VideoProgress, VideoWork
    from hico_core.training.stopping import StopRequest

# Set to hide progress.
QUIET = "HICO_QUIET"

# Number of characters of a wrong value that are shown.
_LONGEST_VALUE = 80

# (amount done, what happened in words, the same for programs)
Report = Callable[[float, str, dict[str, Any]], None]


# In a log: the fraction of the work between two lines, and the seconds after which a line is written in any case.
_LINE_PART, _LINE_SECONDS = 0.1, 10.0


@contextmanager
def progress(title: str, *, total: float, as_json: bool, every_line: bool = False) -> Iterator[Report]:
    """Report progress: a bar in a terminal, lines in a log, JSON lines for programs; nothing if quiet.

    Args:
        title: of the work, in a terminal.
        total: amount of work.
        as_json: print JSON lines for programs.
        every_line: log every step, as for a training; for other work, a log has about ten lines.

    """
    if os.environ.get(QUIET):
        yield lambda done, text, fields: None
    elif as_json:
        yield lambda done, text, fields: print(json.dumps(fields), file=sys.stderr, flush=True)
    elif not sys.stderr.isatty():
        is_due = (lambda done: True) if every_line else now_and_then(total, time.monotonic)
        yield lambda done, text, fields: print(text, file=sys.stderr, flush=True) if is_due(done) else None
    else:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        # The estimate of the time left comes first: a narrow terminal cuts off the end of the text.
        column = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        words = TextColumn("{task.description}", markup=False, table_column=column)
        columns = (BarColumn(bar_width=16), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn(), words)
        # A step may take a minute, and the time left is estimated from the last ones.
        with Progress(*columns, console=Console(stderr=True), expand=True, speed_estimate_period=600) as bar:
            task = bar.add_task(f"{title}: starting", total=total)
            yield lambda done, text, fields: bar.update(task, completed=done, description=f"{title}: {text}")


def now_and_then(total: float, now: Callable[[], float]) -> Callable[[float], bool]:
    """Return a function that decides, for each amount of work done, whether to write a line into the log.

    Args:
        total: amount of work.
        now: returns the time in seconds.

    """
    next_done, next_time = 0.0, now()

    def is_due(done: float) -> bool:
        nonlocal next_done, next_time
        if done < min(next_done, total) and now() < next_time:
            return False
        next_done, next_time = done + _LINE_PART * total, now() + _LINE_SECONDS
        return True

    return is_due


def counting(report: Report, key: str) -> Callable[[str], None]:
    """Return a callback that takes the name of each finished part and advances the progress by one.

    Args:
        report: from `progress`.
        key: field of the name, for programs.

    """
    done = 0

    def on_part(what: str) -> None:
        nonlocal done
        done += 1
        report(done, what, {key: what})

    return on_part


def write_any_text() -> None:
    """Let stdout escape characters that its encoding lacks, as stderr does, such as those of other languages' files."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def result(text: str, fields: dict[str, Any], *, as_json: bool) -> None:
    """Print the result of a command."""
    print(json.dumps(fields) if as_json else text)


def print_table(table: "Table") -> None:
    """Print a table; brackets and colons in its cells, such as those of video ids, are text, not rich's markup."""
    from rich.console import Console

    Console(markup=False, emoji=False).print(table)


def warn(text: str, *, who: Literal["first", "any", "this"] = "first") -> None:
    """Print one line about a problem.

    Args:
        text: the problem, and what to do.
        who: which of several training processes prints the line: the first only, since all see the same; any; or this
            one, with its number.

    """
    rank = os.environ.get("RANK", "0")
    if rank == "0" or who != "first":
        number = f"process {rank}: " if who == "this" and rank != "0" else ""
        print(f"hico: {number}{_one_line(text)}", file=sys.stderr, flush=True)


def describe_usage_error(error: typer.TyperException) -> str:
    """Describe a mistake on the command line in one line: what was typed, why it is wrong, and where to look."""
    from pydantic import ValidationError

    from hico_core.config.explain import what_is_wrong

    context = getattr(error, "ctx", None)
    command = context.command_path if context else "hico"
    parameter = getattr(error, "param", None)
    where = getattr(error, "param_hint", None) or (parameter.opts[0] if parameter else "")
    why = str(getattr(error, "message", "")).rstrip(".")
    if isinstance(error.__cause__, ValidationError):
        problem = error.__cause__.errors()[0]
        where, why = f"{where} {str(problem['input'])[:_LONGEST_VALUE]}", what_is_wrong(problem).rstrip(".")
    elif not isinstance(error, typer.BadParameter) or not why:
        where, why = "", " ".join(error.format_message().split()).rstrip(".")
    return (f"{where}: " if where else "") + f"{why} (`{command} -h` lists the options)"


def _one_line(text: str) -> str:
    """Escape characters that a terminal would not show as they are, such as line breaks in file names."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in plain)


def video_reporter(
    report: Report, *, done: str, part: str, more: Callable[[], str] = lambda: ""
) -> "Callable[[VideoEvent], None]":
    """Return a callback for each video that advances the progress, and prints failures and remarks.

    Args:
        report: from `progress`.
        done: a word for what happened to a finished video.
        part: noun for its parts.
        more: returns further text for each video.

    """

    def on_event(event: "VideoEvent") -> None:
        if event.note and event.outcome != "failed before":
            warn(f"{event.source}: {event.note}")
        outcome = done if event.outcome == "done" else event.outcome
        count = f"{event.num_done}/{event.num_videos}"
        fields = {"video": event.video_id, "outcome": outcome, f"{part}s": event.num_parts}
        said = ", ".join(filter(None, [counted(event.num_parts, part), more()]))
        report(event.num_done, f"{count} {event.video_id}: {outcome}, {said}", fields)

    return on_event


# Work on videos -> its title, a word for what happened to a finished video, and a noun for its parts.
_VIDEO_WORK: "dict[VideoWork, tuple[str, str, str]]" = {
    "split": ("split", "split", "clip"),
    "adopt": ("clips", "adopted", "clip"),
    "index": ("untrimmed", "indexed", "row"),
}


def video_progress(*, as_json: bool) -> "VideoProgress":
    """The progress display that the core opens for work on many videos."""

    @contextmanager
    def opened(work: "VideoWork", num_videos: int) -> "Iterator[Callable[[VideoEvent], None]]":
        title, done, part = _VIDEO_WORK[work]
        with progress(title, total=num_videos, as_json=as_json) as report:
            yield video_reporter(report, done=done, part=part)

    return opened


def report_failed(num_failed: int, *, root: object) -> None:
    """Say where the failed videos are listed; print nothing if none failed."""
    if num_failed:
        warn(f"{counted(num_failed, 'video')} failed; see {root}/failures.jsonl")


@contextmanager
def raising_on_signals(advice: str = "stopped; the same command continues") -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into `Interrupted`, so that everything is cleaned up on the way out.

    Raises:
        Interrupted: with `advice` on how to continue.

    """

    def raise_interrupted(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number, advice)

    with _handling(raise_interrupted):
        yield


# How long a run that was asked to end may wait for clips that may never arrive.
_PATIENCE_SECONDS = 5.0

# Signals this close together count as one: `timeout -s INT` signals the command and then its process group.
_ONE_SIGNAL_SECONDS = 0.2


@contextmanager
def noting_signals() -> "Iterator[StopRequest]":
    """Record Ctrl-C and SIGTERM for a training run, which ends between two steps; a second Ctrl-C ends it at once.

    SIGTERM may come several times: schedulers send it to the launcher, which forwards it, and to all processes. How
    long ago the first one came cannot be told, since a handler runs only after the current call into a library. After
    Ctrl-C, SIGTERM is a second Ctrl-C, which the launcher of --nproc forwards in this way.

    A run that is still waiting for clips some seconds later ends there: it may be waiting for a disconnected disk.
    """
    from hico_core.training.stopping import StopRequest

    stop = StopRequest()
    noted_at = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal noted_at
        if stop.signal_number is not None:
            is_again = signal.SIGINT not in (number, stop.signal_number)
            if is_again or time.monotonic() - noted_at < _ONE_SIGNAL_SECONDS:
                return
            raise Interrupted(number, "stopped at once; continue from the last checkpoint with --resume")
        stop.signal_number, noted_at = number, time.monotonic()
        warn("stopping after this step; press Ctrl-C again to stop at once")
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE_SECONDS, _PATIENCE_SECONDS)

    def look(number: int, frame: FrameType | None) -> None:
        if stop.waiting and stop.signal_number is not None:
            raise Interrupted(stop.signal_number, "stopped while waiting for clips")

    before = signal.signal(signal.SIGALRM, look)
    try:
        with _handling(note):
            yield stop
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)
