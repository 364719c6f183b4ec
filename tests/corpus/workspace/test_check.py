"""What lies on disk is compared with the records, not believed."""

import shutil
from dataclasses import astuple
from pathlib import Path

import pytest
from made_videos import numbered_video

from hico_core.base.errors import HicoError
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.split import split_videos
from hico_core.corpus.workspace.check import check_files
from hico_core.corpus.workspace.records import SplitOptions
from hico_core.corpus.workspace.status import summarise_records

pytestmark = pytest.mark.videos


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check")
    numbered_video(folder / "a.mp4", seconds=11)
    (folder / "b.mp4").write_text("no video")
    split_videos(
        find_sources([str(folder / "a.mp4"), str(folder / "b.mp4")]),
        root=folder / "root",
        options=SplitOptions(short_side=96, preset="ultrafast"),
        workers=2,
        on_event=lambda event: None,
    )
    return folder / "root"


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "root"))


def test_all_is_well(root: Path) -> None:
    assert list(check_files(root)) == []


def test_missing_extra_and_changed_files_are_named(root: Path) -> None:
    clips = [root / f"train/v_a_{name}.mp4" for name in ("0000000_0005000", "0005000_0010000", "0010000_0011000")]
    clips[0].unlink()
    longer = clips[1].read_bytes() + b"x"
    clips[1].write_bytes(longer)
    other = bytearray(clips[2].read_bytes())
    other[-1] ^= 1
    clips[2].write_bytes(other)
    (root / "train/v_c_0000000_0005000.mp4").write_bytes(b"")
    (root / "train/notes.txt").write_text("")
    found = {(kind, Path(path).name): detail for kind, path, detail in check_files(root)}
    assert found == {
        ("missing", clips[0].name): "",
        ("changed", clips[1].name): f"{len(longer)} bytes instead of {len(longer) - 1}",
        ("changed", clips[2].name): "other content of the same size",
        ("extra", "v_c_0000000_0005000.mp4"): "not in any record",
        ("extra", "notes.txt"): "not named like a clip",
    }


def test_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(HicoError, match="nothing has been split here"):
        list(check_files(tmp_path))


def test_status(root: Path, tmp_path: Path) -> None:
    done, failed = summarise_records(root)
    assert list(astuple(done))[:5] == ["train", "split", "done", 1, 3]
    assert done.seconds == pytest.approx(11)
    assert done.size_bytes == sum(path.stat().st_size for path in (root / "train").iterdir())
    assert list(astuple(failed)) == ["train", "split", "failed: probe", 1, 0, 0, 0]
    with pytest.raises(HicoError, match="nothing has been split here"):
        summarise_records(tmp_path / "none")
