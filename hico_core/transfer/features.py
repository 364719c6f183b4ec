"""Dense features of whole videos: one vector per window, with the window's times.

Windows lie on a grid in real time (see `hico_core.encoding.windows.Grid`); ActionFormer and OpenTAD place a feature at
the centre of its window.
"""

# N windows at once, W windows of a video, S pixels, F feature width; maps have T' frames, height H', width W'.

import html
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hico_core.base.choices import Align, DeviceName, Layer, Pool, Tail
from hico_core.base.errors import BadVideo, HicoError, UsageError, counted
from hico_core.checkpoints.frozen import EXPORTED, FrozenEncoder, load_frozen
from hico_core.checkpoints.reading import projection_of, read_checkpoint
from hico_core.data.pictures import middle_of, normalised
from hico_core.data.workers import num_workers
from hico_core.encoders.python_function import PYTHON
from hico_core.encoders.table import ENCODERS, EncoderEntry
from hico_core.encoders.trained import feature_dim
from hico_core.encoding.encoder import Meter, WindowEncoder, encode_videos, usual_batch, with_channels_last
from hico_core.encoding.hardware import choose_device, choose_precision
from hico_core.encoding.lanes import Reading, WholeVideo
from hico_core.encoding.windows import Grid, Spans, window_times, windows_in_spans
from hico_core.model.heads import ProjectionHead
from hico_core.model.pooling import PooledEncoder

logger = logging.getLogger(__name__)


# As in the features of ActivityNet and HACS.
USUAL_GRID = Grid(fps=15.0, window=16, stride=16)

# Largest batch of --batch-size auto; an H100 is no faster with more windows (docs/benchmarks-gpu.md).
_LARGEST_BATCH = 256


class FeatureSource(NamedTuple):
    """Where features come from: part of a row of the manifest."""

    source: str
    source_fps: float  # average
    duration_seconds: float
    num_frames: int  # of the source


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Features:
    """The features of one video.

    Raises:
        ValueError: array and times differ in their number of windows, or have an unsuitable type.

    """

    array: np.ndarray  # (W, F): F is 1024 for S3D-G, 128 for the projection; maps (W, F, T', H', W') if not pooled.
    # float32 as computed, float16 if stored so.
    times: np.ndarray  # (W, 2) float64: start and end of each window, in seconds
    meta: FeatureSource

    def __post_init__(self) -> None:
        if self.array.ndim < 2 or self.array.dtype not in (np.float32, np.float16):
            raise ValueError(f"features are (W, F, ...) float32 or float16, not {self.array.shape} {self.array.dtype}")
        if self.times.shape != (len(self.array), 2) or self.times.dtype != np.float64:
            raise ValueError(
                f"times of {len(self.array)} windows are ({len(self.array)}, 2) float64, not {self.times.shape} "
                f"{self.times.dtype}"
            )

    def __repr__(self) -> str:
        return f"Features({', '.join(self._in_words().values())})"

    def _repr_html_(self) -> str:
        """For notebooks."""
        rows = (f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in self._in_words().items())
        return f"<table>{''.join(rows)}</table>"

    def _in_words(self) -> dict[str, str]:
        windows, *shape = self.array.shape
        seconds = f"{self.times[0, 0]:.1f} to {self.times[-1, 1]:.1f} s" if windows else "no seconds"
        return {
            "array": f"{counted(windows, 'window')} of {' x '.join(map(str, shape))} {self.array.dtype}",
            "times": seconds,
            "source": self.meta.source,
        }


