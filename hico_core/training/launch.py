"""Starting several training processes on one machine, through torchrun."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

# Processes that die are started again, all of them, and go on from the last checkpoint; so often.
_RESTARTS = 3


# Where a process writes the exit code of an error that starting again cannot mend; it ends with 0 then, since
# torchrun starts all processes again when one ends otherwise.
EXIT_CODE_FILE = "HICO_EXIT_CODE_FILE"


def without_nproc(arguments: Sequence[str]) -> list[str]:
    """A command line without `--nproc N`, which torchrun would take for an option of its own."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if not skip and argument != "--nproc" and not argument.startswith("--nproc="):
            kept.append(argument)
        skip = argument == "--nproc"
    return kept


def torchrun_command(arguments: Sequence[str], *, processes: int) -> list[str]:
    """What starts `hico` with these arguments in several processes of this machine."""
    elastic = ["--standalone", f"--nproc-per-node={processes}", f"--max-restarts={_RESTARTS}", "--monitor-interval=1"]
    return [sys.executable, "-m", "torch.distributed.run", *elastic, "-m", "hico_cli", *without_nproc(arguments)]


def run_processes(arguments: Sequence[str], *, processes: int) -> int:
    """Run `hico` in several processes to its end, passing SIGTERM on.

    Returns:
        The exit code: that of the error that ended training, 128 plus the signal that did, or torchrun's.

    """
    with TemporaryDirectory(prefix="hico-") as folder:
        told = Path(folder) / "exit code"
        code = _run_torchrun(arguments, processes=processes, told=told)
        return int(told.read_text()) if code == 0 and told.exists() else code


def _run_torchrun(arguments: Sequence[str], *, processes: int, told: Path) -> int:
    # Processes that were started again would read the address of a dead one from a store that outlived it.
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", EXIT_CODE_FILE: str(told)}
    environment.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    received: list[int] = []
    with subprocess.Popen(torchrun_command(arguments, processes=processes), env=environment) as torchrun:

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
