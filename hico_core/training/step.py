"""One update of pretraining: augmented clips, the loss over all processes, and the optimiser's step."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hico_core.config import Channels, LossConfig
from hico_core.data.augment import apply_augmentation
from hico_core.data.batches import Batch
from hico_core.model.hico import Outputs
from hico_core.model.losses import HicoLoss, hico_loss, simclr_loss
from hico_core.training.collapse import effective_rank, embedding_std
from hico_core.training.distributed import World, gather_rows, largest
from hico_core.training.learner import Learner
from hico_core.training.optim import set_rate

ALONE = World()


def seed_layers(*, seed: int, step: int, rank: int) -> None:
    """Seed PyTorch's random numbers, which layers such as dropout draw, for one step of one process.

    A run that continues then draws the same numbers as one that never stopped, and no two processes draw the same.
    Nothing else in a step draws from these generators.
    """
    torch.manual_seed(int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0]))


def compute_loss(outputs: Outputs, loss: LossConfig, *, clips_per_video: int, world: World = ALONE) -> HicoLoss:
    """The loss of one process, whose gradient is to be averaged over all; SimCLR's loss counts as the visual part."""
    embeddings = gather_rows(outputs.embeddings, world)
    # Every process computes the whole visual term but has a gradient only through its own rows, and gradients are
    # averaged afterwards: multiplying by the number of processes undoes the average.
    if loss.name == "simclr":
        return simclr_loss(
            embeddings, clips_per_video=clips_per_video, temperature=loss.temperature, visual_weight=world.size
        )
    return hico_loss(
        embeddings,
        outputs.topic_logits,
        clips_per_video=clips_per_video,
        temperature=loss.temperature,
        gamma=loss.gamma,
        visual_weight=loss.visual_weight * world.size,
        topical_weight=loss.topical_weight,
        first_row=world.rank * len(outputs.embeddings) if loss.topical_pairs == "global" else 0,
    )


def update(
    learner: Learner[Any], loss: Tensor, measured: Sequence[Tensor], *, lr: float, world: World = ALONE
) -> list[Tensor] | None:
    """Update the weights once from a loss; without an update, return None if any process's loss is not finite.

    Loss and measurements are copied to the CPU together. That is the only moment of a step at which the host waits for
    a GPU: before the backward pass, so that all later kernels are launched while the GPU computes.

    Args:
        learner: holds the weights to update.
        loss: of this process, a scalar.
        measured: other measurements of the step.
        lr: the learning rate.
        world: this process among all.

    Returns:
        The loss and the measurements, on the CPU.

    Raises:
        HicoError: float16 is too coarse for the gradients; see `LossScaling`.

    """
    set_rate(learner.optimizer, lr)
    wanted = [loss, *measured, *learner.scaling.measured()]
    copied = torch.cat([tensor.detach().flatten() for tensor in wanted]).cpu()
    known = [
        part.view(tensor.shape) for part, tensor in zip(copied.split([t.numel() for t in wanted]), wanted, strict=True)
    ]
    (infinite,) = largest([float(not torch.isfinite(known[0]))], world)
    if infinite:
        return None
    learner.scaling.take(known[1 + len(measured) :])
    learner.scaling.descend(learner.optimizer, loss)
    return known[: 1 + len(measured)]


class StepResult(NamedTuple):
    """The result of one training step."""

    loss: HicoLoss  # of this process, on the CPU
    whole_loss: float
    embedding_std: float
    effective_rank: float


def train_step(
    learner: Learner[Any], clips: Tensor, *, loss: LossConfig, lr: float, world: World = ALONE
) -> StepResult | None:
    """One update from clips (B, K, 3, T, H, W) of this process; None, no update, unless all losses are finite."""
    outputs: Outputs
    with learner.precision.autocast(clips.device):
        if loss.topical_pairs == "global":
            outputs = learner.replica(clips, lambda rows: gather_rows(rows, world))
        else:
            outputs = learner.replica(clips)
    losses = compute_loss(outputs, loss, clips_per_video=clips.shape[1], world=world)
    parts = [losses.visual] if losses.topical is None else [losses.visual, losses.topical]
    known = update(learner, losses.total, [*parts, outputs.embeddings], lr=lr, world=world)
    if known is None:
        return None
    total, visual, *topical, embeddings = known
    loss_on_cpu = HicoLoss(total, visual, topical[0] if topical else None)
    whole = whole_loss(loss_on_cpu, loss)
    return StepResult(loss_on_cpu, whole, embedding_std(embeddings), effective_rank(embeddings))


def augmented_clips(batch: Batch, *, size: int, mean: Channels, std: Channels, device: torch.device) -> Tensor:
    """Augment a batch on the model's device: (N, 3, T, H, W), video-major.

    On a GPU, this overlaps with the work still queued there, usually the backward pass of the previous step.

    Args:
        batch: the clips as read.
        size: side of the augmented clips, in pixels.
        mean: of red, green and blue, from 0 to 1.
        std: of the same.
        device: of the model.

    Raises:
        HicoError: there are no clips, because neither a video nor its substitutes can be decoded.

    """

    def made() -> Tensor:
        crops = batch.crops_on(device)
        return apply_augmentation(crops, batch.draws, size=size, mean=mean, std=std)

    if device.type != "cuda":
        return made()
    beside, training = _stream_beside(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(beside):
        clips = made()
    training.wait_stream(beside)
    clips.record_stream(training)  # their memory is not reused for another batch before the step is done with them
    return clips


@cache
def _stream_beside(device: torch.device) -> torch.cuda.Stream:
    """Always the same stream, since only the stream that allocated memory reuses it once it is freed."""
    return torch.cuda.Stream(device)


def describe_batch(batch: Batch) -> str:
    """Describe the clips of a batch, for an error message."""
    return "; ".join(
        f"{video_id} at " + ", ".join(f"{start:.2f}-{end:.2f} s" for start, end in windows)
        for video_id, windows in zip(batch.video_ids, batch.windows, strict=True)
    )


def whole_loss(parts: HicoLoss, loss: LossConfig) -> float:
    """The weighted sum of the parts, as logged: without the factor for several processes."""
    if loss.name == "simclr":
        return float(parts.visual)
    topical = 0.0 if parts.topical is None else float(parts.topical)
    return loss.visual_weight * float(parts.visual) + loss.topical_weight * topical
