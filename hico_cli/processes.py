"""Runs work in this process, or, with --nproc, in several processes."""

import logging
import os
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import typer

from hico_cli.console import warn
from hico_cli.options import is_one_of_several
from hico_core.base.errors import HicoError, ProcessLost, UsageError
from hico_core.training.launch import end_at_once

if TYPE_CHECKING:
    from hico_core.training.launch import SharedExitCode
    from hico_core.training.task import Settings, Task


def was_restarted() -> bool:
    """Whether this process is one of several that were restarted after one had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def resumed(task: "Task[Settings]") -> "Task[Settings]":
    """The task; it also continues its run if this process was restarted.

    If it was asked to continue a run, but starts one, this is a warning: the name may be misspelt.
    """
    from hico_core.training.run_folder import why_anew

    if was_restarted():
        return replace(task, resume=True)
    if task.resume and (why := why_anew(task.run_dir)):
        warn(why)
    return task


def do_work(work: Callable[[], int], *, nproc: int, num_failed: int = 0) -> None:
    """Run work to its end in `nproc` processes; under torchrun, this process is one of several already.

    Args:
        work: returns its exit code; it is pickled if processes are started.
        nproc: number of processes to start; 1: none.
        num_failed: number of videos that failed earlier.

    Raises:
        typer.Exit: with the exit code if it is not 0, else with 3 if videos have failed.

    """
    if nproc > 1 and not is_one_of_several():
        from hico_core.training.launch import run_processes

        debug = logging.getLogger("hico_cli").isEnabledFor(logging.DEBUG)
        code = run_processes(partial(_in_process, work, debug), processes=nproc)
    else:
        code = work()
    if code or num_failed:
        raise typer.Exit(code or 3)


def report_warnings_as_lines() -> None:
    """Print warnings that no handler takes as lines of hico's own."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(logging.Formatter("hico: %(message)s"))


def report_loss(error: ProcessLost) -> None:
    """Report that another process has ended. It has reported the reason itself, or was killed."""
    warn(f"{error}; start all processes again to continue from the last checkpoint")


def exit_code_of(error: HicoError | OSError) -> int:
    """The exit code of a command that ended with this error."""
    return error.exit_code if isinstance(error, HicoError) else 1


def _in_process(work: Callable[[], int], debug: bool, shared: "SharedExitCode") -> int:
    """Work in one of several processes; of their errors, only the first is reported."""
    report_warnings_as_lines()
    try:
        return work()
    except ProcessLost as error:
        if not shared.value:
            report_loss(error)
        end_at_once(1)
    except (HicoError, OSError) as error:
        code = exit_code_of(error)
        if shared.claim(code):
            if debug:
                traceback.print_exc()
            warn(str(error), who="any" if isinstance(error, UsageError) else "this")
        end_at_once(code)
    except Exception:  # a bug in hico; the launcher would end without showing it
        traceback.print_exc()
        raise
