"""The encoder gives what the authors' gives, block by block, forwards and backwards."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from goldens import assert_close, clip_input, load_arrays, load_json, rng, weight

from hico_core.checkpoints.authors_names import import_state_dict
from hico_core.checkpoints.reading import load_exactly
from hico_core.model.s3dg import S3DG

CASES = ["s3dg_forward_a", "s3dg_forward_b", "s3dg_forward_nogating"]


@pytest.mark.parametrize("entry", load_json("weight_rule_check.json")["tensors"], ids=lambda e: e["name"])
def test_weight_rule(entry: dict[str, Any]) -> None:
    value = weight(entry["seed"], entry["name"], tuple(entry["shape"]))
    np.testing.assert_allclose(value.ravel()[:4], entry["first4"], rtol=0, atol=1e-12)
    assert value.astype(np.float64).sum() == pytest.approx(entry["sum_f64"], abs=1e-9)


def filled_backbone(seed: int, *, gating: bool) -> S3DG:
    names = load_json("state_dict_names.json")["pretrain_hico"]
    theirs = {
        name: torch.from_numpy(weight(seed, name, tuple(shape)))
        for name, shape, kind in names
        if kind != "alias" and name.startswith("backbone.") and (gating or ".gating_" not in name)
    }
    ours = {name.removeprefix("backbone."): value for name, value in import_state_dict(theirs).items()}
    backbone = S3DG(gating=gating)
    load_exactly(backbone, ours, origin="golden")
    return backbone.double()


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, Any], S3DG, torch.Tensor]]:
    golden = load_arrays(f"{request.param}.npz")
    seed, shape = int(golden["seed"]), tuple(golden["shape"])
    made = clip_input(seed, shape)
    np.testing.assert_array_equal(made.ravel()[:8], golden["input_first8"])
    yield golden, filled_backbone(seed, gating=bool(golden["gating"])), torch.from_numpy(made).double()


def blocks_of(backbone: S3DG, clips: torch.Tensor) -> dict[str, torch.Tensor]:
    blocks = {}
    x = clips
    for name, unit in backbone.named_children():
        x = blocks[name] = unit(x)
    return blocks


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_every_block(case: tuple[dict[str, Any], S3DG, torch.Tensor], mode: str) -> None:
    golden, backbone, clips = case
    backbone.train(mode == "train")
    statistics = {name: value.clone() for name, value in backbone.state_dict().items()}
    with torch.no_grad():
        blocks = blocks_of(backbone, clips)
    assert list(blocks) == list(golden["block_names"])
    for i, block in enumerate(blocks.values()):
        assert tuple(block.shape) == tuple(golden[f"block_shape_{mode}"][i])
        assert_close(block.mean(), golden[f"block_mean_{mode}"][i], 1e-9)
        assert_close(block.std(correction=0), golden[f"block_std_{mode}"][i], 1e-9)
        assert_close(block.norm(), golden[f"block_norm_{mode}"][i], 1e-9)
        assert_close(block[0].flatten()[:8], golden[f"block_first8_{mode}"][i], 1e-9)
    features = list(blocks.values())[-1].mean(dim=(2, 3, 4))
    assert_close(features, golden[f"features_{mode}"], 1e-9)
    if mode == "train":
        after = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
        for name, norm in zip(golden["bn_stat_names_after_train"], golden["bn_stat_norm_after_train"], strict=True):
            assert_close(after[name].norm(), norm, 1e-9)
    backbone.load_state_dict(statistics)


@pytest.mark.slow
def test_gradients(case: tuple[dict[str, Any], S3DG, torch.Tensor]) -> None:
    golden, backbone, clips = case
    if "grad_names" not in golden:
        assert not bool(golden["gating"])
        return
    backbone.train()
    clips = clips.clone().requires_grad_()
    features = backbone(clips).mean(dim=(2, 3, 4))
    cotangent = torch.from_numpy(rng(int(golden["seed"]), "cotangent").standard_normal(features.shape))
    (features * cotangent).sum().backward()
    parameters = dict(backbone.named_parameters())
    floor = golden["grad_norm"].max() * 1e-9
    for name, norm in zip(golden["grad_names"], golden["grad_norm"], strict=True):
        gradient = parameters[name.removeprefix("backbone.")].grad
        assert gradient is not None
        if norm > floor:
            assert float(gradient.norm()) == pytest.approx(norm, rel=1e-7)
    assert clips.grad is not None
    assert float(clips.grad.norm()) == pytest.approx(float(golden["input_grad_norm"]), rel=1e-7)
    backbone.zero_grad()


def test_output_shape_and_initial_weights() -> None:
    backbone = S3DG()
    assert backbone(torch.zeros(1, 3, 16, 64, 96)).shape == (1, 1024, 2, 2, 3)
    assert 0.009 < float(backbone.Conv_2c.conv1.weight.detach().std()) < 0.011
