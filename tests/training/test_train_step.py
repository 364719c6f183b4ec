"""Two whole training steps give the authors' losses, gradients and weights."""

import numpy as np
import pytest
import torch
from goldens import assert_close, authors_state, clip_input, load_arrays

from hico_core.checkpoints.authors_names import export_state_dict, import_state_dict
from hico_core.config import Config, preset
from hico_core.model.hico import HicoModel
from hico_core.training.learner import Learner
from hico_core.training.optim import LARS, parameter_groups
from hico_core.training.step import train_step

RECIPES = {"hico": "hacs-hico-s", "simclr": "hacs-simclr-s"}


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("kind", RECIPES)
def test_two_steps(kind: str, device: str) -> None:
    golden = load_arrays(f"train_step_{kind}.npz")
    config: Config = preset(RECIPES[kind])
    seed, videos, clips = int(golden["seed"]), int(golden["B"]), int(golden["S"])
    shape = tuple(golden["clip_shape"])
    model = HicoModel(topical=kind == "hico")
    model.load_state_dict(import_state_dict(authors_state(f"pretrain_{kind}", seed)))
    model.double().to(device).train()
    optimizer = LARS(
        parameter_groups(model, weight_decay=config.optim.weight_decay, lars_exclude_bn=config.optim.lars_exclude_bn),
        lr=1.0,
        momentum=config.optim.momentum,
        eta=config.optim.eta,
        nesterov=config.optim.nesterov,
        zero_norm=config.optim.lars_zero_norm,
    )
    learner = Learner.of(model, optimizer)
    for step, lr in enumerate(golden["lrs"]):
        made = clip_input(seed, (videos * clips, *shape), key=f"input_step{step}")
        batch = torch.from_numpy(made).double().view(videos, clips, *shape).to(device)
        result = train_step(learner, batch, loss=config.loss, lr=float(lr))
        assert result is not None
        assert_close(result.loss.total, golden[f"step{step}/loss"], 1e-9)
        if kind == "hico":
            assert result.loss.topical is not None
            assert_close(result.loss.visual, golden[f"step{step}/part_vcl_loss"], 1e-9)
            assert_close(result.loss.topical, golden[f"step{step}/part_tcl_loss"], 1e-9)

        gradients = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        weights = export_state_dict({name: p.detach().cpu() for name, p in model.named_parameters()})
        by_their_name = export_state_dict(gradients)
        norms = golden[f"step{step}/grad_norm"]
        for i, name in enumerate(golden["param_names"]):
            if norms[i] > norms.max() * 1e-9:
                assert float(by_their_name[name].norm()) == pytest.approx(norms[i], rel=1e-6)
            assert_close(weights[name].norm(), golden[f"step{step}/param_norm_after"][i], 1e-7)
            assert_close(weights[name].sum(), golden[f"step{step}/param_sum_after"][i], 1e-7)


def test_a_loss_that_is_no_number_changes_nothing() -> None:
    config = preset("hacs-hico-s")
    model = HicoModel()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = LARS(parameter_groups(model, weight_decay=0.0, lars_exclude_bn=False), lr=1.0)
    clips = torch.full((2, 3, 3, 8, 32, 32), np.nan)
    assert train_step(Learner.of(model, optimizer), clips, loss=config.loss, lr=1.0) is None
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
