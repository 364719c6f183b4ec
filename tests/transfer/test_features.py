"""Features stand on a grid of real time, in files that agree with their manifest."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens import assert_close, authors_state
from made_videos import numbered_video
from torch import Tensor, nn

from hico_core.config import load_config
from hico_core.corpus.cache import LocalCache
from hico_core.corpus.events import Summary, VideoEvent
from hico_core.corpus.files import lock
from hico_core.corpus.ids import Source, find_sources
from hico_core.corpus.index import build_index, read_index_table
from hico_core.corpus.records import SplitOptions, sha256_of
from hico_core.corpus.split import split_videos
from hico_core.data.decode import decode_frames, frame_times
from hico_core.data.pictures import Picture
from hico_core.data.videos import IndexedVideos
from hico_core.data.windows import Grid, shown_on_grid, window_starts
from hico_core.errors import BadVideo, HicoError, UsageError
from hico_core.interop.checkpoints import load_backbone
from hico_core.interop.weights import export_state_dict, import_state_dict
from hico_core.model.hico import HicoModel
from hico_core.model.pooling import Pool
from hico_core.training.checkpoint import Progress, export_encoder, save_checkpoint
from hico_core.transfer.extraction import FeatureJob, Files, extract_features, jobs_of_files, jobs_of_index
from hico_core.transfer.features import FeatureExtractor
from hico_core.transfer.manifest import read_manifest

NO_CACHE = LocalCache(Path("nowhere"), size_bytes=1)  # of no use to local files


class MeanColour(nn.Module):
    """An encoder whose features tell which frames a window has."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(dim=(2, 3, 4), keepdim=True)


def test_features_equal_the_windows_one_by_one(tmp_path: Path) -> None:
    numbered_video(tmp_path / "a.mp4", seconds=5)
    extractor = FeatureExtractor(MeanColour(), grid=Grid(12.0, 8, 5), device=torch.device("cpu"))
    features = extractor.extract(tmp_path / "a.mp4")
    numbers = shown_on_grid(frame_times(tmp_path / "a.mp4"), fps=12.0).tolist()
    pictures = list(decode_frames(tmp_path / "a.mp4", numbers)[:, 7:112, 27:132].numpy())  # 105 is 0.875 of 120
    assert len(pictures) == 60
    assert features.array.shape == (len(window_starts(60, Grid(12.0, 8, 5))), 3)
    assert features.array.dtype == np.float32
    for i, row in enumerate(features.array):
        window = np.stack((pictures[i * 5 : i * 5 + 8] + [pictures[-1]] * 8)[:8]) / 255
        assert row == pytest.approx((window.mean(axis=(0, 1, 2)) - 0.45) / 0.225, abs=0.02)  # scaled to 112
    assert features.meta.source_fps == pytest.approx(30)
    assert features.meta.duration_seconds == pytest.approx(5)
    assert features.meta.num_frames == 150


@pytest.mark.parametrize(
    ("grid", "pool", "problem"),
    [
        (Grid(15.0, 7, 16), "avg", "--window 7"),
        (Grid(15.0, 16, 0), "avg", "--stride 0"),
        (Grid(0.0, 16, 16), "avg", "--fps 0.0"),
        (Grid(15.0, 16, 16, "center", "drop"), "avg", "--align center --tail drop"),
    ],
)
def test_numbers_out_of_range(grid: Grid, pool: Pool, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        FeatureExtractor(MeanColour(), grid=grid, pool=pool, device=torch.device("cpu"))


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
    numbers = shown_on_grid(frame_times(tmp_path / "a.mp4"), fps=15.0)[:16].tolist()
    middle = decode_frames(tmp_path / "a.mp4", numbers, short_side=128)[:, 8:120, 29:141]
    clip = (middle.permute(3, 0, 1, 2)[None] / 255 - 0.45) / 0.225
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
    root: Path, folder: Path, jobs: list[FeatureJob] | None = None, *, checksum: bool = False, **names: str
) -> tuple[Summary, list[VideoEvent]]:
    checkpoint = root.parent / "encoder.safetensors"
    events: list[VideoEvent] = []
    summary = extract_features(
        jobs_of_index(IndexedVideos(read_index_table(root), root=root)) if jobs is None else jobs,
        extractor=FeatureExtractor.from_checkpoint(checkpoint, device="cpu"),
        checkpoint=checkpoint,
        root=root,
        folder=folder,
        cache=NO_CACHE,
        workers=0,
        on_event=events.append,
        checksum=checksum,
        files=Files(**names),  # type: ignore[arg-type]
    )
    return summary, events


