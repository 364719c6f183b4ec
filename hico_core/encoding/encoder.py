"""Encode whole videos, in one way for features, nearest neighbours and tests.

    videos -> windows (planned from timestamps) -> pictures (worker processes) -> batches -> rows, video by video

All batches have the same size and may mix videos, so a video's rows do not depend on which others are encoded with it,
nor on the number of workers. If memory forces smaller batches, rows differ by rounding.
"""

# N windows per batch, T frames, S their side in pixels; a row is the encoder's output for a window.

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hico_core.base.errors import BadVideo, HicoError
from hico_core.data.pictures import Picture, normalised
from hico_core.encoding.hardware import Precision, computing_in
from hico_core.encoding.lanes import Facts, Part, Reading, WholeVideo, read_parts

logger = logging.getLogger(__name__)

# Windows per batch. A few occupy a CPU. On an H100, batches of 32 are as fast as 16 cores read the windows; batches of
# 128 are twice as fast, but take four times the memory (docs/benchmarks-gpu.md).
_BATCH_ON_CPU, _BATCH_ON_GPU = 4, 32


class Meter:
    """Counts the encoded rows, and measures how long the encoder waited for pictures."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.waiting_seconds = 0.0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the meter was created."""
        return time.monotonic() - self._began

    @property
    def rows_per_second(self) -> float:
        """Average number of rows per second."""
        return self.num_rows / max(self.seconds, 1e-9)

    @property
    def waiting_part(self) -> float:
        """Fraction of the time spent waiting, from 0 to 1."""
        return self.waiting_seconds / max(self.seconds, 1e-9)


class EncodedVideo(NamedTuple):
    """The encoder's output for a video."""

    number: int  # index of the video among those given
    rows: Tensor | None  # (windows * crops, ...) float32 on the CPU; None if the video cannot be used
    facts: Facts | None
    bad: BadVideo | None = None  # why it cannot be used


