"""Benchmarks of extracting features, testing and probing, against other tools' methods.

    python scripts/bench_features.py ROUNDS VIDEOS [extraction workers memory test probe retrieval]

The baseline of extraction follows video_features: ffmpeg re-encodes each video at the requested frame rate, the video
is read into memory as a whole, and its windows go through the encoder one at a time. The baseline of the test follows
the authors: each view of a video opens and decodes it again.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from benchmarking import Cost, alternate, cost_of_call, cost_of_command, make_sources, ratio, report, summary
from torch import Tensor, nn

from hico_core.config import AugmentConfig, DataConfig
from hico_core.corpus.clips.ffmpeg import find_ffmpeg
from hico_core.data.clock import clock_of_times
from hico_core.data.pictures import Picture, picture_for
from hico_core.encoding.encoder import encode_videos
from hico_core.encoding.hardware import FP32
from hico_core.encoding.lanes import Reading, WholeVideo, read_parts
from hico_core.encoding.windows import Grid, Views, plan_windows
from hico_core.model.pooling import PooledEncoder
from hico_core.model.s3dg import S3DG
from hico_core.transfer.evaluation.probe import LabelledRows, linear_probe
from hico_core.transfer.evaluation.retrieval import retrieval
from hico_core.transfer.features import FeatureExtractor

CPU = torch.device("cpu")
MEAN, STD = 0.45, 0.225


class Nothing(nn.Module):
    """An encoder that does nothing, which leaves the cost of reading."""

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> one number per clip."""
        return clips[:, :1, :1, :1, :1]