def manifest_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {row.video_id: row.model_dump() for row in read_manifest(folder).values()}


def test_files_and_manifest(root: Path, tmp_path: Path) -> None:
    summary, _ = extract(root, tmp_path, prefix="v_", suffix="_s3d")
    assert (summary.num_done, summary.num_failed) == (2, 0)
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
    jobs = jobs_of_index(IndexedVideos(read_index_table(root), root=root))
    extractor = FeatureExtractor(MeanColour(), device=torch.device("cpu"))
    found = extractor.extract_all([job.video for job in jobs], cache=NO_CACHE, workers=0)
    for job, of_clips in zip(jobs, found, strict=True):
        assert isinstance(job.source.path, Path)
        of_source = extractor.extract(job.source.path)
        assert not isinstance(of_clips, BadVideo)
        np.testing.assert_array_equal(of_clips.times, of_source.times)
        np.testing.assert_allclose(of_clips.array, of_source.array, atol=0.05)


def test_finished_videos_are_left_alone_and_damaged_ones_redone(root: Path, tmp_path: Path) -> None:
    extract(root, tmp_path)
    before = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "-b.npy").write_bytes(before[:300])
    with (tmp_path / "manifest.jsonl").open("a") as manifest:
        manifest.write('{"video_id": "cut sh')
    summary, events = extract(root, tmp_path)
    assert (summary.num_done, summary.num_unchanged) == (1, 1)
    assert {event.video_id: event.outcome for event in events} == {"-b": "done", "a": "unchanged"}
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
    jobs = jobs_of_files([Source("bad", tmp_path / "bad.mp4"), Source("a", root.parent / "videos/v_a.mp4")])
    summary, events = extract(root, tmp_path / "features", jobs)
    assert (summary.num_done, summary.num_failed) == (1, 1)
    assert events[0].outcome == "failed" and "cannot be opened" in events[0].note
    lines = [json.loads(line) for line in (root / "failures.jsonl").read_text().splitlines()]
    assert [(line["source"], line["command"]) for line in lines] == [(str(tmp_path / "bad.mp4"), "extract-features")]
    assert sorted(p.name for p in (tmp_path / "features").iterdir()) == [
        *(".lock", ".manifest.lock", "a.npy", "manifest.jsonl")
    ]


def features_of(root: Path, folder: Path, path: Path, *, checksum: bool = False, **names: str) -> Summary:
    return extract(root, folder, jobs_of_files([Source("a", path)]), checksum=checksum, **names)[0]


