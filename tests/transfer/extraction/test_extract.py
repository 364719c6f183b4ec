"""A folder of features agrees with its manifest, whatever ended the command that wrote it."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from buckets import keys_in, make_bucket
from made_checkpoints import save_checkpoint
from made_videos import numbered_video
from torch import Tensor, nn

from hico_core.base.addresses import locate
from hico_core.base.choices import DType, FileFormat
from hico_core.base.errors import BadVideo, HicoError, UsageError
from hico_core.base.files import lock
from hico_core.base.tally import Summary, VideoEvent
from hico_core.checkpoints.content import Progress, export_encoder
from hico_core.config import load_config
from hico_core.corpus.index import build_index, read_index_table
from hico_core.corpus.sources.finding import find_sources
from hico_core.corpus.sources.ids import Source
from hico_core.corpus.split import split_videos
from hico_core.corpus.workspace.access import Shard
from hico_core.corpus.workspace.records import SplitOptions, sha256_of
from hico_core.data.pictures import Picture
from hico_core.data.videos import IndexedVideos
from hico_core.encoders.trained import hico_model
from hico_core.encoding import lanes
from hico_core.encoding.lanes import Part, Reading, WholeVideo
from hico_core.model.hico import HicoModel
from hico_core.model.pooling import PooledEncoder
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.transfer.extraction import dry_run
from hico_core.transfer.extraction.dry_run import dry_run_extraction
from hico_core.transfer.extraction.extract import ExtractionPolicy, Files, Likeness, extract_features
from hico_core.transfer.extraction.feature_files import read_array
from hico_core.transfer.extraction.jobs import FeatureJob, jobs_of_files, jobs_of_index, part_of
from hico_core.transfer.extraction.manifest import (
    check_features,
    load_features,
    pack_into_hdf5,
    read_manifest,
    require_features,
)
from hico_core.transfer.extraction.manifest import features_of as features_of_row
from hico_core.transfer.extraction.segments import jobs_of_segments
from hico_core.transfer.features import FeatureExtractor

pytestmark = pytest.mark.videos

HERE = ExtractionPolicy(workers=0)


class MeanColour(nn.Module):
    """An encoder whose features tell which frames a window has."""

    def forward(self, clips: Tensor) -> Tensor:
        return clips.mean(dim=(2, 3, 4), keepdim=True)


@pytest.fixture(scope="module")
def model() -> HicoModel:
    torch.manual_seed(0)
    return hico_model("s3dg-tiny").eval()


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
    root: Path,
    folder: Path,
    jobs: list[FeatureJob] | None = None,
    *,
    checksum: bool = False,
    shard: Shard | None = None,
    **names: str,
) -> tuple[Summary, list[VideoEvent]]:
    checkpoint = root.parent / "encoder.safetensors"
    events: list[VideoEvent] = []
    summary = extract_features(
        jobs_of_index(IndexedVideos(read_index_table(root), root=root)) if jobs is None else jobs,
        encoder=FeatureExtractor.from_checkpoint(checkpoint, device="cpu"),
        root=root,
        files=Files(folder, **names),  # type: ignore[arg-type]
        policy=replace(HERE, checksum=checksum, shard=shard),
        on_event=events.append,
    )
    return summary, events


def manifest_of(folder: Path) -> dict[str, dict[str, Any]]:
    return {row.video_id: row.model_dump() for row in read_manifest(folder).values()}


def test_likeness_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(rows, 5)) + 1 for rows in (1, 4, 2)]
    likeness = Likeness()
    for part in parts:
        likeness.add(part)
    rows = np.concatenate(parts)
    pairs = [
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
        for place, a in enumerate(rows)
        for other, b in enumerate(rows)
        if place != other
    ]
    assert likeness.num_videos == 3
    assert likeness.mean_similarity == pytest.approx(np.mean(pairs))


def test_an_encoder_that_tells_nothing_apart_is_told(
    root: Path, tmp_path: Path, model: HicoModel, caplog: pytest.LogCaptureFixture
) -> None:
    extract(root, tmp_path / "sound")
    assert "nearly alike" not in caplog.text
    state = {
        name: torch.zeros_like(v) if "units.3" in name and "bias" not in name else v
        for name, v in model.backbone.state_dict().items()
    }
    blind = S3DGTiny()
    blind.load_state_dict({name: v + 0.5 if name.endswith("bias") else v for name, v in state.items()})
    checkpoint = tmp_path / "blind.safetensors"
    export_encoder(checkpoint, blind)
    extract_features(
        jobs_of_index(IndexedVideos(read_index_table(root), root=root)),
        encoder=checkpoint,
        root=root,
        files=Files(tmp_path / "blind"),
        policy=HERE,
    )
    assert "features of 2 videos are nearly alike (mean cosine similarity 1.00000)" in caplog.text
    assert "blind.safetensors" in caplog.text


def test_files_and_manifest(root: Path, tmp_path: Path) -> None:
    summary, _ = extract(root, tmp_path, prefix="v_")
    assert (summary.num_done, summary.num_failed) == (2, 0)
    rows = manifest_of(tmp_path)
    assert rows.keys() == {"-b", "a"}
    for video_id, row in rows.items():
        array = np.load(tmp_path / f"v_{video_id}.npy")
        assert array.dtype == np.float32
        assert array.shape == (row["rows"], row["dim"]) == (len(row["start_seconds"]), 128)
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
    extractor = FeatureExtractor(PooledEncoder(MeanColour()), device=torch.device("cpu"))
    found = extractor.extract_all([job.video for job in jobs], workers=0)
    for job, of_clips in zip(jobs, found, strict=True):
        assert isinstance(job.source.path, Path)
        of_source = extractor.extract(job.source.path)
        assert not isinstance(of_clips, BadVideo)
        np.testing.assert_array_equal(of_clips.times, of_source.times)
        np.testing.assert_allclose(of_clips.array, of_source.array, atol=0.05)


def test_an_extractor_comes_from_a_file(root: Path) -> None:
    extractor = FeatureExtractor(PooledEncoder(MeanColour()), device=torch.device("cpu"))
    with pytest.raises(UsageError, match=r"make the extractor with FeatureExtractor\.from_checkpoint"):
        extract_features([], encoder=extractor, root=root)


def test_a_training_may_write_the_next_encoder_meanwhile(root: Path, tmp_path: Path, model: HicoModel) -> None:
    """The manifest has the hash of what was loaded, not of what lies there at the end."""
    checkpoint = tmp_path / "encoder.safetensors"
    export_encoder(checkpoint, model.backbone)
    loaded = sha256_of(checkpoint)
    extractor = FeatureExtractor.from_checkpoint(checkpoint, device="cpu")
    torch.manual_seed(2)
    export_encoder(checkpoint, S3DGTiny())
    assert sha256_of(checkpoint) != loaded
    jobs = jobs_of_files([Source(video_id="a", path=root.parent / "videos/v_a.mp4")])
    extract_features(jobs, encoder=extractor, root=root, files=Files(tmp_path / "features"), policy=HERE)
    assert manifest_of(tmp_path / "features")["a"]["checkpoint_sha256"] == loaded


def test_what_is_read_can_be_chosen_and_is_told(root: Path, tmp_path: Path) -> None:
    videos = IndexedVideos(read_index_table(root), root=root)
    extract(root, tmp_path)
    assert {row["read_from"] for row in manifest_of(tmp_path).values()} == {"clips"}
    summary, _ = extract(root, tmp_path, jobs_of_index(videos, read="sources"))
    assert (summary.num_done, summary.num_unchanged) == (2, 0)  # features of clips are not those of the files
    assert {row["read_from"] for row in manifest_of(tmp_path).values()} == {"sources"}
    of_files, _ = extract(
        root, tmp_path / "files", jobs_of_files([Source(video_id="a", path=root.parent / "videos/v_a.mp4")])
    )
    assert of_files.num_done == 1
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), np.load(tmp_path / "files/a.npy"))


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
    assert np.load(tmp_path / "-b.npy").shape == (manifest_of(tmp_path)["-b"]["rows"], 128)


@pytest.mark.parametrize("checksum", [False, True])
def test_a_video_that_changes_meanwhile_is_extracted_again(root: Path, tmp_path: Path, checksum: bool) -> None:
    """It is not known whether the old one or the new one was read, so its features are not taken for the new one's."""
    for name in ("a", "b"):
        copyfile(root.parent / "videos/v_a.mp4", tmp_path / f"{name}.mp4")
    numbered_video(tmp_path / "new.mp4", seconds=3)
    jobs = jobs_of_files([Source(video_id=name, path=tmp_path / f"{name}.mp4") for name in ("a", "b")])

    def change_b(event: VideoEvent) -> None:
        if event.video_id == "a":
            (tmp_path / "new.mp4").replace(tmp_path / "b.mp4")

    def run(on_event: Callable[[VideoEvent], None] = lambda event: None) -> Summary:
        return extract_features(
            jobs,
            encoder=FeatureExtractor.from_checkpoint(root.parent / "encoder.safetensors", device="cpu"),
            root=root,
            files=Files(tmp_path / "features"),
            policy=replace(HERE, checksum=checksum),
            on_event=on_event,
        )

    assert run(change_b).num_done == 2
    again = run()
    assert (again.num_done, again.num_unchanged) == (1, 1)
    assert run().num_unchanged == 2
    assert manifest_of(tmp_path / "features")["b"]["duration_seconds"] == pytest.approx(3)


