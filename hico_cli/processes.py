"""Work that a command does in this process, or, with --nproc, in several that it starts."""

import logging
import os
import traceback
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import typer

from hico_cli.console import warn
from hico_cli.options import is_one_of_several
from hico_core.base.errors import HicoError, ProcessLost, UsageError
from hico_core.training.launch import end_at_once

if TYPE_CHECKING:
    from hico_core.training.launch import SharedExitCode


def was_restarted() -> bool:
    """Whether this process is one of several that were started again, since one had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def do_work(work: Callable[[], int], *, nproc: int, num_failed: int = 0) -> None:
    """Do some work to its end, in so many processes; under torchrun, this is one of its own.

    Args:
        work: gives its exit code; where processes are to be started, it is pickled.
        nproc: how many to start; 1: none.
        num_failed: videos that have failed before.

    Raises:
        typer.Exit: with the exit code, if it is not 0; with 3 if it is and videos have failed.

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
    """Let warnings that nobody else asks for be lines of hico's."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(logging.Formatter("hico: %(message)s"))


def report_loss(error: ProcessLost) -> None:
    """Say that another process has ended. It has said why, or was killed."""
    warn(f"{error}; start all processes again to continue from the last checkpoint")


def exit_code_of(error: HicoError | OSError) -> int:
    """What the command ends with."""
    return error.exit_code if isinstance(error, HicoError) else 1


def _in_process(work: Callable[[], int], debug: bool, shared: "SharedExitCode") -> int:
    """The work of one process. Of the errors that end it, only the first one of all processes is said."""
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
    except Exception:  # a fault of hico, which the launcher would end with but not show
        traceback.print_exc()
        raise
