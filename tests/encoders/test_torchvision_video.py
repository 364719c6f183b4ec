"""Networks of torchvision give, as encoders, what they themselves classify by."""

import pytest
import torch
from torchvision.models import get_model

from hico_core.encoders.torchvision_video import torchvision_video


@pytest.mark.slow
@pytest.mark.parametrize("name", ["r3d_18", "mc3_18", "r2plus1d_18", "s3d"])
def test_an_encoder_is_the_network_without_its_classifier(name: str) -> None:
    """Its weights are those of the same names; on its maps, pooling and classifier give the network's scores."""
    torch.manual_seed(0)
    network = get_model(name, weights=None).eval()
    encoder = torchvision_video(name).eval()
    left_out = encoder.load_state_dict(network.state_dict(), strict=False)
    assert not left_out.missing_keys
    assert {entry.split(".")[0] for entry in left_out.unexpected_keys} <= {"fc", "classifier"}
    clips = torch.randn(1, 3, 16, 224, 224) if name == "s3d" else torch.randn(1, 3, 4, 32, 32)
    with torch.inference_mode():
        pooled = network.avgpool(encoder(clips))
        if name == "s3d":
            scores = network.classifier(pooled).mean(dim=(2, 3, 4))
        else:
            scores = network.fc(pooled.flatten(1))
        assert torch.equal(scores, network(clips))


@pytest.mark.parametrize(("name", "parameters"), [("r3d_18", 33_166_272), ("s3d", 7_910_048)])
def test_parameters(name: str, parameters: int) -> None:
    """Those that torchvision states, without the classifier's."""
    assert sum(p.numel() for p in torchvision_video(name).parameters()) == parameters
