"""Starting several training processes on one machine, through PyTorch's elastic launcher."""

import atexit
import inspect
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
from typing import Any, NoReturn

from hico_core.base.engine import available_cores

# If processes die, all of them are started again and continue from the last checkpoint, at most this often.
_RESTARTS = 3

# How often the launcher polls its processes.
_MONITOR_SECONDS = 0.1

# Time that processes have to finish a step and write a checkpoint after a signal, before they are killed.
_ENDING_SECONDS = 600

# Signals that end the launcher, which forwards them to its processes.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class SharedExitCode:
    """The exit code of the first process that ends with an error, shared by all processes.

    The launcher restarts all processes when one ends with an error. That helps after a crash, but not after a mistake:
    processes that find a code here end at once, as if all were well.
    """

    def __init__(self) -> None:
        self._code = get_context("spawn").Value("i", 0)

    @property
    def value(self) -> int:
        """The exit code; 0 as long as there was no error."""
        return self._code.value

    def claim(self, code: int) -> bool:
        """Store the code of an error; returns whether it is the first, so that only this process reports it."""
        with self._code.get_lock():
            is_first = self._code.value == 0
            if is_first:
                self._code.value = code
        return is_first


def run_processes(work: Callable[[SharedExitCode], int], *, processes: int) -> int:
    """Run a function in several processes of this machine until it ends, and forward signals to them.

    Args:
        work: the function that each process runs, which must be picklable. It finds its rank in the environment, as
            torchrun sets it, and returns its exit code. If it has reported an error itself, it claims the code, then
            ends.
        processes: number of processes.

    Returns:
        The exit code: that of the error that ended the work, or 128 plus the signal that did, or else the largest one.

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
            logs_specs=DefaultLogsSpecs(log_dir=folder),  # otherwise the launcher leaves a temporary folder behind
            **_patience(LaunchConfig),
        )
        try:
            codes = elastic_launch(config, _in_process)(work, shared)
        except SignalException as stopped:
            return 128 + stopped.sigval
        except ChildFailedError as failed:
            _, failure = failed.get_first_failure()
            print(
                f"hico: training process {failure.local_rank} ended with exit code {failure.exitcode}, although "
                "all were restarted several times; the same command with --resume continues from the last checkpoint",
                file=sys.stderr,
            )
            return 1
    return shared.value or max(codes.values())


def _patience(config: type) -> dict[str, Any]:
    """The options of a launcher's configuration by which it waits for processes that end; older PyTorch has none."""
    name = "shutdown_timeout"
    return {name: _ENDING_SECONDS} if name in inspect.signature(config).parameters else {}


@contextmanager
def _launching(processes: int, end: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Set signals, log and environment as the launcher needs them; restore them once it has ended."""
    environment = dict(os.environ)
    # Restarted processes would otherwise read the address of a dead one from a store that outlived it.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", str(max(available_cores() // processes, 1)))
    handlers = {number: signal.signal(number, end) for number in _SIGNALS}
    logging.disable()  # it would repeat each error that the processes report themselves
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)


def _in_process(work: Callable[[SharedExitCode], int], shared: SharedExitCode) -> int:
    """The function that the launcher calls in each process."""
    os.setsid()  # Ctrl-C reaches all processes of a terminal's group: here it comes only from the launcher, once
    if shared.value:  # restarted, although a restart does not help
        return 0
    code = work(shared)
    # The launcher waits for all processes, then lets them end; see `end_at_once` for how.
    util.Finalize(None, end_at_once, args=(0,), exitpriority=-1000)
    return code


def leave(code: int, environment: Mapping[str, str]) -> NoReturn:
    """End this process with an exit code; at once if it is one of several."""
    if int(environment.get("WORLD_SIZE") or 1) > 1:
        end_at_once(code)
    sys.exit(code)


def end_at_once(code: int) -> NoReturn:
    """End a process that communicates with others, without shutting Python down.

    PyTorch's communication threads may still be running. A thread that finds Python gone ends the process with SIGABRT
    and prints a line of its own; the launcher then takes a finished training for a failed one.
    """
    atexit._run_exitfuncs()  # in which multiprocessing releases its semaphores
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
