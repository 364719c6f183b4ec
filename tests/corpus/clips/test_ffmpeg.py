"""Which ffmpeg is used, and how it is run."""

import threading
import time
from pathlib import Path

import imageio_ffmpeg
import pytest

from hico_core.base.errors import HicoError
from hico_core.corpus.clips.ffmpeg import Ffmpeg, find_ffmpeg, parse_version, passthrough_arguments

pytestmark = pytest.mark.videos


def test_order_of_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Path(imageio_ffmpeg.get_ffmpeg_exe())
    on_path = tmp_path / "ffmpeg"
    on_path.symlink_to(inside)
    named = tmp_path / "mine"
    named.symlink_to(inside)
    monkeypatch.delenv("HICO_FFMPEG", raising=False)
    monkeypatch.setenv("PATH", "")
    assert find_ffmpeg() == inside
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg() == on_path
    monkeypatch.setenv("HICO_FFMPEG", str(named))
    assert find_ffmpeg() == named
    monkeypatch.setenv("HICO_FFMPEG", str(tmp_path / "none"))
    with pytest.raises(HicoError, match="HICO_FFMPEG="):
        find_ffmpeg()


@pytest.mark.parametrize(
    ("banner", "version", "option"),
    [
        ("ffmpeg version 4.4.2-0ubuntu0.22.04.1 Copyright", (4, 4), "vsync"),
        ("ffmpeg version 5.1.6-0+deb12u1 Copyright", (5, 1), "fps_mode"),
        ("ffmpeg version n9.0.2-17-g2a571b6068-20260930 Copyright", (9, 0), "fps_mode"),
        ("ffmpeg version N-120000-gabcdef Copyright", None, "fps_mode"),  # built from the newest source
    ],
)
def test_versions(banner: str, version: tuple[int, int] | None, option: str) -> None:
    assert parse_version(banner) == version
    assert passthrough_arguments(version) == {option: "passthrough"}


@pytest.mark.processes
def test_a_program_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(HicoError, match="cannot be run as ffmpeg"):
        Ffmpeg(tmp_path / "none")


def test_errors_are_kept(tmp_path: Path, ffmpeg_program: Path) -> None:
    finished = Ffmpeg(ffmpeg_program).run(["-v", "error", "-i", "none.mp4", "-f", "null", "-"], cwd=tmp_path)
    assert finished.exit_code != 0
    assert "No such file" in "\n".join(finished.stderr_lines)


def test_stop_ends_what_runs_and_what_would_start(tmp_path: Path, ffmpeg_program: Path) -> None:
    program = Ffmpeg(ffmpeg_program)
    endless = ["-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=d=600", "-f", "null", "-"]
    results = []
    thread = threading.Thread(target=lambda: results.append(program.run(endless, cwd=tmp_path)))
    thread.start()
    time.sleep(0.5)
    program.stop()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert results[0].exit_code != 0
    assert program.run(endless, cwd=tmp_path).exit_code != 0