class FeatureExtractor:
    """Extracts features of whole videos: an encoder, the windows that it sees, and how their frames are prepared."""

    def __init__(
        self,
        encoder: PooledEncoder,
        *,
        grid: Grid = USUAL_GRID,
        frozen: FrozenEncoder | None = None,
        device: torch.device,
        batch_size: int | Literal["auto"] | None = None,
    ) -> None:
        """Wrap an encoder: clips (N, 3, window, S, S) -> rows (N, F), or maps (N, F, T', H', W').

        Args:
            encoder: with the pooling of its maps.
            grid: where windows lie.
            frozen: the encoder's identity, as in manifests, and its input format; None: no name, and the input format
                of the paper's encoder.
            device: where to compute.
            batch_size: windows encoded together, if they fit into memory; "auto": as many as fit; None: a number that
                suits most machines. Features change only by rounding.

        Raises:
            UsageError: a number is out of range, or two settings contradict each other.
            HicoError: the user's own encoder does not accept such windows.

        """
        entry = ENCODERS["s3dg"] if frozen is None else frozen.entry
        _require_sound(grid, encoder.pool, with_head=encoder.head is not None)
        _require_suitable(grid, encoder.pool, entry, name="the encoder" if frozen is None else frozen.name)
        if frozen is not None and frozen.name.startswith(PYTHON):  # only trying shows which windows it takes
            feature_dim(encoder.backbone.cpu(), name=frozen.name, num_frames=grid.window, size=entry.picture.size)
        self.grid, self.pool = grid, encoder.pool
        self.layer: Layer = "pooled" if encoder.head is None else "projection"
        self.picture = entry.picture
        self.frozen = frozen
        self.device = device
        self.precision = choose_precision("auto", device)
        self.encoder = encoder.eval().to(device)
        with_channels_last(self.encoder)
        largest = _LARGEST_BATCH if device.type == "cuda" else usual_batch(device)  # a CPU gains nothing beyond
        self.batch_size = largest if batch_size == "auto" else batch_size or usual_batch(device)

    @classmethod
    def from_checkpoint(
        cls,
        path: Path | str,
        *,
        window: int = 16,
        stride: int = 16,
        fps: float | None = 15.0,
        align: Align = "start",
        tail: Tail = "pad",
        pool: Pool = "avg",
        layer: Layer = "pooled",
        device: DeviceName = "auto",
        batch_size: int | Literal["auto"] | None = None,
    ) -> "FeatureExtractor":
        """Load an encoder from a checkpoint, an export or the authors' .pyth; frames are prepared as in its training.

        Args:
            path: the checkpoint, or another encoder as `load_frozen` accepts it, such as `torchvision:r3d_18=FILE`.
            window: frames per window; for S3D-G at least 8.
            stride: frames from the start of one window to the start of the next.
            fps: frame rate at which videos are sampled; None: each video's own average.
            align: "start": the first window begins with the video; "center": windows are centred on the strides.
            tail: how to treat an incomplete last window: "pad" it, "drop" it, or "shift" it back.
            pool: pooling over the encoder's feature maps.
            layer: "pooled": the encoder's features; "projection": the embeddings that pretraining compares.
            device: where to compute.
            batch_size: windows encoded together; "auto": as many as fit into memory.

        Raises:
            HicoError: the file holds no encoder or no projection, or a number is out of range.

        """
        grid = Grid(fps=fps, window=window, stride=stride, align=align, tail=tail)
        _require_sound(grid, pool, with_head=layer == "projection")
        frozen = load_frozen(str(path))
        return cls.from_encoder(frozen, grid=grid, pool=pool, layer=layer, device=device, batch_size=batch_size)

    @classmethod
    def from_encoder(
        cls,
        frozen: FrozenEncoder,
        *,
        grid: Grid = USUAL_GRID,
        pool: Pool = "avg",
        layer: Layer = "pooled",
        device: DeviceName = "auto",
        batch_size: int | Literal["auto"] | None = None,
    ) -> "FeatureExtractor":
        """Use an encoder that is already loaded; otherwise like `from_checkpoint`.

        Raises:
            HicoError: the encoder has no projection, or does not accept such windows.

        """
        head = _projection_of(frozen) if layer == "projection" else None
        encoder = PooledEncoder(frozen.network, pool=pool, head=head)
        return cls(encoder, grid=grid, frozen=frozen, device=choose_device(device), batch_size=batch_size)

    def __repr__(self) -> str:
        name = type(self.encoder.backbone).__name__ if self.frozen is None else self.frozen.text
        fps = "the videos' fps" if self.grid.fps is None else f"{self.grid.fps:g} fps"
        return (
            f"FeatureExtractor({name}, windows of {self.grid.window} frames at {fps}, stride {self.grid.stride}, "
            f"pool {self.pool}, layer {self.layer}, {self.device})"
        )

    @property
    def reading(self) -> Reading:
        """The settings by which videos are read for the encoder."""
        return Reading(layout=self.grid, picture=self.picture)

    def encode(self, clips: Tensor) -> Tensor:
        """Encode clips that are in memory, each as one window: (N, T, H, W, 3) uint8 -> (N, F) float32 on the CPU.

        Frames are centre-cropped, scaled and normalised as those of videos.

        Args:
            clips: RGB, with as many frames as a window, at the frame rate of the grid.

        Raises:
            UsageError: the clips have another shape or type.

        """
        window = self.grid.window
        if clips.ndim != 5 or clips.dtype != torch.uint8 or clips.shape[-1] != 3 or clips.shape[1] != window:
            raise UsageError(
                f"clips are {tuple(clips.shape)} {clips.dtype}, not (N, {window}, H, W, 3) torch.uint8: RGB frames, "
                f"0 to 255, {window} of them in each clip (window={window})"
            )
        encoder = WindowEncoder(self.encoder, batch_size=self.batch_size, precision=self.precision)
        rows = []
        for some in clips.split(self.batch_size):
            middles = torch.stack([middle_of(clip_THWC.cpu(), self.picture) for clip_THWC in some])
            rows.append(encoder.encode(list(normalised(middles.to(self.device), self.picture))))
        return torch.cat(rows)

    def extract(self, path: Path | str) -> Features:
        """Extract the features of a local video file; memory does not grow with its length.

        Raises:
            BadVideo: the file cannot be decoded to its end.

        """
        (found,) = self.extract_many([path], workers=0)
        if isinstance(found, BadVideo):
            raise found
        return found

    def extract_many(
        self, paths: Sequence[Path | str], *, workers: int | None = None, meter: Meter | None = None
    ) -> Iterator[Features | BadVideo]:
        """Extract the features of many local files, in order; a file that cannot be read yields a `BadVideo`.

        Args:
            paths: of the videos.
            workers: number of reading processes; None: one per core.
            meter: counts rows and waiting time.

        """
        videos = [WholeVideo(Path(path), []) for path in paths]
        return self.extract_all(videos, workers=workers, meter=meter)

    def extract_all(
        self, videos: Sequence[WholeVideo], *, workers: int | None = None, meter: Meter | None = None
    ) -> Iterator[Features | BadVideo]:
        """Extract the features of videos that are in buckets, were split into clips, or are needed only in spans.

        Args:
            videos: read from their clips or their own files; a video with spans gets one row per span, the mean of its
                windows.
            workers: number of reading processes; None: one per core.
            meter: counts rows and waiting time.

        """
        encoded = encode_videos(
            self.encoder,
            videos,
            self.reading,
            precision=self.precision,
            workers=num_workers(workers),
            batch_size=self.batch_size,
            meter=meter,
        )
        for video, found in zip(videos, encoded, strict=True):
            if found.bad is not None:
                yield BadVideo(str(video.path), found.bad.said_of(video.path), stage="decode")
                continue
            facts, rows = found.facts, found.rows
            assert facts is not None and rows is not None
            meta = FeatureSource(str(video.path), facts.fps, facts.duration_seconds, facts.num_frames)
            if video.spans is None:
                times = window_times(self.grid, duration_seconds=facts.duration_seconds, source_fps=facts.fps)
                yield Features(array=rows.numpy(), times=times, meta=meta)
            else:
                means = span_means(rows.numpy(), video.spans, self.grid, meta=meta)
                yield Features(array=means, times=np.array(video.spans.seconds, dtype=np.float64), meta=meta)


