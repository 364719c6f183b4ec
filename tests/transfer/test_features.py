"""Features stand on a grid of real time, in files that agree with their manifest."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from goldens import assert_close, authors_state
from made_videos import numbered_video, painted_number
from torch import Tensor, nn

from hico_core.corpus.cache import LocalCache
from hico_core.corpus.ids import find_sources
from hico_core.corpus.index import build_index, read_index_table
from hico_core.corpus.records import SplitOptions, sha256_of
from hico_core.corpus.split import split_videos
from hico_core.data.decode import play
from hico_core.data.videos import IndexedVideos
from hico_core.errors import BadVideo, HicoError, UsageError
from hico_core.interop import export_state_dict, import_state_dict, load_backbone
from hico_core.model.hico import HicoModel
from hico_core.training.checkpoint import export_encoder
from hico_core.transfer.features import (
    FeatureEvent,
    FeatureExtractor,
    FeatureJob,
    FeatureSummary,
    extract_features,
    indexed_jobs,
    num_windows,
    on_grid,
    picture,
    sliding_windows,
    window_times,
)

NO_CACHE = LocalCache(Path("nowhere"), size_bytes=1)  # of no use to local files


@pytest.mark.parametrize(
    ("points", "window", "stride", "starts"),
    [
        (10, 4, 4, [0, 4, 8]),
        (8, 4, 4, [0, 4]),
        (3, 4, 4, [0]),  # shorter than a window
        (5, 4, 2, [0, 2]),
        (6, 4, 2, [0, 2]),
        (10, 4, 6, [0, 6]),  # points between windows belong to none
        (12, 4, 6, [0, 6]),
        (13, 4, 6, [0, 6, 12]),
        (1, 1, 1, [0]),
    ],
)
def test_windows_cover_the_grid(points: int, window: int, stride: int, starts: list[int]) -> None:
    stream = (np.full((1, 1, 3), k) for k in range(points))
    windows = list(sliding_windows(stream, window=window, stride=stride))
    assert len(windows) == num_windows(points, window=window, stride=stride) == len(starts)
    for got, start in zip(windows, starts, strict=True):
        assert got[:, 0, 0, 0].tolist() == [min(start + k, points - 1) for k in range(window)]


def test_window_centres_are_where_detection_toolkits_put_them() -> None:
    times = window_times(5, window=16, stride=4, fps=15.0)
    centres = [(i * 4 + 16 / 2) / 15 for i in range(5)]
    assert times.mean(axis=1) == pytest.approx(centres)


def frame_at(seconds: float) -> tuple[float, SimpleNamespace]:
    return seconds, SimpleNamespace(seconds=seconds)


@pytest.mark.parametrize(
    ("times", "fps", "shown"),
    [
        ([0.0, 0.4, 2.0], 1.0, [0.0, 0.4, 2.0]),
        ([0.0, 0.5, 1.0, 1.5], 1.0, [0.0, 1.0]),  # every second frame
        ([0.0, 1.0], 2.0, [0.0, 0.0, 1.0, 1.0]),  # each frame twice
        ([0.0, 3.0], 1.0, [0.0, 0.0, 0.0, 3.0, 3.0, 3.0]),  # a hole repeats the frame before it
        ([0.0], 2.0, [0.0, 0.0]),  # one frame lasts a second
    ],
)
def test_grid(times: list[float], fps: float, shown: list[float]) -> None:
    frames = on_grid((frame_at(t) for t in times), fps=fps)  # type: ignore[misc]
    assert [frame.seconds for frame in frames] == shown  # type: ignore[attr-defined]


@pytest.mark.parametrize("how", [{}, {"fps": "25"}, {"fps": "10"}, {"keep": "gt(random(5),0.4)"}])
def test_grid_shows_what_a_player_shows(tmp_path: Path, how: dict[str, Any]) -> None:
    numbered_video(tmp_path / "a.mkv", seconds=4, **how)
    frames = [
        (seconds, painted_number(frame.to_ndarray(format="rgb24"))) for seconds, frame in play(tmp_path / "a.mkv")
    ]
    grid = [painted_number(f.to_ndarray(format="rgb24")) for f in on_grid(play(tmp_path / "a.mkv"), fps=15.0)]
    for k, number in enumerate(grid):
        assert number == [n for seconds, n in frames if seconds <= k / 15 + 1e-6][-1]
    period = frames[-1][0] / (len(frames) - 1)
    assert len(grid) == pytest.approx((frames[-1][0] + period) * 15, abs=1)


def test_picture_is_the_middle_of_the_frame(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=0.1, size="320x160")
    _, frame = next(play(tmp_path / "a.mp4"))
    assert picture(frame).shape == (112, 112, 3)


class MeanColour(nn.Module):
    """An encoder whose features tell which frames a window has."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(dim=(2, 3, 4), keepdim=True)