class _Rows:
    """Collects rows as they arrive, assembles them by video and gives the videos out in order."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[list[Tensor | None], Facts]] = {}
        self._num_missing: dict[int, int] = {}  # number of missing rows of these videos
        self._finished: dict[int, EncodedVideo] = {}
        self._next = 0

    def begin(self, part: Part) -> None:
        """Note that a video is being read, or that it cannot be used."""
        if part.facts is None:
            self._begun.pop(part.video, None)
            self._finished[part.video] = EncodedVideo(part.video, None, None, part.bad)
        elif part.video not in self._begun:
            self._begun[part.video] = ([None] * part.num_rows, part.facts)
            self._num_missing[part.video] = part.num_rows

    def fill(self, video: int, row: int, values: Tensor) -> None:
        """Add a row; a row that arrives twice is the same both times."""
        if video not in self._begun:  # the video turned out to be unusable
            return
        rows, facts = self._begun[video]
        self._num_missing[video] -= rows[row] is None
        rows[row] = values
        if not self._num_missing[video]:
            del self._begun[video]
            self._finished[video] = EncodedVideo(video, torch.stack([row for row in rows if row is not None]), facts)

    def ready(self) -> Iterator[EncodedVideo]:
        """The finished videos whose predecessors have all been given out."""
        while self._next in self._finished:
            yield self._finished.pop(self._next)
            self._next += 1


class _Window(NamedTuple):
    """A window waiting for a full batch."""

    video: int
    row: int
    clip_CTHW: Tensor


class WindowEncoder:
    """Runs a model on batches of windows that are as large as memory allows."""

    def __init__(self, model: nn.Module, *, batch_size: int, precision: Precision) -> None:
        """Wrap a model: clips (N, 3, T, S, S) -> rows (N, ...).

        Args:
            model: in evaluation mode.
            batch_size: windows per batch; it is halved for good whenever a batch does not fit into memory.
            precision: of the model's arithmetic.

        """
        self.batch_size = batch_size
        self._model, self._precision = model, precision
        self._buffer: Tensor | None = None

    def encode(self, clips: Sequence[Tensor]) -> Tensor:
        """Encode n >= 1 clips (3, T, S, S): (n, ...) float32 on the CPU.

        Raises:
            HicoError: not even a single clip fits into memory.

        """
        encoded: list[Tensor] = []
        first = 0
        while first < len(clips):
            some = clips[first : first + self.batch_size]
            try:
                encoded.append(self._encode_together(some))
            except torch.OutOfMemoryError as error:
                where = clips[0].device
                if self.batch_size == 1:
                    raise HicoError(f"{where}: one window does not fit into its memory; use --device cpu") from error
                self._buffer = None  # free its memory for the smaller one
                self.batch_size //= 2
                logger.warning(
                    "the batch does not fit into the memory of %s; continuing with %d windows per batch",
                    where,
                    self.batch_size,
                )
            else:
                first += len(some)
        return torch.cat(encoded)

    def _encode_together(self, clips: Sequence[Tensor]) -> Tensor:
        """Encode one batch, padded with empty clips: constant shapes allow memory to be reused."""
        if self._buffer is None:
            # In channels-last layout, convolutions are twice as fast. The buffer is reused because allocating memory
            # for each batch would cost more than filling it.
            self._buffer = torch.empty(
                (self.batch_size, *clips[0].shape),
                dtype=clips[0].dtype,
                device=clips[0].device,
                memory_format=torch.channels_last_3d,
            )
        buffer_NCTHW = self._buffer
        for place, clip in enumerate(clips):
            buffer_NCTHW[place].copy_(clip)
        buffer_NCTHW[len(clips) :].zero_()
        with torch.inference_mode(), computing_in(self._precision, buffer_NCTHW.device):
            rows_N: Tensor = self._model(buffer_NCTHW)
        return rows_N[: len(clips)].float().cpu()  # without the rows of the padding


def encode_videos(
    model: nn.Module,
    videos: Sequence[WholeVideo],
    reading: Reading,
    *,
    precision: Precision,
    workers: int,
    batch_size: int | None = None,
    meter: Meter | None = None,
) -> Iterator[EncodedVideo]:
    """Encode windows of videos; the results come in the order of the videos.

    A finished video waits for those before it. While one video is read, every other worker reads about as many windows,
    so the number of waiting rows grows with the longest video, not with the number of videos.

    Args:
        model: clips (N, 3, T, S, S) -> rows (N, ...). It is put into evaluation mode and back.
        videos: the videos to encode.
        reading: the windows, and how frames become the model's input; this function decides where they are normalised.
        precision: of the model's arithmetic.
        workers: processes that read.
        batch_size: windows per batch, if memory allows; None: the default for the device.
        meter: counts rows and waiting time.

    Raises:
        HicoError: two workers died, or a single window does not fit into memory.

    """
    device = device_of(model)
    encoder = WindowEncoder(model, batch_size=batch_size or usual_batch(device), precision=precision)
    meter = meter or Meter()
    rows = _Rows()
    waiting: list[_Window] = []
    # A GPU scales pictures faster than the workers can; on a CPU, frames that windows share are scaled only once.
    on_device = device.type == "cuda"
    parts = read_parts(videos, replace(reading, normalise=not on_device), workers=workers)
    with _evaluating(model), closing(parts):
        for part in _metered(parts, meter):
            rows.begin(part)
            if part.clips is not None:
                if on_device:
                    clips_NCTHW = normalised(part.clips.to(device, non_blocking=True), reading.picture)
                else:
                    clips_NCTHW = part.clips.permute(0, 4, 1, 2, 3)
                waiting += [_Window(part.video, part.first_row + n, clip) for n, clip in enumerate(clips_NCTHW)]
            # Only full batches, across videos; the very last one is padded.
            while len(waiting) >= encoder.batch_size:
                batch, waiting = waiting[: encoder.batch_size], waiting[encoder.batch_size :]
                _encode(encoder, batch, rows)
                meter.num_rows += len(batch)
            yield from rows.ready()
        if waiting:
            _encode(encoder, waiting, rows)
            meter.num_rows += len(waiting)
        yield from rows.ready()


def with_channels_last(model: nn.Module) -> nn.Module:
    """Put the weights of a model's 2D and 3D convolutions into channels-last layout, the fastest; return the model."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.dim() in layouts:
            parameter.data = parameter.data.contiguous(memory_format=layouts[parameter.dim()])
    return model


def usual_batch(device: torch.device) -> int:
    """The default number of windows per batch on a device."""
    return _BATCH_ON_GPU if device.type == "cuda" else _BATCH_ON_CPU


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's weights; a model without any computes on the CPU."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _metered(parts: Iterator[Part], meter: Meter) -> Iterator[Part]:
    """Pass parts on, adding the time spent waiting for each to the meter."""
    while True:
        began = time.monotonic()
        part = next(parts, None)
        meter.waiting_seconds += time.monotonic() - began
        if part is None:
            return
        yield part


def _encode(encoder: WindowEncoder, batch: list[_Window], rows: _Rows) -> None:
    encoded = encoder.encode([window.clip_CTHW for window in batch])
    for window, values in zip(batch, encoded, strict=True):
        rows.fill(window.video, window.row, values)


def encode_clips(model: nn.Module, clips: Tensor, picture: Picture) -> Tensor:
    """Encode clips in memory, (N, T, side, side, 3) uint8: (N, ...) float32 on the CPU."""
    batch = usual_batch(device_of(model))
    rows = []
    with _evaluating(model), torch.inference_mode():
        for start in range(0, len(clips), batch):
            clips_NCTHW = normalised(clips[start : start + batch].to(device_of(model)), picture)
            rows.append(model(clips_NCTHW).float().cpu())
    return torch.cat(rows)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and afterwards each of its modules back into its previous mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
