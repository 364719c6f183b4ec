"""Hooks of pytest: a test that costs more than its markers say fails, so that `scripts/test.sh fast` stays fast."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_started: list[str] = []  # markers of what was started since the present test began, its fixtures included


def _note_start(event: str, arguments: tuple[object, ...]) -> None:
    """Python's own account of what it starts. Workers of loaders do not come this way, and do not count."""
    if event == "subprocess.Popen":
        command: Any = arguments[1]
        words = command[:4] if isinstance(command, list | tuple) else [command]
        if Path(str(words[0])).name == "git":  # asked about a checkout, which takes milliseconds
            return
        # `setpriv --pdeathsig KILL` may stand before ffmpeg.
        is_ffmpeg = any("ffmpeg" in Path(str(word)).name for word in words)
        _started.append("videos" if is_ffmpeg else "processes")
    elif event in ("os.fork", "os.forkpty", "os.posix_spawn", "os.system"):
        _started.append("processes")
    elif event == "hico.tests.numbered_video":
        _started.append("videos")


sys.addaudithook(_note_start)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test begins."""
    _started.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """A test and the fixtures that only it had have ended."""
    yield
    marked = {mark.name for mark in item.iter_markers()}
    if marked & {"browser", "cluster"}:  # which are processes
        marked.add("processes")
    missing = [name for name in dict.fromkeys(_started) if name not in marked]
    if missing:
        pytest.fail(f"wants the marker {' and '.join(missing)}; see pyproject.toml", pytrace=False)
