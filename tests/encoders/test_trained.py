"""Encoders that train are built by their names, and heads suit the width of their features."""

from typing import get_args

import pytest
import torch
from made_encoders import convolutions
from torch import nn

from hico_core.base.choices import EncoderName
from hico_core.base.errors import HicoError, UsageError
from hico_core.config import ModelConfig
from hico_core.encoders.table import ENCODERS
from hico_core.encoders.trained import build_encoder, embedding_dim, feature_dim, hico_model, with_heads
from hico_core.model.hico import HicoModel
from hico_core.model.s3dg import TemporalConv


def width_of(name: str, *, num_frames: int = 8, size: int = 32) -> int:
    return feature_dim(build_encoder(ModelConfig(encoder=name)), name=name, num_frames=num_frames, size=size)


def test_the_names_of_settings_are_those_of_the_table_that_train() -> None:
    assert set(get_args(EncoderName)) == {name for name, entry in ENCODERS.items() if entry.trains}


@pytest.mark.parametrize("name", get_args(EncoderName))
def test_width_of_features(name: str) -> None:
    assert width_of(name) == ENCODERS[name].feature_dim


@pytest.mark.parametrize(("features", "embeddings"), [(1024, 128), (512, 128), (128, 64), (12, 6), (1, 1)])
def test_width_of_embeddings(features: int, embeddings: int) -> None:
    assert embedding_dim(features) == embeddings


def test_the_model_of_the_paper_is_that_of_its_parts() -> None:
    """To the bit, from the same seed."""
    states = []
    for made in (HicoModel, hico_model):
        torch.manual_seed(0)
        states.append(made().state_dict())
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.parametrize("function", ["maps", "rows"])
def test_a_function_of_a_user(function: str) -> None:
    """Rows do as well as maps, which the model averages."""
    name = f"python:made_encoders:{function}"
    torch.manual_seed(0)
    encoder = build_encoder(ModelConfig(encoder=name)).train()
    assert feature_dim(encoder, name=name, num_frames=8, size=32) == 12
    assert encoder.training
    outputs = with_heads(encoder, 12)(torch.randn(2, 3, 3, 8, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert outputs.embeddings.shape == (6, 6)
    outputs.embeddings.sum().backward()


def test_a_user_keeps_their_convolutions() -> None:
    """Only plain ones are replaced, by such as compute the same."""
    outputs, convs = [], []
    for made in (convolutions, lambda: build_encoder(ModelConfig(encoder="python:made_encoders:convolutions"))):
        torch.manual_seed(0)
        encoder = made()
        convs.append([type(conv) for conv in encoder.children()])
        outputs.append(encoder(torch.randn(2, 3, 4, 8, 8)))
    assert torch.equal(*outputs)
    assert convs[1][:2] == [TemporalConv, TemporalConv]
    assert [kind.__name__ for kind in convs[1][2:]] == [kind.__name__ for kind in convs[0][2:]]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            "made_encoders:pictures",
            "returns a tensor of shape (1, 24, 32, 32) for a clip, neither maps (1, F, T, H, W)",
        ),
        ("made_encoders:two", "returns a tuple for a clip, neither maps"),
        ("made_encoders:long_clips_only", "does not accept a clip of 8 frames of 32 x 32 pixels (Calculated padded"),
    ],
)
def test_a_function_that_is_no_encoder(function: str, message: str) -> None:
    with pytest.raises((HicoError, UsageError)) as caught:
        width_of(f"python:{function}")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_frames_too_small_for_a_network() -> None:
    with pytest.raises(HicoError, match="s3dg: does not accept a clip of 8 frames of 16 x 16 pixels"):
        width_of("s3dg", size=16)


def test_one_epsilon_for_all_norms() -> None:
    encoder = build_encoder(ModelConfig(gating=False, norm_eps=1e-3))
    assert {m.eps for m in encoder.modules() if isinstance(m, nn.BatchNorm3d)} == {1e-3}
    assert {m.eps for m in build_encoder(ModelConfig()).modules() if isinstance(m, nn.BatchNorm3d)} == {1e-3, 1e-5}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchvision:r3d_18", "torchvision:r2plus1d_18"])
def test_gradients_in_bfloat16_are_finite(name: str) -> None:
    """On a CPU as well, where PyTorch's own convolutions over fewer frames than their kernels have fail."""
    torch.manual_seed(0)
    encoder = build_encoder(ModelConfig(encoder=name)).to(memory_format=torch.channels_last_3d).train()
    with torch.autocast("cpu", torch.bfloat16):
        maps = encoder(torch.randn(2, 3, 8, 32, 32))
    maps.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.norm() < 1e6 for p in encoder.parameters())