def span_means(rows: np.ndarray, spans: Spans, grid: Grid, *, meta: FeatureSource) -> np.ndarray:
    """The mean over the windows of each span: (W, ...), in the order of `windows_in_spans` -> (S, ...) float32."""
    laid = windows_in_spans(spans, grid, duration_seconds=meta.duration_seconds, source_fps=meta.source_fps)
    sums = np.zeros((len(spans.seconds), *rows.shape[1:]))
    np.add.at(sums, laid.span_W, rows)
    counts_S = np.bincount(laid.span_W).reshape(-1, *[1] * (rows.ndim - 1))
    means: np.ndarray = (sums / counts_S).astype(np.float32)
    return means


def _require_sound(grid: Grid, pool: Pool, *, with_head: bool) -> None:
    if grid.window < 1 or grid.stride < 1 or (grid.fps is not None and not 0 < grid.fps < math.inf):
        raise UsageError(f"--window {grid.window} --stride {grid.stride} --fps {grid.fps}: must be positive and finite")
    if grid.align == "center" and grid.tail != "pad":
        raise UsageError(f"--align center --tail {grid.tail}: centred windows are always padded; leave out --tail")
    if with_head and pool != "avg":
        raise UsageError(f"--layer projection --pool {pool}: the projection needs averages; leave out --pool")


def _require_suitable(grid: Grid, pool: Pool, entry: EncoderEntry, *, name: str) -> None:
    if grid.window < entry.shortest_window or grid.window > (entry.longest_window or grid.window):
        exactly = entry.shortest_window == entry.longest_window
        most = f" and at most {entry.longest_window}" if entry.longest_window else ""
        wanted = f"exactly {entry.shortest_window}" if exactly else f"at least {entry.shortest_window}{most}"
        raise UsageError(f"--window {grid.window}: {name} takes windows of {wanted} frames")
    if pool == "none" and entry.gives == "rows":
        raise UsageError(f"--pool none: {name} gives one row per window, not maps; leave out --pool")


def _projection_of(frozen: FrozenEncoder) -> ProjectionHead:
    """The projection head of pretraining, from the encoder's file.

    Raises:
        UsageError: encoders of this kind have no projection head.
        HicoError: the file has no projection head, or has changed.

    """
    if frozen.table_name is not None or frozen.origin is None or frozen.origin.path.endswith(EXPORTED):
        raise UsageError(f"--layer projection: {frozen.name} has no projection head; leave out --layer")
    file = read_checkpoint(Path(frozen.origin.path))
    if file.sha256 != frozen.origin.sha256:
        raise HicoError(f"{file.path}: is being written by a training; use a copy of it")
    return projection_of(file)
