"""A data set has the videos of a folder, and what its files hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_videos import numbered_video
from torch.utils.data import DataLoader

from hico_core.base.errors import HicoError
from hico_core.checkpoints.content import export_encoder
from hico_core.corpus.sources.finding import find_sources
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.transfer.extraction.extract import ExtractionPolicy, Files, extract_features
from hico_core.transfer.extraction.jobs import jobs_of_files
from hico_core.transfer.extraction.manifest import load_features
from hico_core.transfer.feature_dataset import FeatureDataset
from hico_core.transfer.features import FeatureExtractor


@pytest.mark.videos
def test_items_are_what_the_files_hold(tmp_path: Path) -> None:
    for number in (1, 0):
        numbered_video(tmp_path / f"videos/{number}.mp4", seconds=2 + number)
    export_encoder(tmp_path / "encoder.safetensors", S3DGTiny())
    extract_features(
        jobs_of_files(find_sources([str(tmp_path / "videos")])),
        encoder=FeatureExtractor.from_checkpoint(tmp_path / "encoder.safetensors", stride=8, device="cpu"),
        root=tmp_path,
        files=Files(tmp_path / "features"),
        policy=ExtractionPolicy(workers=0),
    )
    videos = FeatureDataset(tmp_path / "features")
    table = load_features(tmp_path / "features")
    assert repr(videos) == f"FeatureDataset({tmp_path / 'features'}, 2 videos)"
    items = list(DataLoader(videos, batch_size=None))
    assert [item.video_id for item in items] == ["0", "1"]
    assert torch.equal(torch.cat([item.features for item in items]), torch.from_numpy(table.array))
    times = np.concatenate([item.times.numpy() for item in items])
    assert np.array_equal(times, table.rows[["start_seconds", "end_seconds"]].to_numpy())
    assert [item.labels for item in items] == [[], []]
    (tmp_path / "features/1.npy").write_bytes(b"")
    with pytest.raises(HicoError, match=r"1\.npy"):
        videos[1]


def test_a_folder_without_features(tmp_path: Path) -> None:
    with pytest.raises(HicoError, match="no features here"):
        FeatureDataset(tmp_path)
