"""LARS step by step as the authors', and the same groups of parameters."""

import json
from typing import Any

import pytest
import torch
from goldens import assert_close, load_arrays, load_json
from torch import Tensor

from hico_core.checkpoints.authors_names import export_state_dict
from hico_core.config import OptimConfig
from hico_core.encoders.trained import hico_model
from hico_core.model.hico import HicoModel
from hico_core.training.optim import LARS, build_optimizer, parameter_groups, set_rate

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


@pytest.mark.parametrize("lars_exclude_bn", [True, False])
def test_a_rate_in_memory_is_the_same_rate(lars_exclude_bn: bool) -> None:
    """As on a GPU, where it is changed in place; bit for bit."""
    models = [hico_model("s3dg-tiny") for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    rates: list[float | Tensor] = [1.0, torch.tensor(1.0)]
    optimizers = [
        LARS(parameter_groups(model, weight_decay=0.1, lars_exclude_bn=lars_exclude_bn), lr=rate)
        for model, rate in zip(models, rates, strict=True)
    ]
    for step, rate in enumerate((0.1, 1 / 3)):
        for model, optimizer in zip(models, optimizers, strict=True):
            generator = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            set_rate(optimizer, rate)
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    assert isinstance(optimizers[1].param_groups[0]["lr"], Tensor), "the same one"


def one_lars_step(
    parameters: list[torch.nn.Parameter], momenta: list[Tensor | None], group: dict[str, Any], *, nesterov: bool
) -> None:
    """The slow twin: You et al.'s step one tensor after the other, as the docstring of LARS has it."""
    for place, weight in enumerate(parameters):
        w, g = weight.detach(), weight.grad
        assert g is not None
        denominator = g.norm() + group["weight_decay"] * w.norm()
        trust = 0.001 * w.norm() / denominator if denominator and not group["lars_exclude"] else 1.0
        update = (g + group["weight_decay"] * w) * trust * group["lr"]
        old = momenta[place]
        momenta[place] = new = update if old is None else 0.8 * old + update
        w -= update + 0.8 * new if nesterov else new


@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("lars_exclude_bn", [True, False])
def test_lars_equals_its_formula(nesterov: bool, lars_exclude_bn: bool) -> None:
    """Of all tensors of a model at once as of each by itself; gradients of 0 and tensors of 0 among them."""
    models = [hico_model("s3dg-tiny").double().to(memory_format=torch.channels_last_3d) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    groups, slow_groups = (
        parameter_groups(model, weight_decay=0.1, lars_exclude_bn=lars_exclude_bn) for model in models
    )
    optimizer = LARS(groups, lr=0.5, momentum=0.8, nesterov=nesterov)
    momenta: list[list[Tensor | None]] = [[None] * len(group["params"]) for group in slow_groups]
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
            drawn = torch.randn(one.shape, generator=generator, dtype=torch.float64) * (step != 2)
            one.grad, other.grad = drawn, drawn.clone()
        for group in optimizer.param_groups:
            group["lr"] = 0.5 / (step + 1)
        optimizer.step()
        for group, of_group in zip(slow_groups, momenta, strict=True):
            one_lars_step(group["params"], of_group, {**group, "lr": 0.5 / (step + 1)}, nesterov=nesterov)
    for (name, one), other in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14, msg=name)


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
