"""Two processes are one process with both their videos; killed or stopped, they go on as if nothing had happened."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from commands import TINY, assert_one_line, hico, hico_process, running
from exits import counts_up, refuses
from goldens import assert_close
from made_workspaces import untrimmed_workspace
from torch import nn

from hico_core.base.errors import HicoError, UsageError
from hico_core.training import distributed
from hico_core.training.distributed import World, joined_world, own_device, place_among_processes
from hico_core.training.launch import SharedExitCode, run_processes
from hico_core.training.shared_norm import share_batch_norms

SCRIPT = Path(__file__).with_name("processes.py")
ENVIRONMENT = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def test_batch_norms_keep_their_names_and_values() -> None:
    model = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4, eps=1e-3), nn.Sequential(nn.BatchNorm1d(4)))
    nn.init.normal_(model[1].weight)  # type: ignore[arg-type]
    model[1].requires_grad_(False)
    before = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    share_batch_norms(model)
    after = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    assert list(before) == list(after)
    assert all(before[name] is after[name] for name in before)
    assert model[1].eps == 1e-3 and not model[1].weight.requires_grad and model[2][0].weight.requires_grad  # type: ignore[index]


def what_comes_out(folder: Path, *arguments: str, processes: int) -> dict[str, Any]:
    """Of so many processes under torchrun, or of one that is started alone (0)."""
    out = folder / f"{processes}{arguments}.pt"
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes else []
    command = [sys.executable, *torchrun, str(SCRIPT), str(out), *arguments]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = torch.load(out, weights_only=True)
    return found


def assert_same_training(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Loss, gradients, running statistics and weights after some steps, in double precision."""
    assert one["finetuning"]["accuracies"] == two["finetuning"]["accuracies"]
    for kind in ("none", "global", "r2plus1d_18", "finetuning"):
        here, there = one[kind], two[kind]
        assert here["losses"] == pytest.approx(there["losses"], abs=1e-9)
        for ours, theirs in zip(here["gradients"], there["gradients"], strict=True):
            for a, b in zip(ours, theirs, strict=True):
                assert_close(a, b, 1e-9)
        assert here["state"].keys() == there["state"].keys()
        for name, value in here["state"].items():
            assert_close(value.double(), there["state"][name].double(), 1e-9)


def assert_all_skip_the_step(found: list[dict[str, Any]], *, processes: int) -> None:
    """Also those whose own gradients did not overflow; they go on with the same weights and the same scale."""
    assert len(found) == processes
    for one in found:
        first, second, third = one["weights"]
        assert torch.equal(first, second) and not torch.equal(second, third)
        assert (one["scaling"]["scale"], one["scaling"]["skipped_steps"], one["known"]) == (32768.0, 1, 1)
        assert all(torch.equal(a, b) for a, b in zip(one["weights"], found[0]["weights"], strict=True))


@pytest.mark.processes
def test_two_processes_are_one(tmp_path: Path) -> None:
    alone, together = what_comes_out(tmp_path, processes=0), what_comes_out(tmp_path, processes=2)
    assert (alone["none"]["size"], together["none"]["size"]) == (1, 2)
    assert_same_training(alone, together)
    assert_all_skip_the_step(alone["overflow"]["processes"], processes=1)
    assert_all_skip_the_step(together["overflow"]["processes"], processes=2)


@pytest.mark.processes
@pytest.mark.gpu
@pytest.mark.parametrize("processes", [0, 1, 2])
def test_on_a_gpu_as_on_a_cpu(processes: int, tmp_path: Path) -> None:
    """Alone; alone over NCCL, with shared batch norms; two that share a GPU, or, over NCCL, have one each."""
    on_a_cpu = what_comes_out(tmp_path, processes=0)
    assert_same_training(on_a_cpu, what_comes_out(tmp_path, "cuda", processes=processes))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrimmed_workspace(tmp_path_factory.mktemp("distributed"), videos=6, seconds=6)


SETTINGS = [*TINY, "-o", "data.workers=0", "-o", "data.crop_size=32", "-o", "train.checkpoint_seconds=0"]
RUN = ["pretrain", *SETTINGS, "--batch-size", "4", "--epochs", "4", "--nproc", "2"]


