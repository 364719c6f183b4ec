"""Nearest neighbours among labelled videos say how well features tell classes apart."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from made_videos import numbered_video
from torch.utils._python_dispatch import TorchDispatchMode

from hico_core.base.errors import HicoError
from hico_core.config import load_config
from hico_core.corpus.sources.ids import Source
from hico_core.data.pictures import picture_for
from hico_core.encoding.hardware import FP32
from hico_core.encoding.neighbours import knn_accuracy, nearest, read_features, unit_rows
from hico_core.encoding.windows import Views
from hico_core.model.s3dg import S3DG


def slow_accuracy(features: list[list[float]], labels: list[int], k: int) -> float:
    """The definition, one video at a time."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)

    right = 0
    for i, own in enumerate(features):
        near = sorted(((cosine(own, other), labels[j]) for j, other in enumerate(features) if j != i), reverse=True)[:k]
        votes: dict[int, float] = {}
        for similarity, label in near:
            votes[label] = votes.get(label, 0.0) + math.exp(similarity / 0.07)
        right += max(votes, key=lambda label: votes[label]) == labels[i]
    return right / len(labels)


@pytest.mark.parametrize("k", [1, 3, 20])
def test_accuracy_is_its_definition(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    labels = torch.randint(4, (30,), generator=generator)
    features = torch.randn(30, 5, generator=generator, dtype=torch.float64) + labels[:, None]
    accuracy = knn_accuracy(features, labels, k=k)
    assert accuracy == pytest.approx(slow_accuracy(features.tolist(), labels.tolist(), k))
    assert 0 < accuracy < 1


class Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation makes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = op(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_memory_grows_with_the_videos_not_with_their_square() -> None:
    """No similarities of all with all, and no votes of each neighbour for each class; in parts it is the same."""
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(3000, 8, generator=generator), torch.arange(3000) % 400
    with Largest() as watch:
        in_parts = knn_accuracy(features, labels, k=20)
    assert watch.elements <= 1200 * 3000
    first, *rest = nearest(features, features, k=20, without_itself=True)
    whole = (features @ features.T).fill_diagonal_(-torch.inf).topk(20, dim=1)
    assert torch.equal(first, whole.values) and torch.equal(rest[0], whole.indices)
    assert 0 <= in_parts < 1


def test_classes_that_lie_apart() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    assert knn_accuracy(features, torch.tensor([5, 5, 2, 2]), k=1) == 1.0
    assert knn_accuracy(features, torch.tensor([0, 1, 0, 1]), k=1) == 0.0


@pytest.mark.parametrize("length", [1e-15, 1e-3, 1e9])
def test_rows_of_any_length_become_units(length: float) -> None:
    """An untrained S3D-G gives rows as short as 1e-15."""
    rows_NF = torch.randn(3, 1024, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(unit_rows(rows_NF * length), rows_NF / rows_NF.norm(dim=1, keepdim=True))
    assert not unit_rows(torch.zeros(1, 4)).any()


def test_too_few_videos() -> None:
    with pytest.raises(HicoError, match=r"eval\.knn_list: only 1 of its videos can be read"):
        knn_accuracy(torch.ones(1, 4), torch.tensor([0]), k=1)


@pytest.mark.videos
def test_features_of_videos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Broken videos are named and left out; neither the order nor the encoder's mode changes."""
    numbered_video(tmp_path / "a.mp4", seconds=3)
    numbered_video(tmp_path / "b.mp4", seconds=1)
    (tmp_path / "bad.mp4").write_text("no video")
    videos = [
        Source(video_id=name, path=tmp_path / f"{name}.mp4", label=label)
        for label, name in enumerate(("a", "bad", "b"))
    ]
    config = load_config(overrides=["data.num_frames=8", "data.crop_size=32"])
    views = Views(1, config.data.num_frames, config.data.frame_stride, config.data.target_fps)
    picture = picture_for(config.data, config.augment)
    encoder = S3DG().train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    found = read_features(encoder, videos, views, picture, precision=FP32, workers=2)
    assert found.features.shape == (2, 1024)
    assert found.labels == [0, 2]
    assert "bad.mp4" in caplog.text
    assert encoder.training
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
