"""The cost of an encoder: parameters, operations, memory, and its speed on this machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hico_core.encoders.table import ENCODERS, EncoderEntry
from hico_core.encoding.encoder import device_of, usual_batch, with_channels_last

_REPETITIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of an encoder in evaluation, in single precision."""

    clip: list[int]  # channels, frames, height, width
    parameters: int
    gflops_per_clip: float  # a multiplication and an addition count as two operations
    activation_mb_per_clip: float  # outputs of all layers, most of which training keeps for the backward pass
    clips_per_second: float  # on this machine
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEncoder:
    """A row of the list of encoders."""

    name: str
    parameters: int
    gflops_per_window: float
    num_frames: int  # of a window
    fps: float  # sampled frames per second
    takes_other_windows: bool
    size: int  # pixels
    gives: str  # maps or rows
    feature_dim: int
    trains: bool
    licence: str


def list_encoders() -> list[ListedEncoder]:
    """All encoders that the table lists by name."""
    return [_listed(name, entry) for name, entry in ENCODERS.items()]


def _listed(name: str, entry: EncoderEntry) -> ListedEncoder:
    num_frames, fps = entry.clip
    cost = count_cost(entry.build, num_frames=num_frames, size=entry.picture.size)
    return ListedEncoder(
        name=name,
        parameters=cost.parameters,
        gflops_per_window=cost.gflops_per_clip,
        num_frames=num_frames,
        fps=fps,
        takes_other_windows=entry.longest_window is None,
        size=entry.picture.size,
        gives=entry.gives,
        feature_dim=entry.feature_dim,
        trains=entry.trains,
        licence=entry.licence,
    )


class CountedCost(NamedTuple):
    """The cost of an encoder that is known without computing anything."""

    parameters: int
    gflops_per_clip: float


def count_cost(build: Callable[[], nn.Module], *, num_frames: int, size: int) -> CountedCost:
    """Count an encoder's parameters and operations on the device `meta`, where nothing is stored or computed."""
    with torch.device("meta"), torch.inference_mode():
        encoder = build().eval()
        gflops = _gflops(encoder, torch.empty(1, 3, num_frames, size, size))
    return CountedCost(_num_parameters(encoder), gflops)


def _num_parameters(encoder: nn.Module) -> int:
    return sum(parameter.numel() for parameter in encoder.parameters())


def _gflops(encoder: nn.Module, clip: Tensor) -> float:
    from torch.utils.flop_counter import FlopCounterMode  # slow to load, since it loads Triton

    operations = FlopCounterMode(display=False)
    with operations:
        encoder(clip)
    return operations.get_total_flops() / 1e9


def measure_cost(encoder: nn.Module, *, num_frames: int, size: int) -> Cost:
    """Count and measure an encoder on clips of this size; a test view is such a clip as well.

    Args:
        encoder: clips (N, 3, T, S, S) -> anything; it is put into evaluation mode and channels-last layout.
        num_frames: T.
        size: S, pixels.

    """
    with_channels_last(encoder.eval())
    device = device_of(encoder)
    shape = (3, num_frames, size, size)
    clip = torch.zeros(1, *shape, device=device).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        gflops = _gflops(encoder, clip)
        activations = activation_bytes(encoder, clip)
        rate = _clips_per_second(encoder, clip.repeat(usual_batch(device), 1, 1, 1, 1))
    return Cost(
        clip=list(shape),
        parameters=_num_parameters(encoder),
        gflops_per_clip=gflops,
        activation_mb_per_clip=activations / 1e6,
        clips_per_second=rate,
        device=str(device),
    )


def activation_bytes(encoder: nn.Module, clips: Tensor) -> int:
    """Bytes of the outputs of all layers; an output that a later layer changes in place counts once."""
    outputs: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no address is reused

    def note(module: nn.Module, arguments: object, output: object) -> None:
        if isinstance(output, Tensor):
            outputs[output.data_ptr()] = output.nbytes
            kept.append(output)

    handles = [m.register_forward_hook(note) for m in encoder.modules() if not list(m.children())]
    try:
        encoder(clips)
    finally:
        for handle in handles:
            handle.remove()
    return sum(outputs.values())


def _clips_per_second(encoder: nn.Module, clips: Tensor) -> float:
    """Clips per second in the fastest of a few batches, after a warm-up batch."""
    seconds = []
    for _ in range(1 + _REPETITIONS):
        began = time.monotonic()
        float(encoder(clips).sum())  # waits for a GPU
        seconds.append(time.monotonic() - began)
    return len(clips) / min(seconds[1:])