def pretrain(root: Path, name: str, *more: str) -> None:
    """In two processes, which this one starts: they obey `main`, not what these tests were started with."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        done = hico(*RUN, "--name", name, *more, root=root)
    assert done.returncode == 0, done.stderr


def last_weights(root: Path, name: str) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(root / "runs" / name / "checkpoints/last.pt", weights_only=True)
    assert checkpoint["progress"]["world_size"] == 2
    state: dict[str, torch.Tensor] = checkpoint["model"]
    return state


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def undisturbed(root: Path) -> dict[str, torch.Tensor]:
    pretrain(root, "undisturbed")
    return last_weights(root, "undisturbed")


def steps_of(root: Path, name: str) -> list[int]:
    path = root / "runs" / name / "metrics.jsonl"
    return [json.loads(line)["step"] for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_steps(root: Path, name: str, count: int) -> None:
    deadline = time.monotonic() + 240
    while len(steps_of(root, name)) < count and time.monotonic() < deadline:
        time.sleep(0.1)


def pretrain_on_two_machines(roots: list[Path], name: str, *more: str) -> None:
    """A process on each of two disks, as torchrun starts them on two machines."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "hico_cli", *RUN, "--name", name, "--root", str(root), *more],
            env={**ENVIRONMENT, **place, "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "MASTER_PORT": port},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, root in enumerate(roots)
    ]
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said


@pytest.mark.videos
@pytest.mark.processes
def test_stopped_and_resumed_is_never_stopped(root: Path, undisturbed: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """All go on from the first one's checkpoint, also where another sees an older one, on a disk of its own."""
    pretrain(root, "resumed", "--max-steps", "1")
    shutil.copytree(root, tmp_path / "other")
    pretrain(root, "resumed", "--resume", "--max-steps", "3")
    pretrain_on_two_machines([root, tmp_path / "other"], "resumed", "--resume")
    assert steps_of(tmp_path / "other", "resumed") == [1]
    assert same(last_weights(root, "resumed"), undisturbed)
    assert steps_of(root, "resumed") == steps_of(root, "undisturbed")
    # Another number of processes, or of videos a step, is another run.
    resume = [*RUN, "--name", "resumed", "--resume", "--nproc", "1"]
    done = hico(*resume, root=root)
    assert_one_line(done, 2, "had 2 processes and has 1 now; use as many as before, or add --allow-changed")
    assert_one_line(hico(*resume, "--batch-size", "3", root=root), 2, "train.batch_size=4, not 3")
    done = hico(*resume, "--batch-size", "3", "--max-steps", "7", "--allow-changed", root=root)
    assert done.returncode == 0, done.stderr


@pytest.mark.videos
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_killed_process_is_started_again_and_nothing_is_lost(
    root: Path, undisturbed: dict[str, torch.Tensor]
) -> None:
    command = [sys.executable, "-m", "hico_cli", *RUN, "--name", "killed", "--root", str(root)]
    with running(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) as process:
        wait_for_steps(root, "killed", 3)
        workers = started_by(process.pid)
        assert len(workers) == 2
        os.kill(workers[1], signal.SIGKILL)
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 0, said
    assert same(last_weights(root, "killed"), undisturbed)
    assert steps_of(root, "killed") == steps_of(root, "undisturbed")


def started_by(parent: int) -> list[int]:
    """The processes that a process started through multiprocessing, in order."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            its_parent = int(entry.joinpath("stat").read_text().rsplit(")", 1)[1].split()[1])
            arguments = entry.joinpath("cmdline").read_text().split("\0")
        except OSError:
            continue
        if its_parent == parent and "--multiprocessing-fork" in arguments:
            found.append(int(entry.name))
    return sorted(found)


def last_step(root: Path, name: str) -> int:
    checkpoint = torch.load(root / "runs" / name / "checkpoints/last.pt", weights_only=True)
    step: int = checkpoint["progress"]["position"][0]
    return step


@pytest.mark.videos
@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_writes_a_checkpoint(root: Path, number: signal.Signals) -> None:
    """SIGTERM to the command; SIGINT to all processes of the terminal, as Ctrl-C sends it."""
    command = [sys.executable, "-m", "hico_cli", *RUN, "--name", number.name, "--root", str(root)]
    with running(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        wait_for_steps(root, number.name, 2)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        assert process.wait(timeout=120) == 128 + number
    assert last_step(root, number.name) == steps_of(root, number.name)[-1]


@pytest.mark.videos
@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_processes_end_with_the_command_that_started_them(root: Path) -> None:
    command = [sys.executable, "-m", "hico_cli", *RUN, "--epochs", "100000", "--name", "orphan", "--root", str(root)]
    with running(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL) as process:
        wait_for_steps(root, "orphan", 2)
        workers = started_by(process.pid)
        assert len(workers) == 2
        process.kill()
    deadline = time.monotonic() + 120
    while any(Path(f"/proc/{worker}").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    assert last_step(root, "orphan") == steps_of(root, "orphan")[-1]


@pytest.mark.videos
@pytest.mark.processes
def test_an_error_in_one_process_ends_all_with_one_line(root: Path) -> None:
    """The first process finds the disk full at a checkpoint, while the others wait for it."""
    command = [sys.executable, "-m", "hico_cli", *RUN, "--name", "full", "--root", str(root)]
    fault = {"HICO_FAULT": "file.written:4=ENOSPC"}  # after started.json, config.yaml and the first checkpoint
    # Less than gloo's time-out of half an hour, for which the others would wait.
    done = subprocess.run(command, capture_output=True, text=True, env={**ENVIRONMENT, **fault}, timeout=600)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if not line.startswith("step ")]
    assert len(errors) == 1, done.stderr
    assert errors[0].startswith("hico: ") and "No space left on device; free some space" in errors[0]


PLACE = {
    **{"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"},
    **{"MASTER_ADDR": "a", "MASTER_PORT": "1"},
}


@pytest.mark.parametrize(
    ("environment", "world"),
    [
        ({}, None),
        (PLACE, World(3, 4, 1, 2)),
        ({"WORLD_SIZE": "1"}, None),
        ({**PLACE, "WORLD_SIZE": ""}, None),
        ({name: value for name, value in PLACE.items() if name != "WORLD_SIZE"}, None),
    ],
)
def test_place_among_processes(environment: dict[str, str], world: World | None) -> None:
    assert place_among_processes(environment) == world


@pytest.mark.parametrize("name", [name for name in PLACE if name != "WORLD_SIZE"])
def test_processes_that_do_not_know_each_other_do_not_train_alone(name: str) -> None:
    """As srun and Kubernetes start them: each would train a model of its own, on the same videos."""
    partly = {other: value for other, value in PLACE.items() if other != name}
    with pytest.raises(UsageError, match=f"WORLD_SIZE=4 .* {name} are not set; start them with torchrun"):
        place_among_processes(partly)


def test_a_process_takes_its_gpu_before_anything_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what does not name a GPU goes to the first one, from all processes."""
    done: list[object] = []
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr(distributed, "_store_of_joining", lambda world: None)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **how: done.append((backend, how["device_id"])))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: done.append("left"))
    own = torch.device("cuda", 1)
    with joined_world(torch.device("cuda")) as world:
        assert own_device(torch.device("cuda"), world) == own
    assert done == [own, ("cpu:gloo,cuda:nccl", own), "left"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(UsageError, match="2 training processes on this machine have 1 GPU;"),
        joined_world(torch.device("cuda")),
    ):
        pass


