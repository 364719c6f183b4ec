"""Checks of what hico needs on a machine: what is there, what is missing, and how to install it."""

import os
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from hico_core.base.addresses import Location, is_local, require_reachable
from hico_core.base.choices import VideoEncoder
from hico_core.base.errors import HicoError, how_to_install
from hico_core.corpus.clips.encode import encoder_fault
from hico_core.corpus.clips.ffmpeg import Ffmpeg, find_ffmpeg
from hico_core.corpus.workspace.records import SplitOptions

# A loader with many workers holds a few files each; the default limit of some systems, 256 open files, is too low.
_ENOUGH_FILES = 1024

_ENOUGH_DISK_BYTES = 10_000_000_000


# A batch of 32 videos of 3 clips takes up to 310 MB, and each worker reads ahead.
_ENOUGH_SHARED_BYTES = 2_000_000_000
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the standard path


class Finding(NamedTuple):
    """The result of one check."""

    name: str
    state: Literal["ok", "optional", "missing"]  # optional: missing, but only some commands need it
    found: str
    advice: str = ""


def examine(root: Location) -> Iterator[Finding]:
    """Run all checks, one finding each.

    Args:
        root: the workspace, for its disk or its bucket.

    """
    yield Finding("Python", "ok", f"{sys.version.split()[0]} on {sys.platform}, {os.cpu_count()} cores")
    yield from _ffmpeg()
    yield _package("av", "PyAV", needed=True)
    yield _package("decord", "decord", needed=False, advice="not needed: PyAV reads the same frames")
    yield _package("torch", "PyTorch", needed=True)
    yield _gpu()
    yield _package("ray", "Ray", needed=False, advice=f"for --ray-address: {how_to_install('ray')}")
    yield _package("s3fs", "S3", needed=False, advice=f"for s3:// addresses: {how_to_install('s3')}")
    yield _package("ossfs", "OSS", needed=False, advice=f"for oss:// addresses: {how_to_install('oss')}")
    yield _open_files()
    yield _shared_memory()
    yield _place(root)


def _ffmpeg() -> Iterator[Finding]:
    try:
        program = Ffmpeg(find_ffmpeg())
    except HicoError as error:
        yield Finding("ffmpeg", "missing", str(error), "apt install ffmpeg, or pip install imageio-ffmpeg")
        return
    yield Finding("ffmpeg", "ok", f"{program.banner.split(' Copyright')[0]} ({program.program})")
    with tempfile.TemporaryDirectory(prefix="hico-") as folder:
        for encoder in get_args(VideoEncoder):
            yield of_encoder(encoder, encoder_fault(program, SplitOptions(encoder=encoder), folder=Path(folder)))
    if sys.platform == "linux" and shutil.which("setpriv") is None:
        advice = (
            "apt install util-linux; without it, ffmpeg keeps running for a while after hico is killed with SIGKILL"
        )
        yield Finding("setpriv", "optional", "not found", advice)


def of_encoder(encoder: str, fault: str | None) -> Finding:
    """The finding about a video encoder, given what ffmpeg reports as wrong with it."""
    name = f"encoder {encoder}"
    if fault is None:
        return Finding(name, "ok", "encodes")
    if encoder == SplitOptions().encoder:
        return Finding(name, "missing", fault, "name an ffmpeg that has it in HICO_FFMPEG")
    found = "no NVIDIA driver" if "libcuda" in fault else fault
    return Finding(name, "optional", found, f"only for --encoder {encoder}")


def _package(name: str, title: str, *, needed: bool, advice: str = "") -> Finding:
    try:
        return Finding(title, "ok", version(name))
    except PackageNotFoundError:
        return Finding(title, "missing" if needed else "optional", "not installed", advice or f"pip install {name}")


def _gpu() -> Finding:
    import torch  # slow to import, and needed only here

    from hico_core.encoding.hardware import choose_precision

    if not torch.cuda.is_available():
        mac = torch.backends.mps.is_available()
        found = "a Mac's (MPS), which hico does not use" if mac else "none that PyTorch sees"
        return Finding("GPU", "optional", found, "training on a CPU is only for small trials")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    precision = choose_precision("auto", torch.device("cuda", 0), training=True).name
    return Finding("GPU", "ok", f"{len(names)} x {names[0]}, CUDA {torch.version.cuda}, trains in {precision}")


def _open_files() -> Finding:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit >= _ENOUGH_FILES:
        return Finding("open files", "ok", f"{limit} allowed")
    return Finding("open files", "optional", f"{limit} allowed", f"ulimit -n {_ENOUGH_FILES}")


def _shared_memory() -> Finding:
    """The memory through which a loader's workers pass batches; containers have little of it."""
    if not _SHARED_MEMORY.is_dir():
        return Finding("shared memory", "ok", f"no {_SHARED_MEMORY} on this system")
    free = shutil.disk_usage(_SHARED_MEMORY).free
    found = f"{free / 1e9:.2f} GB free"
    if free >= _ENOUGH_SHARED_BYTES:
        return Finding("shared memory", "ok", found)
    return Finding("shared memory", "optional", found, "docker run --shm-size=8g, or train with --workers 0")


def _place(root: Location) -> Finding:
    """The disk or the bucket of the workspace."""
    if not is_local(root):
        try:
            require_reachable(root)
        except HicoError as error:
            return Finding("workspace", "missing", str(error))
        return Finding("workspace", "ok", f"{root} can be reached")
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    where = f"{free / 1e9:.1f} GB free at {root.absolute()} on {socket.gethostname()}"
    if not existing.is_dir():
        return Finding("workspace", "missing", f"{existing} is a file", "choose another --root")
    if not os.access(existing, os.W_OK):
        return Finding("workspace", "missing", f"{existing} is not writable", "choose another --root")
    if free < _ENOUGH_DISK_BYTES:
        return Finding("workspace", "optional", where, "clips take about 1.3 MB per minute of video")
    return Finding("workspace", "ok", where)
