"""Dense features of whole videos: one vector per window, streamed, in the files that detection toolkits read.

Time runs on a grid of constant rate, made from the frames' timestamps, so a variable frame rate does not bend
it. Window i covers grid points [i * stride, i * stride + window), that is seconds
[i * stride / fps, (i * stride + window) / fps); its centre is where ActionFormer and OpenTAD put feature i.
"""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from av import VideoFrame
from torch import Tensor, nn

from hico_core.corpus.addresses import Location, locate
from hico_core.corpus.cache import LocalCache
from hico_core.corpus.failures import FailedSource, update_failures
from hico_core.corpus.files import write_text
from hico_core.corpus.records import Failure, sha256_of
from hico_core.data.decode import play, scaled_size, upright
from hico_core.data.reading import local_file
from hico_core.data.videos import IndexedVideos, Piece
from hico_core.errors import BadVideo, HicoError, UsageError
from hico_core.interop import load_backbone
from hico_core.training.hardware import DeviceName, choose_device

# Pictures as the encoder saw them in pretraining: a crop of 112 out of 128, from the middle.
_SHORT_SIDE = 128
_CROP = 112
_MEAN, _STD = 0.45, 0.225

_WINDOWS_PER_BATCH = 8

# S3D-G halves time three times.
_SHORTEST_WINDOW = 8

# Rounding of a timestamp must not hold a frame back by a whole step of the grid.
_ROUNDING_SECONDS = 1e-6

TimedFrames = Iterable[tuple[float, VideoFrame]]


class FeatureSource(NamedTuple):
    """Where features come from: part of a row of the manifest."""

    source: str
    source_fps: float  # average
    duration_seconds: float
    num_frames: int  # decoded


class Features(NamedTuple):
    """The features of one video."""

    array: np.ndarray  # (T, 1024) float32
    times: np.ndarray  # (T, 2) float64: start and end of each window, in seconds
    meta: FeatureSource


