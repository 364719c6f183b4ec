"""Each mistake that a person makes in the first hour ends in one line that names it and says what to do."""

from pathlib import Path

import pytest
import torch
from commands import assert_one_line, hico
from made_videos import numbered_video
from PIL import Image

from hico_core.checkpoints.content import export_encoder
from hico_core.model.s3dg_tiny import S3DGTiny

pytestmark = pytest.mark.videos


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a person tries things: videos, a workspace with three of them, and others that do not suit."""
    folder = tmp_path_factory.mktemp("place")
    for number in range(3):
        numbered_video(folder / f"videos/{number}.mp4", seconds=3)
        (folder / f"pictures/{number}.jpg").parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / f"pictures/{number}.jpg")
    for name in ("twice/a/0.mp4", "twice/b/0.mp4", "single/0.mp4"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((folder / "videos/0.mp4").read_bytes())
    numbered_video(folder / "short/a.mp4", seconds=1)
    numbered_video(folder / "short/b.mp4", seconds=1)
    (folder / "empty").mkdir()
    (folder / "notes").write_text("not a workspace")
    torch.save({"weights": 1}, folder / "other.pt")
    export_encoder(folder / "encoder.safetensors", S3DGTiny())
    for videos, root in (("videos", "root"), ("single", "one"), ("short", "brief")):
        assert hico("split", folder / videos, root=folder / root).returncode == 0
        assert hico("index", root=folder / root).returncode == 0
    return folder


# What was typed, the exit code (2: what was typed is wrong; 1: what was found), and what the line says.
MISTAKES = [
    ("split nowhere", 2, "nowhere: no such file or folder, and no file matches it as a pattern"),
    ("split empty", 2, "empty: no video files in this folder"),
    (
        "split pictures",
        2,
        "pictures: contains numbered pictures, not videos; to read them as frames, use --frame-rate N",
    ),
    ("split", 2, "INPUTS: name videos, or folders of them (`hico split -h` lists the options)"),
    ("split videos --root notes", 2, "--root notes: notes is a file; name a folder, which is created if missing"),
    ("split videos --root=", 2, "--root: is empty; name a folder"),
    ("export-tad a.csv", 2, "Missing option '--for'. Choose from: actionformer, opentad (`hico export-tad -h`"),
    ("split videos --root notes/below", 2, "notes is a file"),
    (
        "split twice --root new",
        1,
        "b/0.mp4 have the same id, '0'; rename one of them, or include folders in the ids",
    ),
    ("split videos --segment-seconds -1", 2, "--segment-seconds -1: must be at least 0.1"),
    ("split videos --segment-seconds inf", 2, "--segment-seconds inf: must be at most 1e+06"),
    ("split videos --fps inf", 2, "--fps inf: must be at most 1000"),
    ("split videos --fps 1e-9", 2, "--fps 1e-09: must be at least 0.001"),
    ("split videos --timeout inf", 2, "--timeout inf: must be at most 1e+06"),
    ("run videos --hours inf", 2, "--hours inf: must be at most 100000"),
    ("split videos --short-side 3", 2, "--short-side 3: must be at least 16"),
    ("split videos --shard 3/2", 2, "--shard: '3/2' must be I/N with I from 1 to N, such as 2/8"),
    ("split videos --min-free much", 2, "'much' is not a size; write 500MB or 1.5GB"),
    ("index --root empty", 1, "empty: nothing has been split here yet; run `hico split VIDEOS --root"),
    ("index --root root --untrimmed videos", 1, "a video with id '0' was split here"),
    ("index --root root --list nowhere.txt", 2, "nowhere.txt: cannot be read"),
    ("pretrain --root empty", 1, "empty: has no index.parquet; run `hico index --root empty` first"),
    ("pretrain --root one", 1, "one: has 1 training video, too few to compare with each other; add videos"),
    ("pretrain --root brief", 1, "(pretraining leaves out 2 videos shorter than one clip (2.13 s))"),
    ("pretrain --root root --batch-size 64", 1, "a batch of 64 is too large for 3 videos; make it 3 or smaller"),
    ("pretrain --root root --batch-size 0", 2, "--batch-size 0: must be at least 1"),
    (
        "pretrain --root root --device mps",
        2,
        "--device mps: hico is untested on Mac GPUs; use --device cpu",
    ),
    ("pretrain --root root --epochs -1", 2, "--epochs -1: must be at least 1"),
    ("pretrain --root root --epochs many", 2, "--epochs many: must be a whole number"),
    (
        "pretrain --root root -o optim.base_lrr=1",
        2,
        "unknown key optim.base_lrr; the nearest known key is optim.base_lr",
    ),
    ("pretrain --root root -o optim.base_lr=fast", 2, "optim.base_lr cannot be 'fast': must be a number"),
    ("pretrain --root root --config nowhere.yaml", 2, "nowhere.yaml: cannot be read"),
    ("pretrain --root root --dataset hcas", 2, "--dataset hcas: 'hcas' is not one of 'hacs', 'uk400', 'k400'"),
    ("pretrain --root root --device tpu", 2, "--device tpu: 'tpu' is not one of 'auto', 'cpu', 'cuda'"),
    ("pretrain --root root --recipe hico-x", 2, "hacs-hico-x: no such recipe; the recipes are hacs-hico-l"),
    ("pretrain --root root --resum", 2, "No such option: --resum (Possible options: --resume"),
    ("pretrain --root root --init-from other.pt", 1, "other.pt: contains no s3dg encoder"),
    ("extract-features --root root", 1, "no run has exported an encoder; run `hico pretrain`, or use --encoder"),
    ("extract-features --root root --checkpoint nowhere.pt", 2, "nowhere.pt: no such file"),
    ("extract-features --root root --checkpoint other.pt", 1, "other.pt: contains no S3D-G encoder"),
    ("extract-features --root root --checkpoint videos/0.mp4", 1, "0.mp4: not a checkpoint (no PyTorch file)"),
    (
        "extract-features --root root --checkpoint encoder.safetensors --fps fast",
        2,
        "'fast' is not a frame rate; use a number",
    ),
    ("probe --root root --features", 2, "--features"),
    ("retrieve videos/0.mp4 --root root", 1, "no features here; run `hico extract-features`"),
    ("evaluate", 2, "Missing argument 'RUN...'"),
    ("report empty", 2, "neither a run (it has no config.yaml) nor a workspace (it has no index.parquet)"),
    ("report s3://bucket/hico-data", 2, "RUN...: s3:/bucket/hico-data: must be a local folder"),
    ("inspect encoder.safetensors --output a.png", 2, "--output: is for the picture of a workspace's clips; name"),
    ("inspect --encoder pixels --samples 3", 2, "--samples: is for the picture of a workspace's clips; name"),
    ("inspect root --recipe hacs-hico-x", 2, "hacs-hico-x: neither a recipe nor a file"),
    ("inspect root --recipe finetune-hmdb51", 2, "finetune-hmdb51: is a recipe for finetuning; choose one for"),
    (
        "finetune --recipe hmdb51",
        2,
        "hmdb51 is not a recipe for finetuning; these are finetune-hmdb51, finetune-ucf101",
    ),
    ("evaluate run --crops 2", 2, "--crops 2: '2' is not one of '1', '3'"),
    ("pretrain --root root --anno-dir videos", 2, "--anno-dir: needs an authors' --config"),
    ("convert videos out.onnx", 2, "videos: is a folder; name a file, such as export/encoder.safetensors of a run"),
    ("inspect nowhere", 2, "nowhere: no such file"),
    ("convert encoder.safetensors out.foo", 2, "cannot tell the format from out.foo; choose one"),
    ("convert encoder.safetensors empty --to safetensors", 2, "empty: is a folder; name a file in it"),
    ("convert encoder.safetensors out.pyth", 1, "the authors' format needs a checkpoint of a run"),
    ("config show hacs", 2, "hacs: neither a recipe nor a file; the nearest recipe is hacs-hico-s"),
    ("splitt", 2, "No such command 'splitt'. Did you mean 'split'?"),
]


def files_of(folder: Path) -> list[Path]:
    """All but locks, which stay where somebody may wait for them."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


