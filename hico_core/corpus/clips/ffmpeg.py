"""The ffmpeg program: find it, and run it so that it never outlives this process."""

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg

from hico_core.base.errors import HicoError, short_reason

# Containers that hold their video themselves. Playlists and scripts (HLS, DASH, ffconcat) name other files, and FFmpeg
# can recognise a file as one of them even if its name ends like a video's.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,live_flv,asf,ogg,h264,hevc,av1,ivf,obu,"
    "gif,apng,mxf,nut,rm,swf,wtv,dv,yuv4mpegpipe,m4v,mjpeg,mpjpeg,vc1,vc1test,h263,h261,amv,nsv,roq,smk,vmd"
)

# How FFmpeg, both the program and the library, opens a video: only that file, whatever other addresses it names.
INPUT_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}

# Before this version, the option was called -vsync, a name that new versions no longer accept.
_FPS_MODE_SINCE = (5, 1)


class Finished(NamedTuple):
    """How a run of ffmpeg ended; the exit code is 0 even after many decode errors, which appear only in stderr."""

    exit_code: int
    stderr_lines: list[str]
    timed_out: bool = False


def find_ffmpeg() -> Path:
    """The ffmpeg to use: `HICO_FFMPEG`, else the one on PATH, else the one inside imageio-ffmpeg.

    Raises:
        HicoError: HICO_FFMPEG does not name a program, or there is no ffmpeg at all.

    """
    named = os.environ.get("HICO_FFMPEG")
    if named:
        found = shutil.which(named)
        if found is None:
            raise HicoError(f"HICO_FFMPEG={named}: no such program; correct it or unset it")
        return Path(found)
    on_path = shutil.which("ffmpeg")
    if on_path:
        return Path(on_path)
    try:
        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise HicoError("ffmpeg not found; install it, or set HICO_FFMPEG to its path") from error


def parse_version(banner: str) -> tuple[int, int] | None:
    """(major, minor) from the first line of `ffmpeg -version`; None for a build without a release number."""
    match = re.match(r"ffmpeg version n?(\d+)\.(\d+)", banner)
    return (int(match[1]), int(match[2])) if match else None


def passthrough_arguments(version: tuple[int, int] | None) -> dict[str, str]:
    """The output option that keeps every frame at its own time, without duplicating or dropping any."""
    return {"vsync" if ffmpeg_lacks(version, _FPS_MODE_SINCE) else "fps_mode": "passthrough"}


def ffmpeg_lacks(version: tuple[int, int] | None, since: tuple[int, int]) -> bool:
    """Whether an ffmpeg is older than a version; one without a release number counts as new."""
    return version is not None and version < since


def dies_with_us(program: Path) -> list[str]:
    """A prefix for the command of a program, so that the kernel kills it when the thread that started it ends.

    That covers a SIGKILL of this process, which no handler of ours sees. It needs Linux and the `setpriv` of util-linux
    2.33 or later; elsewhere, the prefix is empty.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return []
    prefix = [str(Path(setpriv).absolute()), "--pdeathsig", "KILL"]
    tried = subprocess.run([*prefix, program, "-version"], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    return prefix if tried.returncode == 0 else []


class Ffmpeg:
    """Runs one ffmpeg program, from any number of threads, and can end all its runs at once."""

    def __init__(self, program: Path, *, own_session: bool = True) -> None:
        """Read the program's version.

        Args:
            program: from `find_ffmpeg`.
            own_session: run ffmpeg apart from the terminal, so that Ctrl-C reaches only this process, which then ends
                it. False if something else, such as Ray, ends the whole process group.

        Raises:
            HicoError: the program is not ffmpeg.

        """
        self.program = program.absolute()  # it runs in other folders
        try:
            banner = subprocess.run(
                [self.program, "-version"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise HicoError(f"{program}: cannot be run as ffmpeg ({short_reason(error)})") from error
        self.banner = banner.splitlines()[0]
        self.version = parse_version(banner)
        self.stopped = False
        self._own_session = own_session
        self._prefix = dies_with_us(self.program)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(
        self, arguments: list[str], *, cwd: Path, deadline: float | None = None, output: Path | None = None
    ) -> Finished:
        """Run to the end in folder `cwd`.

        Args:
            arguments: the arguments after the program's name.
            cwd: working folder.
            deadline: kill the program at this time of `time.monotonic()`.
            output: a file for its standard output; None: discard it.

        """
        with Path(output or os.devnull).open("wb") as printed, self._lock:
            if self.stopped:
                return Finished(-1, ["stopped before it started"])
            process = subprocess.Popen(
                [*self._prefix, str(self.program), *arguments],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.PIPE,
                start_new_session=self._own_session,
            )
            self._running.add(process)
        timed_out = False
        try:
            _, stderr = process.communicate(timeout=None if deadline is None else max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            timed_out = True
            self._kill(process)
            _, stderr = process.communicate()
        finally:
            with self._lock:
                self._running.discard(process)
        return Finished(process.returncode, stderr.decode(errors="replace").splitlines(), timed_out)

    def stop(self) -> None:
        """Kill all runs and start no more; their unfinished output has temporary names."""
        with self._lock:
            self.stopped = True
            for process in self._running:
                self._kill(process)

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a run, with what it has started: the program may be a script that starts the real ffmpeg."""
        if self._own_session:
            with suppress(ProcessLookupError, PermissionError):  # it has just ended; the second is macOS's answer
                os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()


def message_of(line: str) -> str:
    """A line of ffmpeg's error output without the parts of ffmpeg that it begins with.

    "[h264 @ 0x55d0] error while decoding"  ->  "error while decoding"
    """
    return re.sub(r"^(\[[^\]]* @ 0x[0-9a-f]+\] )+", "", line)
