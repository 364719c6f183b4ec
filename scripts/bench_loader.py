"""Cost of reading a training clip: the authors' way; hico on the same, its own and untrimmed files; the lower limit.

    python scripts/bench_loader.py VIDEOS [ROUNDS]

VIDEOS is a folder of real videos; sources of 640x360 are made from them. The authors' way is reimplemented for this
benchmark: one file per 5 s, cut by one ffmpeg per clip; decord at full size; whole frames as float; then crop, scale
and torchvision's colour jitter.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import decord
import torch
import torch.nn.functional as F
from benchmarking import Cost, alternate, cost_of_call, make_sources, ratio, report, summary
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from hico_core.config import AugmentConfig, DataConfig, SamplingConfig
from hico_core.corpus.adopt import adopt_clips
from hico_core.corpus.clips.ffmpeg import find_ffmpeg
from hico_core.corpus.clips.probe import open_video
from hico_core.corpus.index import build_index, read_index_table
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.sources.ids import clip_name
from hico_core.corpus.split import split_videos
from hico_core.corpus.untrimmed import add_untrimmed
from hico_core.corpus.workspace.records import SplitOptions, UntrimmedOptions
from hico_core.data.augment import apply_augmentation, crop_area_range, cut, draw_augmentation, draw_crop, scale
from hico_core.data.dataset import ClipDataset
from hico_core.data.loader import read_batches
from hico_core.data.plan import Position, TrainingOrder, plan_steps
from hico_core.data.reading import clock_of, pieces_with, read_clip
from hico_core.data.videos import IndexedVideos

SPAN = 64 / 30  # seconds of a clip
SIZE = 112
SETTINGS = AugmentConfig()
CLIPS = 36  # per round


class Window(NamedTuple):
    """A clip to read."""

    video: int
    start: float  # seconds


def windows_of(videos: IndexedVideos, *, seed: int) -> list[Window]:
    """Clips at random positions, as training draws them."""
    rng = random.Random(seed)
    return [
        Window(i % len(videos), rng.uniform(0, videos.duration_seconds(i % len(videos)) - SPAN)) for i in range(CLIPS)
    ]


def read_by_decord(videos: IndexedVideos, window: Window) -> Tensor:
    """The authors' way: whole frames from each file that the clip touches."""
    moments = (window.start, window.start + SPAN)
    pieces = videos.pieces(window.video, moments)
    frames = clock_of(pieces).of_window(moments, num_frames=16)
    return torch.cat(
        [
            torch.from_numpy(decord.VideoReader(str(piece.path)).get_batch(numbers).asnumpy())
            for piece, numbers in pieces_with(pieces, frames)
        ]
    )


def read_by_hico(videos: IndexedVideos, window: Window) -> Tensor:
    """hico's way, up to RGB frames."""
    moments = (window.start, window.start + SPAN)
    return read_clip(videos.pieces(window.video, moments), moments, num_frames=16, decoder="pyav")


def decode_only(videos: IndexedVideos, window: Window) -> None:
    """The lower limit: libavcodec decodes the necessary packets, and the frames are discarded."""
    moments = (window.start, window.start + SPAN)
    pieces = videos.pieces(window.video, moments)
    frames = clock_of(pieces).of_window(moments, num_frames=16)
    for piece, numbers in pieces_with(pieces, frames):
        wanted = set(numbers)
        with open_video(str(piece.path)) as (container, stream):
            stream.thread_type = "NONE"
            ticks_per_frame = float(1 / stream.time_base / piece.fps)  # type: ignore[operator]
            container.seek(int((min(wanted) - 4) * ticks_per_frame), stream=stream)
            given = 0
            for packet in container.demux(stream):
                number = None if packet.pts is None else round(packet.pts / ticks_per_frame)
                stream.codec_context.skip_frame = "DEFAULT" if number in wanted else "NONREF"
                given += sum(round((frame.pts or 0) / ticks_per_frame) in wanted for frame in packet.decode())
                if given == len(wanted):
                    break


