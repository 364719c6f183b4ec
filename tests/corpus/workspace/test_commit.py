"""A commit that was announced can be carried out, whatever happens to the machine."""

import os
import sys
from pathlib import Path

import pytest

from hico_core.corpus.workspace.commit import commit, finish_commits
from hico_core.corpus.workspace.records import ClipRecord, SourceFile, SplitOptions, VideoRecord, read_record

SHORT, LONG = "train/v_a_0000000_0005000.mp4", "train/v_a_0000000_0009000.mp4"


def record_of(path: str, *, content: bytes) -> VideoRecord:
    """The record of a video of one clip."""
    start_ms, end_ms = (int(time) for time in path.removesuffix(".mp4").split("_")[-2:])
    clip = ClipRecord(
        path=path,
        start_ms=start_ms,
        end_ms=end_ms,
        start_seconds=start_ms / 1000,
        end_seconds=end_ms / 1000,
        num_frames=1,
        width=2,
        height=2,
        codec="h264",
        keyframe_interval=1,
        size_bytes=len(content),
        sha256=None,
    )
    source = SourceFile(path="/a.mp4", size_bytes=1, mtime_ns=1)
    return VideoRecord(
        hico_version="0", video_id="a", source=source, options=SplitOptions(), attempts=1, fps=25, clips=[clip]
    )


def commit_clip(root: Path, path: str, content: bytes) -> None:
    folder = root / ".tmp/made"
    folder.mkdir(parents=True)
    (folder / Path(path).name).write_bytes(content)
    commit(root, record_of(path, content=content), folder, read_record(root, "a"))


def clips_in(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (root / "train").iterdir()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A workspace of one video, whose only clip has the content "old"."""
    for folder in ("records", "train"):
        (tmp_path / folder).mkdir()
    commit_clip(tmp_path, SHORT, b"old")
    return tmp_path


def interrupt(root: Path, path: str, monkeypatch: pytest.MonkeyPatch, *, point: str) -> Path:
    """Replace the clip, fail at a point, and give the folder of the commit."""
    with monkeypatch.context() as patch, pytest.raises(OSError, match="fault point"):
        patch.setattr("hico_core.base.files._passed", {})  # of other tests
        patch.setenv("HICO_FAULT", f"{point}=EIO")
        commit_clip(root, path, b"newer")
    (pending,) = (root / ".tmp").glob("commit-*")
    return pending


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_all_is_on_the_disk_before_a_commit_is_announced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clips, the record, the list and the folder, as far as a test can see; then the folder's new name."""
    synced = []
    fsync = os.fsync

    def seen(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", seen)
    interrupt(root, LONG, monkeypatch, point="commit.announced")
    made = root / ".tmp/made"
    assert set(synced[:3]) == {str(made / name) for name in (Path(LONG).name, "record.json", "obsolete.json")}
    assert synced[3:] == [str(made), str(made.parent)]


def test_nothing_needless_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wait takes milliseconds, for each of 240,000 videos: the record, twice, and its folder under two names."""
    num_waits: list[int] = []
    monkeypatch.setattr(os, "fsync", num_waits.append)
    (tmp_path / "records").mkdir()
    made = tmp_path / ".tmp/made"
    made.mkdir(parents=True)
    commit(tmp_path, record_of(SHORT, content=b"").model_copy(update={"clips": []}), made, None)
    assert len(num_waits) == 4


@pytest.mark.parametrize("size", [0, 3])
def test_a_commit_that_lost_content_is_dropped(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """The old clip and its record stay valid, so the video is done again."""
    pending = interrupt(root, LONG, monkeypatch, point="commit.announced")
    os.truncate(pending / Path(LONG).name, size)
    finish_commits(root)
    record = read_record(root, "a")
    assert record is not None and [clip.path for clip in record.clips] == [SHORT]
    assert clips_in(root) == {Path(SHORT).name: b"old"}
    assert not list((root / ".tmp").iterdir()) and "are damaged; dropped it" in caplog.text


@pytest.mark.parametrize("point", ["commit.announced", "commit.recorded"])
@pytest.mark.parametrize(
    "content", ["", '["train/v_a_00', "{}", "[1]", '["/etc/passwd"]', '["train/../index.parquet"]']
)
def test_a_damaged_list_of_obsolete_clips_removes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, content: str, point: str
) -> None:
    """The new clip takes effect; `index --check` then reports the old one, which is left."""
    pending = interrupt(root, LONG, monkeypatch, point=point)
    (pending / "obsolete.json").write_text(content)
    finish_commits(root)
    record = read_record(root, "a")
    assert record is not None and [clip.path for clip in record.clips] == [LONG]
    assert clips_in(root) == {Path(SHORT).name: b"old", Path(LONG).name: b"newer"}
    assert not list((root / ".tmp").iterdir()) and "`hico index --check` names the replaced clips" in caplog.text
