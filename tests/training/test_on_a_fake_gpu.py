"""The code for GPUs on tensors that only pretend to lie on one: mixed devices fail, and what is waited for is listed.

Numbers, PyTorch's own backward pass and collectives are not covered; tests/training/test_distributed.py has the latter
two on CPUs.
"""

import random
import re
import time
from typing import Any, Literal

import pytest
import torch
from pretended_gpu import GPU, Watch, pretended
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hico_core.config import AugmentConfig, LossConfig, preset
from hico_core.data.augment import apply_augmentation, draw_augmentation
from hico_core.doctor import loader_speed
from hico_core.encoders.trained import hico_model
from hico_core.encoding.hardware import Precision
from hico_core.model import losses as losses_module
from hico_core.model.hico import HicoModel
from hico_core.model.recompute import recompute_units
from hico_core.model.s3dg import S3DG
from hico_core.training import optim as optim_module
from hico_core.training.dry_run import timed
from hico_core.training.learner import Learner
from hico_core.training.optim import LARS, build_optimizer, parameter_groups
from hico_core.training.scaling import LossScaling
from hico_core.training.step import compute_loss, train_step
from hico_core.transfer.finetuning.step import classification_step

BF16 = Precision("bf16", "pretended")

pytestmark = pytest.mark.slow


def step_of(model: nn.Module, loss: LossConfig, *, adamw: bool = False) -> Watch:
    """A watched step of 2 videos with 3 clips, after one that makes what lasts."""
    optimizer: torch.optim.Optimizer = LARS(parameter_groups(model, weight_decay=1e-6, lars_exclude_bn=False), lr=0.1)
    if adamw:
        with Watch():  # PyTorch looks once whether a rate is negative
            optimizer = build_optimizer(model, preset("hacs-hico-s").optim.model_copy(update={"name": "adamw"}))
    learner = Learner.of(model, optimizer, precision=BF16)
    clips = torch.zeros(2, 3, 3, 8, 64, 64, device=GPU)
    for _ in range(2):
        with Watch() as watch:
            assert train_step(learner, clips, loss=loss, lr=0.1) is not None
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


def two_steps(
    model: nn.Module, *, pairs: str, adamw: bool, precision: Literal["bf16", "fp16"], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Watch], list[Watch], list[tuple[Any, Any]]]:
    """Two steps with different rates, their parts between loss and update, and in what the steps differ."""
    config = preset("hacs-hico-s")
    loss = config.loss.model_copy(update={"topical_pairs": pairs})
    descend, parts, steps = LossScaling.descend, list[Watch](), list[Watch]()

    def watched(self: LossScaling, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        with Watch() as watch:
            descend(self, optimizer, loss)
        parts.append(watch)

    monkeypatch.setattr(LossScaling, "descend", watched)
    with Watch():  # PyTorch looks once whether a rate is negative
        optimizer = build_optimizer(model, config.optim.model_copy(update={"name": "adamw" if adamw else "lars"}))
    learner = Learner.of(model, optimizer, precision=Precision(precision, "pretended"))
    for lr in (0.1, 0.2, 0.3):
        with Watch() as watch:
            assert train_step(learner, torch.zeros(2, 3, 3, 8, 32, 32, device=GPU), loss=loss, lr=lr) is not None
        steps.append(watch)
    _, one, other = steps  # the first one makes what lasts
    return steps[1:], parts[1:], [(a, b) for a, b in zip(one.calls, other.calls, strict=True) if a != b]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("pairs", "adamw"), [("local", False), ("global", False), ("local", True)])
