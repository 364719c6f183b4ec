"""The clips of a training step together, and the memory in which workers hand them over."""

# B videos, K clips per video, N = B * K, T frames, H and W of each crop its own.

import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from hico_core.base.errors import HicoError
from hico_core.data.augment import AugmentDraw
from hico_core.data.dataset import ClipRequest, Sample, UnusableVideo

# Batches that a worker reads ahead.
PREFETCHED = 2

# Batches of a worker whose memory is in use at a time: those that were asked for, and the one that is trained on.
SLOTS = PREFETCHED + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The clips of one step; N = B * K, video by video.

    Of a worker's batches, the pixels may be written over as soon as the next batch is asked for.

    Raises:
        ValueError: the parts are not of the same clips.

    """

    pixels: Tensor | None  # uint8: all crops (T, H, W, 3), one after the other; None if one of the samples has none
    num_frames: int  # T
    draws: list[AugmentDraw]  # N: the crops' sizes, and what is still to happen to each clip
    video_ids: list[str]  # B
    windows: list[list[tuple[float, float]]]  # B times K: of each video's clips, in seconds
    unusable: list[UnusableVideo]
    shared: Tensor | None = None  # what a worker has written, where `pixels` is a copy of it

    def __post_init__(self) -> None:
        num_windows = sum(map(len, self.windows))
        if len(self.windows) != len(self.video_ids) or num_windows != len(self.draws):
            raise ValueError(
                f"a batch of {len(self.video_ids)} videos and {len(self.draws)} draws cannot have {num_windows} "
                f"windows of {len(self.windows)} videos"
            )
        needed = sum(map(prod, self._crop_shapes()))
        if self.pixels is not None and (self.pixels.dtype != torch.uint8 or self.pixels.shape != (needed,)):
            raise ValueError(
                f"the crops of a batch are ({needed},) torch.uint8, not {tuple(self.pixels.shape)} {self.pixels.dtype}"
            )

    def _crop_shapes(self) -> Sequence[tuple[int, int, int, int]]:
        """(T, H, W, 3) of each of the N crops."""
        return [(self.num_frames, draw.crop.height, draw.crop.width, 3) for draw in self.draws]

    def pin_memory(self) -> "Batch":
        """The batch in memory from which a GPU copies by itself; PyTorch's loader asks for it."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory(), shared=self.pixels)

    def crops_on(self, device: torch.device) -> list[Tensor]:
        """The crop (T, H, W, 3) of each clip, all brought to a device in one copy.

        Raises:
            HicoError: there are none, since neither a video nor its substitutes can be decoded.

        """
        if self.pixels is None:
            raise HicoError(
                f"{len(self.unusable)} videos of one batch cannot be decoded; the last one: {self.unusable[-1].reason}"
            )
        shapes = self._crop_shapes()
        parts = self.pixels.to(device, non_blocking=True).split([prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


class BatchReader(Dataset[Batch]):
    """Answers the requests of a step with its batch; each worker has a copy of its own.

    A worker writes crops, as soon as they are read, into memory that it shares with the training process. It uses that
    in turn: new shared pages would cost it more than all else it does between decoding and the next step. Nobody has to
    say that a slot is free: a worker is asked for its batch n only when its batch n - PREFETCHED is taken, and by then
    all before that one are done with.
    """

    def __init__(self, dataset: Dataset[Sample]) -> None:
        self._dataset = dataset
        self._slots = [torch.empty(0, dtype=torch.uint8)] * SLOTS
        self._turn = 0

    def __getitem__(self, requests: list[ClipRequest]) -> Batch:
        """Read a batch."""
        in_worker = get_worker_info() is not None
        self._turn = (self._turn + 1) % SLOTS
        pixels, used = self._slots[self._turn], 0
        samples: list[Sample] = []
        num_frames = 0
        for sample in map(self._dataset.__getitem__, requests):
            for number, crop in enumerate(sample.crops):
                end = used + crop.numel()
                if end > len(pixels):
                    # As if all crops to come were as large as this one; and an eighth more, for the next batches.
                    to_come = (len(requests) - len(samples)) * len(sample.crops) - number
                    size = (used + to_come * crop.numel()) * 9 // 8
                    pixels = _enlarged(pixels[:used], size, shared=in_worker)
                pixels[used:end].view(crop.shape).copy_(crop)
                used, num_frames = end, len(crop)
            # Crops are views of whole frames, which would stay in memory until the batch is complete.
            samples.append(replace(sample, crops=[]))
        if in_worker:
            self._slots[self._turn] = pixels
            _return_freed_memory()
        return Batch(
            pixels=pixels[:used] if all(sample.draws for sample in samples) else None,
            num_frames=num_frames,
            draws=[draw for sample in samples for draw in sample.draws],
            video_ids=[sample.video_id for sample in samples],
            windows=[sample.windows for sample in samples],
            unusable=[bad for sample in samples for bad in sample.unusable],
        )


def _enlarged(pixels: Tensor, size: int, *, shared: bool) -> Tensor:
    """Memory of a size that begins with these pixels."""
    larger = torch.empty(size, dtype=torch.uint8)
    larger[: len(pixels)] = pixels
    return larger.share_memory_() if shared else larger


def _return_freed_memory() -> None:
    """Let the C library give the system back what it keeps of freed blocks.

    Frames of videos of different sizes never quite fit into the holes of earlier ones, so that a worker's heap would
    grow for hours. Only glibc can do it.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
