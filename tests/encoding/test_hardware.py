"""The encoder computes in what the hardware does fast, and what is compared closely stays exact."""

from typing import Any

import pytest
import torch
from torch import Tensor

from hico_core.base.choices import PrecisionName
from hico_core.base.errors import HicoError, UsageError
from hico_core.config import preset
from hico_core.encoders.trained import hico_model
from hico_core.encoding.hardware import FP32, Precision, choose_device, choose_precision, computing_in, use_precision
from hico_core.model.hico import HicoModel
from hico_core.model.s3dg import PointwiseConv, TemporalConv
from hico_core.training.learner import Learner
from hico_core.training.optim import LARS, parameter_groups
from hico_core.training.step import train_step

BF16 = Precision("bf16", "tested")


@pytest.mark.parametrize(
    ("name", "told"), [("mps", "Mac GPUs; use --device cpu"), ("tpu", "not one of 'auto', 'cpu', 'cuda'")]
)
@pytest.mark.parametrize("has_mps", [True, False])
def test_other_devices_are_refused(name: Any, told: str, has_mps: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    """A Mac's GPU too, whether there is one or not: nobody has tried what comes out."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: has_mps)
    with pytest.raises(UsageError, match=told):
        choose_device(name)


def test_what_is_asked_for_is_taken() -> None:
    assert choose_precision("bf16", torch.device("cpu")) == ("bf16", "as requested")
    assert choose_precision("fp32", torch.device("cpu")).name == "fp32"


def test_float32_is_float32_unless_tf32_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU; the switch is there without one."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    gpu = torch.device("cuda", 0)
    names: dict[PrecisionName, bool] = {"fp32": False, "tf32": True, "bf16": False, "fp16": False}
    for name, allowed in names.items():
        assert use_precision(name, gpu).name == name
        assert torch.backends.cudnn.allow_tf32 == allowed
    with pytest.raises(UsageError, match="tf32: only GPUs support it"):
        choose_precision("tf32", torch.device("cpu"))


@pytest.mark.parametrize("before", [True, False])
def test_encoding_leaves_the_switch_as_it_was(before: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    cpu = torch.device("cpu")
    types = {"bf16": torch.bfloat16, "fp16": torch.float16}
    for precision in (FP32, BF16, Precision("tf32", "tested"), Precision("fp16", "tested")):
        with pytest.raises(HicoError), computing_in(precision, cpu):
            assert torch.backends.cudnn.allow_tf32 == (precision.name == "tf32")
            assert torch.is_autocast_enabled("cpu") == (precision.name in types)
            assert torch.get_autocast_dtype("cpu") == types.get(precision.name, torch.bfloat16)
            raise HicoError("anything")
        assert torch.backends.cudnn.allow_tf32 == before and not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("capabilities", "name", "reason"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, "bf16", "has AMX"),
        ({"avx512_bf16": True, "amx_bf16": False}, "fp32", "no AMX"),
        ({}, "fp32", "no AMX"),
    ],
)
def test_auto_takes_what_the_processor_has(
    capabilities: dict[str, bool], name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    chosen = choose_precision("auto", torch.device("cpu"))
    assert chosen.name == name and reason in chosen.reason


@pytest.mark.parametrize(
    ("has_bf16", "capability", "training", "name"),
    [
        (True, (9, 0), True, "bf16"),
        (True, (8, 0), False, "bf16"),
        (False, (7, 5), True, "fp16"),  # T4
        (False, (7, 0), True, "fp16"),  # V100
        (False, (7, 0), False, "fp32"),  # nothing would see a feature that overflows
        (False, (6, 1), True, "fp32"),  # slower in float16
    ],
)
def test_auto_takes_what_the_gpu_has(
    has_bf16: bool, capability: tuple[int, int], training: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", torch.device("cuda", 0), training=training).name == name


@pytest.mark.parametrize(
    ("frames", "kernel", "stride"), [(1, 3, 1), (2, 3, 1), (4, 3, 1), (3, 7, 2), (4, 7, 2), (8, 7, 2)]
)
def test_temporal_convolution_in_bfloat16(frames: int, kernel: int, stride: int) -> None:
    """Value and gradients are those of float32 to 8 bits, also where there are fewer frames than the kernel has."""
    torch.manual_seed(0)
    conv = TemporalConv(16, 16, (kernel, 1, 1), (stride, 1, 1), (kernel // 2, 0, 0), bias=False)
    clips = torch.randn(3, 16, frames, 4, 4)

    def outcome(bf16: bool) -> list[Tensor]:
        conv.zero_grad()
        x = clips.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            y = conv(x)
        y.backward(torch.ones_like(y))
        assert x.grad is not None and conv.weight.grad is not None
        return [y.detach().float(), x.grad.clone(), conv.weight.grad.clone()]

    for exact, coarse in zip(outcome(False), outcome(True), strict=True):
        assert float((coarse - exact).norm() / exact.norm()) < 0.01


def test_pointwise_convolution_with_channels_side_by_side() -> None:
    """The matrix product is the convolution, value and gradients."""
    torch.manual_seed(0)
    unit = PointwiseConv(16, 8).double().eval()
    outcomes = []
    for memory_format in (torch.contiguous_format, torch.channels_last_3d):
        clips = torch.randn(2, 16, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        clips = clips.to(memory_format=memory_format).requires_grad_()
        unit.zero_grad()
        result = unit(clips)
        result.square().sum().backward()
        outcomes.append((result.detach(), clips.grad, unit.conv.weight.grad))
    for one, other in zip(*outcomes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_heads_are_exact_whatever_the_encoder_uses(dtype: torch.dtype) -> None:
    model = hico_model("s3dg-tiny")
    clips = torch.randn(2, 3, 3, 8, 32, 32)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        outputs = model(clips)
        features = model.backbone(clips.flatten(0, 1))
    assert features.dtype == dtype
    assert outputs.topic_logits is not None
    assert outputs.embeddings.dtype == outputs.topic_logits.dtype == torch.float32
    assert outputs.embeddings.norm(dim=1) == pytest.approx(torch.ones(6), abs=1e-6)


def test_a_step_in_bfloat16_moves_float32_weights() -> None:
    torch.manual_seed(0)
    model = HicoModel().train()
    optimizer = LARS(parameter_groups(model, weight_decay=0.0, lars_exclude_bn=True), lr=0.0)
    before = [p.detach().clone() for p in model.parameters()]
    clips = torch.randn(2, 3, 3, 8, 32, 32)
    result = train_step(Learner.of(model, optimizer, precision=BF16), clips, loss=preset("hacs-hico-l").loss, lr=0.1)
    assert result is not None and torch.isfinite(result.loss.total)
    assert all(p.dtype == torch.float32 and torch.isfinite(p).all() for p in model.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
