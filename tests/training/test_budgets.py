"""What a step of the paper's model may take of memory, and that it compiles as a whole: found without a GPU."""

import pytest
import torch
from pretended_group import group_of
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from hico_core.config import preset
from hico_core.model.hico import HicoModel
from hico_core.model.recompute import recompute_units
from hico_core.model.s3dg import S3DG
from hico_core.model.s3dg_tiny import S3DGTiny
from hico_core.training.optim import build_optimizer
from hico_core.training.shared_norm import share_batch_norms
from hico_core.training.step import compute_loss

pytestmark = pytest.mark.slow


def peak_gb(videos: int, *, recompute: bool) -> float:
    """Of a step in bfloat16 with three clips of 16 x 112 x 112 a video, weights and momentum included."""
    config = preset("hacs-hico-s")
    with FakeTensorMode():
        model = HicoModel(S3DG()).train()
        if recompute:
            recompute_units(model.backbone)
        optimizer = build_optimizer(model, config.optim)
        clips = torch.zeros(videos, 3, 3, 16, 112, 112)
        tracker = MemTracker()
        tracker.track_external(model, optimizer, clips)
        with tracker:
            with torch.autocast("cpu", torch.bfloat16):
                outputs = model(clips)
            compute_loss(outputs, config.loss, clips_per_video=3).total.backward()
            optimizer.step()
    (found,) = tracker.get_tracker_snapshot("peak").values()
    return float(found["Total"]) / 1e9


@pytest.mark.parametrize(("videos", "recompute", "budget"), [(32, False, 9.5), (32, True, 3.2)])
def test_memory_of_a_step(videos: int, recompute: bool, budget: float) -> None:
    """In GB, as in docs/benchmarks-gpu.md. 128 videos take four times as much, since all but 0.2 GB grows with them."""
    assert budget * 0.8 < peak_gb(videos, recompute=recompute) < budget


def graphs_of(encoder: nn.Module) -> int:
    """How many graphs three steps make."""
    torch._dynamo.reset()
    counter = CompileCounter()
    encoder.compile(backend=counter)
    clips = torch.randn(2, 3, 8, 32, 32).contiguous(memory_format=torch.channels_last_3d)
    for _ in range(3):
        encoder(clips).sum().backward()
    return counter.frame_count


def test_an_encoder_is_one_graph_and_stays_it() -> None:
    assert graphs_of(S3DG().to(memory_format=torch.channels_last_3d)) == 1


def test_so_it_is_among_several_processes() -> None:
    with group_of(8):
        assert graphs_of(share_batch_norms(S3DGTiny().to(memory_format=torch.channels_last_3d))) == 1


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # that PyTorch's compiler looks at
def test_a_unit_that_breaks_the_graph_would_be_seen() -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv3d(3, 4, 1), nn.Conv3d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            torch._dynamo.graph_break()
            return self.second(x)

    assert graphs_of(Broken()) > 1
