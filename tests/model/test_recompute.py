"""An encoder that computes its units twice learns the same, and keeps less meanwhile."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hico_core.encoders.table import entry_of
from hico_core.model.recompute import recompute_units


def built(name: str, *, recompute: bool) -> nn.Module:
    torch.manual_seed(0)
    encoder = entry_of(name).build()
    if recompute:
        recompute_units(encoder)
    return encoder


class Block(nn.Module):
    """Counts its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.passes = nn.Conv3d(3, 3, 1), nn.BatchNorm3d(3), 0

    def forward(self, x: Tensor, *, factor: float = 1.0) -> Tensor:
        self.passes += 1
        return factor * self.norm(self.conv(x))


class Blocks(nn.Module):
    """Blocks in containers of any kind; one of them is there twice."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), nn.ModuleDict({"a": Block()}), nn.Sequential(Block())])
        self.again = nn.ModuleList(self.blocks[:1])

    def forward(self, x: Tensor) -> Tensor:
        first, named, last = self.blocks
        (named_block,) = named.children()
        return last(named_block(first(x), factor=2.0))


@pytest.mark.parametrize("wrapped", [False, True])
def test_blocks_in_lists_are_recomputed(wrapped: bool) -> None:
    encoder = Blocks()
    recompute_units(nn.Sequential(encoder) if wrapped else encoder)
    encoder(torch.randn(2, 3, 2, 4, 4)).sum().backward()
    blocks = [module for module in encoder.modules() if isinstance(module, Block)]
    assert [block.passes for block in blocks] == [2, 2, 2]
    assert all(block.norm.num_batches_tracked == 1 for block in blocks)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s3dg", "torchvision:s3d"])
def test_recomputing_changes_nothing(name: str) -> None:
    """Gradients and running statistics are those of an encoder that keeps everything."""
    clips = torch.randn(2, 3, 8, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    outcomes = []
    for recompute in (False, True):
        encoder = built(name, recompute=recompute).double().train()
        maps = encoder(clips)
        F.mse_loss(maps, torch.ones_like(maps)).backward()
        outcomes.append((dict(encoder.named_buffers()), {name: p.grad for name, p in encoder.named_parameters()}))
    (buffers, gradients), (buffers_again, gradients_again) = outcomes
    assert all(torch.equal(buffers[name], buffers_again[name]) for name in buffers)
    for name, gradient in gradients.items():
        assert gradient is not None
        torch.testing.assert_close(gradients_again[name], gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["s3dg", "torchvision:r3d_18", "torchvision:s3d"])
def test_recomputing_keeps_less(name: str) -> None:
    """Fewer bytes are held for the backward pass."""
    clips = torch.randn(2, 3, 8, 64, 64)
    held = []
    for recompute in (False, True):
        encoder = built(name, recompute=recompute).train()
        own = {p.untyped_storage().data_ptr() for p in encoder.parameters()}
        sizes: dict[int, int] = {}

        def note(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            encoder(clips)
        held.append(sum(size for address, size in sizes.items() if address not in own))
    assert held[1] < 0.6 * held[0]


def test_evaluation_recomputes_nothing() -> None:
    encoder = built("s3dg", recompute=True).eval()
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm3d)]
    with torch.no_grad():
        encoder(torch.randn(1, 3, 8, 32, 32))
    assert all(norm.momentum == 0.1 and norm.num_batches_tracked == 0 for norm in norms)
