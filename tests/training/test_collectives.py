"""What many processes would send each other in a step, counted in one process of a group that only pretends."""

import warnings
from collections import Counter
from typing import Any

import pytest
import torch
import torch.distributed as dist
from pretended_gpu import GPU, pretended
from pretended_group import group_of
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from hico_core.config import preset
from hico_core.model.hico import HicoModel
from hico_core.model.s3dg import S3DG
from hico_core.training.distributed import gather_rows, largest
from hico_core.training.learner import Learner, replica_of
from hico_core.training.optim import build_optimizer
from hico_core.training.shared_norm import share_batch_norms
from hico_core.training.step import compute_loss, train_step

CPU = torch.device("cpu")


class Collectives(TorchDispatchMode):
    """Notes each message to all, with the kind of device that it is on."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.sent: Counter[str] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if op.namespace == "c10d":
            tensors = [value for value in _flat(args) if isinstance(value, Tensor)]
            self.sent[f"{op._schema.name.removeprefix('c10d::')} {tensors[0].device.type}"] += 1
        return op(*args, **(kwargs or {}))


def _flat(values: Any) -> list[Any]:  # noqa: ANN401
    return [leaf for value in values for leaf in (_flat(value) if isinstance(value, (list, tuple)) else [value])]


def gradients_sent(
    watch: Collectives,
    bucket: dist.GradBucket,  # type: ignore[name-defined]  # the stubs lack it
) -> torch.futures.Future[Tensor]:
    """Notes the message of some gradients, which the group that pretends cannot take."""
    watch.sent["allreduce_ of gradients"] += 1
    arrived: torch.futures.Future[Tensor] = torch.futures.Future()
    arrived.set_result(bucket.buffer())
    return arrived


def step_of(size: int, pairs: str) -> Collectives:
    """One step of the paper's model, 2 videos of 3 clips in each process."""
    config = preset("hacs-hico-s")
    loss = config.loss.model_copy(update={"topical_pairs": pairs})
    clips = torch.randn(2, 3, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0))
    with group_of(size) as world, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = HicoModel(S3DG())
        replica = replica_of(model, CPU, world).train()
        with Collectives() as watch:
            if isinstance(replica, DistributedDataParallel):
                replica.register_comm_hook(watch, gradients_sent)
            learner = Learner.of(model, build_optimizer(model, config.optim), replica=replica)
            train_step(learner, clips, loss=loss, lr=0.1, world=world)
    return watch


@pytest.mark.slow
@pytest.mark.parametrize(("size", "pairs"), [(8, "local"), (8, "global"), (64, "global")])
def test_messages_of_a_step(size: int, pairs: str) -> None:
    """Each batch norm sends one message each way; nothing grows with the number of processes."""
    watch = step_of(size, pairs)
    assert watch.sent.pop("allreduce_ of gradients") <= 3
    # 81 batch norms, forward and backward, and whether all losses are numbers; embeddings, topics.
    assert watch.sent == {"allreduce_ cpu": 2 * 81 + 1, "allgather_ cpu": 2 if pairs == "global" else 1}


def test_a_process_alone_sends_nothing() -> None:
    assert not step_of(1, "global").sent


@pytest.mark.slow
def test_what_is_computed_on_a_gpu_is_sent_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what the processes decide on CPUs is not: no GPU is waited for."""
    loss = preset("hacs-hico-s").loss.model_copy(update={"topical_pairs": "global"})

    def model() -> nn.Module:
        return share_batch_norms(HicoModel(S3DG()))

    with pretended(monkeypatch, model) as made, group_of(8) as world, Collectives() as watch:
        clips = torch.zeros(2, 3, 3, 8, 64, 64, device=GPU)
        outputs = made(clips, lambda rows: gather_rows(rows, world))
        compute_loss(outputs, loss, clips_per_video=3, world=world)
        assert {kind.split()[1] for kind in watch.sent} == {"cuda"}
        watch.sent.clear()
        largest([0.0], world)
        assert set(watch.sent) == {"allreduce_ cpu"}