def test_a_step_could_be_captured(
    precision: Literal["bf16", "fp16"], pairs: str, adamw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a CUDA graph, which repeats operations and numbers of the host as they were.

    Steps differ in nothing but the learning rate that is put into the GPU's memory before them. Between the loss and
    the end of the update, the host waits for nothing and copies nothing.
    """
    with pretended(monkeypatch, lambda: hico_model("s3dg-tiny")) as model:
        steps, parts, differing = two_steps(
            model, pairs=pairs, adamw=adamw, precision=precision, monkeypatch=monkeypatch
        )
    assert [step.waits for step in steps] == [{"step.py: cuda to cpu": 1}] * 2
    assert all(part.calls and not part.waits for part in parts)
    assert {(a[0], b[0]) for a, b in differing} == {("aten.fill_.Scalar", "aten.fill_.Scalar")}
    assert all(a[1].replace(" 0.2]", " 0.3]") == b[1] for a, b in differing)


@pytest.mark.parametrize("adamw", [False, True])
def test_a_rate_that_a_graph_would_repeat_would_be_seen(adamw: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """That the comparison is awake: a number of the host's, and Adam's count of steps on the host."""
    monkeypatch.setattr(optim_module, "rate_of", lambda model, rate: rate)
    with pretended(monkeypatch, lambda: hico_model("s3dg-tiny")) as model:
        _, _, differing = two_steps(model, pairs="local", adamw=adamw, precision="bf16", monkeypatch=monkeypatch)
    assert any(a[0] != "aten.fill_.Scalar" for a, _ in differing)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_backward_pass_depends_on_no_value(recompute: bool) -> None:
    """PyTorch's own, which no pretended GPU runs: on tensors of a CPU without values, each read of which fails."""
    loss = preset("hacs-hico-s").loss
    with FakeTensorMode():
        model = hico_model("s3dg-tiny").train()
        if recompute:
            recompute_units(model.backbone)
        optimizer = build_optimizer(model, preset("hacs-hico-s").optim)
        learner = Learner.of(model, optimizer, precision=Precision("fp16", "pretended"))
        for _ in range(2):
            with learner.precision.autocast(torch.device("cpu")):
                outputs = model(torch.zeros(2, 3, 3, 8, 32, 32))
            learner.scaling.descend(optimizer, compute_loss(outputs, loss, clips_per_video=3).total)
        with pytest.raises(DataDependentOutputException):
            bool(outputs.embeddings.isfinite().all())


def test_lars_gives_a_gpu_few_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each on all tensors of a group at once: PyTorch does that only where they are laid out alike."""

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
            lists = [value for value in args if isinstance(value, list) and isinstance(value[0], Tensor)]
            for tensors in zip(*lists, strict=True):
                assert len({(tensor.shape, tensor.stride()) for tensor in tensors}) == 1, op
            names.append(str(op))
            return op(*args, **(kwargs or {}))

    names: list[str] = []
    with pretended(monkeypatch, lambda: HicoModel(S3DG())) as model:
        optimizer = LARS(parameter_groups(model, weight_decay=1e-6, lars_exclude_bn=False), lr=0.1)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        optimizer.step()
        with Operations():  # type: ignore[no-untyped-call]
            optimizer.step()
    of_numbers = [name for name in names if not re.search("as_strided|split|detach|profiler|prim.device", name)]
    assert len(of_numbers) == 3 * 21, of_numbers
    assert any("foreach" in name for name in names)


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
            update = LARS._update

            def with_a_read(self: LARS, flat: Any, group: dict[str, Any]) -> None:  # noqa: ANN401
                assert float(flat.updates_P.abs().max()) >= 0
                update(self, flat, group)

            patch.setattr(LARS, "_update", with_a_read)
            assert sum(step_of(model, loss).waits.values()) > 1


def test_augmentation_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    draws = [draw_augmentation(128, 171, AugmentConfig(blur="gaussian"), rng=rng) for _ in range(6)]
    with FakeTensorMode(), Watch() as watch:
        crops = [torch.zeros(8, d.crop.height, d.crop.width, 3, dtype=torch.uint8, device=GPU) for d in draws]
        clips = apply_augmentation(crops, draws, size=112, mean=(0.45,) * 3, std=(0.225,) * 3)
        assert clips.device == GPU
        assert clips.shape == (6, 3, 8, 112, 112)
    assert not [wait for wait in watch.waits if "cpu to cuda" not in wait]


def test_a_step_of_finetuning(monkeypatch: pytest.MonkeyPatch) -> None:
    from hico_core.model.classifier import VideoClassifier

    with pretended(monkeypatch, lambda: VideoClassifier(5)) as model:
        learner = Learner.of(model, torch.optim.Adam(model.parameters()), precision=BF16)
        clips, labels = torch.zeros(4, 3, 8, 64, 64, device=GPU), torch.zeros(4, dtype=torch.long, device=GPU)
        for _ in range(2):  # the first one makes what lasts
            with Watch() as watch:
                assert classification_step(learner, clips, labels, lr=0.1) is not None
    assert watch.waits == {"step.py: cuda to cpu": 1}


def test_a_measured_step_begins_and_ends_with_an_idle_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the step before it, which may still be computing, counts as well."""
    done: list[object] = []
    monkeypatch.setattr(torch.cuda, "synchronize", done.append)
    clock = iter([10.0, 12.0, 20.0, 23.0])

    def now() -> float:
        done.append("clock")
        return next(clock)

    gpu = torch.device("cuda", 0)
    assert timed(lambda: done.append("step"), gpu, now) == (None, 2.0)
    assert done == [gpu, "clock", "step", gpu, "clock"]
    assert timed(lambda: 5, torch.device("cpu"), now) == (5, 3.0)
    assert done.count(gpu) == 2


def test_the_doctor_measures_the_step_that_pretrain_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the GPU's precision and layout, with the recipe's optimiser; the first three steps are not timed."""
    steps: list[Precision] = []

    def watched(learner: Learner[HicoModel], clips: Tensor, **settings: Any) -> object:  # noqa: ANN401
        assert clips.shape == (32, 3, 3, 16, 112, 112) and clips.device == GPU
        weights = [p for p in learner.model.parameters() if p.dim() == 5]
        assert weights and all(p.is_contiguous(memory_format=torch.channels_last_3d) for p in weights)
        assert isinstance(learner.optimizer, LARS) and learner.model.training
        steps.append(learner.precision)
        return train_step(learner, clips, **settings)

    clock = iter([10.0, 12.0])
    with pretended(monkeypatch, HicoModel) as model, Watch(), monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "synchronize", lambda: steps.append(BF16))
        patch.setattr(loader_speed, "HicoModel", lambda: model.to(memory_format=torch.contiguous_format))
        patch.setattr(loader_speed, "train_step", watched)
        patch.setattr(time, "perf_counter", lambda: next(clock))
        assert loader_speed._gpu_speed() == 5 * 96 / 2
    assert [precision.name for precision in steps] == ["bf16"] * 10
    # What was waited for stands among the steps: before the fourth one, and after the last.
    assert [place for place, precision in enumerate(steps) if precision is BF16] == [3, 9]


def test_a_machine_without_a_gpu_has_no_such_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert loader_speed._gpu_speed() is None