def test_features_equal_the_windows_one_by_one(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=5)
    extractor = FeatureExtractor(MeanColour(), window=8, stride=5, fps=12.0, device=torch.device("cpu"))
    features = extractor.extract(tmp_path / "a.mp4")
    pictures = [picture(frame) for frame in on_grid(play(tmp_path / "a.mp4"), fps=12.0)]
    assert len(pictures) == 60
    assert features.array.shape == (num_windows(60, window=8, stride=5), 3)
    assert features.array.dtype == np.float32
    for i, row in enumerate(features.array):
        window = np.stack((pictures[i * 5 : i * 5 + 8] + [pictures[-1]] * 8)[:8]) / 255
        assert row == pytest.approx((window.mean(axis=(0, 1, 2)) - 0.45) / 0.225, abs=1e-4)
    assert features.meta.source_fps == pytest.approx(30)
    assert features.meta.duration_seconds == pytest.approx(5)
    assert features.meta.num_frames == 150


@pytest.mark.parametrize("numbers", [{"window": 7}, {"stride": 0}, {"fps": 0.0}])
def test_numbers_out_of_range(numbers: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="--window"):
        FeatureExtractor(MeanColour(), device=torch.device("cpu"), **numbers)


@pytest.fixture(scope="module")
def model() -> HicoModel:
    model = HicoModel()
    model.load_state_dict(import_state_dict(authors_state("pretrain_hico", 1)))
    return model.eval()


def test_all_kinds_of_checkpoint_give_the_same_features(tmp_path: Path, model: HicoModel) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=2)
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
    first = np.stack([picture(frame) for frame in on_grid(play(tmp_path / "a.mp4"), fps=15.0)][:16])
    clip = (torch.from_numpy(first).permute(3, 0, 1, 2)[None] / 255 - 0.45) / 0.225
    with torch.no_grad():
        assert_close(backbone(clip).mean(dim=(2, 3, 4)), arrays[0][:1], 1e-4)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, model: HicoModel) -> Path:
    folder = tmp_path_factory.mktemp("features")
    (folder / "videos").mkdir()
    numbered_video(folder / "videos/v_a.mp4", seconds=7, fps="25")
    numbered_video(folder / "videos/-b.mp4", seconds=12, keep="not(between(t,3,9.5))")
    split_videos(
        find_sources([str(folder / "videos")]),
        root=folder / "root",
        options=SplitOptions(short_side=128, preset="ultrafast", crf=10),
        workers=2,
        on_event=lambda event: None,
    )
    build_index(folder / "root")
    export_encoder(folder / "encoder.safetensors", model.backbone)
    return folder / "root"


def extract(
    root: Path, folder: Path, jobs: list[FeatureJob] | None = None, **names: str
) -> tuple[FeatureSummary, list[FeatureEvent]]:
    checkpoint = root.parent / "encoder.safetensors"
    events: list[FeatureEvent] = []
    summary = extract_features(
        indexed_jobs(IndexedVideos(read_index_table(root), root=root)) if jobs is None else jobs,
        extractor=FeatureExtractor.from_checkpoint(checkpoint, device="cpu"),
        checkpoint=checkpoint,
        root=root,
        folder=folder,
        cache=NO_CACHE,
        on_event=events.append,
        **names,
    )
    return summary, events


