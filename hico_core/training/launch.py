"""Starting several training processes on one machine, through PyTorch's elastic launcher."""

import atexit
import logging
import os
import signal
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context, util
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

# Processes that die are started again, all of them, and go on from the last checkpoint; so often.
_RESTARTS = 3

# How often the launcher looks at its processes.
_MONITOR_SECONDS = 1.0

# What ends the launcher, which hands it on to its processes.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class SharedExitCode:
    """The exit code of the first process that ends with an error, which all processes see.

    The launcher starts all processes again when one ends with an error, which mends a crash, but no mistake: those that
    find a code here end at once, as if all were good.
    """

    def __init__(self) -> None:
        self._code = get_context("spawn").Value("i", 0)

    @property
    def value(self) -> int:
        """0 as long as there was no error."""
        return self._code.value

    def claim(self, code: int) -> bool:
        """Leave the code of an error; whether it is the first one, so that it is this process that reports it."""
        with self._code.get_lock():
            is_first = self._code.value == 0
            if is_first:
                self._code.value = code
        return is_first


def run_processes(work: Callable[[SharedExitCode], int], *, processes: int) -> int:
    """Run a function in several processes of this machine to its end, handing signals on.

    Args:
        work: what each does, as a function that can be pickled; it finds its place in the environment, as torchrun
            leaves it there, and gives its exit code. An error that it has reported itself it claims, then ends.
        processes: how many.

    Returns:
        The exit code: that of the error that ended the work, 128 plus the signal that did, or the largest one.

    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    def end(number: int, frame: FrameType | None) -> None:  # as the launcher does once its processes run
        raise SignalException(f"signal {number}", sigval=signal.Signals(number))

    shared = SharedExitCode()
    with TemporaryDirectory(prefix="hico-", ignore_cleanup_errors=True) as folder, _launching(processes, end):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=_RESTARTS,
            monitor_interval=_MONITOR_SECONDS,
            start_method="spawn",
            logs_specs=DefaultLogsSpecs(log_dir=folder),  # else a folder is left among the temporary ones
        )
        try:
            codes = elastic_launch(config, _in_process)(work, shared)
        except SignalException as stopped:
            return 128 + stopped.sigval
        except ChildFailedError as failed:
            _, failure = failed.get_first_failure()
            print(
                f"hico: training process {failure.local_rank} ended with {failure.exitcode}, after all had been "
                "started again several times; the same command with --resume continues from the last checkpoint",
                file=sys.stderr,
            )
            return 1
    return shared.value or max(codes.values())


@contextmanager
def _launching(processes: int, end: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Signals, log and environment as the launcher wants them; as they were, when it has ended."""
    environment = dict(os.environ)
    # Processes that were started again would read the address of a dead one from a store that outlived it.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    handlers = {number: signal.signal(number, end) for number in _SIGNALS}
    logging.disable()  # it would say of each error what the processes say themselves
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)


def _in_process(work: Callable[[SharedExitCode], int], shared: SharedExitCode) -> int:
    """What the launcher calls in each process."""
    os.setsid()  # Ctrl-C reaches all processes of a terminal's group: here it comes from the launcher alone, and once
    if shared.value:  # started again, though starting again mends nothing
        return 0
    code = work(shared)
    # The launcher waits for all processes, then lets them end; see `end_at_once` for how.
    util.Finalize(None, end_at_once, args=(0,), exitpriority=-1000)
    return code


def leave(code: int, environment: Mapping[str, str]) -> NoReturn:
    """End this process, whether all is good or not; if it is one of several, at once."""
    if int(environment.get("WORLD_SIZE") or 1) > 1:
        end_at_once(code)
    sys.exit(code)


def end_at_once(code: int) -> NoReturn:
    """End a process that talks to others without taking Python down.

    The threads of PyTorch that do the talking may be in the middle of it, or only about to end. One that finds Python
    gone ends the process with SIGABRT and a line of its own; then the launcher takes a finished training for a failed
    one.
    """
    atexit._run_exitfuncs()  # with which multiprocessing gives back its semaphores
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
