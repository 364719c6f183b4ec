"""Rows do not depend on who reads, nor on what else is encoded; a worker's death costs nothing."""

import multiprocessing
from collections.abc import Generator
from typing import Any

import pytest
import torch
from made_videos import numbered_video, run_ffmpeg
from torch import Tensor, nn

from hico_core.base.errors import HicoError
from hico_core.data.pictures import Picture
from hico_core.encoding import encoder as encoder_module
from hico_core.encoding.encoder import EncodedVideo, encode_videos
from hico_core.encoding.hardware import FP32, Precision
from hico_core.encoding.lanes import Part, Reading, WholeVideo, parts_of_video, read_parts
from hico_core.encoding.windows import Grid, Views
from hico_core.model.pooling import PooledEncoder
from hico_core.model.s3dg import S3DG

pytestmark = pytest.mark.videos

SMALL = Picture(short_side=40, crop_part=0.875, num_crops=1, size=32, mean=(0.45,) * 3, std=(0.225,) * 3)
GRID = Grid(fps=15.0, window=8, stride=8)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[WholeVideo]:
    """Of different lengths and sizes, so that batches have several videos; one cannot be read."""
    folder = tmp_path_factory.mktemp("encoder")
    for name, seconds, size in (("a", 7, "160x120"), ("b", 1, "60x80"), ("d", 3, "320x160"), ("e", 0.3, "160x120")):
        numbered_video(folder / f"{name}.mp4", seconds=seconds, size=size)
    (folder / "c.mp4").write_text("no video")
    return [WholeVideo(folder / f"{name}.mp4", []) for name in "abcde"]


@pytest.fixture(scope="module")
def encoder() -> PooledEncoder:
    torch.manual_seed(0)
    encoder = PooledEncoder(S3DG()).train()
    with torch.no_grad():
        for _ in range(20):
            encoder(torch.randn(4, 3, 8, 32, 32))  # statistics in whose light clips differ
    return encoder.eval()


def reading(layout: Grid | Views) -> Reading:
    return Reading(layout=layout, picture=SMALL)


def encode(
    model: nn.Module, videos: list[WholeVideo], *, workers: int = 0, layout: Grid | Views = GRID
) -> list[EncodedVideo]:
    return list(encode_videos(model, videos, reading(layout), precision=FP32, workers=workers))


def test_the_same_bytes_with_any_number_of_workers_and_in_any_order(
    encoder: PooledEncoder, videos: list[WholeVideo]
) -> None:
    found = encode(encoder, videos)
    assert [video.number for video in found] == [0, 1, 2, 3, 4]
    assert [None if video.rows is None else len(video.rows) for video in found] == [14, 2, None, 6, 1]
    for workers in (1, 4):
        for one, other in zip(found, encode(encoder, videos, workers=workers), strict=True):
            assert (str(one.bad), one.facts) == (str(other.bad), other.facts)
            assert (one.rows is None) == (other.rows is None)
            assert one.rows is None or (other.rows is not None and torch.equal(one.rows, other.rows))
    backwards = encode(encoder, videos[::-1], workers=2)[::-1]
    alone = [encode(encoder, [video])[0] for video in videos]
    for one, two, three in zip(found, backwards, alone, strict=True):
        if one.rows is not None:
            assert two.rows is not None and three.rows is not None
            assert torch.equal(one.rows, two.rows) and torch.equal(one.rows, three.rows)


class LittleMemory(nn.Module):
    """An encoder in memory for so many windows at once, from a moment on."""

    def __init__(self, encoder: nn.Module, *, holds: int, after: int = 0) -> None:
        super().__init__()
        self.encoder, self.holds, self.after = encoder, holds, after
        self.given: list[int] = []

    def forward(self, clips: Tensor) -> Tensor:
        self.given.append(len(clips))
        if len(self.given) > self.after and len(clips) > self.holds:
            raise torch.OutOfMemoryError("full")
        rows: Tensor = self.encoder(clips)
        return rows


