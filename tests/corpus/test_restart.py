"""Killed anywhere, the same command goes on; nothing half-written is left, and no ffmpeg lives on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_videos import numbered_video
from trees import tree

from hico_core.corpus.ids import find_sources
from hico_core.corpus.records import SplitOptions, read_record
from hico_core.corpus.split import SplitPolicy, SplitSummary, in_shard, split_videos
from hico_core.corpus.storage import locked
from hico_core.errors import HicoError

SMALL = SplitOptions(short_side=96, preset="ultrafast")
COMMAND = [sys.executable, "-c", "from hico_cli.main import main; main()", "split"]


def split(inputs: Path, root: Path, policy: SplitPolicy, shard: tuple[int, int] | None = None) -> SplitSummary:
    return split_videos(
        find_sources([str(inputs)]),
        root=root,
        options=SMALL,
        workers=2,
        on_event=lambda event: None,
        policy=policy,
        shard=shard,
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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and only Linux can end the children of the killed")
def test_thirty_kills_in_a_row(corpus: Path, tmp_path: Path) -> None:
    """At random moments, with SIGKILL: the tree is in the end byte-equal to an undisturbed one."""
    undisturbed = tmp_path / "undisturbed"
    options = ["--workers", "2", "--segment-seconds", "2", "--preset", "slow"]
    whole = subprocess.run([*COMMAND, str(corpus), *options, "--root", undisturbed], capture_output=True, text=True)
    assert whole.returncode == 3, whole.stderr

    root = tmp_path / "root"
    rng = random.Random(5)
    killed_at_work = 0
    for _ in range(30):
        with subprocess.Popen([*COMMAND, str(corpus), *options, "--root", root], stderr=subprocess.DEVNULL) as process:
            time.sleep(0.45 + rng.uniform(0, 0.35))
            killed_at_work += bool(children_in(root))
            process.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 5
        while children_in(root) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not children_in(root), "an ffmpeg lives on"
    assert killed_at_work >= 5, "the kills came too early or too late to show anything"
    last = subprocess.run([*COMMAND, str(corpus), *options, "--root", root], capture_output=True, text=True)
    assert last.returncode == 3
    assert tree(root) == tree(undisturbed)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_no_ffmpeg_outlives_the_command(how: signal.Signals, corpus: Path, tmp_path: Path) -> None:
    options = ["--workers", "2", "--preset", "veryslow", "--segment-seconds", "2"]
    with subprocess.Popen([*COMMAND, str(corpus), *options, "--root", tmp_path], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while not children_in(tmp_path / ".tmp/split-") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert children_in(tmp_path)
        process.send_signal(how)
        assert process.wait(timeout=20) == 128 + how
    assert not children_in(tmp_path)
    assert not (tmp_path / ".tmp").exists()


def test_two_runs_do_not_write_into_one_workspace(corpus: Path, tmp_path: Path) -> None:
    with locked(tmp_path / ".split.lock") as taken:
        assert taken
        with pytest.raises(HicoError, match="another `hico split` is writing here"):
            split(corpus, tmp_path, SplitPolicy())
        with pytest.raises(HicoError, match="another `hico split` is writing here"):
            split(corpus, tmp_path, SplitPolicy(), shard=(1, 2))
    with locked(tmp_path / ".split.lock", shared=True), locked(tmp_path / ".split-1-of-2.lock"):
        with pytest.raises(HicoError, match="another `hico split` is writing here"):
            split(corpus, tmp_path, SplitPolicy(), shard=(1, 2))
        assert split(corpus, tmp_path, SplitPolicy(), shard=(2, 2)).num_split > 0


def test_shards_are_the_whole(corpus: Path, tmp_path: Path) -> None:
    ids = [source.video_id for source in find_sources([str(corpus)])]
    for count in (1, 3, 5):
        owners = [[n for n in range(1, count + 1) if in_shard(name, number=n, count=count)] for name in ids]
        assert all(len(numbers) == 1 for numbers in owners)
    split(corpus, tmp_path / "whole", SplitPolicy())
    summaries = [split(corpus, tmp_path / "parts", SplitPolicy(), shard=(n, 3)) for n in (1, 2, 3)]
    assert sum(summary.num_split for summary in summaries) == 11
    assert sum(summary.num_failed for summary in summaries) == 1
    whole, parts = tree(tmp_path / "whole"), tree(tmp_path / "parts")
    assert {k: v for k, v in whole.items() if ".lock" not in k} == {k: v for k, v in parts.items() if ".lock" not in k}


@pytest.fixture
def one(tmp_path: Path) -> Path:
    numbered_video(tmp_path / "a.mp4", seconds=3)
    split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy(checksum=True))
    return tmp_path


def attempts(folder: Path) -> int:
    record = read_record(folder / "root", "a")
    assert record is not None
    return record.attempts


def test_force_does_finished_videos_again(one: Path) -> None:
    assert split(one / "a.mp4", one / "root", SplitPolicy()).num_unchanged == 1
    assert split(one / "a.mp4", one / "root", SplitPolicy(force=True)).num_split == 1
    assert attempts(one) == 2


def test_a_touched_file_is_another_one_unless_its_checksum_says_not(one: Path) -> None:
    os.utime(one / "a.mp4", (1, 1))
    assert split(one / "a.mp4", one / "root", SplitPolicy(checksum=True)).num_unchanged == 1
    assert split(one / "a.mp4", one / "root", SplitPolicy()).num_split == 1
    # Same size, same time, other bytes.
    split(one / "a.mp4", one / "root", SplitPolicy(checksum=True, force=True))
    data = bytearray((one / "a.mp4").read_bytes())
    data[data.index(b"Lavf")] ^= 1
    (one / "a.mp4").write_bytes(data)
    os.utime(one / "a.mp4", (1, 1))
    assert split(one / "a.mp4", one / "root", SplitPolicy()).num_unchanged == 1
    assert split(one / "a.mp4", one / "root", SplitPolicy(checksum=True)).num_split == 1


def test_a_failure_is_forgotten_once_the_file_is_good(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    assert split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy()).num_failed == 1
    assert split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy()).num_failed_before == 1
    numbered_video(tmp_path / "a.mp4", seconds=1)
    assert split(tmp_path / "a.mp4", tmp_path / "root", SplitPolicy()).num_split == 1
    assert (tmp_path / "root/failures.jsonl").read_text() == ""