def manifest_of(folder: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return {row["video_id"]: row for row in rows}


def test_files_and_manifest(root: Path, tmp_path: Path) -> None:
    summary, _ = extract(root, tmp_path, prefix="v_", suffix="_s3d")
    assert (summary.num_extracted, summary.num_failed) == (2, 0)
    rows = manifest_of(tmp_path)
    assert rows.keys() == {"-b", "a"}
    for video_id, row in rows.items():
        array = np.load(tmp_path / f"v_{video_id}_s3d.npy")
        assert array.dtype == np.float32
        assert array.shape == (row["rows"], row["dim"]) == (len(row["start_seconds"]), 1024)
        assert row["checkpoint_sha256"] == sha256_of(root.parent / "encoder.safetensors")
        assert (row["window"], row["stride"], row["fps"]) == (16, 16, 15.0)
        for start, end, centre in zip(row["start_seconds"], row["end_seconds"], row["centre_seconds"], strict=True):
            assert end - start == pytest.approx(16 / 15)
            assert centre == pytest.approx((start + end) / 2)
        assert row["duration_seconds"] <= row["end_seconds"][-1] < row["duration_seconds"] + 16 / 15 + 0.1
        assert Path(row["source"]).exists()
    assert rows["a"]["source_fps"] == pytest.approx(25)
    assert rows["a"]["duration_seconds"] == pytest.approx(7)


def test_clips_give_what_their_source_gives(root: Path, tmp_path: Path) -> None:
    """The same windows at the same times, holes included; only the encoding of the clips lies between."""
    jobs = indexed_jobs(IndexedVideos(read_index_table(root), root=root))
    extractor = FeatureExtractor(MeanColour(), device=torch.device("cpu"))
    for job in jobs:
        of_clips = extractor.extract_pieces(job.pieces, source=job.source, cache=NO_CACHE)
        of_source = extractor.extract(job.source)
        np.testing.assert_array_equal(of_clips.times, of_source.times)
        np.testing.assert_allclose(of_clips.array, of_source.array, atol=0.05)


def test_finished_videos_are_left_alone_and_damaged_ones_redone(root: Path, tmp_path: Path) -> None:
    extract(root, tmp_path)
    before = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "-b.npy").write_bytes(before[:300])
    with (tmp_path / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"video_id": "cut sh')
    summary, events = extract(root, tmp_path)
    assert (summary.num_extracted, summary.num_unchanged) == (1, 1)
    assert {event.video_id: event.outcome for event in events} == {"-b": "extracted", "a": "unchanged"}
    assert manifest_of(tmp_path).keys() == {"-b", "a"}
    assert np.load(tmp_path / "-b.npy").shape == (manifest_of(tmp_path)["-b"]["rows"], 1024)


def test_features_of_two_checkpoints_do_not_mix(root: Path, tmp_path: Path) -> None:
    extract(root, tmp_path)
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    export_encoder(other, HicoModel().backbone)
    with pytest.raises(HicoError, match="has features with checkpoint_sha256="):
        extract_features(
            [],
            extractor=FeatureExtractor.from_checkpoint(other, device="cpu"),
            checkpoint=other,
            root=root,
            folder=tmp_path,
            cache=NO_CACHE,
            on_event=lambda event: None,
        )


def test_a_video_that_cannot_be_decoded_is_listed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    jobs = [
        FeatureJob("bad", str(tmp_path / "bad.mp4"), []),
        FeatureJob("a", str(root.parent / "videos/v_a.mp4"), []),
    ]
    summary, events = extract(root, tmp_path / "features", jobs)
    assert (summary.num_extracted, summary.num_failed) == (1, 1)
    assert events[0].outcome == "failed" and "bad.mp4" in events[0].reason
    lines = [json.loads(line) for line in (root / "failures.jsonl").read_text().splitlines()]
    assert [(line["source"], line["command"]) for line in lines] == [(str(tmp_path / "bad.mp4"), "extract-features")]
    assert sorted(p.name for p in (tmp_path / "features").iterdir()) == ["a.npy", "manifest.jsonl"]


def test_a_video_without_frames(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"")
    with pytest.raises(BadVideo, match="cannot be opened"):
        list(play(tmp_path / "x.mp4"))


def test_a_video_is_streamed(tmp_path: Path) -> None:
    """A window is made as soon as its frames are decoded, so memory does not grow with the video."""
    numbered_video(tmp_path / "a.mp4", seconds=20)
    decoded = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal decoded
        for frame in on_grid(play(tmp_path / "a.mp4"), fps=15.0):
            decoded += 1
            yield picture(frame)

    for taken, _ in enumerate(sliding_windows(counted(), window=16, stride=16), start=1):
        assert decoded == min(16 * taken, 300)
    assert decoded == 300
