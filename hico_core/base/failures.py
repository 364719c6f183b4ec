"""<root>/failures.jsonl: the sources that a command could not use, one per line."""

import fnmatch
import glob
import logging
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ValidationError

from hico_core.base.addresses import Location, absolute, locate, name_from, place_named
from hico_core.base.files import json_line, read_json_lines
from hico_core.base.storage import storage_of, write_text

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 60.0

# The name of a source that is a line of a list; see `corpus.sources.finding.bad_row`.
_LINE_OF_LIST = re.compile(r"(.+), line \d+", re.DOTALL)


class Failure(BaseModel, frozen=True, extra="forbid"):
    """Why a video could not be used."""

    stage: str  # name, record, fetch, probe, decode, encode, split, timeout, verify, plan, adopt, commit or engine
    error: str
    stderr_tail: list[str] = []


class FailureLine(BaseModel, frozen=True, extra="forbid"):
    """A line of failures.jsonl."""

    source: str  # from the root, if it lies below it
    stage: str
    error: str
    stderr_tail: list[str]
    attempts: int
    command: str  # the command that failed on this source


class _Given(Protocol):
    """A video given to a command, or a line of a list that does not name a usable video."""

    @property
    def path(self) -> Location: ...
    @property
    def obstacle(self) -> str | None: ...


class FailedSource(NamedTuple):
    """A source that a command could not use."""

    source: str
    failure: Failure
    attempts: int | None = None  # None: one more than its line says


def read_failures(root: Location) -> list[FailureLine]:
    """The lines of failures.jsonl without the damaged ones, whose number is logged."""
    path = root / "failures.jsonl"
    rows, num_unreadable = read_json_lines(path)
    lines: list[FailureLine] = []
    for row in rows:
        try:
            lines.append(FailureLine.model_validate(row))
        except ValidationError:
            num_unreadable += 1
    if num_unreadable:
        logger.warning("%s: %d damaged lines are dropped", path, num_unreadable)
    return lines


def _alone(root: Location) -> AbstractContextManager[None]:
    """Lock failures.jsonl against other writers."""
    refusal = f"{root / 'failures.jsonl'}: locked by another process; try again later"
    return storage_of(root).locked(root / ".failures.lock", refusal=refusal, wait_seconds=_PATIENCE_SECONDS)


def forget_failures(root: Location, sources: Iterable[str]) -> None:
    """Drop the lines of some sources from <root>/failures.jsonl, whichever command failed on them."""
    gone = {name_from(root, source) for source in sources}
    path = root / "failures.jsonl"
    with _alone(root):
        lines = read_failures(root)
        kept = [line for line in lines if name_from(root, line.source) not in gone]
        if len(kept) < len(lines):
            write_text(path, b"".join(json_line(line.model_dump()) for line in kept).decode())


def update_failures(root: Location, *, command: str, fine: Iterable[str], failed: Iterable[FailedSource]) -> None:
    """Update <root>/failures.jsonl: add a line for each source that failed, drop those of sources that are fine now.

    Args:
        root: the workspace.
        command: the command that ran; the lines of other commands do not change.
        fine: sources on which the command succeeded.
        failed: sources on which it failed, with the reasons.

    """
    path = root / "failures.jsonl"
    with _alone(root):
        lines = {(name_from(root, line.source), line.command): line for line in read_failures(root)}
        for source in fine:
            lines.pop((name_from(root, source), command), None)
        for given, failure, attempts in failed:
            source = name_from(root, given)
            before = lines.get((source, command))
            lines[source, command] = FailureLine(
                source=source,
                stage=failure.stage,
                error=failure.error,
                stderr_tail=failure.stderr_tail,
                attempts=attempts or (before.attempts + 1 if before else 1),
                command=command,
            )
        if lines or path.exists():
            write_text(path, b"".join(json_line(line.model_dump()) for line in lines.values()).decode())


def forget_mended(root: Location, given: Iterable[str], sources: Iterable[_Given], *, command: str) -> None:
    """Drop the failures of list lines that are usable now; as videos, they go by other names.

    Args:
        root: the workspace.
        given: the command's arguments: lists and patterns of lists; anything else is ignored.
        sources: the sources to which these arguments resolve now.
        command: the command whose failures these are.

    """
    bad = {str(source.path) for source in sources if source.obstacle}
    lines = [place_named(root, line.source) for line in read_failures(root) if line.command == command]
    names = [name for name in lines if name not in bad]
    list_of = {name: match[1] for name in names if (match := _LINE_OF_LIST.fullmatch(name))}
    if list_of:
        paths = [(one, str(absolute(locate(one)))) for one in given]
        is_pattern = [glob.has_magic(one) and not Path(one).is_file() for one, _ in paths]
        patterns = [path if magic else glob.escape(path) for (_, path), magic in zip(paths, is_pattern, strict=True)]
        mended = [name for name, path in list_of.items() if any(fnmatch.fnmatchcase(path, one) for one in patterns)]
        update_failures(root, command=command, fine=mended, failed=[])