def read_all(path: Path) -> np.ndarray:
    """All frames of a video: (N, H, W, 3) uint8."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "NONE"
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def as_others_do(videos: list[Path], encoder: nn.Module, *, fps: int, window: int, stride: int) -> None:
    """Re-encode, read as a whole, encode one window at a time."""
    for video in videos:
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            again = Path(folder) / "again.mp4"
            arguments = ["-nostdin", "-v", "error", "-y", "-i", str(video), "-an", "-filter:v", f"fps={fps}"]
            subprocess.run([find_ffmpeg(), *arguments, again], check=True)
            frames = torch.from_numpy(read_all(again))
            for start in range(0, len(frames) - window + 1, stride):
                clip = frames[start : start + window].permute(0, 3, 1, 2).float() / 255
                short = min(clip.shape[2:])
                size = [round(side * 128 / short) for side in clip.shape[2:]]
                small = F.interpolate(clip, size, mode="bilinear", align_corners=False)
                top, left = (size[0] - 112) // 2, (size[1] - 112) // 2
                seen = (small[:, :, top : top + 112, left : left + 112] - MEAN) / STD
                encoder(seen.transpose(0, 1)[None])


def as_hico_does(videos: list[Path], encoder: nn.Module, *, grid: Grid, workers: int) -> None:
    """Run the extractor, without writing files."""
    extractor = FeatureExtractor(PooledEncoder(encoder), grid=grid, device=CPU)
    for _ in extractor.extract_many(videos, workers=workers):
        pass


def extraction(sources: list[Path], rounds: int) -> dict[str, object]:
    """Overlapping windows with an encoder that does nothing, and S3D-G.

    Everything runs in one process: the CPU time of workers cannot be measured, since a fork server starts them.
    """
    overlapping = Grid(fps=15.0, window=16, stride=4)
    many = sources * 2
    costs = alternate(
        {
            "hico": lambda: cost_of_call(lambda: as_hico_does(many, Nothing(), grid=overlapping, workers=0)),
            "others": lambda: cost_of_call(lambda: as_others_do(many, Nothing(), fps=15, window=16, stride=4)),
        },
        rounds=rounds,
    )
    torch.manual_seed(0)
    encoder = S3DG().eval()
    with_encoder = alternate(
        {
            "hico": lambda: cost_of_call(lambda: as_hico_does(sources, encoder, grid=overlapping, workers=0)),
            "others": lambda: cost_of_call(lambda: as_others_do(sources, encoder, fps=15, window=16, stride=4)),
        },
        rounds=rounds,
    )
    return {
        "nothing": summary(costs),
        "nothing, hico / others": ratio(costs, "hico", "others"),
        "s3dg": summary(with_encoder),
        "s3dg, hico / others": ratio(with_encoder, "hico", "others"),
    }


def workers(sources: list[Path], rounds: int) -> dict[str, object]:
    """Two reading processes against one: reading alone, and whole extraction, in which a third process computes."""
    many, grid = sources * 8, Grid(fps=15.0, window=16, stride=4)
    videos = [WholeVideo(path, []) for path in many]
    picture = picture_for(DataConfig(), AugmentConfig())
    reading = Reading(layout=grid, picture=picture, normalise=True)

    def read(count: int) -> None:
        for _ in read_parts(videos, reading, workers=count):
            pass

    read(2)  # starts the fork server once
    costs = alternate(
        {
            "reading, 1": lambda: cost_of_call(lambda: read(1)),
            "reading, 2": lambda: cost_of_call(lambda: read(2)),
            "extraction, 1": lambda: cost_of_call(lambda: as_hico_does(many, Nothing(), grid=grid, workers=1)),
            "extraction, 2": lambda: cost_of_call(lambda: as_hico_does(many, Nothing(), grid=grid, workers=2)),
        },
        rounds=rounds,
    )
    return {
        **summary(costs),
        "reading, wall of 1 / 2": ratio(costs, "reading, 1", "reading, 2", of="wall_seconds"),
        "extraction, wall of 1 / 2": ratio(costs, "extraction, 1", "extraction, 2", of="wall_seconds"),
    }


def memory(sources: list[Path], folder: Path) -> dict[str, object]:
    """Memory of the command's largest process on a video of one minute and on one of two hours, with S3D-G."""
    long = folder / "two hours.mp4"
    if not long.exists():
        loop: list[str | Path] = [
            "-nostdin",
            "-v",
            "error",
            "-stream_loop",
            "119",
            "-i",
            sources[0],
            "-c",
            "copy",
            "-an",
            long,
        ]
        subprocess.run([find_ffmpeg(), *loop], check=True)
    checkpoint = folder / "last.pt"
    torch.manual_seed(0)
    torch.save({"model": {f"backbone.{name}": value for name, value in S3DG().state_dict().items()}}, checkpoint)

    def peak(video: Path, name: str) -> Cost:
        hico: list[str | Path] = [
            sys.executable,
            "-m",
            "hico_cli",
            "extract-features",
            video,
            "--checkpoint",
            checkpoint,
        ]
        return cost_of_command(
            [*hico, "--stride", "240", "--workers", "0", "--root", folder / "root", "--name", name, "--device", "cpu"]
        )

    peaks = {"1 minute": peak(sources[0], "short").peak_mb, "2 hours": peak(long, "long").peak_mb}
    return {"peak MB": peaks, "2 hours / 1 minute": peaks["2 hours"] / peaks["1 minute"]}


def test_of_finetuning(sources: list[Path], rounds: int) -> dict[str, object]:
    """10 views x 3 crops of each video, with an encoder that does nothing."""
    views = Views(10, 16, 4, 30.0)
    picture = Picture(short_side=128, crop_part=0.875, num_crops=3, size=112, mean=(MEAN,) * 3, std=(STD,) * 3)

    def ours() -> None:
        videos = [WholeVideo(path, []) for path in sources]
        reading = Reading(layout=views, picture=picture)
        for found in encode_videos(PooledEncoder(Nothing()), videos, reading, precision=FP32, workers=0):
            assert found.rows is not None and len(found.rows) == 30

    def theirs() -> None:
        for path in sources:
            for view in range(10):
                for crop in range(3):
                    frames = read_all(path)
                    seconds = [number / 30 for number in range(len(frames))]
                    chosen = torch.from_numpy(frames[plan_windows(clock_of_times(seconds), views)[view]])
                    clip = chosen.permute(0, 3, 1, 2).float() / 255
                    side = round(min(clip.shape[2:]) * 0.875)
                    top = (clip.shape[2] - side) // 2
                    left = crop * (clip.shape[3] - side) // 2
                    F.interpolate(clip[:, :, top : top + side, left : left + side], [112, 112], mode="bilinear")

    costs = alternate({"hico": lambda: cost_of_call(ours), "authors": lambda: cost_of_call(theirs)}, rounds=rounds)
    return {**summary(costs), "hico / authors": ratio(costs, "hico", "authors"), "videos": len(sources)}


