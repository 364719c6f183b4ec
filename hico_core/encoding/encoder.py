"""The one way in which whole videos go through an encoder: for features, nearest neighbours and tests.

    videos -> windows (planned from timestamps) -> pictures (worker processes) -> batches -> rows, video by video

All batches have one size, whatever videos they come from, so that a video's rows do not depend on which others are
encoded with it, nor on the number of workers; but where memory does not hold so many windows, by rounding.
"""

# N windows at once, T frames, S their side in pixels; a row is what the encoder makes of a window.

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

# Windows that go through the encoder together. Few of them fill a processor. On an H100, 32 go as fast as 16 cores read
# them; 128 go twice as fast, but take four times the memory (docs/benchmarks-gpu.md).
_BATCH_ON_CPU, _BATCH_ON_GPU = 4, 32


class Meter:
    """How many rows were encoded since a moment, and how long the encoder waited for pictures."""

    def __init__(self) -> None:
        self.num_rows = 0
        self.waiting_seconds = 0.0
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._began

    @property
    def rows_per_second(self) -> float:
        """On the average."""
        return self.num_rows / max(self.seconds, 1e-9)

    @property
    def waiting_part(self) -> float:
        """Of the time, the part spent waiting: 0 to 1."""
        return self.waiting_seconds / max(self.seconds, 1e-9)


class EncodedVideo(NamedTuple):
    """What an encoder says of a video."""

    number: int  # of the video among those that were given
    rows: Tensor | None  # (windows * crops, ...) float32 on the CPU; None where it cannot be used
    facts: Facts | None
    bad: BadVideo | None = None  # why it cannot be used


class _Rows:
    """Rows as they come, put together video by video and given out in order."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[list[Tensor | None], Facts]] = {}
        self._num_missing: dict[int, int] = {}  # rows of those videos
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
        """Take one row; one that comes twice is the same both times."""
        if video not in self._begun:  # it turned out to be bad
            return
        rows, facts = self._begun[video]
        self._num_missing[video] -= rows[row] is None
        rows[row] = values
        if not self._num_missing[video]:
            del self._begun[video]
            self._finished[video] = EncodedVideo(video, torch.stack([row for row in rows if row is not None]), facts)

    def ready(self) -> Iterator[EncodedVideo]:
        """The videos that are finished and whose turn it is."""
        while self._next in self._finished:
            yield self._finished.pop(self._next)
            self._next += 1


class _Window(NamedTuple):
    """A window that waits until there are enough for a batch."""

    video: int
    row: int
    clip_CTHW: Tensor


class WindowEncoder:
    """A model that is given as many windows at once as memory holds."""

    def __init__(self, model: nn.Module, *, batch_size: int, precision: Precision) -> None:
        """Take a model: clips (N, 3, T, S, S) -> rows (N, ...).

        Args:
            model: in evaluation.
            batch_size: windows at once. Where they do not fit, half as many from then on, and so forth.
            precision: of its arithmetic.

        """
        self.batch_size = batch_size
        self._model, self._precision = model, precision
        self._buffer: Tensor | None = None

    def encode(self, clips: Sequence[Tensor]) -> Tensor:
        """Clips (3, T, S, S), of which there is one at least: (n, ...) float32 on the CPU.

        Raises:
            HicoError: memory does not hold a single one.

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
                self._buffer = None  # its memory is needed for the smaller one
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
        """One batch, filled up with empty clips: with always the same shapes, memory is used again."""
        if self._buffer is None:
            # Channels lie side by side, on which convolutions are twice as fast; and new room for each batch would cost
            # more than filling it.
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
        return rows_N[: len(clips)].float().cpu()  # without those of the filling


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

    Rows of a video that is finished wait for those before it. While one is read, every other worker reads about as many
    windows, so what waits grows with the longest video, not with their number.

    Args:
        model: clips (N, 3, T, S, S) -> rows (N, ...). It is put into evaluation and back.
        videos: what to encode.
        reading: which windows, and what it sees of each frame; where frames are normalised is decided here.
        precision: of its arithmetic.
        workers: processes that read.
        batch_size: windows that go through the encoder together, as long as memory holds them; None: as many as suit
            the device.
        meter: told of rows and waiting.

    Raises:
        HicoError: two workers died, or memory does not hold one window.

    """
    device = device_of(model)
    encoder = WindowEncoder(model, batch_size=batch_size or usual_batch(device), precision=precision)
    meter = meter or Meter()
    rows = _Rows()
    waiting: list[_Window] = []
    # A GPU scales pictures faster than those who read can; on a CPU, frames that windows share are scaled once.
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
            # Whole batches only, of whatever videos: the last one of all is filled up.
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
    """The model, its convolutions' weights laid out as they are fastest, for pictures as for clips."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in model.parameters():
        if parameter.dim() in layouts:
            parameter.data = parameter.data.contiguous(memory_format=layouts[parameter.dim()])
    return model


def usual_batch(device: torch.device) -> int:
    """How many windows go through an encoder together where nothing else is said."""
    return _BATCH_ON_GPU if device.type == "cuda" else _BATCH_ON_CPU


def device_of(model: nn.Module) -> torch.device:
    """Where a model's weights are; one without any computes on the CPU."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _metered(parts: Iterator[Part], meter: Meter) -> Iterator[Part]:
    """The parts as they come, and the time that it took until each was there."""
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
    """Encode clips that are in memory, (N, T, side, side, 3) uint8: (N, ...) float32 on the CPU."""
    batch = usual_batch(device_of(model))
    rows = []
    with _evaluating(model), torch.inference_mode():
        for start in range(0, len(clips), batch):
            clips_NCTHW = normalised(clips[start : start + batch].to(device_of(model)), picture)
            rows.append(model(clips_NCTHW).float().cpu())
    return torch.cat(rows)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation, and each of its parts back into the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
