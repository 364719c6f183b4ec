"""Running commands as a person does, for tests."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from hico_cli.main import main

TINY = [
    "-o",
    "data.num_frames=8",
    "-o",
    "data.frame_stride=8",
    "-o",
    "data.crop_size=32",
    "-o",
    "model.encoder=s3dg-tiny",
    "--batch-size",
    "2",
]


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def hico(*arguments: str | Path, root: Path | None = None, cwd: Path | None = None) -> Done:
    """Run a command in this process, which has loaded everything that is slow to load."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        if root:
            patch.setenv("HICO_ROOT", str(root))
        if cwd:
            patch.chdir(cwd)
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
    return Done(code, out.getvalue(), err.getvalue())


def hico_process(*arguments: str | Path, root: Path | str) -> Done:
    """Run a command as a person does."""
    command = [sys.executable, "-c", "from hico_cli.main import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "HICO_ROOT": str(root)})
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def running(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[Any]]:  # noqa: ANN401
    """A program, which is killed where its test fails or takes too long: `Popen` alone would wait for its end."""
    with subprocess.Popen(command, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def assert_one_line(done: Done, code: int, *parts: str) -> None:
    assert done.returncode == code, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("hico: ")
    for part in parts:
        assert part in done.stderr
