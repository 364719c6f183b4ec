"""Networks of timm, the mean of their rows over a window, shown what timm says."""

from pathlib import Path

import pytest
import torch

from hico_core.base.errors import UsageError
from hico_core.checkpoints.frozen import load_frozen
from hico_core.data.pictures import Resize

timm = pytest.importorskip("timm")


def test_a_window_is_the_mean_of_its_frames(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model("test_vit", pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / "test_vit.pth")  # with a classifier, as timm's files are
    encoder = load_frozen(f"timm:test_vit={tmp_path / 'test_vit.pth'}")
    clips = torch.rand(2, 3, 3, 160, 160)
    network.reset_classifier(0)
    with torch.inference_mode():
        expected = torch.stack([network(clips[:, :, frame]) for frame in range(3)]).mean(dim=0)
        torch.testing.assert_close(encoder.network(clips), expected)
    picture = encoder.entry.picture
    assert (picture.size, picture.mean) == (160, (0.5, 0.5, 0.5))
    assert picture.resize == Resize(168, None, "bicubic", antialias=True)  # 160 is 0.95 of it
    assert encoder.entry.feature_dim == expected.shape[1]


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="timm:resnet5: no such network; the nearest is timm:resnet5"):
        load_frozen("timm:resnet5=random")
