"""An encoder that a user names computes what its library computes, or is refused in a line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from av import VideoFrame
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights

from hico_core.base.errors import HicoError
from hico_core.checkpoints.frozen import FrozenEncoder, load_frozen
from hico_core.data.pictures import crops_of, normalised
from hico_core.model.pooling import PooledEncoder


def made_frames(num_frames: int) -> np.ndarray:
    """Smooth pictures that change, (T, 90, 120, 3) uint8: what is smooth shows how it was scaled."""
    time, rows, columns = np.ogrid[:num_frames, :90, :120]
    waves = [np.sin(time + rows / (5 + channel) + columns / (9 - channel)) for channel in range(3)]
    return (127.5 + 127.5 * np.stack(waves, axis=-1)).astype(np.uint8)


def rows_of(encoder: FrozenEncoder, frames_THWC: np.ndarray) -> Tensor:
    """By the way that videos take, from frames as they are decoded: (1, F)."""
    frames = [VideoFrame.from_ndarray(frame, format="rgb24") for frame in frames_THWC]
    clip = np.stack([crops_of(frame, encoder.entry.picture)[0] for frame in frames])
    with torch.inference_mode():
        rows: Tensor = PooledEncoder(encoder.network)(normalised(torch.from_numpy(clip)[None], encoder.entry.picture))
    return rows


def with_other_statistics(network: nn.Module) -> nn.Module:
    """Norms that do something, as those of trained networks do."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()


@pytest.mark.slow
def test_torchvision_s_network_sees_and_computes_what_it_does_there(tmp_path: Path) -> None:
    theirs = with_other_statistics(get_model("r3d_18", weights=None))
    torch.save(theirs.state_dict(), tmp_path / "r3d_18.pth")
    encoder = load_frozen(f"torchvision:r3d_18={tmp_path / 'r3d_18.pth'}")
    theirs.fc = nn.Identity()
    frames = made_frames(4)
    shown = get_model_weights("r3d_18").DEFAULT.transforms()(torch.from_numpy(frames).permute(0, 3, 1, 2))
    with torch.inference_mode():
        expected = theirs(shown[None])
    torch.testing.assert_close(rows_of(encoder, frames), expected, atol=1e-5, rtol=1e-5)
    assert encoder.origin is not None
    assert encoder.origin.path == str(tmp_path / "r3d_18.pth")


@pytest.mark.parametrize("as_zip", [True, False])
def test_weights_behind_a_prefix_in_both_formats_of_pytorch(as_zip: bool, tmp_path: Path) -> None:
    network = load_frozen("torchvision:r3d_18=random").network
    behind = {f"module.encoder_q.{name}": value for name, value in network.state_dict().items()}
    content = {"state_dict": {**behind, "module.queue": torch.zeros(2)}}
    torch.save(content, tmp_path / "moco.pt", _use_new_zipfile_serialization=as_zip)
    loaded = load_frozen(f"torchvision:r3d_18={tmp_path / 'moco.pt'}").network
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())


def test_random_is_the_same_each_time_and_leaves_other_chance_alone() -> None:
    torch.manual_seed(1)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    first = load_frozen("s3dg-tiny=random")
    assert torch.equal(torch.rand(1), drawn)
    assert first.origin == load_frozen("s3dg-tiny=random").origin
    assert first.origin is not None
    assert first.origin.path == "random"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("r3d_18", "r3d_18: no such encoder; the nearest is torchvision:r3d_18"),
        ("torchvision:r3d_18", "torchvision:r3d_18: its weights are not named"),
        ("torchvision:r3d_18=no.pth", "no.pth: no such checkpoint"),
        ("s3dg=DEFAULT", "s3dg=DEFAULT: has no weights that everybody can get; write s3dg=FILE"),
        ("no/such/file", "no/such/file: no such checkpoint"),
        ("torchvision:r3d_18={other}", "as torchvision:r3d_18: does not fit the model: stem.0.weight is missing"),
        ("s3dg={tiny}", "holds the weights of s3dg-tiny, not of s3dg"),
        ("{folder}", "not the folder of a run with an encoder"),
    ],
)
def test_what_is_refused(text: str, said: str, tmp_path: Path) -> None:
    for name in ("other", "tiny"):
        torch.save(load_frozen("s3dg-tiny=random").network.state_dict(), tmp_path / name)
    with pytest.raises(HicoError) as refused:
        load_frozen(text.format(other=tmp_path / "other", tiny=tmp_path / "tiny", folder=tmp_path))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
