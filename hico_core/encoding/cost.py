"""What an encoder costs: parameters, operations, memory, and how fast it is on this machine."""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hico_core.encoding.encoder import device_of, usual_batch, with_channels_last

_REPETITIONS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of an encoder, in evaluation, in single precision."""

    clip: list[int]  # channels, frames, height, width
    parameters: int
    gflops_per_clip: float  # a multiplication and an addition are two operations
    activation_mb_per_clip: float  # outputs of all layers, most of which training keeps for the gradients
    clips_per_second: float  # here
    device: str


def measure_cost(encoder: nn.Module, *, num_frames: int, size: int) -> Cost:
    """Count and measure an encoder on clips of this size; a view of a test is such a clip as well.

    Args:
        encoder: clips (N, 3, T, S, S) -> anything; it is put into evaluation, its channels side by side.
        num_frames: T.
        size: S, pixels.

    """
    with_channels_last(encoder.eval())
    device = device_of(encoder)
    shape = (3, num_frames, size, size)
    clip = torch.zeros(1, *shape, device=device).contiguous(memory_format=torch.channels_last_3d)
    with torch.inference_mode():
        operations = FlopCounterMode(display=False)
        with operations:
            encoder(clip)
        activations = activation_bytes(encoder, clip)
        rate = _clips_per_second(encoder, clip.repeat(usual_batch(device), 1, 1, 1, 1))
    return Cost(
        clip=list(shape),
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        gflops_per_clip=operations.get_total_flops() / 1e9,
        activation_mb_per_clip=activations / 1e6,
        clips_per_second=rate,
        device=str(device),
    )


def activation_bytes(encoder: nn.Module, clips: Tensor) -> int:
    """Bytes of the outputs of all layers; one that a layer changes in place counts once."""
    outputs: dict[int, int] = {}
    kept: list[Tensor] = []  # so that no address is used twice

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
    """From the fastest of some batches, after one that warms up."""
    seconds = []
    for _ in range(1 + _REPETITIONS):
        began = time.monotonic()
        float(encoder(clips).sum())  # waits for a GPU
        seconds.append(time.monotonic() - began)
    return len(clips) / min(seconds[1:])
