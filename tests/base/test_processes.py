"""Processes that share work get a GPU that is there and their share of the cores, and none outlives whoever asked."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from hico_core.base.errors import BadVideo, HicoError
from hico_core.base.processes import environment_of, run_on_processes


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes import the work from this file."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.parametrize(
    ("named", "num_gpus", "given"),
    [
        (None, 0, [None, None, None]),
        (None, 1, ["0", "0", "0"]),  # shared: a process that is given one that is not there would compute on a CPU
        (None, 2, ["0", "1", "0"]),
        (None, 8, ["0", "1", "2"]),
        ("3,5", 2, ["3", "5", "3"]),
        ("GPU-a,GPU-b,none", 2, ["GPU-a", "GPU-b", "GPU-a"]),
        ("", 0, ["", "", ""]),  # none may be used
    ],
)
def test_gpus(named: str | None, num_gpus: int, given: list[str | None]) -> None:
    environment = {} if named is None else {"CUDA_VISIBLE_DEVICES": named}
    found = [environment_of(place, 3, environment, num_gpus=num_gpus) for place in range(3)]
    assert [own.get("CUDA_VISIBLE_DEVICES") for own in found] == given


def test_threads() -> None:
    assert int(environment_of(0, 1000, {}, num_gpus=0)["OMP_NUM_THREADS"]) == 1
    assert environment_of(0, 2, {"OMP_NUM_THREADS": "7"}, num_gpus=0)["OMP_NUM_THREADS"] == "7"


def note(items: Sequence[int], *, factor: int) -> Iterator[tuple[int, int, str]]:
    print("what libraries print is no result of the command")
    for item in items:
        yield item * factor, os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]


@pytest.mark.processes
@pytest.mark.parametrize(("num_items", "num_processes"), [(0, 0), (1, 1), (2, 2), (7, 3)])
def test_each_item_is_done_once_and_each_process_has_a_share(num_items: int, num_processes: int) -> None:
    done = list(run_on_processes(partial(note, factor=2), range(num_items), processes=3, num_gpus=2))
    assert sorted(value for value, *_ in done) == [2 * number for number in range(num_items)]
    shares = {process: {value // 2 for value, one, _ in done if one == process} for _, process, _ in done}
    assert sorted(map(sorted, shares.values())) == [
        list(range(p, num_items, num_processes)) for p in range(num_processes)
    ]
    assert os.getpid() not in shares
    assert {gpu for *_, gpu in done} == {"0", "1"} if num_processes > 1 else {gpu for *_, gpu in done} <= {"0"}


def warn(items: Sequence[int]) -> Iterator[int]:
    for item in items:
        logging.getLogger("hico_core.made").warning("number %d", item)
        yield item


@pytest.mark.processes
def test_warnings_come_through_the_process_that_asked(caplog: pytest.LogCaptureFixture) -> None:
    assert sorted(run_on_processes(warn, [1, 2], processes=2)) == [1, 2]
    assert sorted(record.getMessage() for record in caplog.records) == ["number 1", "number 2"]
    assert {record.name for record in caplog.records} == {"hico_core.made"}


def fail(items: Sequence[int], *, error: Exception) -> Iterator[int]:
    yield items[0]
    raise error


def kill_itself(items: Sequence[int]) -> Iterator[int]:
    yield items[0]
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("work", "said"),
    [
        (partial(fail, error=HicoError("enough")), "^enough$"),
        (partial(fail, error=BadVideo("a.mp4", "is bad", stage="decode")), "^a.mp4: is bad$"),
        (partial(fail, error=FileNotFoundError(2, "no such file", "a.mp4")), "no such file: 'a.mp4'"),
        (
            kill_itself,
            r"^process [12] of 2 was killed by signal 9; .*use fewer processes .*; the same command continues$",
        ),
    ],
)
def test_an_error_that_all_have_ends_all_and_is_raised_once(
    work: Callable[[Sequence[int]], Iterator[int]], said: str
) -> None:
    with pytest.raises((HicoError, OSError), match=said):
        list(run_on_processes(work, range(10), processes=2))


def linger(items: Sequence[int]) -> Iterator[int]:
    yield os.getpid()
    time.sleep(600)


def is_alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_for_the_end_of(processes: Sequence[int]) -> None:
    deadline = time.monotonic() + 60
    while any(map(is_alive, processes)):
        assert time.monotonic() < deadline, "a process lives on"
        time.sleep(0.02)


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_whoever_stops_asking_ends_them() -> None:
    results = run_on_processes(linger, [1, 2], processes=2)
    alive = [next(results), next(results)]
    assert all(map(is_alive, alive))
    results.close()
    assert not any(map(is_alive, alive))


ASK = """
from test_processes import linger
from hico_core.base.processes import run_on_processes
for process in run_on_processes(linger, [1, 2], processes=2):
    print(process, flush=True)
"""


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_they_end_with_whoever_asked(how: signal.Signals) -> None:
    """Also where that has no time to end them."""
    with subprocess.Popen([sys.executable, "-c", ASK], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as asking:
        assert asking.stdout is not None
        alive = [int(asking.stdout.readline()) for _ in range(2)]
        assert all(map(is_alive, alive))
        asking.send_signal(how)
        asking.wait(timeout=60)
    wait_for_the_end_of(alive)


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_terminals_interrupt_is_that_of_whoever_asked() -> None:
    """It reaches all processes of the terminal; the others say nothing of it."""
    command = [sys.executable, "-c", ASK]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as asking:
        assert asking.stdout is not None
        alive = [int(asking.stdout.readline()) for _ in range(2)]
        os.killpg(asking.pid, signal.SIGINT)
        _, said = asking.communicate(timeout=60)
    assert said.count("Traceback") == 1 and "KeyboardInterrupt" in said
    wait_for_the_end_of(alive)
