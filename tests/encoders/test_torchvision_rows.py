"""torchvision's networks without classifiers, shown what torchvision says that its weights were measured on."""

import pytest
import torch
from torchvision.models import get_model_weights

from hico_core.base.errors import UsageError
from hico_core.encoders.table import ENCODERS, entry_of

VIDEO = [name.removeprefix("torchvision:") for name in ENCODERS if name.startswith("torchvision:")]


@pytest.mark.parametrize("name", [*VIDEO, "resnet50", "efficientnet_v2_s", "vit_l_16"])
def test_pictures_are_those_of_torchvision_s_transforms(name: str) -> None:
    shown = get_model_weights(name).DEFAULT.transforms()
    picture = entry_of(f"torchvision:{name}").picture
    resize = picture.resize
    assert resize is not None
    assert [picture.size] == list(dict.fromkeys(shown.crop_size))
    assert [side for side in resize[:2] if side] == list(shown.resize_size)
    assert resize.interpolation == shown.interpolation.value
    assert resize.antialias == getattr(shown, "antialias", False)
    assert (list(picture.mean), list(picture.std)) == (list(shown.mean), list(shown.std))


@pytest.mark.parametrize(
    ("name", "feature_dim", "classifier"),
    [
        ("resnet18", 512, "fc"),
        ("squeezenet1_1", 512, "classifier.1"),  # whose classifier is a convolution
        ("vgg11", 4096, "classifier.6"),  # of whose classifier only the last layer is left out
        ("inception_v3", 2048, "fc"),
        ("vit_h_14", 1280, "heads.head"),  # for larger pictures than without weights
        ("regnet_y_400mf", 440, "fc"),
    ],
)
def test_what_is_left_out(name: str, feature_dim: int, classifier: str) -> None:
    entry = entry_of(f"torchvision:{name}")
    assert (entry.feature_dim, entry.beyond) == (feature_dim, (classifier,))


def test_a_window_is_the_mean_of_its_frames() -> None:
    encoder = entry_of("torchvision:squeezenet1_1").build().eval()
    clips = torch.rand(2, 3, 3, 64, 64)
    with torch.inference_mode():
        each = [encoder(clips[:, :, frame : frame + 1]) for frame in range(3)]
        torch.testing.assert_close(encoder(clips), torch.stack(each).mean(dim=0))


@pytest.mark.parametrize(("name", "near"), [("resnet5", "resnet50"), ("r3d18", "r3d_18"), ("mvit", "vit")])
def test_an_unknown_name_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"torchvision:{name}: no such network; the nearest is torchvision:.*{near}"):
        entry_of(f"torchvision:{name}")
