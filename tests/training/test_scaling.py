"""The loss scaling of float16: the scale follows its rule, a step that overflows is none, and a run goes on exactly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hico_core.base.errors import HicoError
from hico_core.checkpoints.content import LAST, Progress, checkpoint_of, read_last, restore, write_of_run
from hico_core.config import preset
from hico_core.encoders.trained import hico_model
from hico_core.encoding.hardware import FP32, Precision
from hico_core.model.classifier import VideoClassifier
from hico_core.model.hico import HicoModel
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.training.learner import Learner
from hico_core.training.optim import LARS, parameter_groups
from hico_core.training.scaling import LossScaling
from hico_core.training.step import train_step
from hico_core.transfer.finetuning.step import classification_step

CPU, FP16 = torch.device("cpu"), Precision("fp16", "tested")
LOSS = preset("hacs-hico-s").loss

# The scale of float32's largest power of two: no gradient comes through.
OVERFLOWING = 2.0**127


def with_state(scaling: LossScaling, **changes: float) -> LossScaling:
    scaling.load_state_dict({**scaling.state_dict(), **changes})
    return scaling


@pytest.mark.parametrize("overflows", ["....", "x...x......", "xx.xx...x..", "......x.x.x"])
def test_the_scale_follows_its_rule(overflows: str) -> None:
    """The slow twin: halved where gradients overflow, doubled after three steps in a row where none does."""
    scaling = with_state(LossScaling(CPU, enabled=True), growth_interval=3)
    weight = nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([weight], lr=0.5)
    scale, in_a_row, skipped, expected = 65536.0, 0, 0, 1.0
    for overflow in overflows:
        scaling.descend(optimizer, (weight * (1e38 if overflow == "x" else 1.0)).sum())
        if overflow == "x":
            scale, in_a_row, skipped = scale / 2, 0, skipped + 1
        else:
            in_a_row, expected = in_a_row + 1, expected - 0.5
            if in_a_row == 3:
                scale, in_a_row = scale * 2, 0
        state = scaling.state_dict()
        assert (state["scale"], state["_growth_tracker"], state["skipped_steps"]) == (scale, in_a_row, skipped)
        assert weight.tolist() == [expected] * 4


def learner_of(optimizer: str = "lars", *, precision: Precision = FP16, **options: Any) -> Learner[HicoModel]:  # noqa: ANN401
    torch.manual_seed(0)
    model = hico_model("s3dg-tiny").train()
    groups = parameter_groups(model, weight_decay=0.01, lars_exclude_bn=True)
    kinds = {"lars": LARS, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    return Learner.of(model, kinds[optimizer](groups, lr=0.1, **options), precision=precision)


def step(learner: Learner[HicoModel], number: int, *, scale: float | None = None) -> None:
    clips = torch.randn(2, 3, 3, 8, 16, 16, generator=torch.Generator().manual_seed(number))
    if scale is not None:
        with_state(learner.scaling, scale=scale)
    assert train_step(learner, clips, loss=LOSS, lr=0.1) is not None


def tensors_of(learner: Learner[HicoModel]) -> list[Tensor]:
    """Weights and what the optimiser remembers; the statistics of batch norms have seen the clips of a skipped step."""
    remembered = [value for state in learner.optimizer.state.values() for value in state.values()]
    return [tensor.detach().clone() for tensor in [*learner.model.parameters(), *remembered]]


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [("lars", {}), ("lars", {"nesterov": False}), ("adam", {}), ("adamw", {}), ("adamw", {"fused": True})],
)
def test_a_step_that_overflows_changes_nothing_and_is_counted(optimizer: str, options: dict[str, Any]) -> None:
    learner = learner_of(optimizer, **options)
    step(learner, 0, scale=1024.0)
    before = tensors_of(learner)
    step(learner, 1, scale=OVERFLOWING)
    assert all(torch.equal(old, new) for old, new in zip(before, tensors_of(learner), strict=True))
    assert learner.scaling.state_dict()["scale"] == OVERFLOWING / 2
    assert learner.scaling.skipped_steps == 0, "read with the next step's loss"
    step(learner, 2, scale=1024.0)
    assert learner.scaling.skipped_steps == 1
    assert not any(torch.equal(old, new) for old, new in zip(before, tensors_of(learner), strict=True) if old.dim() > 1)


def test_a_step_of_finetuning_that_overflows_is_skipped_too() -> None:
    torch.manual_seed(0)
    model = VideoClassifier(3, S3DGTiny(), S3DGTiny.feature_dim).train()
    learner = Learner.of(model, torch.optim.Adam(model.parameters(), lr=0.1), precision=FP16)
    clips, labels = torch.randn(4, 3, 8, 16, 16), torch.tensor([0, 1, 2, 1])
    weights = []
    for scale in (64.0, OVERFLOWING, 64.0):
        with_state(learner.scaling, scale=scale)
        classification_step(learner, clips, labels, lr=0.01)
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    first, second, third = weights
    assert all(torch.equal(old, new) for old, new in zip(first, second, strict=True))
    assert not torch.equal(second[0], third[0]) and learner.scaling.skipped_steps == 1


def test_scaling_by_itself_changes_no_update() -> None:
    """A power of two is lost in no digit of float32, so the arithmetic is what it is without."""
    plain = learner_of(precision=FP32)
    scaled = replace(learner_of(precision=FP32), scaling=LossScaling(CPU, enabled=True))
    for number in range(3):
        step(plain, number)
        step(scaled, number)
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(plain), tensors_of(scaled), strict=True))


@pytest.mark.slow
def test_steps_saved_and_resumed_are_the_same_steps(tmp_path: Path) -> None:
    """A step that overflows before the checkpoint and one after it, and a scale that grows."""

    def begun() -> Learner[HicoModel]:
        learner = learner_of()
        with_state(learner.scaling, growth_interval=2)
        return learner

    def steps(learner: Learner[HicoModel], numbers: range) -> None:
        scales = {0: 64.0, 1: OVERFLOWING, 2: 64.0, 5: OVERFLOWING, 6: 64.0}
        for number in numbers:
            step(learner, number, scale=scales.get(number))

    whole, parts = begun(), begun()
    steps(whole, range(8))
    steps(parts, range(4))
    progress, state = Progress(), parts.scaling.state_dict()
    write_of_run(
        tmp_path / LAST,
        checkpoint_of(model=parts.model, optimizer=parts.optimizer, scaling=state, progress=progress, config={}),
    )
    assert (state["scale"], state["_growth_tracker"], state["skipped_steps"]) == (128.0, 0, 1)
    content, resumed = read_last(tmp_path), learner_of()
    assert content is not None
    restore(content, model=resumed.model, optimizer=resumed.optimizer, origin=tmp_path / LAST)
    resumed.scaling.load_state_dict(content.scaling)
    steps(resumed, range(4, 8))
    assert all(torch.equal(a, b) for a, b in zip(tensors_of(whole), tensors_of(resumed), strict=True))
    assert whole.scaling.state_dict() == resumed.scaling.state_dict()
    assert whole.scaling.skipped_steps == resumed.scaling.skipped_steps == 2


def test_a_checkpoint_without_a_scale_is_taken(tmp_path: Path) -> None:
    """As written by older versions, or in another precision; one of a run without scaling takes no scale either."""
    learner = learner_of()
    step(learner, 0)
    written = checkpoint_of(
        model=learner.model, optimizer=learner.optimizer, scaling={}, progress=Progress(), config={}
    )
    write_of_run(tmp_path / LAST, written)
    old = torch.load(tmp_path / LAST, weights_only=True)
    del old["scaling"]
    torch.save(old, tmp_path / LAST)
    content, fresh = read_last(tmp_path), LossScaling(CPU, enabled=True)
    assert content is not None
    fresh.load_state_dict(content.scaling)
    assert fresh.state_dict() == LossScaling(CPU, enabled=True).state_dict()
    without = LossScaling(CPU, enabled=False)
    without.load_state_dict(fresh.state_dict())
    assert without.state_dict() == {}
    with pytest.raises(HicoError, match="has the entries scale; hico wrote others"):
        fresh.load_state_dict({"scale": 2.0})


def test_gradients_that_always_overflow_end_the_run() -> None:
    """Also where the loss is a number; in one line, once the scale is below 1."""
    learner = learner_of()
    for parameter in learner.model.visual_head.parameters():
        parameter.register_hook(lambda gradient: gradient * torch.nan)
    before = tensors_of(learner)
    step(learner, 0, scale=4.0)
    for number in (1, 2):
        step(learner, number)
    with pytest.raises(HicoError, match=r"overflow float16 .*; 3 steps were skipped; .* train\.precision=fp32") as told:
        step(learner, 3)
    assert "\n" not in str(told.value)
    assert all(torch.equal(old, new) for old, new in zip(before, tensors_of(learner), strict=False))


def test_a_loss_that_is_no_number_is_no_skipped_step() -> None:
    learner = learner_of()
    before, state = tensors_of(learner), learner.scaling.state_dict()
    assert train_step(learner, torch.full((2, 3, 3, 8, 16, 16), torch.nan), loss=LOSS, lr=0.1) is None
    assert learner.scaling.state_dict() == state
    assert all(torch.equal(old, new) for old, new in zip(before, tensors_of(learner), strict=True))