class AuthorsAugmentation:
    """Whole frames to float, crop and scale, torchvision's colour jitter and grey, normalise, flip: one clip."""

    def __init__(self) -> None:
        self.jitter = v2.ColorJitter(0.8, 0.8, 0.8, 0.2)

    def __call__(self, frames_THWC: Tensor, rng: random.Random) -> Tensor:
        """(T, H, W, 3) uint8 -> (T, 3, 112, 112)."""
        pictures = frames_THWC.permute(0, 3, 1, 2).float() / 255
        height, width = pictures.shape[-2:]
        crop = draw_crop(height, width, area=crop_area_range(SETTINGS.crop_jitter), rng=rng)
        part = pictures[:, :, crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        return self.colour(F.interpolate(part, (SIZE, SIZE), mode="bilinear", align_corners=False), rng)

    def colour(self, pictures: Tensor, rng: random.Random) -> Tensor:
        """The part after scaling: (T, 3, H, W)."""
        if rng.random() < SETTINGS.colour_probability:
            pictures = self.jitter(pictures)
        if rng.random() < SETTINGS.grey_probability:
            pictures = v2.functional.rgb_to_grayscale(pictures, num_output_channels=3)
        pictures = v2.functional.normalize(pictures, [SETTINGS.mean] * 3, [SETTINGS.std] * 3)
        return pictures.flip(-1) if rng.random() < 0.5 else pictures


def crop_by_hico(frames_THWC: Tensor, rng: random.Random) -> tuple[Tensor, object]:
    """The part of hico's augmentation that its workers do after decoding."""
    draw = draw_augmentation(frames_THWC.shape[1], frames_THWC.shape[2], SETTINGS, rng=rng)
    return cut(frames_THWC, draw.crop).contiguous(), draw


def augment_by_hico(frames_THWC: Tensor, rng: random.Random) -> Tensor:
    """Both halves of hico's augmentation, one clip."""
    draw = draw_augmentation(frames_THWC.shape[1], frames_THWC.shape[2], SETTINGS, rng=rng)
    return apply_augmentation(
        [cut(frames_THWC, draw.crop)], [draw], size=SIZE, mean=SETTINGS.channel_means, std=SETTINGS.channel_stds
    )


def over_all(work: Callable[[Window], object], windows: Sequence[Window]) -> Cost:
    """Cost of some work over many clips."""

    def run() -> None:
        for window in windows:
            work(window)

    return cost_of_call(run)


class AuthorsDataset(Dataset[Tensor]):
    """The authors' way, for a loader with workers."""

    def __init__(self, videos: IndexedVideos, windows: Sequence[Window]) -> None:
        self.videos, self.windows = videos, windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, number: int) -> Tensor:
        torch.set_num_threads(1)
        rng = random.Random(number)
        return AuthorsAugmentation()(read_by_decord(self.videos, self.windows[number]), rng)


def authors_with_workers(videos: IndexedVideos, windows: Sequence[Window], *, workers: int) -> float:
    """Clips per second of a plain loader in the authors' way, without its start."""
    loader = DataLoader(
        AuthorsDataset(videos, windows), batch_size=3, num_workers=workers, multiprocessing_context="forkserver"
    )
    seen, start = 0, 0.0
    for number, batch in enumerate(loader):
        if number == 1:
            start = time.perf_counter()
        elif number > 1:
            seen += len(batch)
    return seen / (time.perf_counter() - start)


def hico_with_workers(videos: IndexedVideos, *, workers: int, batches: int, augment: bool) -> float:
    """Clips per second of hico's loader, one video of three clips per batch, with or without colour augmentation."""
    dataset = ClipDataset(videos, data=DataConfig(), sampling=SamplingConfig(), augment=SETTINGS)
    plans = plan_steps(
        TrainingOrder(
            num_videos=len(videos),
            batch_size=1,
            epochs=10_000,
            epochs_per_round=10,
            seed=0,
        ),
        max_distance_at=lambda progress: progress,
        start=Position(),
    )
    seen, start = 0, 0.0
    read = read_batches(dataset, plans, workers=workers, pin_memory=False)
    for number, (_, batch) in enumerate(read):
        if augment:
            apply_augmentation(
                batch.crops_on(torch.device("cpu")), batch.draws, size=SIZE, mean=(0.45,) * 3, std=(0.225,) * 3
            )
        if number == 1:
            start = time.perf_counter()
        elif number > 1:
            seen += len(batch.draws)
        if number == batches:
            break
    elapsed = time.perf_counter() - start
    read.close()
    return seen / elapsed


