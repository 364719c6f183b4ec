"""The code for GPUs on tensors that only pretend to lie on one: mixed devices fail, and what is waited for is listed.

Numbers, PyTorch's own backward pass and collectives are not covered; tests/training/test_distributed.py has the latter
two on CPUs.
"""

import random
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hico_core.config import AugmentConfig, LossConfig, preset
from hico_core.data.augment import apply_augmentation, draw_augmentation
from hico_core.model import losses as losses_module
from hico_core.model.hico import HicoModel
from hico_core.model.s3dg import S3DG
from hico_core.training.hardware import Precision
from hico_core.training.optim import LARS, build_optimizer, parameter_groups
from hico_core.training.step import train_step
from hico_core.transfer.finetune import classification_step

GPU = torch.device("cuda", 0)
BF16 = Precision("bf16", "pretended")
ATEN = torch.ops.aten


class Watch(TorchDispatchMode):
    """Notes each moment at which the host would wait for the GPU, with the file of ours that asks for it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: Counter[str] = Counter()
        self.operations = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if op is ATEN._local_scalar_dense.default:
            if args[0].is_cuda:
                self._note("value read")
            return True if args[0].dtype == torch.bool else 1.0
        if op is ATEN.index.Tensor and any(i is not None and i.dtype == torch.bool for i in args[1]):
            # How many are true, only the GPU knows; here all are.
            self._note("boolean mask")
            args = (
                args[0],
                [torch.zeros(i.numel(), dtype=torch.long, device=i.device) for i in args[1] for _ in i.shape],
            )
        if op is ATEN.nonzero.default and args[0].is_cuda:
            self._note("nonzero")
        self.operations += op.namespace == "aten" and not op.is_view
        result = op(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and args and isinstance(args[0], Tensor) and args[0].device != result.device:
            self._note(f"{args[0].device.type} to {result.device.type}")
        return result

    def _note(self, what: str) -> None:
        ours = [frame for frame in traceback.extract_stack() if "/hico_core/" in frame.filename]
        self.waits[f"{Path(ours[-1].filename).name}: {what}"] += 1


def place(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:  # noqa: ANN401
    """Instead of nn.Module.to, which cannot exchange parameters for pretended ones."""
    device, _, _, layout = torch._C._nn._parse_to(*args, **kwargs)
    for module in self.modules():
        for kind in (module._parameters, module._buffers):
            for name, old in list(kind.items()):
                if old is None:
                    continue
                new = old.detach().to(device or old.device)
                if layout is not None and new.dim() == 5:
                    new = new.contiguous(memory_format=layout)
                kind[name] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new  # type: ignore[assignment]
    return self


@contextmanager
def pretended(monkeypatch: pytest.MonkeyPatch, model: Callable[[], nn.Module]) -> Iterator[nn.Module]:
    """A block in which tensors are fake, and a model on the GPU, whose backward pass gives gradients of its shapes."""
    with FakeTensorMode(), monkeypatch.context() as patch:
        patch.setattr(nn.Module, "to", place)
        patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
        patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        made = model().to(GPU).to(memory_format=torch.channels_last_3d).train()

        def backward(self: Tensor) -> None:
            for parameter in made.parameters():
                parameter.grad = torch.empty_like(parameter)

        patch.setattr(Tensor, "backward", backward)
        yield made


def step_of(model: nn.Module, loss: LossConfig, *, adamw: bool = False) -> Watch:
    """One watched step of 2 videos with 3 clips."""
    optimizer: torch.optim.Optimizer = LARS(parameter_groups(model, weight_decay=1e-6, lars_exclude_bn=False), lr=0.1)
    if adamw:
        optimizer = build_optimizer(model, preset("hacs-hico-s").optim.model_copy(update={"name": "adamw"}))
    clips = torch.zeros(2, 3, 3, 8, 64, 64, device=GPU)
    with Watch() as watch:
        assert train_step(model, optimizer, clips, loss=loss, lr=0.1, precision=BF16) is not None
    return watch


@pytest.mark.parametrize(
    ("recipe", "pairs", "adamw"),
    [
        ("hacs-simclr-s", "local", False),
        ("hacs-hico-s", "local", False),
        ("hacs-hico-l", "global", False),
        ("hacs-hico-s", "local", True),
    ],
)
def test_a_step_waits_for_the_gpu_once(recipe: str, pairs: str, adamw: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    loss = preset(recipe).loss.model_copy(update={"topical_pairs": pairs})
    with pretended(monkeypatch, lambda: HicoModel(S3DG(), topical=loss.name == "hico")) as model:
        watch = step_of(model, loss, adamw=adamw)
    assert watch.waits == {"step.py: cuda to cpu": 1}
    assert watch.operations > 500


def test_a_mask_in_the_loss_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """That the watch is awake: two wrong changes, and a tensor on the wrong device."""
    loss = preset("hacs-hico-s").loss
    same_video = losses_module._same_video
    with pretended(monkeypatch, HicoModel) as model:
        with monkeypatch.context() as patch:
            patch.setattr(losses_module, "_same_video", lambda n, k, device: same_video(n, k, torch.device("cpu")))
            with pytest.raises(RuntimeError, match="device"):
                step_of(model, loss)
        with monkeypatch.context() as patch:
            masked = losses_module.visual_loss

            def with_a_mask(embeddings: Tensor, **settings: Any) -> Tensor:  # noqa: ANN401
                return masked(embeddings, **settings) + embeddings[embeddings > 0].mean()

            patch.setattr(losses_module, "visual_loss", with_a_mask)
            assert (
                step_of(model, loss).waits["losses.py: boolean mask"]
                + step_of(model, loss).waits["step.py: boolean mask"]
                > 0
            )
        with monkeypatch.context() as patch:
            update = LARS._descend

            def with_a_read(self: LARS, weights: list[Tensor], updates: list[Tensor], group: dict[str, Any]) -> None:
                assert float(updates[0].abs().max()) >= 0
                update(self, weights, updates, group)

            patch.setattr(LARS, "_descend", with_a_read)
            assert sum(step_of(model, loss).waits.values()) > 1


def test_augmentation_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    draws = [draw_augmentation(128, 171, AugmentConfig(blur="gaussian"), rng=rng) for _ in range(6)]
    with FakeTensorMode(), Watch() as watch:
        crops = torch.zeros(6, 8, 128, 128, 3, dtype=torch.uint8, device=GPU)
        clips = apply_augmentation(crops, draws, size=112, mean=0.45, std=0.225)
        assert clips.device == GPU
        assert clips.shape == (6, 3, 8, 112, 112)
    assert not [wait for wait in watch.waits if "cpu to cuda" not in wait]


def test_a_step_of_finetuning(monkeypatch: pytest.MonkeyPatch) -> None:
    from hico_core.model.classifier import VideoClassifier

    with pretended(monkeypatch, lambda: VideoClassifier(5)) as model:
        optimizer = torch.optim.Adam(model.parameters())
        clips, labels = torch.zeros(4, 3, 8, 64, 64, device=GPU), torch.zeros(4, dtype=torch.long, device=GPU)
        with Watch() as watch:
            assert classification_step(model, optimizer, clips, labels, lr=0.1, precision=BF16) is not None
    assert sum(watch.waits.values()) <= 3, watch.waits
