"""Videos made with ffmpeg for a test, never stored. Frames carry their numbers, so a test can ask which came back."""

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from hico_core.corpus.clips.ffmpeg import Ffmpeg, find_ffmpeg


def run_ffmpeg(*arguments: str | Path) -> None:
    subprocess.run([find_ffmpeg(), "-nostdin", "-v", "error", "-y", *arguments], check=True)


def frames_of_ffmpeg(video: Path, folder: Path) -> np.ndarray:
    """All frames of a video as ffmpeg shows them: (N, H, W, 3)."""
    raw = folder / "shown.nut"
    run_ffmpeg("-i", video, "-map", "0:V:0", "-fps_mode", "passthrough", "-c:v", "rawvideo", "-pix_fmt", "rgb24", raw)
    with av.open(str(raw)) as container:
        return np.stack([frame.to_ndarray() for frame in container.decode(video=0)])


def turned_copy(source: Path, target: Path, *, degrees: int) -> None:
    """The same pictures in a file that asks players to turn them counter-clockwise."""
    if (Ffmpeg(find_ffmpeg()).version or (9, 0)) >= (6, 0):
        run_ffmpeg("-display_rotation", str(degrees), "-i", source, "-c", "copy", target)
    else:
        run_ffmpeg("-i", source, "-c", "copy", "-metadata:s:v:0", f"rotate={degrees}", target)


def with_clean_aperture(source: Path, target: Path, *, width: int, height: int, right: float, down: float) -> None:
    """An H.264 mp4 file that asks players to show only a part, whose middle lies so far from the picture's middle."""
    data = bytearray(source.read_bytes())
    halves = [width, 1, height, 1, round(right * 2), 2, round(down * 2), 2]
    box = struct.pack(">I4s8i", 40, b"clap", *halves)
    place = data.index(b"pasp") - 4
    data[place:place] = box  # the index lies behind the pictures, so that those stay where they are
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        at = data.rindex(name, 0, place) - 4
        data[at : at + 4] = struct.pack(">I", struct.unpack(">I", data[at : at + 4])[0] + len(box))
    target.write_bytes(data)


# The frame number is painted as BITS black or white bars, most significant first: it survives scaling and encoding.
BITS = 10

_MADE = Path(tempfile.gettempdir()) / f"hico-videos-of-tests-{os.getuid()}"


def numbered_video(
    path: Path,
    *,
    seconds: float,
    fps: str = "30",
    size: str = "160x120",
    keep: str = "1",
    before: tuple[str, ...] = (),
    output: tuple[str, ...] = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10", "-bf", "2"),
) -> None:
    """A video whose frames carry their numbers, counted before any are dropped.

    Of the same arguments it is made once for all tests, also those of other processes and of later days.

    keep: an ffmpeg `select` expression of the frames that stay, with their times: a variable frame rate.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = map(int, size.split("x"))
    bar = width // BITS
    value = f"255*mod(floor(N/pow(2,{BITS - 1}-min(floor(X/{bar}),{BITS - 1}))),2)"
    repeated = f"scale={width}:{height}:flags=neighbor,setsar=1"
    arguments = (
        *("-f", "lavfi", "-i", f"color=s={width}x2:r={fps}:d={seconds}"),
        *before,
        # Two rows are painted, which takes long, and repeated, which does not: all rows of bars are alike.
        *("-vf", f"geq=lum='{value}':cb=128:cr=128,{repeated},select='{keep}'", "-fps_mode", "passthrough"),
        *output,
    )
    sys.audit("hico.tests.numbered_video")  # for tests/conftest.py, since ffmpeg does not run each time
    program = find_ffmpeg()
    asked = f"{program} {program.stat().st_mtime_ns} {arguments}"
    made = _MADE / f"{hashlib.sha256(asked.encode()).hexdigest()[:32]}{path.suffix}"
    if not made.exists():
        _MADE.mkdir(exist_ok=True)
        beside = _MADE / f"{os.getpid()}-{made.name}"
        run_ffmpeg(*arguments, beside)
        beside.replace(made)
    shutil.copyfile(made, path)


def video_of_shots(path: Path, seconds: Sequence[float], *, fps: int = 10) -> None:
    """A moving picture in shots of such lengths, each in colours of its own, with hard cuts between them."""
    colours = ("negate", "null", "hue=h=90:b=4", "hue=b=-6")
    shots = [f"testsrc2=s=160x120:r={fps}:d={length},{colours[i % 4]}[s{i}]" for i, length in enumerate(seconds)]
    joined = "".join(f"[s{i}]" for i in range(len(seconds))) + f"concat=n={len(seconds)}"
    how = ("-c:v", "libx264", "-preset", "ultrafast", "-crf", "10")
    path.parent.mkdir(parents=True, exist_ok=True)
    run_ffmpeg("-filter_complex", ";".join([*shots, joined]), *how, path)


def video_with_hidden_frames(path: Path, *, seconds: float, size: str = "160x120") -> None:
    """VP8 in two passes has packets that are never shown, to which others refer: a packet is no frame there."""
    numbered_video(path.with_suffix(".mp4"), seconds=seconds, size=size)
    log = str(path.with_suffix(".log"))
    how = ("-c:v", "libvpx", "-b:v", "1M", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-passlogfile", log)
    run_ffmpeg("-i", path.with_suffix(".mp4"), *how, "-pass", "1", "-f", "null", "-")
    run_ffmpeg("-i", path.with_suffix(".mp4"), *how, "-pass", "2", path)
    for made in path.parent.glob(f"{path.stem}.*"):
        if made != path:
            made.unlink()


def painted_number(picture_HWC: np.ndarray) -> int:
    """Read back what `numbered_video` painted."""
    grey = picture_HWC.mean(axis=(0, 2))
    bar = len(grey) / BITS
    bits = [grey[int((i + 0.3) * bar) : int((i + 0.7) * bar)].mean() > 127 for i in range(BITS)]
    return sum(bit << (BITS - 1 - i) for i, bit in enumerate(bits))
