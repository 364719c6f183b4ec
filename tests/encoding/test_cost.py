"""Costs are those that an independent count gives."""

import pytest
import torch
from torch import Tensor, nn

from hico_core.encoding.cost import activation_bytes, measure_cost
from hico_core.model.s3dg import S3DG
from hico_core.model.s3dg_tiny import S3DGTiny


def operations_by_hand(model: nn.Module, clip: Tensor) -> int:
    """Two a multiplication, layer by layer, from the shapes of weights and outputs."""
    total = 0

    def count(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv3d):
            total += 2 * output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += 2 * output.numel() * module.in_features

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        model(clip)
    return total


@pytest.mark.slow
@pytest.mark.parametrize(("model", "gflops"), [(S3DG(), 8.95), (S3DGTiny(), 0.853)])
def test_operations_and_parameters(model: nn.Module, gflops: float) -> None:
    cost = measure_cost(model, num_frames=16, size=112)
    model = model.to(memory_format=torch.contiguous_format)  # else pointwise convolutions pass their layer by
    assert cost.gflops_per_clip * 1e9 == operations_by_hand(model, torch.zeros(1, 3, 16, 112, 112))
    assert cost.gflops_per_clip == pytest.approx(gflops, rel=1e-3)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.clips_per_second > 0 and cost.clip == [3, 16, 112, 112]


def test_activations_are_counted_once() -> None:
    model = nn.Sequential(nn.Conv3d(3, 2, 1), nn.ReLU(inplace=True), nn.Conv3d(2, 1, 1))
    assert activation_bytes(model, torch.zeros(1, 3, 2, 4, 4)) == 4 * (2 * 32 + 1 * 32)
