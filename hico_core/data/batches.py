"""Batches of clips for training steps, and the shared memory in which workers deliver them."""

# B videos, K clips per video, N = B * K, T frames; H and W differ between crops.

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
from hico_core.data.shared_memory import SLOTS, share, with_reserve


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The clips of one step; N = B * K, video by video.

    A worker may overwrite a batch's pixels as soon as the next batch is requested.

    Raises:
        ValueError: the parts do not belong to the same clips.

    """

    pixels: Tensor | None  # uint8: all crops (T, H, W, 3), one after the other; None if one of the samples has none
    num_frames: int  # T
    draws: list[AugmentDraw]  # N: the crops' sizes, and the remaining augmentation of each clip
    video_ids: list[str]  # B
    windows: list[list[tuple[float, float]]]  # B times K: start and end of each clip, in seconds of its video
    unusable: list[UnusableVideo]
    shared: Tensor | None = None  # the worker's original memory, if `pixels` is a copy of it

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
        """The batch in pinned memory, from which a GPU copies asynchronously; called by PyTorch's loader."""
        return self if self.pixels is None else replace(self, pixels=self.pixels.pin_memory(), shared=self.pixels)

    def crops_on(self, device: torch.device) -> list[Tensor]:
        """The crop (T, H, W, 3) of each clip, all moved to a device in one copy.

        Raises:
            HicoError: there are none, because neither a video nor its substitutes can be decoded.

        """
        if self.pixels is None:
            raise HicoError(
                f"{len(self.unusable)} videos of one batch cannot be decoded; the last one: {self.unusable[-1].reason}"
            )
        shapes = self._crop_shapes()
        parts = self.pixels.to(device, non_blocking=True).split([prod(shape) for shape in shapes])
        return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


class BatchReader(Dataset[Batch]):
    """Answers the requests of a step with its batch; each worker has its own copy of the reader.

    As soon as a crop is read, a worker writes it into memory that it shares with the training process. It reuses its
    slots of that memory in turn, because allocating new shared pages would cost more than everything else it does
    between decoding and the next step. No signal that a slot is free is needed: batch n of a worker is requested only
    after its batch n - PREFETCHED was taken, and by then all earlier ones are no longer in use.
    """

    def __init__(self, dataset: Dataset[Sample]) -> None:
        self._dataset = dataset
        self._slots = [torch.empty(0, dtype=torch.uint8)] * SLOTS
        self._turn = 0

    def __getitem__(self, requests: list[ClipRequest]) -> Batch:
        """Read a batch.

        Raises:
            NoRoom: shared memory is full.

        """
        in_worker = get_worker_info() is not None
        self._turn = (self._turn + 1) % SLOTS
        pixels, used = self._slots[self._turn], 0
        samples: list[Sample] = []
        num_frames = 0
        substitutes = frozenset[int]()
        for request in requests:
            sample = self._dataset[request._replace(not_instead=request.not_instead | substitutes)]
            substitutes |= {sample.video} - {request.video}
            for number, crop in enumerate(sample.crops):
                end = used + crop.numel()
                if end > len(pixels):
                    # Assume that all remaining crops are as large as this one.
                    to_come = (len(requests) - len(samples)) * len(sample.crops) - number
                    size = with_reserve(used + to_come * crop.numel())
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
    """New memory of a given size that begins with a copy of these pixels."""
    larger = torch.empty(size, dtype=torch.uint8)
    larger[: len(pixels)] = pixels
    if shared:
        share(larger)
    return larger


def _return_freed_memory() -> None:
    """Make the C library return freed memory to the system.

    Frames of different sizes never quite fit into the gaps left by earlier ones, so a worker's heap would grow for
    hours. Only glibc supports this.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
