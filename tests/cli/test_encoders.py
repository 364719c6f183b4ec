"""The table of encoders, row by row, through the commands that take `--encoder`."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Done, assert_one_line, hico
from made_videos import numbered_video
from tiny_transformers import save

from hico_core.checkpoints.content import export_encoder
from hico_core.checkpoints.convert import convert
from hico_core.checkpoints.frozen import load_frozen
from hico_core.encoders.table import ENCODERS
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.transfer.extraction.manifest import read_manifest

pytestmark = pytest.mark.videos


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video, and files of weights that stand for public ones."""
    place = tmp_path_factory.mktemp("encoders")
    numbered_video(place / "a.mp4", seconds=2, size="64x48")
    torch.manual_seed(0)
    for name in ("r3d_18", "squeezenet1_1"):
        network = load_frozen(f"torchvision:{name}=random").network
        torch.save(getattr(network, "of_picture", network).state_dict(), place / f"{name}.pth")
    export_encoder(place / "own.safetensors", S3DGTiny())
    convert(place / "own.safetensors", place / "own.pt2", to="exported")
    return place


def extract(place: Path, encoder: str, *options: str | Path) -> Done:
    inputs = (place / "a.mp4", "--root", place, "--workers", "0", "--device", "cpu")
    return hico("extract-features", *inputs, "--encoder", encoder, *options, cwd=place)


# Of each, what is typed, and what comes out of 60 frames at 30 a second: windows, numbers of each, where in
# features/, and what the manifest says of encoder and weights.
ROWS: list[tuple[str, tuple[int, int], str, tuple[str | None, str]]] = [
    ("pixels", (1, 192), "pixels", ("pixels", "")),
    ("motion", (1, 256), "motion", ("motion", "")),
    ("s3dg-tiny=random", (1, 128), "s3dg-tiny", ("s3dg-tiny", "random")),
    ("own.safetensors", (2, 128), "own", (None, "own.safetensors")),
    ("own.pt2", (2, 128), "own", (None, "own.pt2")),
    ("torchvision:r3d_18=r3d_18.pth", (2, 512), "torchvision-r3d_18", ("torchvision:r3d_18", "r3d_18.pth")),
    (
        "torchvision:squeezenet1_1=squeezenet1_1.pth",
        (2, 512),
        "torchvision-squeezenet1_1",
        ("torchvision:squeezenet1_1", "squeezenet1_1.pth"),
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "shape", "name", "said"), ROWS, ids=[row[0] for row in ROWS])
def test_what_comes_out(
    place: Path, encoder: str, shape: tuple[int, int], name: str, said: tuple[str | None, str]
) -> None:
    options = ("--name", encoder.replace(":", "-")) if name == "own" else ()
    done = extract(place, encoder, *options)
    assert done.returncode == 0, done.stderr
    folder = place / "features" / (options[1] if options else name)
    assert np.load(folder / "a.npy").shape == shape
    (row,) = read_manifest(folder).values()
    assert (row.encoder, row.checkpoint) == (said[0], str(place / said[1]) if "." in said[1] else said[1])
    again = extract(place, row.encoder_text, *options)
    assert again.stdout.startswith("0 videos extracted, 1 unchanged"), again.stderr


@pytest.mark.slow
def test_timm(place: Path) -> None:
    pytest.importorskip("timm")
    assert extract(place, "timm:test_vit=random").returncode == 0
    assert np.load(place / "features/timm-test_vit/a.npy").shape == (2, 64)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "windows"), [("videomae", 4), ("vjepa2", 4)])
def test_transformers(place: Path, kind: str, windows: int) -> None:
    pytest.importorskip("transformers")
    save(place / kind, kind)
    assert extract(place, f"hf:{kind}").returncode == 0
    assert np.load(place / f"features/hf-{kind}/a.npy").shape == (windows, 24)
    (row,) = read_manifest(place / f"features/hf-{kind}").values()
    assert (row.encoder, row.fps) == (f"hf:{place / kind}", 7.5)


