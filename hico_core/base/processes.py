"""Work shared among processes of this machine, none of which outlives the command, however that ends.

Each process runs this module as a program and holds one end of a connection. It receives the work and its share of the
items, and sends back results, warnings and the error that ends the work. If either end is closed, the other side ends.
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

# Time that a process has to end after SIGTERM before it is killed.
_GRACE_SECONDS = 20.0


class _Helper(NamedTuple):
    """A process that works for this one."""

    process: subprocess.Popen[bytes]
    connection: "Connection[Any, Any]"


def run_on_processes(
    work: Work[Item, Result], items: Sequence[Item], *, processes: int, num_gpus: int = 0
) -> Generator[Result, None, None]:
    """Do the work in several processes, each with a share of the items and one GPU, assigned round-robin.

    Args:
        work: importable, with its arguments bound; called once in each process, with its whole share.
        items: divided evenly; the shares do not depend on how fast the processes are.
        processes: number of processes; at most one per item is started.
        num_gpus: number of GPUs of the machine.

    Raises:
        HicoError: the first error from `work` in any process, or a process was killed.

    """
    count = min(processes, len(items))
    helpers: list[_Helper] = []
    finished: set[int] = set()
    try:
        for place in range(count):
            helpers.append(_start(environment_of(place, count, os.environ, num_gpus=num_gpus)))
            with suppress(BrokenPipeError):  # it has already ended; `_results` notices
                helpers[-1].connection.send((work, items[place::count]))
        yield from _results(helpers, finished)
    finally:
        _end(helpers, finished)


def environment_of(place: int, count: int, environment: Mapping[str, str], *, num_gpus: int) -> dict[str, str]:
    """The environment of process number `place` of `count`: its GPU (assigned round-robin) and share of the cores."""
    own = dict(environment)
    if num_gpus:
        # The GPUs named by the user, else their numbers. A process that gets a GPU that does not exist sees none.
        names = (environment.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(num_gpus)))).split(",")
        own["CUDA_VISIBLE_DEVICES"] = names[place % num_gpus]
    own.setdefault("OMP_NUM_THREADS", str(max(available_cores() // count, 1)))
    return own


def _start(environment: Mapping[str, str]) -> _Helper:
    ours, theirs = Pipe()
    with theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        nothing = subprocess.DEVNULL  # only the command prints results
        process = subprocess.Popen(command, env=environment, stdin=nothing, stdout=nothing, pass_fds=[theirs.fileno()])
    return _Helper(process, ours)


def _results(helpers: Sequence[_Helper], finished: set[int]) -> Iterator[Any]:
    """The results of all processes as they arrive; adds the numbers of processes that have ended to `finished`.

    Raises:
        HicoError: the work failed in a process, or a process was killed.

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
                    f"process {number + 1} of {len(helpers)} {how}; if memory is short, use fewer processes "
                    "(--nproc); the same command continues"
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
    """Sends messages to the parent process, from any thread."""

    def __init__(self, connection: "Connection[Any, Any]") -> None:
        self._connection, self._lock = connection, threading.Lock()

    def send(self, kind: str, content: object = None) -> None:
        """Send a plain pair: a class of this module has another name in the process that runs it as a program."""
        with self._lock:
            self._connection.send((kind, content))

    def put_nowait(self, record: logging.LogRecord) -> None:
        """Send a warning; `QueueHandler` calls this."""
        self.send("warning", record)


def _serve(connection: "Connection[Any, Any]") -> None:
    """Do the work received over the connection; runs in the helper process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes; the parent decides
    signal.signal(signal.SIGTERM, _leave)
    os.set_inheritable(connection.fileno(), False)  # otherwise it would stay open as long as our own child processes
    sender = _Sender(connection)
    logging.getLogger().addHandler(QueueHandler(sender))  # type: ignore[arg-type]  # only put_nowait is called
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
    """End this process when the parent is gone, even if it was ended by SIGKILL."""
    connection.poll(None)  # nothing more is sent, so this returns when the connection closes
    identifier = threading.main_thread().ident
    assert identifier is not None
    signal.pthread_kill(identifier, signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    with suppress(BrokenPipeError, EOFError):  # the parent is gone
        _serve(Connection(int(sys.argv[1])))
