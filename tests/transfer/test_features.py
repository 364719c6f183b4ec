"""Features stand on a grid of real time, and are what the encoder says of each window."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens import assert_close, authors_state
from made_videos import numbered_video
from torch import Tensor, nn
from torchvision.transforms import functional

from hico_core.base.choices import Pool
from hico_core.base.errors import BadVideo, HicoError, UsageError
from hico_core.checkpoints.authors_names import export_state_dict, import_state_dict
from hico_core.checkpoints.content import export_encoder
from hico_core.checkpoints.reading import load_backbone
from hico_core.corpus.clips.probe import frame_times
from hico_core.data.clock import clock_of_times
from hico_core.data.decode import decode_frames
from hico_core.data.pictures import Picture
from hico_core.encoders.trained import hico_model
from hico_core.encoding.encoder import Meter
from hico_core.encoding.windows import Grid, window_starts
from hico_core.model.hico import HicoModel
from hico_core.model.pooling import PooledEncoder
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.transfer.features import FeatureExtractor, Features, FeatureSource

pytestmark = pytest.mark.videos


class MeanColour(nn.Module):
    """An encoder whose features tell which frames a window has."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(dim=(2, 3, 4), keepdim=True)


def test_features_equal_the_windows_one_by_one(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=5)
    extractor = FeatureExtractor(
        PooledEncoder(MeanColour()), grid=Grid(fps=12.0, window=8, stride=5), device=torch.device("cpu")
    )
    features = extractor.extract(tmp_path / "a.mp4")
    numbers = clock_of_times(frame_times(tmp_path / "a.mp4")).on_grid(fps=12.0).tolist()
    pictures = list(decode_frames(tmp_path / "a.mp4", numbers)[:, 7:112, 27:132].numpy())  # 105 is 0.875 of 120
    assert len(pictures) == 60
    assert features.array.shape == (len(window_starts(60, Grid(fps=12.0, window=8, stride=5))), 3)
    assert features.array.dtype == np.float32
    for i, row in enumerate(features.array):
        window = np.stack((pictures[i * 5 : i * 5 + 8] + [pictures[-1]] * 8)[:8]) / 255
        assert row == pytest.approx((window.mean(axis=(0, 1, 2)) - 0.45) / 0.225, abs=0.02)  # scaled to 112
    assert features.meta.source_fps == pytest.approx(30)
    assert features.meta.duration_seconds == pytest.approx(5)
    assert features.meta.num_frames == 150


@pytest.mark.parametrize("side", [None, (240, 320), (96, 128)])
def test_clips_in_memory_are_seen_as_videos_are(tmp_path: Path, side: tuple[int, int] | None) -> None:
    """At the size of the video to rounding; of another size, what a mean colour keeps."""
    numbered_video(tmp_path / "a.mp4", seconds=3)
    extractor = FeatureExtractor(
        PooledEncoder(MeanColour()), grid=Grid(fps=None, window=8, stride=8), device=torch.device("cpu"), batch_size=3
    )
    features = extractor.extract(tmp_path / "a.mp4").array[:4]
    clips = decode_frames(tmp_path / "a.mp4", list(range(32))).unflatten(0, (4, 8))
    if side is not None:
        scaled = functional.resize(clips.flatten(0, 1).permute(0, 3, 1, 2), list(side), antialias=True)
        clips = scaled.permute(0, 2, 3, 1).unflatten(0, (4, 8))
    assert extractor.encode(clips).numpy() == pytest.approx(features, abs=1e-5 if side is None else 0.1)


@pytest.mark.parametrize(
    "clips",
    [
        torch.zeros(1, 8, 9, 9, 3),
        torch.zeros(1, 3, 8, 9, 9, dtype=torch.uint8),
        torch.zeros(8, 9, 9, 3, dtype=torch.uint8),
    ],
)
def test_clips_of_another_kind_are_refused(clips: Tensor) -> None:
    extractor = FeatureExtractor(
        PooledEncoder(MeanColour()), grid=Grid(fps=15.0, window=8, stride=8), device=torch.device("cpu")
    )
    with pytest.raises(UsageError, match=r"not \(N, 8, H, W, 3\) torch.uint8"):
        extractor.encode(clips)


