"""An encoder that a user names computes what its library computes, or is refused in a line."""

import json
from pathlib import Path

import pytest
import torch
from frames import made_frames, rows_of
from torch import nn
from torchvision.models import get_model, get_model_weights

from hico_core.base.errors import HicoError, UsageError
from hico_core.checkpoints.content import export_encoder
from hico_core.checkpoints.convert import convert
from hico_core.checkpoints.frozen import load_frozen
from hico_core.config import AugmentConfig, DataConfig, ModelConfig
from hico_core.data.pictures import ClipShape, picture_for
from hico_core.encoders.trained import build_encoder
from hico_core.model.s3dg_tiny import S3DGTiny


def with_other_statistics(network: nn.Module) -> nn.Module:
    """Norms that do something, as those of trained networks do."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "classifier"), [("r3d_18", "fc"), ("resnet18", "fc"), ("swin3d_t", "head")])
def test_torchvision_s_network_sees_and_computes_what_it_does_there(name: str, classifier: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = with_other_statistics(get_model(name, weights=None))
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    encoder = load_frozen(f"torchvision:{name}={tmp_path / 'weights.pth'}")
    theirs.set_submodule(classifier, nn.Identity())
    frames = made_frames(2)
    shown = get_model_weights(name).DEFAULT.transforms()(torch.from_numpy(frames).permute(0, 3, 1, 2))
    with torch.inference_mode():
        # Networks of pictures get frames as a batch.
        expected = theirs(shown).mean(dim=0, keepdim=True) if shown.shape[1] == 3 else theirs(shown[None])
    torch.testing.assert_close(rows_of(encoder, frames), expected, atol=1e-5, rtol=1e-5)
    assert encoder.origin is not None
    assert encoder.origin.path == str(tmp_path / "weights.pth")


@pytest.mark.slow
def test_an_exported_program_is_shown_what_its_file_says(tmp_path: Path) -> None:
    encoder = S3DGTiny().eval()
    data, augment = DataConfig(crop_size=48, num_frames=8), AugmentConfig(mean=(0.1, 0.2, 0.3), std=0.5)
    export_encoder(tmp_path / "a.safetensors", encoder, picture_for(data, augment), ClipShape(8, 7.5))
    convert(tmp_path / "a.safetensors", tmp_path / "a.pt2", to="exported")
    said: list[str] = []
    program, file = (load_frozen(str(tmp_path / name), warn=said.append) for name in ("a.pt2", "a.safetensors"))
    assert said == [f"{tmp_path / 'a.pt2'}: is a program; opening it may run any code that it contains"]
    assert (program.entry.picture, program.entry.clip) == (file.entry.picture, file.entry.clip)
    frames = made_frames(8)
    torch.testing.assert_close(rows_of(program, frames), rows_of(file, frames), atol=1e-5, rtol=1e-5)
    program.network.eval()
    (tmp_path / "cut.pt2").write_bytes((tmp_path / "a.pt2").read_bytes()[:5000])
    with pytest.raises(HicoError, match=r"cut\.pt2: cannot be read as an exported encoder"):
        load_frozen(str(tmp_path / "cut.pt2"))


def test_a_program_that_does_not_take_what_it_says_is_refused(tmp_path: Path) -> None:
    about = {"model": "s3dg-tiny", "num_frames": "16", "fps": "7.5", "size": "112", "mean": "0.45", "std": "0.225"}
    program = torch.export.export(S3DGTiny().eval(), (torch.zeros(1, 3, 8, 32, 32),))
    torch.export.save(program, tmp_path / "a.pt2", extra_files={"hico.json": json.dumps(about)})
    with pytest.raises(HicoError, match=r"a\.pt2: does not accept 16 frames of 112 pixels, although it says so"):
        load_frozen(str(tmp_path / "a.pt2"))


@pytest.mark.parametrize(
    ("said", "named", "refused"),
    [
        ("python:made_encoders:maps", "python:made_encoders:maps", None),
        ("python:a.module.since:renamed", "python:made_encoders:maps", None),
        ("python:made_encoders:maps", "torchvision:mc3_18", "contains the weights of python:made_encoders:maps, not"),
        ("torchvision:mc3_18", "python:made_encoders:maps", "contains the weights of torchvision:mc3_18, not"),
    ],
)
def test_a_named_encoder_gets_input_and_epsilon_from_hico_s_file(
    said: str, named: str, refused: str | None, tmp_path: Path
) -> None:
    file, network = tmp_path / "a.safetensors", build_encoder(ModelConfig(encoder="python:made_encoders:maps"))
    data, augment = DataConfig(crop_size=48, num_frames=8), AugmentConfig(mean=(0.1, 0.2, 0.3), std=0.5)
    export_encoder(
        file, network, picture_for(data, augment), ClipShape(8, 7.5), ModelConfig(encoder=said, norm_eps=0.01)
    )
    if refused is not None:
        with pytest.raises(UsageError, match=refused):
            load_frozen(f"{named}={file}")
        return
    encoder = load_frozen(f"{named}={file}")
    assert encoder.text == f"{named}={file}" and not encoder.network.training
    assert (encoder.entry.picture, encoder.entry.clip) == (picture_for(data, augment), ClipShape(8, 7.5))
    assert {module.eps for module in encoder.network.modules() if isinstance(module, nn.BatchNorm3d)} == {0.01}


def test_a_network_of_torchvision_as_hico_trained_it(tmp_path: Path) -> None:
    model, picture = (
        ModelConfig(encoder="torchvision:mc3_18", norm_eps=0.01),
        picture_for(DataConfig(), AugmentConfig()),
    )
    export_encoder(tmp_path / "a.safetensors", build_encoder(model), picture, ClipShape(8, 7.5), model)
    named, alone = (load_frozen(f"{prefix}{tmp_path / 'a.safetensors'}") for prefix in ("torchvision:mc3_18=", ""))
    assert (named.entry, named.sha256) == (alone.entry, alone.sha256)
    clips = torch.rand(1, 3, 8, 32, 32)
    with torch.inference_mode():
        assert torch.equal(named.network(clips), alone.network(clips))


@pytest.mark.slow
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
        ("torchvision:r3d_18", "torchvision:r3d_18: no weights given"),
        ("torchvision:r3d_18=no.pth", "no.pth: no such file"),
        ("s3dg=DEFAULT", "s3dg=DEFAULT: has no public weights; write s3dg=FILE"),
        ("no/such/file", "no/such/file: no such file"),
        ("torchvision:r3d_18={other}", "contains no torchvision:r3d_18 encoder (no entry stem.0.weight"),
        (
            "torchvision:resnet18={resnet34}",
            "layer1.2.conv1.weight is not in the model",
        ),  # though it has all the others
        ("s3dg={tiny}", "contains the weights of s3dg-tiny, not of s3dg"),
        ("{folder}", "not a run with an encoder"),
    ],
)
def test_what_is_refused(text: str, said: str, tmp_path: Path) -> None:
    for name in ("other", "tiny"):
        torch.save(load_frozen("s3dg-tiny=random").network.state_dict(), tmp_path / name)
    if "resnet34" in text:
        torch.save(get_model("resnet34", weights=None).state_dict(), tmp_path / "resnet34")
    with pytest.raises(HicoError) as refused:
        load_frozen(
            text.format(
                other=tmp_path / "other", tiny=tmp_path / "tiny", resnet34=tmp_path / "resnet34", folder=tmp_path
            )
        )
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
