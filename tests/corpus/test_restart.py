"""Killed anywhere, the same command continues; nothing half-written is left, and no ffmpeg lives on."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from commands import running
from made_videos import numbered_video
from trees import tree

from hico_core.base.errors import HicoError
from hico_core.base.files import lock
from hico_core.base.tally import Summary
from hico_core.corpus.index import build_index, read_index
from hico_core.corpus.intake import Rules
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import SplitPolicy, split_videos
from hico_core.corpus.workspace.access import Shard, opened_workspace
from hico_core.corpus.workspace.check import check_files
from hico_core.corpus.workspace.records import SplitOptions, read_record

pytestmark = pytest.mark.videos

SMALL = SplitOptions(short_side=96, preset="ultrafast")
COMMAND = [sys.executable, "-c", "from hico_cli.main import main; main()", "split"]


def split(inputs: Path, root: Path, policy: SplitPolicy, shard: tuple[int, int] | None = None) -> Summary:
    return split_videos(
        find_sources([str(inputs)]),
        root=root,
        options=SMALL,
        workers=2,
        on_event=lambda event: None,
        policy=replace(policy, shard=Shard(*shard) if shard else None),
    )


def children_in(folder: Path) -> list[int]:
    """Processes whose working folder lies below `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(entry.joinpath("cwd").readlink()).startswith(str(folder)):
                found.append(int(entry.name))
        except OSError:
            continue  # it has ended, or is not ours
    return found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 videos, one of them no video."""
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(11):
        numbered_video(folder / f"video {i}.mp4", seconds=6 + i, size="320x240")
    (folder / "broken.mp4").write_text("no video")
    return folder


OPTIONS = ["--workers", "2", "--segment-seconds", "2", "--preset", "ultrafast"]


def run(*arguments: str | Path, fault: str = "") -> int:
    """A command in a process of its own, which may die at a point of the commit."""
    environment = {**os.environ, **({"HICO_FAULT": fault} if fault else {})}
    return subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, env=environment).returncode


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of 4, 5 and 6 s, and how a workspace looks in which nothing was ever interrupted."""
    folder = tmp_path_factory.mktemp("three")
    for i in range(3):
        numbered_video(folder / f"videos/{i}.mp4", seconds=4 + i)
    assert run(folder / "videos", *OPTIONS, "--root", folder / "before") == 0
    shutil.copytree(folder / "before", folder / "undisturbed")
    assert run(folder / "videos", *OPTIONS, "--crf", "35", "--root", folder / "undisturbed") == 0
    return folder


COMMIT_POINTS = [
    *("commit.announce", "commit.announced", "commit.clip", "commit.clip:2", "commit.clip:4", "commit.record"),
    *("commit.recorded", "commit.record:3"),
]


@pytest.mark.processes
@pytest.mark.parametrize("fault", COMMIT_POINTS)
def test_killed_at_each_point_of_a_commit(three: Path, tmp_path: Path, fault: str) -> None:
    """While new clips replace old ones: each video has good clips at every moment, and all ends as it would."""
    root = tmp_path / "root"
    shutil.copytree(three / "before", root)
    again: list[str | Path] = [three / "videos", *OPTIONS, "--crf", "35", "--root", root]
    assert run(*again, fault=fault) == -signal.SIGKILL
    build_index(root)  # finishes what was announced
    assert list(read_index(root)["num_clips"]) == [2, 2, 3, 3, 3, 3, 3, 3]
    assert not list(check_files(root)), "each record's clips are those that it was written with"
    assert run(*again) == 0
    for name in ("training.txt", "index.parquet"):
        (root / name).unlink()
    assert tree(root) == tree(three / "undisturbed")


@pytest.mark.processes
@pytest.mark.parametrize("fault", ["commit.announced", "commit.clip", "commit.recorded", "commit.obsolete:2"])
def test_killed_while_other_clips_replace_old_ones(three: Path, tmp_path: Path, fault: str) -> None:
    """Clips of another length have other names; the old ones are gone in the end, and only then."""
    root = tmp_path / "root"
    shutil.copytree(three / "before", root)
    again: list[str | Path] = [three / "videos", "--workers", "1", "--preset", "ultrafast", "--root", root]
    assert run(*again, fault=fault) == -signal.SIGKILL
    assert run(*again) == 0
    assert sorted(path.name for path in (root / "train").iterdir()) == [
        "v_0_0000000_0004000.mp4",
        "v_1_0000000_0005000.mp4",
        "v_2_0000000_0005000.mp4",
        "v_2_0005000_0006000.mp4",
    ]
    assert not list(check_files(root))
    assert not (root / ".tmp").exists()


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only Linux can end the children of the killed")
def test_kills_at_random_moments(corpus: Path, tmp_path: Path) -> None:
    """With SIGKILL, at moments that nobody chose: the tree is in the end byte-equal to an undisturbed one."""
    undisturbed, root = tmp_path / "undisturbed", tmp_path / "root"
    assert run(corpus, *OPTIONS, "--root", undisturbed) == 3
    rng = random.Random(5)
    killed_at_work = 0
    for _ in range(6):
        with running([*COMMAND, str(corpus), *OPTIONS, "--root", root], stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 20
            while not children_in(root) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3))
            killed_at_work += process.poll() is None
            process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 5
        while children_in(root) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not children_in(root), "an ffmpeg lives on"
    assert killed_at_work >= 2, "the kills came too late to show anything"
    assert run(corpus, *OPTIONS, "--root", root) == 3
    assert tree(root) == tree(undisturbed)


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_no_ffmpeg_outlives_the_command(how: signal.Signals, corpus: Path, tmp_path: Path) -> None:
    options = ["--workers", "2", "--preset", "veryslow", "--segment-seconds", "2"]
    with running([*COMMAND, str(corpus), *options, "--root", tmp_path], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while not children_in(tmp_path / ".tmp/split-") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert children_in(tmp_path)
        process.send_signal(how)
        assert process.wait(timeout=20) == 128 + how
    assert not children_in(tmp_path)
    assert not (tmp_path / ".tmp").exists()


@pytest.mark.processes
def test_what_a_killed_process_leaves_for_a_moment_is_waited_for(tmp_path: Path) -> None:
    """A copy of it that was about to become ffmpeg still has its lock."""
    hold = "import sys, time; from filelock import FileLock; held = FileLock(sys.argv[1]); held.acquire(); print()"
    command = [sys.executable, "-uc", f"{hold}; time.sleep(0.3)", str(tmp_path / ".lock")]
    with running(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(HicoError, match="busy"), lock(tmp_path / ".lock", refusal="busy", wait_seconds=0.0):
            pass
        with lock(tmp_path / ".lock", refusal="busy"):
            assert other.wait(timeout=60) == 0


def test_two_runs_do_not_write_into_one_workspace(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hico_core.corpus.workspace.access._START_SECONDS", 0.1)
    split(corpus, tmp_path, SplitPolicy())
    with opened_workspace(tmp_path):
        for shard in (None, (1, 2)):
            with pytest.raises(HicoError, match="another hico command is writing here"):
                split(corpus, tmp_path, SplitPolicy(), shard=shard)
        with pytest.raises(HicoError, match="another hico command is writing here"):
            build_index(tmp_path)
    with opened_workspace(tmp_path, shard=Shard(1, 2)):
        for shard in (None, (1, 2)):
            with pytest.raises(HicoError, match="another hico command is writing here"):
                split(corpus, tmp_path, SplitPolicy(), shard=shard)
        with pytest.raises(HicoError, match="another hico command is writing here"):
            build_index(tmp_path)
        assert split(corpus, tmp_path, SplitPolicy(rules=Rules(force=True)), shard=(2, 2)).num_done > 0


def test_shards_are_the_whole(corpus: Path, tmp_path: Path) -> None:
    ids = [source.video_id for source in find_sources([str(corpus)])]
    for count in (1, 3, 5):
        owners = [[n for n in range(1, count + 1) if Shard(n, count).has(name)] for name in ids]
        assert all(len(numbers) == 1 for numbers in owners)
    split(corpus, tmp_path / "whole", SplitPolicy())
    summaries = [split(corpus, tmp_path / "parts", SplitPolicy(), shard=(n, 3)) for n in (1, 2, 3)]
    assert sum(summary.num_done for summary in summaries) == 11
    assert sum(summary.num_failed for summary in summaries) == 1
    whole, parts = tree(tmp_path / "whole"), tree(tmp_path / "parts")
    assert {k: v for k, v in whole.items() if ".lock" not in k} == {k: v for k, v in parts.items() if ".lock" not in k}


@pytest.fixture
def one(tmp_path: Path) -> Path:
    numbered_video(tmp_path / "a.mp4", seconds=3)
    split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy(rules=Rules(checksum=True)))
    return tmp_path


def attempts(folder: Path) -> int:
    record = read_record(folder / "root", "a")
    assert record is not None
    return record.attempts


def test_force_does_finished_videos_again(one: Path) -> None:
    assert split(one / "a.mp4", one / "root", SplitPolicy()).num_unchanged == 1
    assert split(one / "a.mp4", one / "root", SplitPolicy(rules=Rules(force=True))).num_done == 1
    assert attempts(one) == 2


def test_a_touched_file_is_another_one_unless_its_checksum_says_not(one: Path) -> None:
    os.utime(one / "a.mp4", (1, 1))
    assert split(one / "a.mp4", one / "root", SplitPolicy(rules=Rules(checksum=True))).num_unchanged == 1
    assert split(one / "a.mp4", one / "root", SplitPolicy()).num_done == 1
    # Same size, same time, other bytes.
    split(one / "a.mp4", one / "root", SplitPolicy(rules=Rules(checksum=True, force=True)))
    data = bytearray((one / "a.mp4").read_bytes())
    data[data.index(b"Lavf")] ^= 1
    (one / "a.mp4").write_bytes(data)
    os.utime(one / "a.mp4", (1, 1))
    assert split(one / "a.mp4", one / "root", SplitPolicy()).num_unchanged == 1
    assert split(one / "a.mp4", one / "root", SplitPolicy(rules=Rules(checksum=True))).num_done == 1


def test_a_failure_is_forgotten_once_the_file_is_good(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    assert split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy()).num_failed == 1
    assert split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy()).num_failed_before == 1
    numbered_video(tmp_path / "a.mp4", seconds=1)
    assert split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy()).num_done == 1
    assert (tmp_path / "root/failures.jsonl").read_text() == ""