def test_what_they_print_is_a_line() -> None:
    extractor = FeatureExtractor(
        PooledEncoder(MeanColour()), grid=Grid(fps=None, window=16, stride=16), device=torch.device("cpu")
    )
    assert repr(extractor) == (
        "FeatureExtractor(MeanColour, windows of 16 frames at the videos' fps, stride 16, pool avg, layer pooled, cpu)"
    )
    features = Features(
        array=np.zeros((2, 3), np.float32), times=np.array([[0, 1], [1, 2.5]]), meta=FeatureSource("<a>.mp4", 30, 3, 90)
    )
    assert repr(features) == "Features(2 windows of 3 float32, 0.0 to 2.5 s, <a>.mp4)"
    assert "<tr><th>source</th><td>&lt;a&gt;.mp4</td></tr>" in features._repr_html_()


@pytest.mark.parametrize(
    ("grid", "pool", "problem"),
    [
        (Grid(fps=15.0, window=7, stride=16), "avg", "--window 7"),
        (Grid(fps=15.0, window=16, stride=0), "avg", "--stride 0"),
        (Grid(fps=0.0, window=16, stride=16), "avg", "--fps 0.0"),
        (Grid(fps=15.0, window=16, stride=16, align="center", tail="drop"), "avg", "--align center --tail drop"),
    ],
)
def test_numbers_out_of_range(grid: Grid, pool: Pool, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        FeatureExtractor(PooledEncoder(MeanColour(), pool=pool), grid=grid, device=torch.device("cpu"))


def test_windows_that_a_users_encoder_does_not_take() -> None:
    name = "python:made_encoders:of_sixteen_frames"
    assert FeatureExtractor.from_checkpoint(f"{name}=random", window=16, device="cpu").grid.window == 16
    with pytest.raises(HicoError, match=f"^{name}: does not accept a clip of 8 frames of 112 x 112 pixels"):
        FeatureExtractor.from_checkpoint(f"{name}=random", window=8, device="cpu")


@pytest.fixture(scope="module")
def model() -> HicoModel:
    model = HicoModel()
    model.load_state_dict(import_state_dict(authors_state("pretrain_hico", 1)))
    return model.eval()


def test_all_kinds_of_checkpoint_give_the_same_features(tmp_path: Path, model: HicoModel) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=2, size="192x144")
    torch.save({"model_state": export_state_dict(model.state_dict()), "epoch": 0}, tmp_path / "theirs.pyth")
    torch.save({"model": model.state_dict()}, tmp_path / "ours.pt")
    export_encoder(tmp_path / "encoder.safetensors", model.backbone)
    arrays = [
        FeatureExtractor.from_checkpoint(tmp_path / name, device="cpu").extract(tmp_path / "a.mp4").array
        for name in ("theirs.pyth", "ours.pt", "encoder.safetensors")
    ]
    assert arrays[0].shape == (2, 1024)
    assert all(np.array_equal(arrays[0], other) for other in arrays[1:])

    backbone = load_backbone(tmp_path / "ours.pt")
    numbers = clock_of_times(frame_times(tmp_path / "a.mp4")).on_grid(fps=15.0)[:16].tolist()
    middle = decode_frames(tmp_path / "a.mp4", numbers, short_side=128)[:, 8:120, 29:141]
    clip = (middle.permute(3, 0, 1, 2)[None] / 255 - 0.45) / 0.225
    with torch.no_grad():
        assert_close(backbone(clip).mean(dim=(2, 3, 4)), arrays[0][:1], 1e-4)


