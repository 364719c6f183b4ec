"""The ffmpeg program: which one is used, and running it so that it never outlives us."""

import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg

from hico_core.base.errors import HicoError, short_reason

# Containers that hold their video themselves. Playlists and scripts (HLS, DASH, ffconcat) name other files, and a
# name with a video's ending does not keep FFmpeg from taking a file for one.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,live_flv,asf,ogg,h264,hevc,av1,ivf,obu,"
    "gif,apng,mxf,nut,rm,swf,wtv,dv,yuv4mpegpipe,m4v,mjpeg,mpjpeg,vc1,vc1test,h263,h261,amv,nsv,roq,smk,vmd"
)

# How FFmpeg opens a video, as a program and as a library: that file alone, whatever other addresses it names.
INPUT_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}

# The option was called -vsync before this version, and is gone by that name in new ones.
_FPS_MODE_SINCE = (5, 1)


class Finished(NamedTuple):
    """How a run of ffmpeg ended. ffmpeg ends with 0 after many decode errors; they stand in stderr."""

    exit_code: int
    stderr_lines: list[str]
    timed_out: bool = False


def find_ffmpeg() -> Path:
    """The ffmpeg to use: `HICO_FFMPEG`, else the one on PATH, else the one inside imageio-ffmpeg.

    Raises:
        HicoError: HICO_FFMPEG names no program, or there is no ffmpeg at all.

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
        raise HicoError("no ffmpeg: install it, or set HICO_FFMPEG to the program") from error


def parse_version(banner: str) -> tuple[int, int] | None:
    """(major, minor) from the first line of `ffmpeg -version`; None for a build without a release number."""
    match = re.match(r"ffmpeg version n?(\d+)\.(\d+)", banner)
    return (int(match[1]), int(match[2])) if match else None


def passthrough_arguments(version: tuple[int, int] | None) -> dict[str, str]:
    """The output option that keeps every frame at its own time: nothing doubled, nothing dropped."""
    return {"vsync" if ffmpeg_lacks(version, _FPS_MODE_SINCE) else "fps_mode": "passthrough"}


def ffmpeg_lacks(version: tuple[int, int] | None, since: tuple[int, int]) -> bool:
    """Whether an ffmpeg is older than a version; one without a release number counts as new."""
    return version is not None and version < since


def dies_with_us() -> list[str]:
    """What to put before a command so that the kernel kills it when the thread that started it ends.

    That covers a SIGKILL, which no handler of ours sees. Only Linux can do it.
    """
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []


class Ffmpeg:
    """Runs one ffmpeg program, from any number of threads, and can end all its runs at once."""

    def __init__(self, program: Path, *, own_session: bool = True) -> None:
        """Look at the program's version.

        Args:
            program: from `find_ffmpeg`.
            own_session: run apart from the terminal, so that Ctrl-C reaches only us, and we end it. False where
                somebody else ends our whole process group, as Ray does.

        Raises:
            HicoError: it is no ffmpeg.

        """
        self.program = program
        try:
            banner = subprocess.run(
                [program, "-version"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise HicoError(f"{program}: cannot be run as ffmpeg ({short_reason(error)})") from error
        self.banner = banner.splitlines()[0]
        self.version = parse_version(banner)
        self.stopped = False
        self._own_session = own_session
        self._prefix = dies_with_us()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()

    def run(
        self, arguments: list[str], *, cwd: Path, deadline: float | None = None, output: Path | None = None
    ) -> Finished:
        """Run to the end in folder `cwd`.

        Args:
            arguments: what comes after the program's name.
            cwd: where it runs and writes.
            deadline: kill it at this time of `time.monotonic()`.
            output: a file for what it prints; None: nobody wants it.

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
            process.kill()
            _, stderr = process.communicate()
        finally:
            with self._lock:
                self._running.discard(process)
        return Finished(process.returncode, stderr.decode(errors="replace").splitlines(), timed_out)

    def stop(self) -> None:
        """Kill what runs and start nothing more. What it wrote lies under temporary names."""
        with self._lock:
            self.stopped = True
            for process in self._running:
                process.kill()
