"""What the documentation shows runs as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from commands import hico
from made_videos import numbered_video

from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.training.checkpoint import export_encoder

DOCS = Path(__file__).parents[1] / "docs"


def test_the_python_of_the_python_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        numbered_video(tmp_path / f"videos/{number}.mp4", seconds=3)
    (tmp_path / "train.txt").write_text("0.mp4 0\n1.mp4 1\n")
    torch.manual_seed(0)
    export_encoder(tmp_path / "encoder.safetensors", S3DGTiny())
    monkeypatch.chdir(tmp_path)
    made = ("--checkpoint", "encoder.safetensors", "--name", "made", "--workers", "0")
    assert hico("extract-features", "videos", *made, root=tmp_path / "hico-data").returncode == 0
    examples = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    assert len(examples) >= 8
    names: dict[str, object] = {}
    for example in examples:
        exec(compile(example, "docs/python.md", "exec"), names)
    assert names["measured"].recall[1] == 1.0  # type: ignore[attr-defined]
    assert names["array"].shape == (9, 128)  # type: ignore[attr-defined]
    assert names["matches"][0].similarity == pytest.approx(1)  # type: ignore[index]
