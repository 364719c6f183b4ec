"""What hico needs on a machine: what is there, what is missing, and what to type."""

import os
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from hico_core.corpus.addresses import Location, require_reachable
from hico_core.corpus.encode import require_encoder
from hico_core.corpus.ffmpeg import Ffmpeg, find_ffmpeg
from hico_core.corpus.records import Encoder, SplitOptions
from hico_core.errors import HicoError

# A loader with many workers holds a few files each; with 256 open files, the default of some systems, it fails.
_ENOUGH_FILES = 1024

_ENOUGH_DISK_BYTES = 10_000_000_000


class Finding(NamedTuple):
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "optional", "missing"]  # optional: not there, and only some commands want it
    found: str
    advice: str = ""


def examine(root: Location) -> Iterator[Finding]:
    """Look at everything, one finding after the other.

    Args:
        root: the workspace, for its disk or its bucket.

    """
    yield Finding("Python", "ok", f"{sys.version.split()[0]} on {sys.platform}, {os.cpu_count()} cores")
    yield from _ffmpeg()
    yield _package("av", "PyAV", needed=True)
    yield _package("decord", "decord", needed=False, advice="not needed: PyAV reads the same frames")
    yield _package("torch", "PyTorch", needed=True)
    yield _gpu()
    yield _package("ray", "Ray", needed=False, advice="for --engine ray: pip install 'hico[ray]'")
    yield _package("s3fs", "S3", needed=False, advice="for s3:// addresses: pip install 'hico[s3]'")
    yield _package("ossfs", "OSS", needed=False, advice="for oss:// addresses: pip install 'hico[oss]'")
    yield _open_files()
    yield _place(root)


class LoaderSpeed(NamedTuple):
    """How fast clips can be read here."""

    num_clips: int  # read for this
    seconds_per_clip: float  # of one core: read, decoded, cut to its crop
    clips_per_second: float  # of all workers together
    workers: int
    gpu_clips_per_second: float | None  # what the model takes, forward and backward; None without a GPU


def measure_loader(root: Location, *, workers: int, num_batches: int = 40) -> LoaderSpeed:
    """Read training clips with the settings of a recipe, first in one process, then with workers.

    Args:
        root: the workspace with index.parquet.
        workers: processes that read.
        num_batches: of one video each, per measurement.

    Raises:
        HicoError: there is no index, or its clips cannot be read.

    """
    from hico_core.config import AugmentConfig, DataConfig, SamplingConfig
    from hico_core.corpus.index import read_index_table
    from hico_core.data.dataset import ClipDataset
    from hico_core.data.loader import Position, plan_steps, read_batches
    from hico_core.data.videos import COLUMNS, IndexedVideos

    span_seconds = 64 / 30
    videos = IndexedVideos(
        read_index_table(root, columns=COLUMNS), root=root, subset="train", shortest_seconds=span_seconds
    )
    if not len(videos):
        raise HicoError(f"{root}: has no training video of {span_seconds:.2f} s or more")
    dataset = ClipDataset(videos, data=DataConfig(), sampling=SamplingConfig(), augment=AugmentConfig())

    def read(processes: int) -> tuple[int, float, float]:
        plans = plan_steps(
            num_videos=len(videos),
            batch_size=1,
            epochs=10**6,
            epochs_per_round=10,
            max_distance_at=lambda progress: progress,
            seed=0,
            start=Position(),
        )
        batches = read_batches(dataset, plans, workers=processes, pin_memory=False)
        next(batches)  # the start of the workers does not count
        num_clips, cpu, wall = 0, time.process_time(), time.perf_counter()
        for _, batch in islice(batches, num_batches):
            if batch.crops is None:
                raise HicoError(f"{root}: clips cannot be read; the last one: {batch.unusable[-1].reason}")
            num_clips += len(batch.crops)
        batches.close()
        return num_clips, time.process_time() - cpu, time.perf_counter() - wall

    num_clips, cpu_seconds, _ = read(0)
    together, _, seconds = read(workers)
    return LoaderSpeed(num_clips, cpu_seconds / num_clips, together / seconds, workers, _gpu_speed())


def _gpu_speed() -> float | None:
    """Clips a second that a step of the paper's model takes on the GPU, in single precision."""
    import torch

    if not torch.cuda.is_available():
        return None
    from hico_core.model.hico import HicoModel
    from hico_core.model.losses import hico_loss

    model = HicoModel().cuda()
    clips = torch.randn(32, 3, 3, 16, 112, 112, device="cuda")
    start = 0.0
    for step in range(8):
        if step == 3:
            torch.cuda.synchronize()
            start = time.perf_counter()
        outputs = model(clips)
        hico_loss(outputs.embeddings, outputs.topic_logits, clips_per_video=3).total.backward()
    torch.cuda.synchronize()
    return 5 * 96 / (time.perf_counter() - start)


def _ffmpeg() -> Iterator[Finding]:
    try:
        program = Ffmpeg(find_ffmpeg())
    except HicoError as error:
        yield Finding("ffmpeg", "missing", str(error), "apt install ffmpeg, or pip install imageio-ffmpeg")
        return
    yield Finding("ffmpeg", "ok", f"{program.banner.split(' Copyright')[0]} ({program.program})")
    with tempfile.TemporaryDirectory(prefix="hico-") as folder:
        for encoder in get_args(Encoder):
            needed = encoder == SplitOptions().encoder
            try:
                require_encoder(program, SplitOptions(encoder=encoder), folder=Path(folder))
            except HicoError as error:
                reason = str(error).split("(", 1)[1].rsplit(")", 1)[0]
                advice = "name an ffmpeg that has it in HICO_FFMPEG" if needed else "only for --encoder " + encoder
                yield Finding(f"encoder {encoder}", "missing" if needed else "optional", reason, advice)
            else:
                yield Finding(f"encoder {encoder}", "ok", "encodes")
    if sys.platform == "linux" and shutil.which("setpriv") is None:
        advice = "apt install util-linux; without it ffmpeg goes on for a while when hico is killed with SIGKILL"
        yield Finding("setpriv", "optional", "not found", advice)


def _package(name: str, title: str, *, needed: bool, advice: str = "") -> Finding:
    try:
        return Finding(title, "ok", version(name))
    except PackageNotFoundError:
        return Finding(title, "missing" if needed else "optional", "not installed", advice or f"pip install {name}")


def _gpu() -> Finding:
    import torch  # slow, and only here

    if not torch.cuda.is_available():
        return Finding("GPU", "optional", "none that PyTorch sees", "training on a CPU is for trying things out")
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Finding("GPU", "ok", f"{len(names)} x {names[0]}, CUDA {torch.version.cuda}")


def _open_files() -> Finding:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit >= _ENOUGH_FILES:
        return Finding("open files", "ok", f"{limit} allowed")
    return Finding("open files", "optional", f"{limit} allowed", f"ulimit -n {_ENOUGH_FILES}")


def _place(root: Location) -> Finding:
    """The disk or the bucket of the workspace."""
    if not isinstance(root, Path):
        try:
            require_reachable(root)
        except HicoError as error:
            return Finding("workspace", "missing", str(error))
        return Finding("workspace", "ok", f"{root} answers")
    existing = next(folder for folder in (root.absolute(), *root.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    where = f"{free / 1e9:.1f} GB free at {root.absolute()} on {socket.gethostname()}"
    if not os.access(existing, os.W_OK):
        return Finding("workspace", "missing", f"{existing} is not writable", "choose another --root")
    if free < _ENOUGH_DISK_BYTES:
        return Finding("workspace", "optional", where, "clips take about 2.5 MB a minute of video")
    return Finding("workspace", "ok", where)