def cut_naively(sources: Sequence[Path], root: Path) -> None:
    """Cut one file per 5 s with ffmpeg's defaults, one ffmpeg per file."""
    (root / "train").mkdir(parents=True)
    for source in sources:
        for start in range(0, 60, 5):
            name = clip_name(source.stem, start_ms=1000 * start, end_ms=1000 * (start + 5))
            cut_out = ["-ss", str(start), "-i", str(source), "-t", "5", "-an", str(root / "train" / name)]
            subprocess.run([find_ffmpeg(), "-nostdin", "-v", "error", *cut_out], check=True)
    adopt_clips(root, workers=2, on_event=lambda event: None)


def make_roots(sources: Sequence[Path], work: Path, options: dict[str, SplitOptions]) -> dict[str, IndexedVideos]:
    """Put the same videos into a workspace in each way."""
    given = find_sources([str(source) for source in sources])
    for name, option in options.items():
        split_videos(given, root=work / name, options=option, workers=2, on_event=lambda event: None)
    add_untrimmed(given, root=work / "untrimmed", options=UntrimmedOptions(), workers=2, on_event=lambda event: None)
    cut_naively(sources, work / "naive")
    videos = {}
    for name in (*options, "untrimmed", "naive"):
        build_index(work / name)
        videos[name] = IndexedVideos(read_index_table(work / name), root=work / name)
    return videos


def bytes_per_minute(root: Path, minutes: float) -> float:
    """Bytes per minute of the clips of a workspace."""
    return sum(path.stat().st_size for path in (root / "train").iterdir()) / minutes


Roots = dict[str, IndexedVideos]  # the same videos, by the way they were put into a workspace


def measure_decoding(videos: Roots, windows: Sequence[Window], *, rounds: int) -> dict[str, object]:
    """Decode whole clips."""
    decoded = alternate(
        {
            "a authors": partial(over_all, partial(read_by_decord, videos["naive"]), windows),
            "b hico, same files": partial(over_all, partial(read_by_hico, videos["naive"]), windows),
            "c hico, split": partial(over_all, partial(read_by_hico, videos["split"]), windows),
            "c hico, split 256": partial(over_all, partial(read_by_hico, videos["split 256"]), windows),
            "d hico, untrimmed": partial(over_all, partial(read_by_hico, videos["untrimmed"]), windows),
            "e limit on split": partial(over_all, partial(decode_only, videos["split"]), windows),
        },
        rounds=rounds,
    )
    return {
        "decode, ms CPU a clip": _per_clip(decoded),
        "decode, clips/s a core": {k: 1000 / v for k, v in _per_clip(decoded).items()},
        "decode, times faster than a": {k: ratio(decoded, "a authors", k) for k in decoded},
        "decode, split / limit": ratio(decoded, "c hico, split", "e limit on split"),
    }


def measure_end_to_end(
    videos: Roots, windows: Sequence[Window], *, authors: AuthorsAugmentation, rng: random.Random, rounds: int
) -> dict[str, object]:
    """Decode and augment clips."""

    def augmented(name: str) -> Callable[[], Cost]:
        return partial(over_all, lambda window: augment_by_hico(read_by_hico(videos[name], window), rng), windows)

    ends = alternate(
        {
            "a authors": partial(
                over_all, lambda window: authors(read_by_decord(videos["naive"], window), rng), windows
            ),
            "b hico, same files": augmented("naive"),
            "c hico, split": augmented("split"),
            "c hico, split, decode and crop": partial(
                over_all, lambda window: crop_by_hico(read_by_hico(videos["split"], window), rng), windows
            ),
            "d hico, untrimmed": augmented("untrimmed"),
        },
        rounds=rounds,
    )
    return {
        "end to end, ms CPU a clip": _per_clip(ends),
        "end to end, times faster than a": {k: ratio(ends, "a authors", k) for k in ends},
        "decode and crop / a": ratio(ends, "c hico, split, decode and crop", "a authors"),
    }