def probe(rounds: int) -> dict[str, object]:
    """100,000 rows of 1024 numbers from 5,000 videos, 51 classes, 20 settings."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(51, 1024)).astype(np.float32)

    def rows(videos: int, each: int, first: int) -> LabelledRows:
        numbers = np.repeat(np.arange(videos), each)
        noise = rng.standard_normal((len(numbers), 1024), dtype=np.float32)
        return LabelledRows(centres[numbers % 51] + 8 * noise, numbers % 51, numbers + first)

    train, test = rows(5000, 20, 0), rows(500, 4, 10_000)
    costs = alternate({"probe": lambda: cost_of_call(lambda: linear_probe(train, test, seed=0))}, rounds=rounds)
    return {**summary(costs), "accuracy": linear_probe(train, test, seed=0).accuracy}


def search(rounds: int) -> dict[str, object]:
    """10,000 queries in 100,000 rows of 1024 numbers, against a matrix product with a top 50."""
    rng = np.random.default_rng(0)

    def rows(count: int, first: int) -> LabelledRows:
        numbers = np.arange(count)
        return LabelledRows(rng.standard_normal((count, 1024), dtype=np.float32), numbers % 100, numbers + first)

    queries, gallery = rows(10_000, 0), rows(100_000, 1_000_000)
    left, right = (F.normalize(torch.from_numpy(side.features), dim=1) for side in (queries, gallery))

    def bare() -> None:
        for start in range(0, len(left), 512):
            (left[start : start + 512] @ right.T).topk(50, dim=1)

    def measured(*, whole: bool) -> Callable[[], Cost]:
        return lambda: cost_of_call(lambda: retrieval(queries, gallery, protocol="clip", mean_average_precision=whole))

    costs = alternate(
        {
            "retrieval, R@k": measured(whole=False),
            "bare": lambda: cost_of_call(bare),
            "retrieval, R@k and mAP": measured(whole=True),
        },
        rounds=rounds,
    )
    return {**summary(costs), "R@k / bare, wall": ratio(costs, "retrieval, R@k", "bare", of="wall_seconds")}


def main() -> None:
    """Run the requested benchmarks, or all."""
    rounds, videos = int(sys.argv[1]), Path(sys.argv[2])
    wanted = set(sys.argv[3:]) or {"extraction", "workers", "memory", "test", "probe", "retrieval"}
    folder = Path(tempfile.gettempdir()) / "hico-bench"
    sources = make_sources(videos, folder, height=360, count=2)
    results: dict[str, object] = {}
    if "extraction" in wanted:
        results["extraction"] = extraction(sources, rounds)
    if "workers" in wanted:
        results["workers"] = workers(sources, rounds)
    if "memory" in wanted:
        results["memory"] = memory(sources, folder)
    if "test" in wanted:
        results["test"] = test_of_finetuning(sources[:1], rounds)
    if "probe" in wanted:
        results["probe"] = probe(rounds)
    if "retrieval" in wanted:
        results["retrieval"] = search(rounds)
    report("features" if len(wanted) == 6 else f"features-{'-'.join(sorted(wanted))}", results)


if __name__ == "__main__":
    main()
