"""An encoder begins with public weights, and gives what their own network gives of the same clips.

torchvision's networks with random weights and batch norms that are not as new, in a file, stand for those that were
trained on Kinetics, of which nothing but the numbers differs.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import get_model

from hico_core.base.errors import HicoError
from hico_core.checkpoints.reading import read_checkpoint
from hico_core.checkpoints.warm_start import WarmStart, warm_start
from hico_core.config import ModelConfig
from hico_core.encoders.trained import build_encoder


def kinetics_network(name: str) -> nn.Module:
    """With weights and statistics of batch norms that are all different."""
    torch.manual_seed(0)
    network = get_model(name, weights=None).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm3d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    return network


def started(path: Path, encoder: nn.Module, name: str) -> WarmStart:
    found = warm_start(read_checkpoint(path), encoder, name=name)
    encoder.load_state_dict(found.weights)
    return found


def maps_of(network: Any, clips: Tensor) -> Tensor:  # noqa: ANN401 - of torchvision
    """What one of torchvision's networks pools."""
    if "features" in dict(network.named_children()):
        return network.features(clips)
    for part in (network.stem, network.layer1, network.layer2, network.layer3, network.layer4):
        clips = part(clips)
    return clips


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "told"),
    [
        ("r3d_18", ModelConfig(encoder="torchvision:r3d_18"), "120 entries loaded, 2 left out (fc), none missing"),
        ("r2plus1d_18", ModelConfig(encoder="torchvision:r2plus1d_18"), "222 entries loaded, 2 left out (fc)"),
        ("s3d", ModelConfig(encoder="torchvision:s3d"), "462 entries loaded, 2 left out (classifier), none missing"),
        ("s3d", ModelConfig(gating=False, norm_eps=1e-3), "462 entries loaded, 2 left out (classifier), none missing"),
    ],
)
def test_public_weights_give_what_their_network_gives(tmp_path: Path, name: str, model: ModelConfig, told: str) -> None:
    network, encoder = kinetics_network(name), build_encoder(model).eval()
    torch.save(network.state_dict(), tmp_path / "kinetics.pth")
    assert str(started(tmp_path / "kinetics.pth", encoder, model.encoder)).startswith(told)
    clips = torch.randn(1, 3, 16, 64, 64)
    with torch.inference_mode():
        assert float((encoder(clips) - maps_of(network, clips)).abs().max()) == 0.0


def test_without_the_epsilon_of_its_norms_it_is_not_quite_s3d(tmp_path: Path) -> None:
    network, encoder = kinetics_network("s3d"), build_encoder(ModelConfig(gating=False)).eval()
    torch.save(network.state_dict(), tmp_path / "kinetics.pth")
    started(tmp_path / "kinetics.pth", encoder, "s3dg")
    clips = torch.randn(2, 3, 8, 32, 32)
    with torch.inference_mode():
        difference = (encoder(clips) - maps_of(network, clips)).norm() / maps_of(network, clips).norm()
    assert 1e-4 < float(difference) < 0.1


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "encoder_q.", "backbone.", "module.encoder_q.0."])
@pytest.mark.parametrize("key", [None, "state_dict"])
def test_prefixes_are_taken_off(tmp_path: Path, prefix: str, key: str | None) -> None:
    torch.manual_seed(0)
    encoder = build_encoder(ModelConfig(encoder="torchvision:mc3_18"))
    state = {f"{prefix}{name}": value for name, value in encoder.state_dict().items()} | {"queue": torch.zeros(3)}
    torch.save({key: state} if key else state, tmp_path / "theirs.pth")
    found = warm_start(read_checkpoint(tmp_path / "theirs.pth"), encoder, name="torchvision:mc3_18")
    assert all(torch.equal(value, found.weights[name]) for name, value in encoder.state_dict().items())
    assert found.left_out == {"queue": 1}


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_names_that_are_numbers_are_those_of_the_encoder(tmp_path: Path, prefix: str) -> None:
    """Of a sequence, whose parts may look like the whole."""
    encoder = nn.Sequential(nn.Conv3d(3, 4, 1), nn.Sequential(nn.Conv3d(4, 4, 1)))
    torch.save({f"{prefix}{name}": value for name, value in encoder.state_dict().items()}, tmp_path / "own.pth")
    assert len(started(tmp_path / "own.pth", encoder, "python:own:encoder").weights) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        (
            "mc3_18",
            ModelConfig(encoder="torchvision:r3d_18"),
            "layer2.0.conv1.0.weight is (128, 64, 1, 3, 3) instead of (128, 64, 3, 3, 3); 108 entries loaded",
        ),
        (
            "r3d_18",
            ModelConfig(encoder="torchvision:r2plus1d_18"),
            "does not fit torchvision:r2plus1d_18: stem.0.weight is (64, 3, 3, 7, 7) instead of (45, 3, 1, 7, 7)",
        ),
        (
            "s3d",
            ModelConfig(encoder="torchvision:r3d_18"),
            "contains no torchvision:r3d_18 encoder (no entry stem.0",
        ),
        ("r3d_18", ModelConfig(), "contains no s3dg encoder (no entry Conv_1a.conv1.weight, but stem.0.weight)"),
        ("s3d", ModelConfig(), "does not fit s3dg: Mixed_3b.gating_b0.fc.weight is missing; 462 entries loaded"),
    ],
)
def test_weights_of_another_network(tmp_path: Path, name: str, model: ModelConfig, message: str) -> None:
    torch.save(get_model(name, weights=None).state_dict(), tmp_path / "kinetics.pth")
    with pytest.raises(HicoError) as caught:
        warm_start(read_checkpoint(tmp_path / "kinetics.pth"), build_encoder(model), name=model.encoder)
    assert message in str(caught.value) and "\n" not in str(caught.value)