def test_features_of_two_checkpoints_do_not_mix(root: Path, tmp_path: Path) -> None:
    extract(root, tmp_path)
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    export_encoder(other, S3DGTiny())
    with pytest.raises(HicoError, match="has features with checkpoint_sha256="):
        extract_features(
            [],
            encoder=FeatureExtractor.from_checkpoint(other, device="cpu"),
            root=root,
            files=Files(tmp_path),
        )


def test_features_of_two_frame_rates_do_not_mix(root: Path, tmp_path: Path) -> None:
    """Otherwise, the row numbers of some videos would stand for other times."""
    extract(root, tmp_path)
    other = FeatureExtractor.from_checkpoint(root.parent / "encoder.safetensors", fps=30.0, device="cpu")
    with pytest.raises(HicoError, match=r"has features with fps=15\.0, not 30\.0; use another --name"):
        extract_features([], encoder=other, root=root, files=Files(tmp_path))


def test_a_video_that_cannot_be_decoded_is_listed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    jobs = jobs_of_files(
        [Source(video_id="bad", path=tmp_path / "bad.mp4"), Source(video_id="a", path=root.parent / "videos/v_a.mp4")]
    )
    summary, events = extract(root, tmp_path / "features", jobs)
    assert (summary.num_done, summary.num_failed) == (1, 1)
    assert events[0].outcome == "failed" and "cannot be opened" in events[0].note
    lines = [json.loads(line) for line in (root / "failures.jsonl").read_text().splitlines()]
    assert [(line["source"], line["command"]) for line in lines] == [(str(tmp_path / "bad.mp4"), "extract-features")]
    assert sorted(p.name for p in (tmp_path / "features").iterdir()) == [
        *(".lock", ".manifest.lock", "a.npy", "manifest.jsonl")
    ]