@pytest.mark.parametrize(("typed", "code", "said"), MISTAKES, ids=[typed for typed, *_ in MISTAKES])
def test_one_line(place: Path, typed: str, code: int, said: str) -> None:
    before = files_of(place)
    done = hico(*typed.split(), cwd=place)
    assert_one_line(done, code, said)
    assert done.stderr.startswith("hico: ")
    assert done.stdout == ""
    assert files_of(place) == before


@pytest.mark.parametrize("name", ["pictures/0.jpg", "notes"])
def test_a_file_that_is_no_video_fails_by_itself(place: Path, tmp_path: Path, name: str) -> None:
    done = hico("split", place / name, place / "videos/2.mp4", root=tmp_path)
    assert done.returncode == 3
    assert f"{name}: cannot be opened as a video" in done.stderr
    assert "1 video split, 0 unchanged, 1 failed" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--recipe", "k400-hico-l"], "--recipe: own.yaml is based on hacs-hico-s; leave out this option"),
        (["--dataset", "k400"], "--dataset: own.yaml is for hacs; leave out this option"),
    ],
)
def test_a_recipe_that_a_file_replaces_is_refused(place: Path, options: list[str], said: str) -> None:
    (place / "own.yaml").write_text("base: hacs-hico-s\n")
    assert_one_line(hico("pretrain", "--root", "root", "--config", "own.yaml", *options, cwd=place), 2, said)