def test_pooling_and_projection(tmp_path: Path) -> None:
    """The slow twin: maps are pooled by hand."""
    numbered_video(tmp_path / "a.mp4", seconds=2)
    torch.manual_seed(0)
    model = hico_model("s3dg-tiny").eval()
    torch.save({"model": model.state_dict()}, tmp_path / "last.pt")

    def extract(**settings: Any) -> np.ndarray:  # noqa: ANN401
        extractor = FeatureExtractor.from_checkpoint(tmp_path / "last.pt", device="cpu", **settings)
        return extractor.extract(tmp_path / "a.mp4").array

    maps = extract(pool="none")
    assert maps.shape == (2, 128, 4, 14, 14)
    np.testing.assert_allclose(extract(), maps.mean(axis=(2, 3, 4)), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(extract(pool="max"), maps.max(axis=(2, 3, 4)))
    with torch.no_grad():
        expected = model.visual_head(torch.from_numpy(maps.mean(axis=(2, 3, 4))))
    np.testing.assert_allclose(extract(layer="projection"), expected, atol=1e-5)
    export_encoder(tmp_path / "encoder.safetensors", model.backbone)
    with pytest.raises(HicoError, match="has no projection head; give a checkpoint of pretraining"):
        FeatureExtractor.from_checkpoint(tmp_path / "encoder.safetensors", layer="projection", device="cpu")
    with pytest.raises(UsageError, match="--layer projection --pool max"):
        extract(layer="projection", pool="max")


def test_batches_change_nothing_but_rounding(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=4)
    torch.manual_seed(0)
    backbone = S3DGTiny().eval()
    device = torch.device("cpu")
    arrays = [
        FeatureExtractor(PooledEncoder(backbone), device=device, batch_size=size).extract(tmp_path / "a.mp4").array
        for size in (1, 3, "auto")
    ]
    for other in arrays[1:]:
        np.testing.assert_allclose(arrays[0], other, rtol=1e-4, atol=1e-6)


def test_many_videos_in_order(tmp_path: Path) -> None:
    for number in range(3):
        numbered_video(tmp_path / f"{number}.mp4", seconds=2 + number)
    (tmp_path / "bad.mp4").write_text("no video")
    names = ["2.mp4", "bad.mp4", "0.mp4", "1.mp4"]
    extractor = FeatureExtractor(PooledEncoder(MeanColour()), device=torch.device("cpu"))
    meter = Meter()
    found = list(extractor.extract_many([tmp_path / name for name in names], workers=2, meter=meter))
    lengths = [None if isinstance(one, BadVideo) else len(one.array) for one in found]
    assert lengths == [4, None, 2, 3]
    bad = tmp_path / "bad.mp4"
    assert str(found[1]).startswith(f"{bad}: cannot be opened as a video (") and str(found[1]).count(str(bad)) == 1
    with pytest.raises(BadVideo, match=r"^nope\.mp4: no such file$"):
        extractor.extract("nope.mp4")
    assert meter.num_rows == 9 and 0 <= meter.waiting_part <= 1 and meter.rows_per_second > 0


def test_the_picture_is_that_of_the_authors_run(tmp_path: Path, model: HicoModel) -> None:
    picture = Picture(short_side=73, crop_part=0.875, num_crops=1, size=64, mean=(0.5,) * 3, std=(0.25,) * 3)
    cfg = json.dumps({"DATA": {"TRAIN_CROP_SIZE": 64, "MEAN": [0.5] * 3, "STD": [0.25] * 3}})
    theirs = {"model_state": export_state_dict(model.state_dict()), "cfg": cfg}
    torch.save(theirs, tmp_path / "theirs.pyth")
    assert FeatureExtractor.from_checkpoint(tmp_path / "theirs.pyth", device="cpu").picture == picture
    torch.save({**theirs, "cfg": json.dumps({"DATA": {"TRAIN_CROP_SIZE": "large"}})}, tmp_path / "wrong.pyth")
    with pytest.raises(HicoError, match="its encoder's input settings are invalid"):
        FeatureExtractor.from_checkpoint(tmp_path / "wrong.pyth", device="cpu")


@pytest.mark.parametrize(
    ("array", "times", "problem"),
    [
        (np.zeros(3, np.float32), np.zeros((3, 2)), r"not \(3,\) float32"),
        (np.zeros((3, 4)), np.zeros((3, 2)), r"not \(3, 4\) float64"),
        (np.zeros((3, 4), np.float32), np.zeros((2, 2)), r"times of 3 windows are \(3, 2\) float64, not \(2, 2\)"),
        (np.zeros((3, 4), np.float16), np.zeros((3, 2), np.float32), r"not \(3, 2\) float32"),
    ],
)
def test_features_that_cannot_be_are_refused(array: np.ndarray, times: np.ndarray, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Features(array=array, times=times, meta=FeatureSource("a.mp4", 30.0, 1.0, 30))