@pytest.mark.slow
def test_a_real_public_encoder(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """efficientnet-lite0 with ImageNet weights sees what it saw before it could be named here."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    done = extract(place, "python:public_lite0:lite0", "--window", "2", "--stride", "8")
    assert done.returncode == 0
    assert "python:public_lite0:lite0: runs your own code" in done.stderr
    rows = np.load(place / "features/python-public_lite0-lite0/a.npy")
    assert rows.shape == (2, 1280)
    assert not np.array_equal(rows[0], rows[1])


def test_other_weights_or_another_encoder_are_not_unchanged(place: Path) -> None:
    assert extract(place, "pixels", "--name", "mixed").returncode == 0
    other = extract(place, "motion", "--name", "mixed")
    assert_one_line(other, 1, "features/mixed: has features with encoder=pixels, not motion; use another --name")


def test_the_encoder_of_features_is_shown_if_its_file_tells(place: Path) -> None:
    (place / "changed.safetensors").write_bytes((place / "own.safetensors").read_bytes())
    for encoder in ("own.pt2", "changed.safetensors"):
        assert extract(place, encoder, "--name", f"of-{encoder}").returncode == 0
    assert "\nencoder: own\n" in hico("features", "show", "of-own.pt2", root=place).stdout
    (place / "changed.safetensors").write_bytes(b"other")
    done = hico("features", "show", "of-changed.safetensors", root=place)
    assert done.returncode == 0 and "encoder:" not in done.stdout, done.stderr


def test_the_old_name_of_the_option(place: Path) -> None:
    done = hico(
        "extract-features",
        place / "a.mp4",
        "--root",
        place,
        "--checkpoint",
        place / "own.safetensors",
        "--name",
        "old",
        "--workers",
        "0",
    )
    assert done.returncode == 0


MISTAKES = [
    ("r3d_18=x.pth", (), 2, "r3d_18: no such encoder; the nearest is torchvision:r3d_18"),
    ("torchvision:r3d_18", (), 2, "no weights given"),
    ("torchvision:r3d_18=squeezenet1_1.pth", (), 1, "contains no torchvision:r3d_18 encoder"),
    ("torchvision:mvit_v2_s=random", ("--window", "8"), 2, "takes windows of exactly 16 frames"),
    ("s3dg-tiny=random", ("--window", "4"), 2, "--window 4: s3dg-tiny takes windows of at least 8 frames"),
    ("pixels", ("--pool", "none"), 2, "--pool none: pixels gives one row per window, not maps"),
    ("pixels", ("--layer", "projection"), 2, "--layer projection: pixels has no projection head"),
    ("own.pt2", ("--layer", "projection"), 2, "own has no projection head"),
]


@pytest.mark.parametrize(
    ("encoder", "options", "code", "said"), MISTAKES, ids=[row[0] + str(row[1]) for row in MISTAKES]
)
def test_mistakes(place: Path, encoder: str, options: tuple[str, ...], code: int, said: str) -> None:
    done = extract(place, encoder, "--name", "never", *options)
    lines = [line for line in done.stderr.splitlines() if "is a program" not in line]
    assert (done.returncode, len(lines)) == (code, 1), done.stderr
    assert said in lines[0]
    assert not (place / "features/never").exists()


@pytest.mark.parametrize(
    ("family", "package", "extra"), [("timm:resnet18=random", "timm", "timm"), ("hf:x=DEFAULT", "transformers", "hf")]
)
def test_an_extra_that_is_not_installed(
    place: Path, family: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("hico_core.base.errors.find_spec", lambda name: None)
    assert_one_line(extract(place, family), 2, f"needs the package {package}: pip install '.[{extra}]'")


def test_the_list_of_encoders() -> None:
    listed = json.loads(hico("config", "encoders", "--json").stdout)
    rows: dict[str, Any] = {row["name"]: row for row in listed["encoders"]}
    assert list(rows) == list(ENCODERS)
    assert rows["s3dg"]["parameters"] == sum(p.numel() for p in ENCODERS["s3dg"].build().parameters())
    assert rows["torchvision:r3d_18"]["gflops_per_window"] == pytest.approx(
        81.4, abs=0.1
    )  # torchvision says 40.7 pairs
    assert (rows["torchvision:mvit_v2_s"]["takes_other_windows"], rows["pixels"]["parameters"]) == (False, 0)


def test_inspect(place: Path) -> None:
    facts = json.loads(hico("inspect", "--encoder", "pixels", "--json").stdout)["facts"]
    assert (facts["gives"], facts["weights"], facts["frames per window"]) == ("rows of 192", "none", "1 or more")
    assert_one_line(hico("inspect", "a", "--encoder", "pixels"), 2, "give either a checkpoint")


def test_retrieval_and_probe_with_an_encoder_of_the_table(tmp_path: Path) -> None:
    """What retrieves embeds its query with the encoder of the features; what probes is told the encoder."""
    for name in ("a", "b", "c", "d"):
        numbered_video(tmp_path / f"{name}.mp4", seconds=2, size="64x48")
    extract(tmp_path, "pixels", tmp_path / "b.mp4")
    found = json.loads(hico("retrieve", tmp_path / "c.mp4", "--json", root=tmp_path, cwd=tmp_path).stdout)["matches"]
    assert {match["video_id"] for match in found} == {"a", "b"}
    lists = {"train": ["a 0", "b 1"], "test": ["c 0", "d 1"]}
    for name, lines in lists.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{line.replace(' ', '.mp4 ')}\n" for line in lines))
    options = ("--train", "train.txt", "--test", "test.txt", "--seeds", "1", "--workers", "0", "--json")
    probed = hico("probe", "--encoder", "motion", *options, root=tmp_path, cwd=tmp_path)
    assert probed.returncode == 0, probed.stderr
    assert json.loads(probed.stdout)["encoder"] == "motion"


def test_adopted_features(place: Path) -> None:
    folder = place / "features/theirs"
    folder.mkdir(parents=True)
    np.save(folder / "a.npy", np.zeros((3, 5), np.float32))
    done = hico("features", "adopt", folder, "--fps", "15", "--window", "16", "--stride", "8")
    assert done.stdout.strip() == f"{folder}: 1 video, 3 rows of 5 numbers"
    assert "encoder: adopted" in hico("features", "show", "theirs", root=place).stdout
