"""What each of two training processes does, for tests/training/test_distributed.py: some steps, and what came out.

    torchrun --nproc-per-node N processes.py OUT [cuda]

Run alone, it is the one process that the others must equal. On a machine with fewer GPUs than processes, they share the
first one, and what they exchange goes over the CPU: NCCL wants a GPU for each.
"""

import os
import sys
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from hico_core.config import LossConfig
from hico_core.encoders.trained import hico_model
from hico_core.encoding.hardware import Precision
from hico_core.model.classifier import VideoClassifier
from hico_core.model.heads import ProjectionHead, TopicHead
from hico_core.model.hico import HicoModel
from hico_core.training.distributed import World, gather_objects, joined_world
from hico_core.training.launch import leave
from hico_core.training.learner import Learner
from hico_core.training.optim import LARS, parameter_groups
from hico_core.training.shared_norm import share_batch_norms
from hico_core.training.step import train_step, update
from hico_core.transfer.finetuning.step import classification_step

VIDEOS, CLIPS = 4, 3

Item = TypeVar("Item")


class TinyBackbone(nn.Module):
    """Two convolutions with batch norms, so that a test takes seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, 6, 3, stride=2), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 8, 2), nn.BatchNorm3d(8)
        )

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> (N, 8, T', H', W')."""
        return self.layers(clips)


def share_of(items: list[Item], world: World) -> list[Item]:
    """The process's part of a step's items, as `plan_steps` shares videos."""
    each = len(items) // world.size
    return items[world.rank * each : (world.rank + 1) * each]


def replica_of(model: nn.Module, device: torch.device) -> nn.Module:
    """The model, averaging over the processes of torchrun: over one as well, so that a single GPU tries NCCL."""
    if not dist.is_initialized():
        return model
    share_batch_norms(model)
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def model_of(kind: str) -> HicoModel:
    """A small model with or without a topical head, or a network of torchvision."""
    if kind == "r2plus1d_18":
        return hico_model("torchvision:r2plus1d_18")
    return HicoModel(TinyBackbone(), ProjectionHead(8, 16, 8), TopicHead(8, 16, 8), topical=kind != "none")


def part_of(tensor: Tensor) -> Tensor:
    """The first numbers of a tensor: a large network has too many to write all of them."""
    return tensor.flatten()[:200].clone().cpu()


def train(kind: str, world: World, device: torch.device, *, num_steps: int) -> dict[str, object]:
    """Some steps in double precision, and what came out."""
    torch.manual_seed(0)
    model = model_of(kind).double().to(device)
    loss = LossConfig(topical_pairs="local" if kind == "none" else "global")
    replica = replica_of(model, device)
    optimizer = LARS(parameter_groups(model, weight_decay=1e-6, lars_exclude_bn=True), lr=0.1, momentum=0.9, eta=0.001)
    learner, losses, gradients = Learner.of(model, optimizer, replica=replica), [], []
    for step in range(num_steps):
        generator = torch.Generator().manual_seed(step)
        clips = torch.randn(VIDEOS, CLIPS, 3, 5, 9, 9, generator=generator, dtype=torch.float64)
        own = torch.stack(share_of(list(clips), world)).to(device)
        result = train_step(learner, own, loss=loss, lr=0.1, world=world)
        assert result is not None
        losses.append(float(result.loss.visual))
        gradients.append([part_of(p.grad) for p in model.parameters() if p.grad is not None])
    state = {name: part_of(value) for name, value in model.state_dict().items()}
    return {"losses": losses, "gradients": gradients, "state": state, "size": world.size}


def finetune(world: World, device: torch.device) -> dict[str, object]:
    """Five steps of classification in double precision."""
    torch.manual_seed(0)
    model = VideoClassifier(3, TinyBackbone())
    model.out = nn.Linear(8, 3)
    model.double().to(device)
    replica = replica_of(model, device)
    optimizer = torch.optim.Adam(parameter_groups(model, weight_decay=1e-3, lars_exclude_bn=False), lr=0.01)
    learner, losses, gradients = Learner.of(model, optimizer, replica=replica), [], []
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        clips = torch.randn(VIDEOS, 3, 5, 9, 9, generator=generator, dtype=torch.float64)
        own = torch.stack(share_of(list(clips), world)).to(device)
        labels = torch.tensor(share_of([0, 1, 2, 1], world)).to(device)
        losses.append(classification_step(learner, own, labels, lr=0.01, world=world))
        gradients.append([p.grad.clone().cpu() for p in model.parameters() if p.grad is not None])
    return {
        "losses": [loss for loss, _ in losses],
        "accuracies": [accuracy for _, accuracy in losses],
        "gradients": gradients,
        "state": model.cpu().state_dict(),
        "size": world.size,
    }


def overflow(world: World, device: torch.device) -> dict[str, object]:
    """Three updates in float16, of which the gradients of the last process alone overflow in the second."""
    torch.manual_seed(0)
    model = VideoClassifier(3, TinyBackbone(), feature_dim=8).to(device)
    optimizer = LARS(model.parameters(), lr=0.1)
    learner = Learner.of(model, optimizer, replica=replica_of(model, device), precision=Precision("fp16", "tested"))
    after = []
    for step in range(3):
        with learner.precision.autocast(device):
            scores = learner.replica(
                torch.randn(4, 3, 5, 9, 9, generator=torch.Generator().manual_seed(step)).to(device)
            )
        overflows = step == 1 and world.rank == world.size - 1
        weight = 1e36 if overflows else 1e-3
        assert update(learner, scores.mean() * weight, [], lr=0.1, world=world) is not None
        after.append(torch.cat([parameter.detach().flatten().cpu() for parameter in model.parameters()]))
    return {"weights": after, "scaling": learner.scaling.state_dict(), "known": learner.scaling.skipped_steps}


def main() -> None:
    """Train without the topical term, with all pairs in it, and with labels; the first process writes all.

    And a network of torchvision, for a single step, and what becomes of a step that overflows, in all processes.
    """
    torch.set_num_threads(1)
    out, *on_gpu = sys.argv[1:]
    one_each = torch.cuda.device_count() >= int(os.environ.get("WORLD_SIZE", "1"))
    with joined_world(torch.device("cuda" if on_gpu and one_each else "cpu")) as world:
        device = torch.device("cuda", world.local_rank if one_each else 0) if on_gpu else torch.device("cpu")
        kinds = {"none": 5, "global": 5, "r2plus1d_18": 1}
        results = {kind: train(kind, world, device, num_steps=num_steps) for kind, num_steps in kinds.items()}
        results["finetuning"] = finetune(world, device)
        overflows = gather_objects(overflow(world, device), world)
        results["overflow"] = {"processes": overflows}
        if world.is_first:
            torch.save(results, out)


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main()
    leave(0, os.environ)
