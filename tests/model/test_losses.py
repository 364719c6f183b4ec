"""The losses are the authors', and equal their definitions written out as loops."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from goldens import assert_close, load_arrays
from torch import Tensor

from hico_core.base.errors import UsageError
from hico_core.config import LossConfig
from hico_core.model.losses import hico_loss, info_nce, topical_loss, visual_loss

HICO = load_arrays("hico_loss.npz")
SIMCLR = load_arrays("simclr_loss.npz")
DISTRIBUTED = load_arrays("distributed_loss.npz")


def cases(golden: dict[str, Any]) -> list[str]:
    return sorted({key.split("/")[0] for key in golden})


@pytest.mark.parametrize("case", cases(HICO))
def test_hico_loss(case: str) -> None:
    golden = {key.split("/")[1]: value for key, value in HICO.items() if key.startswith(f"{case}/")}
    embeddings = torch.from_numpy(golden["logits"]).double().requires_grad_()
    logits = torch.from_numpy(golden["preds"]).double().requires_grad_()
    loss = hico_loss(
        embeddings,
        logits,
        clips_per_video=int(golden["samples"]),
        temperature=float(golden["temperature"]),
        gamma=float(golden["gamma"]),
        visual_weight=float(golden["vcl_weight"]),
        topical_weight=float(golden["tcl_weight"]),
    )
    loss.total.backward()
    assert embeddings.grad is not None and logits.grad is not None and loss.topical is not None
    assert_close(loss.total, golden["loss"], 1e-10)
    assert_close(loss.visual, golden["vcl_loss"], 1e-10)
    assert_close(loss.topical, golden["tcl_loss"], 1e-10)
    assert_close(embeddings.grad, golden["grad_logits"], 1e-10)
    assert_close(logits.grad, golden["grad_preds"], 1e-10)


@pytest.mark.parametrize("case", cases(SIMCLR))
def test_info_nce(case: str) -> None:
    golden = {key.split("/")[1]: value for key, value in SIMCLR.items() if key.startswith(f"{case}/")}
    embeddings = torch.from_numpy(golden["logits"]).double().requires_grad_()
    loss = info_nce(embeddings, clips_per_video=int(golden["samples"]), temperature=float(golden["temperature"]))
    loss.backward()
    assert embeddings.grad is not None
    assert_close(loss, golden["loss"], 1e-10)
    assert_close(embeddings.grad, golden["grad_logits"], 1e-10)


def unit_vectors(num: int, dim: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(num)
    return F.normalize(torch.randn(num, dim, generator=generator, dtype=torch.float64), dim=1)


def slow_visual_loss(z: Tensor, videos: int, clips: int, temperature: float) -> float:
    total = 0.0
    for video in range(videos):
        for anchor, partner in ((0, 1), (1, 0)):
            a = z[video * clips + anchor]
            positive = math.exp(float(a @ z[video * clips + partner]) / temperature)
            negative = sum(
                math.exp(float(a @ z[other * clips + clip]) / temperature)
                for other in range(videos)
                if other != video
                for clip in range(clips)
            )
            total -= math.log(positive / (positive + negative))
    return total / (2 * videos)


def slow_info_nce(z: Tensor, videos: int, clips: int, temperature: float) -> float:
    terms = []
    for i, j in itertools.permutations(range(videos * clips), 2):
        if i // clips != j // clips:
            continue
        positive = math.exp(float(z[i] @ z[j]) / temperature)
        others = [n for n in range(videos * clips) if n // clips != i // clips]
        negative = sum(math.exp(float(z[i] @ z[n]) / temperature) for n in others)
        terms.append(-math.log(positive / (positive + negative)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("loss", [visual_loss, info_nce])
@pytest.mark.parametrize("agree", [True, False])
def test_the_lowest_temperature_of_the_settings_gives_finite_gradients(
    loss: Callable[..., Tensor], agree: bool
) -> None:
    """Also if all clips of many videos are at the same point, and if those of a video are opposite to each other."""
    embeddings = torch.zeros(1024, 2)
    embeddings[:, 0] = 1 if agree else torch.tensor([1.0, -1.0]).repeat(512)
    embeddings.requires_grad_()
    lowest = next(limit.ge for limit in LossConfig.model_fields["temperature"].metadata)
    value = loss(embeddings, clips_per_video=2, temperature=lowest)
    value.backward()
    assert embeddings.grad is not None and bool(value.isfinite()) and bool(embeddings.grad.isfinite().all())


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [15.0, 30.0, 100.0, 1000.0])
def test_certain_classifiers_have_finite_gradients(size: float, gamma: float) -> None:
    """Right or wrong, also where their sigmoid rounds to 0 or 1; the right half of the pairs has nothing to learn."""
    same = torch.block_diag(torch.ones(3, 3), torch.ones(3, 3))
    right = torch.where(same > 0, size, -size)
    logits = torch.stack([right, -right], dim=2).requires_grad_()
    topical_loss(logits, clips_per_video=3, gamma=gamma).backward()
    assert logits.grad is not None and bool(logits.grad.isfinite().all())
    assert float(logits.grad[..., 0].abs().max()) < 1e-3


def slow_topical_loss(logits: Tensor, clips: int, gamma: float) -> float:
    positive, negative = [], []
    for i, j in itertools.permutations(range(len(logits)), 2):
        for score in logits[i, j].tolist():
            q = 1 / (1 + math.exp(-score))
            if i // clips == j // clips:
                positive.append((1 - q) ** gamma * math.log(q + 1e-5))
            else:
                negative.append(q**gamma * math.log(1 - q + 1e-5))
    return -sum(positive) / len(positive) - sum(negative) / len(negative)


@pytest.mark.parametrize(("videos", "clips"), [(2, 2), (3, 3), (4, 4)])
def test_losses_equal_their_loops(videos: int, clips: int) -> None:
    z = unit_vectors(videos * clips)
    logits = torch.randn(len(z), len(z), 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    visual = visual_loss(z, clips_per_video=clips, temperature=0.2)
    assert float(visual) == pytest.approx(slow_visual_loss(z, videos, clips, 0.2), rel=1e-12)
    nce = info_nce(z, clips_per_video=clips, temperature=0.2)
    assert float(nce) == pytest.approx(slow_info_nce(z, videos, clips, 0.2), rel=1e-12)
    topical = topical_loss(logits, clips_per_video=clips, gamma=0.5)
    assert float(topical) == pytest.approx(slow_topical_loss(logits, clips, 0.5), rel=1e-12)


@pytest.mark.parametrize("case", cases(DISTRIBUTED))
def test_processes(case: str) -> None:
    """Each process sees the others' embeddings as constants; averaged, the gradients are the authors'."""
    golden = {key.removeprefix(f"{case}/"): v for key, v in DISTRIBUTED.items() if key.startswith(f"{case}/")}
    world, clips = int(golden["world_size"]), int(golden["samples"])
    weights = {
        key.removeprefix("weights/"): torch.from_numpy(value).requires_grad_()
        for key, value in golden.items()
        if key.startswith("weights/")
    }
    inputs = [torch.from_numpy(golden[f"rank{r}/x"]) for r in range(world)]

    def embed(x: Tensor) -> Tensor:
        return F.normalize(F.linear(x, weights["lin_v.weight"], weights["lin_v.bias"]), dim=1)

    def pair_logits(x: Tensor) -> Tensor:
        t = F.normalize(F.linear(x, weights["lin_t.weight"], weights["lin_t.bias"]), dim=1)
        n = len(t)
        pairs = torch.cat([t[:, None].expand(n, n, -1), t[None].expand(n, n, -1)], dim=-1)
        score = F.linear(pairs, weights["pair.weight"], weights["pair.bias"]).squeeze(-1)
        return torch.stack([score, score.T], dim=-1)

    hico = "hico" in case
    averaged = {name: torch.zeros_like(value) for name, value in weights.items()}
    for rank in range(world):
        gathered = torch.cat([embed(x) if r == rank else embed(x).detach() for r, x in enumerate(inputs)])
        if hico:
            logits = pair_logits(inputs[rank])
            loss = hico_loss(gathered, logits, clips_per_video=clips, visual_weight=world).total
        else:
            loss = world * info_nce(gathered, clips_per_video=clips, temperature=0.1)
        assert_close(loss, golden[f"rank{rank}/loss_ddp"], 1e-10)
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                averaged[name] += gradient / world
    for name, gradient in averaged.items():
        if f"grad_ddp/{name}" in golden:
            assert_close(gradient, golden[f"grad_ddp/{name}"], 1e-10)
        if name.startswith("lin_v") and f"single/grad/{name}" in golden:
            assert_close(gradient, golden[f"single/grad/{name}"], 1e-10)


def test_one_video_alone_has_no_topic() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        topical_loss(torch.zeros(3, 3, 2), clips_per_video=3)


def test_clips_must_be_whole_videos() -> None:
    with pytest.raises(ValueError, match="7 clips"):
        visual_loss(unit_vectors(7), clips_per_video=3, temperature=0.1)
