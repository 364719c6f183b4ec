"""Which ffmpeg is used, and how it is run."""

import threading
import time
from pathlib import Path

import imageio_ffmpeg
import pytest

from hico_core.base.errors import HicoError
from hico_core.corpus.clips.ffmpeg import (
    Ffmpeg,
    dies_with_us,
    find_ffmpeg,
    message_of,
    parse_version,
    passthrough_arguments,
)

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


def script(path: Path, *lines: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines]))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(("named", "path"), [("bin/ffmpeg", "/nowhere"), ("", "bin")])
def test_a_name_counts_from_the_folder_of_the_command(
    named: str, path: str, tmp_path: Path, ffmpeg_program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run has a working folder of its own."""
    script(tmp_path / "bin/ffmpeg", f'exec "{ffmpeg_program}" "$@"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HICO_FFMPEG", named)
    monkeypatch.setenv("PATH", path)
    assert Ffmpeg(find_ffmpeg()).run(["-version"], cwd=tmp_path / "bin").exit_code == 0


@pytest.mark.parametrize(
    ("line", "works"),
    [
        ("echo \"setpriv: unrecognized option '--pdeathsig'\" >&2; exit 1", False),  # util-linux 2.32, as in RHEL 8
        ('shift 2; exec "$@"', True),
    ],
)
def test_ffmpeg_runs_whatever_setpriv_can_do(
    line: str, works: bool, tmp_path: Path, ffmpeg_program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One without --pdeathsig is left out; one on a relative PATH is found from other folders."""
    script(tmp_path / "bin/setpriv", line)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "bin")
    prefix = [str(tmp_path / "bin/setpriv"), "--pdeathsig", "KILL"]
    assert dies_with_us(ffmpeg_program) == (prefix if works else [])
    assert Ffmpeg(ffmpeg_program).run(["-version"], cwd=tmp_path / "bin").exit_code == 0


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


def test_a_time_limit_also_ends_what_a_script_has_started(tmp_path: Path, ffmpeg_program: Path) -> None:
    """The program may be a script that waits for the real ffmpeg, which holds its standard error open."""
    program = Ffmpeg(script(tmp_path / "ffmpeg", f'"{ffmpeg_program}" "$@"', "exit $?"))
    some_seconds = ["-v", "error", "-re", "-f", "lavfi", "-i", "testsrc2=d=20", "-f", "null", "-"]
    started = time.monotonic()
    finished = program.run(some_seconds, cwd=tmp_path, deadline=started + 0.5)
    assert finished.timed_out and time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[h264 @ 0x55d0c8] error while decoding MB 3 4", "error while decoding MB 3 4"),
        ("[vist#0:0/h264 @ 0x5f] [dec:h264 @ 0x60] Decode error", "Decode error"),
        ("in [brackets] @ 0x1", "in [brackets] @ 0x1"),
    ],
)
def test_addresses_in_memory_are_no_message(line: str, message: str) -> None:
    assert message_of(line) == message