def num_windows(num_points: int, *, window: int, stride: int) -> int:
    """Windows that cover all grid points, as far as the stride leaves none out; the last may reach beyond the end.

    10 points, window 4, stride 4:  [0123][4567][89..]  ->  3
    """
    return 1 + max(0, -(-(num_points - max(window, stride)) // stride))


def window_times(count: int, *, window: int, stride: int, fps: float) -> np.ndarray:
    """Start and end of each window in seconds: (count, 2)."""
    start = np.arange(count, dtype=np.float64) * stride / fps
    return np.stack([start, start + window / fps], axis=1)


class _Watched:
    """Passes a stream of frames on and remembers how many there were, and when the last one came."""

    def __init__(self, frames: TimedFrames) -> None:
        self._frames = frames
        self.num_frames = 0
        self.last_seconds = 0.0

    def __iter__(self) -> Iterator[tuple[float, VideoFrame]]:
        for seconds, frame in self._frames:
            self.num_frames += 1
            self.last_seconds = seconds
            yield seconds, frame

    def frame_period(self) -> float:
        """Seconds that the usual frame is shown; one frame alone counts as a second."""
        return self.last_seconds / (self.num_frames - 1) if self.num_frames > 1 else 1.0


def on_grid(frames: TimedFrames, *, fps: float) -> Iterator[VideoFrame]:
    """For each point k / fps of the grid, the frame that a player would show then.

    The last frame is shown for as long as the usual one. Only one frame is kept.

    frames at 0.0 0.4 2.0, 1 fps  ->  those at 0.0 (point 0), 0.4 (1), 2.0 (2)
    """
    watched = _Watched(frames)
    shown: VideoFrame | None = None
    point = 0
    for seconds, frame in watched:
        while shown is not None and point / fps < seconds - _ROUNDING_SECONDS:
            yield shown
            point += 1
        shown = frame
    end = watched.last_seconds + watched.frame_period()
    while shown is not None and point / fps < end - _ROUNDING_SECONDS:
        yield shown
        point += 1


def picture(frame: VideoFrame) -> np.ndarray:
    """A frame scaled, turned upright and cropped to the middle: (112, 112, 3) uint8."""
    height, width = scaled_size(frame.height, frame.width, short_side=_SHORT_SIDE)
    small = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
    small = upright(small, frame.rotation)
    top, left = (small.shape[0] - _CROP) // 2, (small.shape[1] - _CROP) // 2
    return small[top : top + _CROP, left : left + _CROP]


def sliding_windows(pictures: Iterable[np.ndarray], *, window: int, stride: int) -> Iterator[np.ndarray]:
    """Overlapping windows of a stream, each picture taken once: (window, H, W, 3) each.

    The last window is filled up with the last picture. See `num_windows` for how many there are.
    """
    held: list[np.ndarray] = []
    between = max(stride - window, 0)
    stream = iter(pictures)
    while fresh := list(islice(stream, window - len(held))):
        held += fresh
        yield np.stack(held + held[-1:] * (window - len(held)))
        held = held[stride:]
        deque(islice(stream, between), maxlen=0)


def play_pieces(pieces: Sequence[Piece], *, cache: LocalCache) -> Iterator[tuple[float, VideoFrame]]:
    """The clips of a video in a row, in the video's time."""
    for piece in pieces:
        with local_file(piece.path, cache=cache, size_bytes=piece.size_bytes) as path:
            for seconds, frame in play(path):
                yield piece.start_seconds + seconds, frame


class FeatureExtractor:
    """An encoder and the grid on which it looks at videos."""

    def __init__(
        self,
        backbone: nn.Module,
        *,
        window: int = 16,
        stride: int = 16,
        fps: float = 15.0,
        device: torch.device,
    ) -> None:
        """Take an encoder: (N, 3, window, 112, 112) -> maps (N, 1024, ...).

        Raises:
            UsageError: a number is out of range.

        """
        if window < _SHORTEST_WINDOW or stride < 1 or fps <= 0:
            raise UsageError(
                f"--window {window} --stride {stride} --fps {fps}: the window must have {_SHORTEST_WINDOW} frames "
                "or more, stride and fps must be positive"
            )
        self.window, self.stride, self.fps = window, stride, fps
        self._device = device
        self._backbone = backbone.to(device).eval()

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str,
        *,
        window: int = 16,
        stride: int = 16,
        fps: float = 15.0,
        device: DeviceName = "auto",
    ) -> "FeatureExtractor":
        """Load the encoder of our checkpoint or export, or of the authors' .pyth.

        Args:
            path: the checkpoint.
            window: frames in a window, at least 8.
            stride: frames from one window's start to the next one's.
            fps: rate of the grid, in frames a second.
            device: where to compute.

        Raises:
            HicoError: the file holds no S3D-G encoder, or a number is out of range.

        """
        return cls(load_backbone(path), window=window, stride=stride, fps=fps, device=choose_device(device))

    def extract(self, path: Path | str, *, source: str | None = None) -> Features:
        """The features of one video file; memory does not grow with its length.

        Args:
            path: a local file.
            source: what the features are said to come from, if not from there.

        Raises:
            BadVideo: the file cannot be decoded to its end.

        """
        return self._extract(play(path), source=source or str(path))

    def extract_pieces(self, pieces: Sequence[Piece], *, source: str, cache: LocalCache) -> Features:
        """The features of a video that was split into clips.

        Args:
            pieces: the clips in time order.
            source: what the features are said to come from.
            cache: for clips in buckets.

        Raises:
            BadVideo: a clip cannot be decoded to its end.

        """
        return self._extract(play_pieces(pieces, cache=cache), source=source)

    def _extract(self, frames: TimedFrames, *, source: str) -> Features:
        watched = _Watched(frames)
        pictures = (picture(frame) for frame in on_grid(watched, fps=self.fps))
        windows = sliding_windows(pictures, window=self.window, stride=self.stride)
        rows: list[np.ndarray] = []
        while batch := list(islice(windows, _WINDOWS_PER_BATCH)):
            rows.append(self._encode(np.stack(batch)))
        array = np.concatenate(rows)
        period = watched.frame_period()
        meta = FeatureSource(source, 1 / period, watched.last_seconds + period, watched.num_frames)
        return Features(array, window_times(len(array), window=self.window, stride=self.stride, fps=self.fps), meta)

    @torch.inference_mode()
    def _encode(self, windows_NTHWC: np.ndarray) -> np.ndarray:
        """(N, T, H, W, 3) uint8 -> (N, 1024) float32."""
        clips: Tensor = torch.from_numpy(windows_NTHWC).to(self._device).permute(0, 4, 1, 2, 3).float() / 255
        features_NF: Tensor = self._backbone((clips - _MEAN) / _STD).mean(dim=(2, 3, 4))
        return features_NF.float().cpu().numpy()


class FeatureJob(NamedTuple):
    """A video to extract: its clips if it was split into any, else its file."""

    video_id: str
    source: str
    pieces: list[Piece]


class FeatureEvent(NamedTuple):
    """One video is dealt with."""

    video_id: str
    outcome: Literal["extracted", "unchanged", "failed"]
    num_rows: int
    reason: str  # of a failure
    num_done: int
    num_videos: int


class FeatureSummary(NamedTuple):
    """What became of the videos of one call."""

    num_extracted: int
    num_unchanged: int
    num_failed: int
    manifest: Path


def indexed_jobs(videos: IndexedVideos) -> list[FeatureJob]:
    """A job for each video of an index, to be read from its clips, or from its own file if it was not split."""
    return [_indexed_job(videos, number) for number in range(len(videos))]


def _indexed_job(videos: IndexedVideos, number: int) -> FeatureJob:
    pieces, source = videos.pieces(number), videos.source(number)
    in_place = all(str(piece.path) == source for piece in pieces)
    return FeatureJob(videos.video_id(number), source, [] if in_place else pieces)


def _read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Video id -> row. A last line that a crash cut short is not counted."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {row["video_id"]: row for row in rows}


def _is_finished(row: dict[str, Any] | None, folder: Path) -> bool:
    """Whether a video's file is there as its row says."""
    if row is None:
        return False
    try:
        array = np.load(folder / row["file"], mmap_mode="r")
    except (OSError, ValueError):
        return False
    return bool(array.shape == (row["rows"], row["dim"]))


def extract_features(
    jobs: Sequence[FeatureJob],
    *,
    extractor: FeatureExtractor,
    checkpoint: Path,
    root: Location,
    folder: Path,
    cache: LocalCache,
    prefix: str = "",
    suffix: str = "",
    on_event: Callable[[FeatureEvent], None],
) -> FeatureSummary:
    """Write `[prefix]<id>[suffix].npy` for each video and a line for it in manifest.jsonl.

    Videos that have their file already are left out, so a run that was ended goes on. One that cannot be decoded
    becomes a line of `<root>/failures.jsonl`.

    Args:
        jobs: the videos.
        extractor: encoder and grid.
        checkpoint: the file from which the encoder was loaded; the manifest has its hash.
        root: the workspace.
        folder: where the files go; made if missing.
        cache: for videos in buckets.
        prefix: put before each id.
        suffix: put after each id.
        on_event: told of each video.

    Raises:
        HicoError: the folder holds features of another checkpoint or grid.

    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.jsonl"
    settings = {
        "window": extractor.window,
        "stride": extractor.stride,
        "fps": extractor.fps,
        "checkpoint_sha256": sha256_of(checkpoint),
        "picture": {"short_side": _SHORT_SIDE, "crop": _CROP, "mean": _MEAN, "std": _STD},
    }
    rows = _read_manifest(manifest)
    for row in rows.values():
        for key, value in settings.items():
            if row.get(key) != value:
                raise HicoError(
                    f"{folder}: has features with {key}={row.get(key)}, not {value}; give another --name, or remove it"
                )
    # Whole lines only from here on: what follows is appended.
    write_text(manifest, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.values()))

    counts: Counter[str] = Counter()
    fine: list[str] = []
    failed: list[FailedSource] = []
    for number, job in enumerate(jobs, start=1):
        outcome: Literal["extracted", "unchanged", "failed"] = "unchanged"
        num_rows, reason = 0, ""
        if not _is_finished(rows.get(job.video_id), folder):
            try:
                features = _extract_job(job, extractor, cache=cache)
            except BadVideo as bad:
                outcome, reason = "failed", str(bad)
                failed.append(FailedSource(job.source, Failure(stage="decode", error=bad.reason)))
            else:
                outcome, num_rows = "extracted", len(features.array)
                name = f"{prefix}{job.video_id}{suffix}.npy"
                _save_array(folder / name, features.array)
                row = _manifest_row(job.video_id, name, features, {**settings, "checkpoint": str(checkpoint)})
                with manifest.open("a", encoding="utf-8") as opened:
                    opened.write(json.dumps(row, ensure_ascii=False) + "\n")
        if outcome != "failed":
            fine.append(job.source)
        counts[outcome] += 1
        on_event(FeatureEvent(job.video_id, outcome, num_rows, reason, number, len(jobs)))
    update_failures(root, command="extract-features", fine=fine, failed=failed)
    return FeatureSummary(counts["extracted"], counts["unchanged"], counts["failed"], manifest)


def _extract_job(job: FeatureJob, extractor: FeatureExtractor, *, cache: LocalCache) -> Features:
    if job.pieces:
        return extractor.extract_pieces(job.pieces, source=job.source, cache=cache)
    with local_file(locate(job.source), cache=cache) as path:
        return extractor.extract(path, source=job.source)


def _save_array(path: Path, array: np.ndarray) -> None:
    """Write a .npy file that is there whole or not at all."""
    beside = path.with_name(f".{path.name}.tmp")
    try:
        with beside.open("wb") as opened:
            np.save(opened, array)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _manifest_row(video_id: str, name: str, features: Features, settings: dict[str, Any]) -> dict[str, Any]:
    """A line of manifest.jsonl. All times are in seconds from the video's first frame."""
    start, end = features.times.T
    return {
        "video_id": video_id,
        "file": name,
        "rows": features.array.shape[0],
        "dim": features.array.shape[1],
        **settings,
        **features.meta._asdict(),
        "start_seconds": start.tolist(),
        "end_seconds": end.tolist(),
        "centre_seconds": ((start + end) / 2).tolist(),
    }
