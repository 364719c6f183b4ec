"""The road of a network of torchvision: from public weights through all that is done with an encoder."""

import json
from pathlib import Path

import pytest
import torch
from commands import assert_one_line, hico
from made_videos import numbered_video
from torchvision.models import get_model

from hico_core.checkpoints.reading import load_backbone, model_of, read_checkpoint
from hico_core.config import ModelConfig

pytestmark = pytest.mark.videos

SMALL = ("-o", "data.num_frames=8", "-o", "data.crop_size=32", "-o", "data.workers=0", "--batch-size", "2")
R3D = ("-o", "model.encoder=torchvision:r3d_18")
PRETRAIN = ("pretrain", *SMALL, "-o", "data.frame_stride=8", "--epochs", "1", "--max-steps", "1")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled videos, and a run that began from a file that stands for Kinetics weights."""
    root = tmp_path_factory.mktemp("public")
    for number in range(6):
        numbered_video(root / f"videos/{number}.mp4", seconds=3)
    for subset, numbers in (("train", range(4)), ("test", (4, 5))):
        (root / f"{subset}.txt").write_text("".join(f"{number}.mp4 {number % 2}\n" for number in numbers))
        listed = ("--list", root / f"{subset}.txt", "--data-root", root / "videos", "--subset", subset)
        assert hico("index", *listed, root=root).returncode == 0
    torch.manual_seed(0)
    torch.save(get_model("r3d_18", weights=None).state_dict(), root / "kinetics.pth")
    done = hico(*PRETRAIN, *R3D, "--init-from", root / "kinetics.pth", "--name", "r3d", root=root)
    assert done.returncode == 0, done.stderr
    return root


def test_files_of_a_run_say_which_network_they_hold(root: Path) -> None:
    run = root / "runs/r3d"
    kinetics = torch.load(root / "kinetics.pth", weights_only=True)
    for path in (run / "export/encoder.safetensors", run / "checkpoints/last.pt"):
        assert model_of(read_checkpoint(path)) == ModelConfig(encoder="torchvision:r3d_18")
        name, weights = "layer4.1.conv2.0.weight", load_backbone(path).state_dict()
        torch.testing.assert_close(weights[name], kinetics[name], rtol=0.01, atol=1e-4)  # after one step
    done = hico("inspect", run / "export/encoder.safetensors", "--json", root=root)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["facts"]["encoder"] == "torchvision:r3d_18"
    assert "(N, 512, t, h, w)" in (run / "export/README.md").read_text()


def test_it_is_converted(root: Path, tmp_path: Path) -> None:
    done = hico("convert", root / "runs/r3d/checkpoints/last.pt", tmp_path / "encoder.safetensors", root=root)
    assert done.returncode == 0, done.stderr
    exported = root / "runs/r3d/export/encoder.safetensors"
    assert (tmp_path / "encoder.safetensors").read_bytes() == exported.read_bytes()


def test_it_is_finetuned_and_tested(root: Path) -> None:
    """From the run and from the public file, whose network has to be named."""
    finetune = ("finetune", *SMALL, "--epochs", "1", "--max-steps", "1")
    for name, named in (("runs/r3d/export/encoder.safetensors", ()), ("kinetics.pth", R3D)):
        run = Path(name).stem
        done = hico(*finetune, *named, "--checkpoint", root / name, "--name", run, root=root)
        assert done.returncode == 0, done.stderr
        results = json.loads((root / f"runs/{run}/results.json").read_text())
        assert results["num_videos"] == 2
    again = hico(*finetune, "--checkpoint", root / "kinetics.pth", "--name", "unnamed", root=root)
    assert_one_line(again, 1, "no S3D-G encoder", "-o model.encoder=NAME")
    done = hico("evaluate", "encoder", "--workers", "0", root=root)
    assert done.returncode == 0, done.stderr


def test_its_features_are_extracted_and_probed(root: Path) -> None:
    encoder = root / "runs/r3d/export/encoder.safetensors"
    done = hico("extract-features", "--checkpoint", encoder, "--name", "r3d", "--workers", "0", root=root)
    assert done.returncode == 0, done.stderr
    done = hico("probe", "r3d", root=root)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "code", "parts"),
    [
        (
            ("-o", "model.encoder=torchvision:r3d_50"),
            2,
            ["torchvision:r3d_50", "not a trainable encoder; these are s3dg, s3dg-tiny, torchvision:r3d_18"],
        ),
        (("-o", "model.encoder=r3d_18"), 2, ["not a trainable encoder; these are s3dg, s3dg-tiny, torchvision:r3d_18"]),
        (("-o", "model.encoder=python:nowhere:f"), 2, ["python:nowhere:f: No module named 'nowhere'"]),
        (("-o", "model.gating=false", "-o", "model.encoder=s3dg-tiny"), 2, ["only s3dg has gating"]),
        (("--init-from", "kinetics.pth"), 1, ["kinetics.pth: contains no s3dg encoder"]),
        (("-o", "model.encoder=python:made_encoders:long_clips_only"), 1, ["does not accept a clip of 8 frames"]),
    ],
)
def test_mistakes(root: Path, options: tuple[str, ...], code: int, parts: list[str]) -> None:
    named = [root / option if option.endswith(".pth") else option for option in options]
    assert_one_line(hico(*PRETRAIN, *named, "--name", "mistake", root=root), code, *parts)
    assert not (root / "runs/mistake").exists()


def test_a_function_of_a_user_trains_and_its_files_run_no_code(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    named = ("-o", "model.encoder=python:made_encoders:rows")
    done = hico(*PRETRAIN, *named, "--name", "users", root=root)
    assert done.returncode == 0, done.stderr
    exported = root / "runs/users/export/encoder.safetensors"
    refused = hico("extract-features", "--checkpoint", exported, "--name", "users", "--workers", "0", root=root)
    assert_one_line(refused, 1, "its encoder is python:made_encoders:rows", "-o model.encoder=")
    named_twice = ("extract-features", "--encoder", f"python:made_encoders:rows={exported}", "--workers", "0")
    done = hico(*named_twice, "--name", "users", root=root)
    assert done.returncode == 0, done.stderr
    again = hico(*PRETRAIN, *named, "--init-from", exported, "--name", "again", root=root)
    assert again.returncode == 0 and "14 entries loaded, 0 left out, none missing" in caplog.text