@pytest.mark.parametrize("after", [0, 2])
def test_fewer_windows_at_once_where_memory_does_not_hold_them(
    encoder: PooledEncoder, videos: list[WholeVideo], after: int, caplog: pytest.LogCaptureFixture
) -> None:
    """From the start, or when something else has taken the memory: no row is lost, and it is said once a time."""
    model = LittleMemory(encoder, holds=3, after=after)
    found = list(encode_videos(model, videos, reading(GRID), precision=FP32, workers=0, batch_size=8))
    assert [given for given in model.given if given > 3] == [8] * after + [8, 4]
    assert set(model.given[after + 2 :]) == {2}
    for one, other in zip(encode(encoder, videos), found, strict=True):
        assert one.facts == other.facts and (one.rows is None) == (other.rows is None)
        assert one.rows is None or (other.rows is not None and torch.allclose(one.rows, other.rows, atol=1e-5))
    assert [record.message for record in caplog.records] == [
        f"the batch does not fit into the memory of cpu; continuing with {size} windows per batch" for size in (4, 2)
    ]


def test_memory_that_does_not_hold_one_window(encoder: PooledEncoder, videos: list[WholeVideo]) -> None:
    with pytest.raises(HicoError, match="cpu: one window does not fit into its memory"):
        encode(LittleMemory(encoder, holds=0), videos)


def test_rows_are_what_the_encoder_says_of_each_clip(encoder: PooledEncoder, videos: list[WholeVideo]) -> None:
    """The slow twin: one clip at a time, scaled and normalised by hand."""
    (found,) = encode(encoder, videos[:1])
    clips = [
        clip for part in parts_of_video(0, videos[0], reading(GRID)) if part.clips is not None for clip in part.clips
    ]
    assert found.rows is not None and found.facts is not None
    assert found.facts.num_frames == 210 and found.facts.fps == pytest.approx(30)
    for row, clip in zip(found.rows, clips, strict=True):
        assert clip.shape[1:3] == (35, 35)
        pictures = clip.permute(0, 3, 1, 2).float() / 255
        scaled = nn.functional.interpolate(pictures, (32, 32), mode="bilinear", align_corners=False)
        with torch.no_grad():
            expected = encoder(((scaled - 0.45) / 0.225).transpose(0, 1)[None])[0]
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


class Modes(nn.Module):
    """Says whether it was in training."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.inner = nn.BatchNorm1d(1)

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, S, S) -> (N, 1)."""
        return torch.full((len(clips), 1), float(self.training)) + self.weight


def test_a_model_gets_its_modes_back(videos: list[WholeVideo]) -> None:
    model = Modes().train()
    model.inner.eval()
    (found,) = encode(model, videos[1:2])
    assert found.rows is not None and found.rows.tolist() == [[0.0], [0.0]]
    assert model.training and not model.inner.training


def test_bfloat16_is_near(encoder: PooledEncoder, videos: list[WholeVideo]) -> None:
    (exact,) = encode(encoder, videos[:1])
    (near,) = encode_videos(encoder, videos[:1], reading(GRID), precision=Precision("bf16", "tested"), workers=0)
    assert exact.rows is not None and near.rows is not None and near.rows.dtype == torch.float32
    difference = (exact.rows - near.rows).norm() / exact.rows.norm()
    assert 0 < difference < 0.05


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory: pytest.TempPathFactory) -> list[WholeVideo]:
    folder = tmp_path_factory.mktemp("long")
    for name in "ab":
        run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=320x240:r=15:d=200", "-preset", "ultrafast", folder / f"{name}.mp4")
    return [WholeVideo(folder / f"{name}.mp4", []) for name in "ab"]


@pytest.mark.processes
@pytest.mark.parametrize("deaths", [[0], [0, 60]], ids=["one", "two"])
def test_one_death_of_a_worker_is_survived(
    long_videos: list[WholeVideo], deaths: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = [video.rows for video in encode(Modes(), long_videos)]

    def read_and_kill(*arguments: Any, **options: Any) -> Generator[Part, None, None]:  # noqa: ANN401
        for count, part in enumerate(read_parts(*arguments, **options)):
            if count in deaths:
                worker = multiprocessing.active_children()[0]
                worker.kill()
                worker.join()
            yield part

    monkeypatch.setattr(encoder_module, "read_parts", read_and_kill)
    if len(deaths) == 2:
        with pytest.raises(HicoError, match=r"a second worker of the loader died: .*next would be .*\.mp4"):
            encode(Modes(), long_videos, workers=2)
        return
    found = [video.rows for video in encode(Modes(), long_videos, workers=2)]
    assert "a worker of the loader died" in caplog.text
    for one, other in zip(found, expected, strict=True):
        assert one is not None and other is not None and torch.equal(one, other)