def test_no_video_to_pack_is_a_failure_of_each(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    assert features_of(root, tmp_path / "features", tmp_path / "bad.mp4", file_format="hdf5").num_failed == 1
    assert not (tmp_path / "features/features.hdf5").exists()


@pytest.mark.parametrize(
    ("names", "other"),
    [({"prefix": "v_"}, "v_a.npy"), ({"file_format": "npz"}, "a.npz"), ({"file_format": "hdf5"}, None)],
)
def test_a_folder_has_each_video_once(root: Path, tmp_path: Path, names: dict[str, Any], other: str | None) -> None:
    path, folder = root.parent / "videos/v_a.mp4", tmp_path / "features"
    features_of(root, folder, path)
    if other is None:  # features.hdf5 beside the same files
        assert features_of(root, folder, path, **names).num_unchanged == 1
        assert features_of(root, folder, path, **names).num_unchanged == 1
        return
    with pytest.raises(HicoError, match=rf"has files such as a\.npy, not {other} .*; use another --name"):
        features_of(root, folder, path, **names)
    assert features_of(root, tmp_path / "other", path, **names).num_done == 1
    assert features_of(root, tmp_path / "other", path, **names).num_unchanged == 1


def features_of(root: Path, folder: Path, path: Path, *, checksum: bool = False, **names: str) -> Summary:
    return extract(root, folder, jobs_of_files([Source(video_id="a", path=path)]), checksum=checksum, **names)[0]  # type: ignore[arg-type]


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
    # Only touched: a hash tells that it is the same.
    hashed = tmp_path / "hashed"
    assert features_of(root, hashed, path, checksum=True).num_done == 1
    os.utime(path, (1, 1))
    assert features_of(root, hashed, path, checksum=True).num_unchanged == 1
    assert features_of(root, hashed, path).num_done == 1
    before = (folder / "a.npy").read_bytes()
    numbered_video(tmp_path / "other/a.mp4", seconds=2)
    with pytest.raises(
        HicoError, match=r"other/a\.mp4 and .*/a\.mp4, whose features are in .*a\.npy, have the same id"
    ):
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
    picture = Picture(short_side=73, crop_part=0.875, num_crops=1, size=64, mean=(0.5,) * 3, std=(0.25,) * 3)
    export_encoder(tmp_path / "encoder.safetensors", model.backbone, picture)
    extractor = FeatureExtractor.from_checkpoint(tmp_path / "encoder.safetensors", device="cpu")
    assert extractor.picture == picture
    settings = ["model.encoder=s3dg-tiny", "data.crop_size=64", "augment.mean=0.5", "augment.std=0.25"]
    config = load_config(overrides=settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    save_checkpoint(
        tmp_path / "last.pt",
        model=model,
        optimizer=optimizer,
        progress=Progress(),
        config=config.model_dump(mode="json"),
    )
    assert FeatureExtractor.from_checkpoint(tmp_path / "last.pt", device="cpu").picture == picture
    extract_features(
        jobs_of_files([Source(video_id="a", path=tmp_path / "a.mp4")]),
        encoder=extractor,
        root=root,
        files=Files(tmp_path / "features"),
        policy=HERE,
    )
    assert manifest_of(tmp_path / "features")["a"]["picture"] == picture.fields


@pytest.mark.parametrize("file_format", ["npy", "npz", "pt", "parquet"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_formats_hold_the_same_numbers(root: Path, tmp_path: Path, file_format: FileFormat, dtype: DType) -> None:
    path = tmp_path / "a.mp4"
    numbered_video(path, seconds=3)
    features_of(root, tmp_path / "plain", path)
    features_of(root, tmp_path / "other", path, file_format=file_format, dtype=dtype)
    expected = np.load(tmp_path / "plain/a.npy").astype(dtype)
    np.testing.assert_array_equal(read_array(tmp_path / f"other/a.{file_format}"), expected)
    table = load_features(tmp_path / "other")
    np.testing.assert_array_equal(table.array, expected)
    assert table.rows["video_id"].tolist() == ["a"] * 3
    np.testing.assert_allclose(table.rows["start_seconds"], np.arange(3) * 16 / 15)
    if file_format == "npz":  # as OpenTAD reads it
        assert np.load(tmp_path / "other/a.npz")["feats"].shape == expected.shape
    if file_format == "parquet":
        frame = pd.read_parquet(tmp_path / "other/a.parquet")
        assert list(frame.columns) == ["video_id", "start_seconds", "end_seconds", "feature"]


def test_hdf5_holds_all_as_actionformer_reads_it(root: Path, tmp_path: Path) -> None:
    extract(root, tmp_path, prefix="v_")
    pack_into_hdf5(tmp_path)
    with h5py.File(tmp_path / "features.hdf5") as packed:
        assert set(packed) == {"v_a", "v_-b"}
        np.testing.assert_array_equal(packed["v_a"][()], np.load(tmp_path / "v_a.npy"))


def test_shards_at_once_are_the_whole(root: Path, tmp_path: Path) -> None:
    """Two commands write into one folder at the same time, each its part; others that would write more are refused."""
    extract(root, tmp_path / "whole")
    folder = tmp_path / "shards"
    done = 0
    for number in (1, 2):
        with lock(folder / f".shard-{3 - number}-of-2.lock", refusal=""):  # as if the other shard was at work
            done += extract(root, folder, shard=Shard(number, 2))[0].num_done
            for other in (None, Shard(1, 3)):
                with pytest.raises(HicoError, match="another hico command is writing features here"):
                    extract(root, folder, shard=other)
    assert done == 2
    for name in ("a.npy", "-b.npy"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert manifest_of(folder).keys() == manifest_of(tmp_path / "whole").keys()
    assert extract(root, folder)[0].num_unchanged == 2


def test_what_is_wrong_with_a_folder_is_one_line(root: Path, tmp_path: Path) -> None:
    extract(root, tmp_path)
    manifest = (tmp_path / "manifest.jsonl").read_text()
    assert not list(check_features(tmp_path))

    (tmp_path / "manifest.jsonl").write_text(manifest.replace('"manifest_version": 2', '"manifest_version": 1'))
    with pytest.raises(HicoError, match=r"another version of hico \(manifest version 1, not 2\)"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_text(manifest.replace('"file": "a.npy"', '"file": "../a.npy"'))
    with pytest.raises(HicoError, match="is not the name of a file in this folder"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.jsonl").write_text(manifest.replace('"window": 16', '"window": "x"', 1))
    with pytest.raises(HicoError, match=r"has a damaged line \(window\)"):
        read_manifest(tmp_path)
    other = json.loads(manifest.splitlines()[0]) | {"checkpoint_sha256": "0", "file": "c.npy", "video_id": "c"}
    (tmp_path / "manifest.jsonl").write_text(manifest + json.dumps(other) + "\n")
    with pytest.raises(HicoError, match=r"a\.npy|-b\.npy and c\.npy come from different encoders"):
        require_features(tmp_path)
    (tmp_path / "manifest.jsonl").write_text(manifest)

    good = (tmp_path / "a.npy").read_bytes()
    row = next(row for row in read_manifest(tmp_path).values() if row.video_id == "a")
    array = np.load(tmp_path / "a.npy")
    for damage, problem in (
        (good[:-10], "is damaged"),
        (good[:50], "is damaged"),
        (b"", "is damaged"),
        (None, "no such file"),
    ):
        (tmp_path / "a.npy").unlink(missing_ok=True)
        if damage is not None:
            (tmp_path / "a.npy").write_bytes(damage)
        with pytest.raises(HicoError, match=problem):
            features_of_row(tmp_path, row)
        assert [name for name, _ in check_features(tmp_path)] == ["a.npy"]
    array[0, 0] = np.nan
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(HicoError, match="has values that are not finite"):
        load_features(tmp_path)
    assert list(check_features(tmp_path)) == [("a.npy", "has changed since it was written")]
    np.save(tmp_path / "a.npy", array[1:])
    with pytest.raises(HicoError, match="as its manifest says"):
        load_features(tmp_path, video_ids=["a"])
    (tmp_path / "a.npy").write_bytes(good)
    np.save(tmp_path / "extra.npy", array)
    assert list(check_features(tmp_path)) == [("extra.npy", "is not in the manifest")]
    with pytest.raises(HicoError, match="has no features of 1 video, such as 'nobody'"):
        load_features(tmp_path, video_ids=["nobody"])
    with pytest.raises(HicoError, match="no features here"):
        require_features(tmp_path / "nowhere")


def test_the_dry_run_tells_what_the_extraction_makes(root: Path, tmp_path: Path) -> None:
    extractor = FeatureExtractor.from_checkpoint(root.parent / "encoder.safetensors", device="cpu", batch_size=2)
    jobs = jobs_of_index(IndexedVideos(read_index_table(root), root=root))
    plan = dry_run_extraction(jobs, extractor=extractor, files=Files(dtype="float16"), workers=0)
    summary, _ = extract(root, tmp_path / "folder", dtype="float16")
    assert (plan.num_videos, plan.num_unknown, plan.num_rows) == (2, 0, summary.num_parts)
    assert plan.num_bytes == sum(np.load(path).nbytes for path in (tmp_path / "folder").glob("*.npy"))
    assert plan.hours > 0 and plan.rows_per_second == pytest.approx(
        1 / (plan.reading_seconds + plan.encoding_seconds), rel=1e-6
    )
    of_files = jobs_of_files(
        [Source(video_id="a", path=root.parent / "videos/v_a.mp4"), Source(video_id="none", path=tmp_path / "none.mp4")]
    )
    plan = dry_run_extraction(of_files, extractor=extractor, files=Files())
    assert (plan.num_videos, plan.num_unknown, plan.num_rows) == (2, 1, 7)
    with pytest.raises(HicoError, match="none of the videos can be read"):
        dry_run_extraction(of_files[1:], extractor=extractor, files=Files())
    with pytest.raises(HicoError, match="there are no videos to measure"):
        dry_run_extraction([], extractor=extractor, files=Files())


def test_sources_of_an_index_are_as_long_as_their_headers_say(root: Path, tmp_path: Path) -> None:
    extractor = FeatureExtractor.from_checkpoint(root.parent / "encoder.safetensors", device="cpu", batch_size=2)
    jobs = jobs_of_index(IndexedVideos(read_index_table(root), root=root), read="sources")
    summary, _ = extract(root, tmp_path / "folder", jobs)
    assert dry_run_extraction(jobs, extractor=extractor, files=Files(), workers=0).num_rows == summary.num_parts
    (tmp_path / "segments.csv").write_text("video,start,end,label\na,1,2,run\na,6,60,bow\n")
    limited, remarks = jobs_of_segments(jobs, tmp_path / "segments.csv", num_windows=None)
    assert [job.video.spans.seconds[0] for job in limited if job.video.spans] == [(1.0, 2.0)]
    assert "cut 1 segment to the length of the video" in remarks


def test_the_dry_run_leaves_out_what_a_decoder_chokes_on(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parts_of_video(number: int, video: WholeVideo, reading: Reading) -> Iterator[Part]:
        if video.path.name == "bad.mp4":
            raise ValueError("not enough values to unpack")
        return lanes.parts_of_video(number, video, reading)

    monkeypatch.setattr(dry_run, "parts_of_video", parts_of_video)
    extractor = FeatureExtractor.from_checkpoint(root.parent / "encoder.safetensors", device="cpu", batch_size=2)
    paths = (tmp_path / "bad.mp4", root.parent / "videos/v_a.mp4")
    jobs = jobs_of_files([Source(video_id=path.stem, path=path) for path in paths])
    assert dry_run_extraction(jobs, extractor=extractor, files=Files(), workers=0).rows_per_second > 0


@pytest.mark.cluster
def test_in_a_bucket_a_whole_run_takes_in_what_shards_wrote(root: Path, tmp_path: Path, buckets: str) -> None:
    """A line of a shard must not count against a later one of another command."""
    make_bucket("features")
    folder = locate("s3://features/made")
    path = tmp_path / "a.mp4"
    numbered_video(path, seconds=2)
    jobs = jobs_of_files([Source(video_id="a", path=path)])
    shards = [Shard(number, 2) for number in (1, 2)]
    (own,) = (shard for shard in shards if part_of(jobs, shard))
    for shard in shards:
        extract(root, folder, jobs, shard=shard)  # type: ignore[arg-type]
    assert f"made/manifest-{own.number}-of-2.jsonl" in keys_in("features")
    assert extract(root, folder, jobs)[0].num_unchanged == 1  # type: ignore[arg-type]
    numbered_video(path, seconds=3)
    assert extract(root, folder, jobs)[0].num_done == 1  # type: ignore[arg-type]
    assert extract(root, folder, jobs)[0].num_unchanged == 1  # type: ignore[arg-type]
    assert sorted(keys_in("features")) == ["made/a.npy", "made/manifest.jsonl"]


def test_features_that_are_not_finite_are_the_fault_of_the_encoder(root: Path, tmp_path: Path) -> None:
    backbone = hico_model("s3dg-tiny").eval().backbone
    with torch.no_grad():
        dict(backbone.named_parameters())["units.3.0.bn2.bias"].fill_(3e38)  # the mean of such numbers is infinite
    export_encoder(tmp_path / "encoder.safetensors", backbone)
    numbered_video(tmp_path / "a.mp4", seconds=2)
    events: list[VideoEvent] = []
    extract_features(
        jobs_of_files([Source(video_id="a", path=tmp_path / "a.mp4")]),
        encoder=tmp_path / "encoder.safetensors",
        root=root,
        files=Files(tmp_path / "features"),
        policy=HERE,
        on_event=events.append,
    )
    assert [event.note for event in events] == [
        "has features that are not finite (NaN or infinite); its encoder is broken"
    ]


def test_features_that_a_file_cannot_hold_are_a_failure_of_their_video(root: Path, tmp_path: Path) -> None:
    """Half precision ends at 65,504: what were infinite in the file would be refused by whoever reads it."""
    backbone = hico_model("s3dg-tiny").eval().backbone
    with torch.no_grad():
        dict(backbone.named_parameters())["units.3.0.bn2.bias"].fill_(1e6)
    export_encoder(tmp_path / "encoder.safetensors", backbone)
    numbered_video(tmp_path / "a.mp4", seconds=2)
    found: dict[str, Summary] = {}
    dtypes: tuple[DType, DType] = ("float16", "float32")
    for dtype in dtypes:
        found[dtype] = extract_features(
            jobs_of_files([Source(video_id="a", path=tmp_path / "a.mp4")]),
            encoder=FeatureExtractor.from_checkpoint(tmp_path / "encoder.safetensors", device="cpu"),
            root=root,
            files=Files(tmp_path / dtype, dtype=dtype),
            policy=HERE,
        )
    assert found["float16"].num_failed == 1 and found["float32"].num_failed == 0
    assert not list((tmp_path / "float16").glob("*.npy")) and not read_manifest(tmp_path / "float16")
    (row,) = read_manifest(tmp_path / "float32").values()
    assert features_of_row(tmp_path / "float32", row).max() > 65_504
