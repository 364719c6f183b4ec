"""Work is handed out a little at a time, and survives the death of those who do it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from commands import running
from made_videos import numbered_video
from trees import tree

from hico_core.base.engine import run_on_ray, run_on_threads
from hico_core.base.errors import HicoError
from hico_core.base.tally import Summary
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import SplitPolicy, split_videos
from hico_core.corpus.workspace.records import SplitOptions

ray = pytest.importorskip("ray")
from clusters import Cluster, ray_cluster  # noqa: E402 - only with Ray

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


def test_threads_take_items_as_they_go() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            taken.append(i)
            yield i

    results = run_on_threads(lambda some: [i * i for i in some], items(), workers=2)
    first = next(results)
    assert first in {0, 1, 4, 9} and len(taken) <= 4  # whichever of those taken was done first
    assert sorted([first, *results]) == [i * i for i in range(100)]


def test_an_error_ends_the_work() -> None:
    stopped: list[bool] = []

    def work(items: Sequence[int]) -> Sequence[int]:
        if 3 in items:
            raise HicoError("enough")
        return items

    with pytest.raises(HicoError, match="enough"):
        list(run_on_threads(work, range(100), workers=2, stop=lambda: stopped.append(True)))
    assert stopped == [True]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster() as made:
        yield made


def processes_at_work(root: Path) -> list[int]:
    """Wait for the temporary folders of videos that are being split; they are named by who makes them."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        folders = list((root / ".tmp").glob("split-*"))
        if folders:
            return [int(folder.name.split("-")[-2]) for folder in folders]
        time.sleep(0.02)
    raise AssertionError("no video is being split")


@pytest.mark.videos
@pytest.mark.cluster
@pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters on one machine")
def test_a_cluster_loses_a_process_and_then_a_node(cluster: Cluster, tmp_path: Path) -> None:
    """All videos are split all the same, to the byte as by threads."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(6):
        numbered_video(videos / f"{i}.mp4", seconds=10 + i, size="320x240")
    (videos / "broken.mp4").write_text("no video")

    def split(root: Path, address: str | None) -> Summary:
        return split_videos(
            find_sources([str(videos)]),
            root=root,
            options=SplitOptions(preset="veryslow"),
            workers=2,
            on_event=lambda event: None,
            policy=SplitPolicy(ray_address=address),
        )

    killed: list[int] = []

    def kill() -> None:
        killed.append(processes_at_work(tmp_path / "ray")[0])
        os.kill(killed[0], signal.SIGKILL)
        while killed[0] in (now := processes_at_work(tmp_path / "ray")) and len(now) == 1:
            time.sleep(0.02)
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
        killed.append(0)

    split(tmp_path / "local", None)
    killer = threading.Thread(target=kill)
    killer.start()
    summary = split(tmp_path / "ray", cluster.address)
    killer.join()
    assert len(killed) == 2
    assert (summary.num_done, summary.num_failed) == (6, 1)
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")
    assert split(tmp_path / "ray", cluster.address).num_unchanged == 6
    assert tree(tmp_path / "ray") == tree(tmp_path / "local")


@pytest.mark.videos
@pytest.mark.processes
@pytest.mark.cluster
@pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters on one machine")
@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_work_on_a_cluster(cluster: Cluster, tmp_path: Path, how: signal.Signals, code: int) -> None:
    for i in range(6):
        numbered_video(tmp_path / f"videos/{i}.mp4", seconds=20, size="320x240")
    root = tmp_path / "root"
    command = [sys.executable, "-m", "hico_cli", "split", str(tmp_path / "videos"), "--root", str(root)]
    options = ["--ray-address", cluster.address, "--preset", "veryslow"]
    with running([*command, *options], stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        processes_at_work(root)
        process.send_signal(how)
        _, said = process.communicate(timeout=180)
    assert process.returncode == code, said
    assert "stopped; the same command continues" in said
    assert len(list((root / "records").glob("*.json"))) < 6


def end_this_process(items: Sequence[str], *, log: Path) -> list[str]:
    if "poison" in items:
        with log.open("a") as opened:
            opened.write("x")
        os.kill(os.getpid(), signal.SIGKILL)
    return [item.upper() for item in items]


@pytest.mark.cluster
@pytest.mark.skipif(sys.platform != "linux", reason="Ray's clusters on one machine")
def test_what_kills_its_processes_is_given_up_and_named(cluster: Cluster, tmp_path: Path) -> None:
    ray.cloudpickle.register_pickle_by_value(sys.modules[end_this_process.__module__])  # nodes do not know this file
    lost: dict[str, str] = {}

    def on_lost(item: str, reason: str) -> str:
        lost[item] = reason
        return f"lost {item}"

    work = partial(end_this_process, log=tmp_path / "log")
    results = run_on_ray(work, ["a", "poison", "b"], address=cluster.address, on_lost=on_lost)
    assert sorted(results) == ["A", "B", "lost poison"]
    assert set(lost) == {"poison"} and lost["poison"]
    assert (tmp_path / "log").read_text() == "xxxx", "one try and three more"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_a_cluster_that_is_not_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named on the command line, or, for auto, by the environment."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(HicoError, match=r"--ray-address 127\.0\.0\.1:1: cannot join the cluster"):
        list(run_on_ray(list, [1], address=address, on_lost=lambda item, reason: reason))
