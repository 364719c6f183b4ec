"""Starting several training processes on one machine, through torchrun."""

import atexit
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

# Processes that die are started again, all of them, and go on from the last checkpoint; so often.
_RESTARTS = 3

# Names the file in which the first process that ends with an error tells the exit code. torchrun starts all processes
# again when one ends so, which mends a crash, but not an error; those that find the code end at once, with 0.
EXIT_CODE_FILE = "HICO_EXIT_CODE_FILE"

_COMMAND = "hico_cli"


def without_options(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command line without `--option VALUE` and `--option=VALUE`, for each of these options."""
    kept: list[str] = []
    skip = False
    end = _end_of_options(arguments)
    for argument in arguments[:end]:
        if not skip and argument.split("=")[0] not in options:
            kept.append(argument)
        skip = not skip and argument in options
    return [*kept, *arguments[end:]]


def with_options(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """A command line with more options, before a `--` behind which all are names."""
    end = _end_of_options(arguments)
    return [*arguments[:end], *options, *arguments[end:]]


def _end_of_options(arguments: Sequence[str]) -> int:
    return arguments.index("--") if "--" in arguments else len(arguments)


def torchrun_command(arguments: Sequence[str], *, processes: int, log_dir: Path) -> list[str]:
    """What starts `hico` with these arguments in several processes of this machine."""
    elastic = ["--standalone", f"--nproc-per-node={processes}", f"--max-restarts={_RESTARTS}", "--monitor-interval=1"]
    logs = [f"--log-dir={log_dir}"]  # else a folder is left among the temporary ones
    return [
        *(sys.executable, "-m", "hico_core.training.agent", *elastic, *logs),
        # torchrun would take --nproc for an option of its own.
        *("-m", _COMMAND, *without_options(arguments, ["--nproc"])),
    ]


def run_processes(arguments: Sequence[str], *, processes: int) -> int:
    """Run `hico` in several processes to its end, passing SIGTERM on.

    Returns:
        The exit code: that of the error that ended training, 128 plus the signal that did, or torchrun's.

    """
    with TemporaryDirectory(prefix="hico-", ignore_cleanup_errors=True) as folder:
        told = Path(folder) / "exit code"
        code = _run_torchrun(arguments, processes=processes, told=told, log_dir=Path(folder) / "torchrun")
        return int(told.read_text()) if told.exists() and code < 128 else code


def _run_torchrun(arguments: Sequence[str], *, processes: int, told: Path, log_dir: Path) -> int:
    # Processes that were started again would read the address of a dead one from a store that outlived it.
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", EXIT_CODE_FILE: str(told)}
    environment.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    command = torchrun_command(arguments, processes=processes, log_dir=log_dir)
    received: list[int] = []
    with subprocess.Popen(command, env=environment) as torchrun:

        def pass_on(number: int, frame: FrameType | None) -> None:
            received.append(number)
            if number != signal.SIGINT:  # which reaches all processes of a terminal by itself
                torchrun.send_signal(number)

        before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            code = torchrun.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    return 128 + received[0] if received else code


def was_told(environment: Mapping[str, str]) -> bool:
    """Whether a process that was started with this one has ended with an error, and told its exit code."""
    return EXIT_CODE_FILE in environment and Path(environment[EXIT_CODE_FILE]).exists()


def tell_exit_code(code: int, environment: Mapping[str, str]) -> bool:
    """Tell the exit code of an error to the command that started this process and others.

    Returns:
        Whether the error is to be said: not if another process has said one already.

    """
    if EXIT_CODE_FILE not in environment:
        return True
    try:
        with Path(environment[EXIT_CODE_FILE]).open("x") as told:
            told.write(str(code))
    except FileExistsError:
        return False
    return True


def leave(code: int, environment: Mapping[str, str]) -> NoReturn:
    """End this process, whether all is good or not; if it is one of several, at once."""
    if int(environment.get("WORLD_SIZE") or 1) > 1:
        end_at_once(code)
    sys.exit(code)


def end_at_once(code: int) -> NoReturn:
    """End a process that talks to others without taking Python down.

    The threads of PyTorch that do the talking may be in the middle of it, or only about to end. One that finds Python
    gone ends the process with SIGABRT and a line of its own; then torchrun takes a finished training for a failed one.
    """
    atexit._run_exitfuncs()  # with which multiprocessing gives back its semaphores
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