def test_finished_means_this_very_source(root: Path, tmp_path: Path) -> None:
    """Not another file of that name, nor one that has changed, nor one whose features have another file's name."""
    path, folder = tmp_path / "a.mp4", tmp_path / "features"
    numbered_video(path, seconds=2)
    assert features_of(root, folder, path).num_done == 1
    assert features_of(root, folder, path).num_unchanged == 1
    numbered_video(path, seconds=3)
    assert features_of(root, folder, path).num_done == 1, "it is another video now"
    assert len(np.load(folder / "a.npy")) == 3
    assert features_of(root, folder, path).num_unchanged == 1, "the later line of the manifest counts"
    assert features_of(root, folder, path, prefix="v_").num_done == 1, "of another file name"
    assert features_of(root, folder, path, prefix="v_").num_unchanged == 1
    # Only touched: a hash tells that it is the same.
    assert features_of(root, folder, path, suffix="_s", checksum=True).num_done == 1
    os.utime(path, (1, 1))
    assert features_of(root, folder, path, suffix="_s", checksum=True).num_unchanged == 1
    assert features_of(root, folder, path, suffix="_s").num_done == 1
    before = (folder / "a.npy").read_bytes()
    numbered_video(tmp_path / "other/a.mp4", seconds=2)
    with pytest.raises(HicoError, match=r"other/a\.mp4 and .*/a\.mp4, whose features are in .*a\.npy, have one id"):
        features_of(root, folder, tmp_path / "other/a.mp4")
    assert (folder / "a.npy").read_bytes() == before


def test_two_commands_do_not_write_into_one_folder(root: Path, tmp_path: Path) -> None:
    with (
        lock(tmp_path / ".lock", refusal=""),
        pytest.raises(HicoError, match="another hico command is writing features here"),
    ):
        extract(root, tmp_path)


def test_a_kill_between_a_file_and_its_line(root: Path, tmp_path: Path) -> None:
    extract(root, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in ("a.npy", "-b.npy")}
    lines = (tmp_path / "manifest.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "manifest.jsonl").write_bytes(lines[0] + lines[1][:100])
    (tmp_path / ".0123.tmp").write_bytes(b"what a killed writer left")
    summary, _ = extract(root, tmp_path)
    assert (summary.num_done, summary.num_unchanged) == (1, 1)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert len(manifest_of(tmp_path)) == 2
    assert not list(tmp_path.glob("*.tmp"))


def test_the_picture_is_that_of_the_run(root: Path, tmp_path: Path, model: HicoModel) -> None:
    """An encoder that was trained on crops of 64 pixels looks at 64, and the manifest says so."""
    numbered_video(tmp_path / "a.mp4", seconds=2, size="320x240")
    picture = Picture(73, 0.875, 1, 64, 0.5, 0.25)
    export_encoder(tmp_path / "encoder.safetensors", model.backbone, picture)
    extractor = FeatureExtractor.from_checkpoint(tmp_path / "encoder.safetensors", device="cpu")
    assert extractor.picture == picture
    config = load_config(overrides=["data.crop_size=64", "augment.mean=0.5", "augment.std=0.25"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save_checkpoint(
        tmp_path / "last.pt",
        model=model,
        optimizer=optimizer,
        progress=Progress(),
        config=config.model_dump(mode="json"),
    )
    assert FeatureExtractor.from_checkpoint(tmp_path / "last.pt", device="cpu").picture == picture
    cfg = json.dumps({"DATA": {"TRAIN_CROP_SIZE": 64, "MEAN": [0.5] * 3, "STD": [0.25] * 3}})
    theirs = {"model_state": export_state_dict(model.state_dict()), "cfg": cfg}
    torch.save(theirs, tmp_path / "theirs.pyth")
    assert FeatureExtractor.from_checkpoint(tmp_path / "theirs.pyth", device="cpu").picture == picture
    torch.save({**theirs, "cfg": json.dumps({"DATA": {"TRAIN_CROP_SIZE": "large"}})}, tmp_path / "wrong.pyth")
    with pytest.raises(HicoError, match="does not say rightly what its encoder sees"):
        FeatureExtractor.from_checkpoint(tmp_path / "wrong.pyth", device="cpu")
    extract_features(
        jobs_of_files([Source("a", tmp_path / "a.mp4")]),
        extractor=extractor,
        checkpoint=tmp_path / "encoder.safetensors",
        root=root,
        folder=tmp_path / "features",
        cache=NO_CACHE,
        workers=0,
        on_event=lambda event: None,
    )
    assert manifest_of(tmp_path / "features")["a"]["picture"] == picture._asdict()