def measure_colours(
    videos: Roots, windows: Sequence[Window], *, authors: AuthorsAugmentation, rng: random.Random, rounds: int
) -> dict[str, object]:
    """Crop, scale and colour, compared with torchvision."""
    crops = [crop_by_hico(read_by_hico(videos["split"], window), rng)[0] for window in windows[:12]]
    draws = [draw_augmentation(192, 341, SETTINGS, rng=random.Random(i)) for i in range(len(windows))]

    def ours(window: Window) -> None:
        number = windows.index(window)
        crop = crops[number % 12]
        draw = draws[number]
        draw = draw._replace(crop=draw.crop._replace(height=crop.shape[1], width=crop.shape[2]))
        apply_augmentation([crop], [draw], size=SIZE, mean=(0.45,) * 3, std=(0.225,) * 3)

    def torchvisions(window: Window) -> None:
        authors.colour(scale(crops[windows.index(window) % 12], size=SIZE), rng)

    colours = alternate(
        {"hico": partial(over_all, ours, windows), "torchvision v2": partial(over_all, torchvisions, windows)},
        rounds=rounds,
    )
    return {
        "scale and colour, ms CPU a clip": _per_clip(colours),
        "scale and colour, hico / torchvision v2": ratio(colours, "hico", "torchvision v2"),
    }


def measure_workers(videos: Roots, windows: Sequence[Window]) -> dict[str, list[float]]:
    """Clips per second of two processes, measured twice."""
    ours = partial(hico_with_workers, workers=2)
    candidates: dict[str, Callable[[], float]] = {
        "a authors": partial(authors_with_workers, videos["naive"], [*windows, *windows], workers=2),
        "c hico, split, up to crops": partial(ours, videos["split"], batches=150, augment=False),
        "c hico, split, with colours in the training process": partial(
            ours, videos["split"], batches=150, augment=True
        ),
        "d hico, untrimmed, up to crops": partial(ours, videos["untrimmed"], batches=40, augment=False),
    }
    return {name: [measure() for _ in range(2)] for name, measure in candidates.items()}


def main() -> None:
    """Measure, and write docs/measurements/loader.json."""
    given, rounds = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    torch.set_num_threads(1)
    results: dict[str, object] = {"clips a round": CLIPS, "PyAV": av.__version__, "decord": decord.__version__}
    with tempfile.TemporaryDirectory(prefix="hico-bench-") as name:
        work = Path(name)
        sources = make_sources(given, work / "sources", height=360, count=3)
        videos = make_roots(sources, work, {"split": SplitOptions(), "split 256": SplitOptions(short_side=256)})
        windows = windows_of(videos["split"], seed=0)
        authors, rng = AuthorsAugmentation(), random.Random(0)
        results |= measure_decoding(videos, windows, rounds=rounds)
        results |= measure_end_to_end(videos, windows, authors=authors, rng=rng, rounds=rounds)
        results |= measure_colours(videos, windows, authors=authors, rng=rng, rounds=rounds)
        results["2 workers, clips/s"] = measure_workers(videos, windows)
        minutes = len(sources)
        results["kB a minute of video"] = {
            name: bytes_per_minute(work / name, minutes) / 1000 for name in ("split", "split 256", "naive")
        } | {"untrimmed": sum(source.stat().st_size for source in sources) / minutes / 1000}
        results["load"] = os.getloadavg()[0]
    report("loader", results)


def _per_clip(costs: dict[str, list[Cost]]) -> dict[str, float]:
    return {name: of["cpu_seconds"] / CLIPS * 1000 for name, of in summary(costs).items()}


if __name__ == "__main__":
    main()
