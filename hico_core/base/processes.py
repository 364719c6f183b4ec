"""Work shared among processes of this machine, none of which outlives the command, however that ends.

Each process runs this module as a program, and holds one end of a connection: by it come the work and a share of the
items, and back go results, warnings and the error that ends the work. Whoever finds the other end gone ends, too.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from logging.handlers import QueueHandler
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from hico_core.base.engine import Item, Result, Work, available_cores
from hico_core.base.errors import HicoError

# How long a process that was asked to end may take before it is killed.
_GRACE_SECONDS = 20.0


class _Helper(NamedTuple):
    """A process that works for this one."""

    process: subprocess.Popen[bytes]
    connection: "Connection[Any, Any]"


def run_on_processes(
    work: Work[Item, Result], items: Sequence[Item], *, processes: int, num_gpus: int = 0
) -> Generator[Result, None, None]:
    """Do the work in several processes, each with a share of the items and one of the GPUs, in turn.

    Args:
        work: importable, with the arguments bound to it; called once in each process, with its whole share.
        items: divided evenly; what a process is given does not depend on how fast the others are.
        processes: how many; no more than there are items.
        num_gpus: that there are.

    Raises:
        HicoError: from `work`, of whichever process meets one first; or a process was killed.

    """
    count = min(processes, len(items))
    helpers: list[_Helper] = []
    finished: set[int] = set()
    try:
        for place in range(count):
            helpers.append(_start(environment_of(place, count, os.environ, num_gpus=num_gpus)))
            with suppress(BrokenPipeError):  # it has ended already, which is found below
                helpers[-1].connection.send((work, items[place::count]))
        yield from _results(helpers, finished)
    finally:
        _end(helpers, finished)


def environment_of(place: int, count: int, environment: Mapping[str, str], *, num_gpus: int) -> dict[str, str]:
    """What process number `place` of `count` is given: one of the GPUs, in turn, and its share of the cores."""
    own = dict(environment)
    if num_gpus:
        # Those that somebody named, or else their numbers. A process that is given one that is not there sees no GPU.
        names = (environment.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(num_gpus)))).split(",")
        own["CUDA_VISIBLE_DEVICES"] = names[place % num_gpus]
    own.setdefault("OMP_NUM_THREADS", str(max(available_cores() // count, 1)))
    return own


def _start(environment: Mapping[str, str]) -> _Helper:
    ours, theirs = Pipe()
    with theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        nothing = subprocess.DEVNULL  # results are printed by the command alone
        process = subprocess.Popen(command, env=environment, stdin=nothing, stdout=nothing, pass_fds=[theirs.fileno()])
    return _Helper(process, ours)


def _results(helpers: Sequence[_Helper], finished: set[int]) -> Iterator[Any]:
    """The results of all, as they come; `finished` is told the numbers of those that have come to their end.

    Raises:
        HicoError: one met an error, or was killed.

    """
    number_of = {helper.connection: number for number, helper in enumerate(helpers)}
    while number_of:
        for connection in wait(list(number_of)):
            assert isinstance(connection, Connection)
            number = number_of[connection]
            try:
                kind, content = connection.recv()
            except (EOFError, ConnectionResetError):
                code = helpers[number].process.wait()
                how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
                raise HicoError(
                    f"process {number + 1} of {len(helpers)} {how}; where memory is short, take fewer with --nproc; "
                    "the same command continues"
                ) from None
            if kind == "error":
                raise content
            if kind == "result":
                yield content
            elif kind == "warning":
                logging.getLogger(content.name).handle(content)
            else:
                finished.add(number)
                del number_of[connection]


def _end(helpers: Sequence[_Helper], finished: set[int]) -> None:
    for number, helper in enumerate(helpers):
        if number not in finished:
            helper.process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    for helper in helpers:
        try:
            helper.process.wait(timeout=max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            helper.process.kill()
            helper.process.wait()
        helper.connection.close()


class _Sender:
    """Sends to the process that asked for the work, from any thread."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection, self._lock = connection, threading.Lock()

    def send(self, kind: str, content: object = None) -> None:
        """Plain pairs: a class of this module has another name in the process that runs it as a program."""
        with self._lock:
            self._connection.send((kind, content))

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Send a warning, as a `QueueHandler` puts it."""
        self.send("warning", record)


def _serve(connection: "Connection[Any, Any]") -> None:
    """Do the work that comes, in the process that is there for it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; whoever asked for the work decides
    signal.signal(signal.SIGTERM, _leave)
    os.set_inheritable(connection.fileno(), False)  # else it would stay open as long as those who read for us
    sender = _Sender(connection)
    logging.getLogger().addHandler(QueueHandler(sender))  # type: ignore[arg-type]  # it only puts
    work, items = connection.recv()
    threading.Thread(target=_end_with_other, args=(connection,), daemon=True).start()
    try:
        for result in work(items):
            sender.send("result", result)
    except (HicoError, OSError) as error:
        sender.send("error", error)
    else:
        sender.send("end")


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _end_with_other(connection: "Connection[Any, Any]") -> None:
    """End this process when nobody is left at the other end, which a SIGKILL there does not prevent."""
    connection.poll(None)  # nothing comes any more but the end
    identifier = threading.main_thread().ident
    assert identifier is not None
    signal.pthread_kill(identifier, signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    with suppress(BrokenPipeError, EOFError):  # nobody is there to be told
        _serve(Connection(int(sys.argv[1])))
