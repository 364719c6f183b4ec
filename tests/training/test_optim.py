"""LARS step by step as the authors', and the same groups of parameters."""

import json

import pytest
import torch
from goldens import assert_close, load_arrays, load_json

from hico_core.config import OptimConfig
from hico_core.interop.weights import export_state_dict
from hico_core.model.encoders import hico_model
from hico_core.model.hico import HicoModel
from hico_core.training.optim import LARS, build_optimizer, parameter_groups

GOLDEN = load_arrays("lars.npz")


def test_adamw_decays_all_but_batch_norms_and_starts_at_the_warm_up() -> None:
    optimizer = build_optimizer(hico_model("s3dg-tiny"), OptimConfig(name="adamw", weight_decay=0.1))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {(group["weight_decay"], group["lr"]) for group in optimizer.param_groups} == {(0.0, 0.001), (0.1, 0.001)}
    assert isinstance(build_optimizer(hico_model("s3dg-tiny"), OptimConfig()), LARS)


def test_lars_steps() -> None:
    parameters = {name: torch.nn.Parameter(torch.from_numpy(GOLDEN[f"init/{name}"])) for name in GOLDEN["names"]}
    groups = [
        {**group, "params": [parameters[name] for name in group["names"]]}
        for group in json.loads(str(GOLDEN["groups"]))
    ]
    optimizer = LARS(
        groups,
        lr=1.0,
        momentum=float(GOLDEN["momentum"]),
        eta=float(GOLDEN["eta"]),
        nesterov=bool(GOLDEN["nesterov"]),
    )
    for step, lr in enumerate(GOLDEN["lrs"]):
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
        for name, parameter in parameters.items():
            gradient = GOLDEN.get(f"step{step}/grad/{name}")
            parameter.grad = None if gradient is None else torch.from_numpy(gradient)
        optimizer.step()
        for name, parameter in parameters.items():
            assert_close(parameter, GOLDEN[f"step{step}/param/{name}"], 1e-12)


def slow_lars(w: float, gradients: list[float], lr: float, momentum: float, decay: float, nesterov: bool) -> float:
    buffer = None
    for g in gradients:
        denominator = abs(g) + decay * abs(w)
        trust = 0.001 * abs(w) / denominator if denominator else 1.0
        u = (g + decay * w) * trust * lr
        buffer = u if buffer is None else momentum * buffer + u
        w -= u + momentum * buffer if nesterov else buffer
    return w


@pytest.mark.parametrize("nesterov", [True, False])
def test_lars_equals_its_formula(nesterov: bool) -> None:
    weight = torch.nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = LARS([weight], lr=0.5, momentum=0.8, weight_decay=0.1, nesterov=nesterov)
    gradients = [1.0, -0.5, 0.0, 3.0]
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    assert weight.item() == pytest.approx(slow_lars(2.0, gradients, 0.5, 0.8, 0.1, nesterov), rel=1e-12)


def test_lars_of_a_group_is_that_of_each_parameter() -> None:
    """However they lie in memory, also where that changes; while one has no gradient; and from a loaded state."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    shapes = [(5,), (4, 3, 2, 3, 3), (6, 4, 1, 1, 1), (3, 7)]
    together = [torch.nn.Parameter(drawn(*shape)) for shape in shapes]
    alone = [torch.nn.Parameter(weight.detach().clone()) for weight in together]
    optimizer = LARS(together, lr=0.5, weight_decay=0.1)
    each = [LARS([weight], lr=0.5, weight_decay=0.1) for weight in alone]
    for step in range(8):
        if step == 2:
            for weight in together[1:3]:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)
        if step == 5:
            state = optimizer.state_dict()
            optimizer = LARS(together, lr=0.5, weight_decay=0.1)
            optimizer.load_state_dict(state)
        for number, (one, other) in enumerate(zip(together, alone, strict=True)):
            gradient = drawn(*one.shape)
            if step == 4 and gradient.dim() == 5:
                gradient = gradient.contiguous(memory_format=torch.channels_last_3d)
            skipped = step == 6 and number == 3
            one.grad, other.grad = (None, None) if skipped else (gradient, gradient.contiguous())
        optimizer.step()
        for own in each:
            own.step()
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one.detach(), other.detach())


@pytest.mark.parametrize(("zero_norm", "moves"), [("authors", False), ("unscaled", True)])
def test_a_tensor_of_norm_zero(zero_norm: str, moves: bool) -> None:
    bias = torch.nn.Parameter(torch.zeros(3))
    optimizer = LARS([bias], lr=0.5, zero_norm=zero_norm)  # type: ignore[arg-type]
    bias.grad = torch.ones(3)
    optimizer.step()
    assert bool((bias != 0).all()) == moves


def test_closures_are_refused() -> None:
    with pytest.raises(ValueError, match="closures"):
        LARS([torch.nn.Parameter(torch.zeros(1))], lr=1.0).step(lambda: 0.0)


RECIPES = {
    "pt-hacs/s3dg-hico-s": (True, False),
    "pt-hacs/s3dg-hico-l": (True, True),
    "pt-hacs/s3dg-baseline-s": (False, False),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_groups(recipe: str) -> None:
    topical, lars_exclude_bn = RECIPES[recipe]
    model = HicoModel(topical=topical)
    # Our names stand at the same places of the state as theirs.
    exported = export_state_dict(model.state_dict())
    of_storage = {value.data_ptr(): name for name, value in exported.items() if ".block" not in name}
    groups = parameter_groups(model, weight_decay=1e-6, lars_exclude_bn=lars_exclude_bn)
    theirs = [group for group in load_json("param_groups.json")[recipe]["groups"] if group["params"]]
    assert len(groups) == len(theirs)
    for ours, golden in zip(groups, theirs, strict=True):
        assert [of_storage[p.data_ptr()] for p in ours["params"]] == golden["params"]
        assert ours["weight_decay"] == golden["weight_decay"]
        assert ours["lars_exclude"] == bool(golden.get("lars_exclude"))
