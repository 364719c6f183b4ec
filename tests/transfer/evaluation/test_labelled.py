"""Labelled rows: whatever file an encoder comes in, it looks at clips as it was trained on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_checkpoints import save_checkpoint
from made_videos import numbered_video

from hico_core.checkpoints.content import Progress, export_encoder
from hico_core.checkpoints.frozen import load_frozen
from hico_core.checkpoints.reading import encoder_of, read_checkpoint
from hico_core.config import load_config
from hico_core.data.pictures import clip_shape_for, picture_for
from hico_core.encoders.trained import hico_model
from hico_core.encoding.lanes import WholeVideo
from hico_core.transfer.evaluation.labelled import LabelledVideo, rows_from_videos

pytestmark = pytest.mark.videos


def test_a_checkpoint_and_its_export_look_at_the_same_clips(tmp_path: Path) -> None:
    config = load_config(
        overrides=["model.encoder=s3dg-tiny", "data.num_frames=8", "data.frame_stride=2", "data.crop_size=48"]
    )
    torch.manual_seed(0)
    model = hico_model("s3dg-tiny", topical=True)
    save_checkpoint(
        tmp_path / "last.pt",
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        progress=Progress(),
        config=config.model_dump(mode="json"),
    )
    picture = picture_for(config.data, config.augment)
    backbone = encoder_of(read_checkpoint(tmp_path / "last.pt"))
    export_encoder(tmp_path / "encoder.safetensors", backbone, picture, clip_shape_for(config.data))
    export_encoder(tmp_path / "says-nothing.safetensors", backbone, picture)
    video = tmp_path / "a.mp4"
    numbered_video(video, seconds=5)

    def rows(name: str) -> np.ndarray:
        videos = [LabelledVideo("a", 0, WholeVideo(video, []))]
        found = rows_from_videos(load_frozen(str(tmp_path / name)), videos, num_views=3, device="cpu", workers=0)
        return found.features

    np.testing.assert_array_equal(rows("encoder.safetensors"), rows("last.pt"))
    assert not np.allclose(rows("says-nothing.safetensors"), rows("last.pt"))