def test_a_single_process_that_fails_leaves_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which NCCL would say a line of its own. Of several, one that fails waits for nobody: see `leave`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    for name, value in {**alone, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(HicoError, match="no videos"), joined_world(torch.device("cpu")):
        assert dist.is_initialized()
        raise HicoError("no videos")
    assert not dist.is_initialized()


@pytest.mark.processes
@pytest.mark.parametrize(("processes", "taken_down"), [("1", True), ("2", False)])
@pytest.mark.parametrize(("arguments", "code"), [(["config", "list"], 0), (["inspect", "/nowhere"], 2)])
def test_one_of_several_processes_ends_at_once(
    processes: str, taken_down: bool, arguments: list[str], code: int
) -> None:
    """Also when all is good: now and then, a thread of PyTorch that outlives Python ends the process with SIGABRT.

    Python that is taken down waits for such threads as this one, which waits for the end of the main one.
    """
    program = (
        "import threading; from hico_cli.main import main; "
        "threading.Thread(target=lambda: (threading.main_thread().join(), print('waited for'))).start(); "
        f"main({arguments})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**ENVIRONMENT, "WORLD_SIZE": processes}
    )
    assert done.returncode == code, done.stderr
    assert ("waited for" in done.stdout) == taken_down


@pytest.mark.videos
@pytest.mark.processes
def test_a_port_in_use_is_one_line(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        alone = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken.getsockname()[1])}
        for name, value in {"TORCHELASTIC_RUN_ID": "test", **alone, **where}.items():
            monkeypatch.setenv(name, value)
        done = hico_process("pretrain", *TINY, "--name", "port", root=root)
    assert_one_line(done, 1, "cannot find each other", "check that the port is free")


@pytest.mark.processes
def test_a_mistake_that_all_processes_find_is_said_once(root: Path) -> None:
    done = hico_process(*RUN, "--name", "mistaken", "--device", "cpu", "-o", "train.precision=tf32", root=root)
    assert_one_line(done, 2, "train.precision=tf32")
    assert not (root / "runs/mistaken").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("work", "codes"), [(refuses, {10, 11}), (counts_up, {1})])
def test_the_code_of_the_first_error_is_that_of_all(work: Callable[[SharedExitCode], int], codes: set[int]) -> None:
    before = dict(os.environ), signal.getsignal(signal.SIGTERM)
    assert run_processes(work, processes=2) in codes
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before
