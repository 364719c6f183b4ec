"""The heads give what the authors' give; the pair classifier equals its slow, obvious form."""

import numpy as np
import pytest
import torch
from goldens import assert_close, authors_state, load_arrays, rng

from hico_core.checkpoints.authors_names import import_state_dict
from hico_core.model.heads import ProjectionHead, TopicHead
from hico_core.model.hico import HicoModel

GOLDEN = load_arrays("heads_a.npz")
SEED = int(GOLDEN["seed"])


def filled_model(kind: str, *, topical: bool) -> HicoModel:
    model = HicoModel(topical=topical)
    model.load_state_dict(import_state_dict(authors_state(kind, SEED)))
    return model.double()


@pytest.fixture(scope="module")
def features() -> torch.Tensor:
    drawn = rng(SEED, "head_features").standard_normal((6, 1024)).astype(np.float32).clip(min=0)
    np.testing.assert_array_equal(drawn, GOLDEN["features"])
    return torch.from_numpy(drawn).double()


@pytest.fixture(scope="module")
def feature_maps(features: torch.Tensor) -> torch.Tensor:
    shape = (6, 1024, *GOLDEN["map_thw"])
    drawn = rng(SEED, "head_maps").standard_normal(shape).astype(np.float32).clip(min=0)
    return torch.from_numpy(drawn + features.numpy().astype(np.float32)[:, :, None, None, None]).double()


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("pooled", ["", "_from_maps"])
def test_hico_heads(features: torch.Tensor, feature_maps: torch.Tensor, mode: str, pooled: str) -> None:
    model = filled_model("pretrain_hico", topical=True).train(mode == "train")
    x = feature_maps.mean(dim=(2, 3, 4)) if pooled else features
    assert model.topic_head is not None
    prefix = "ContrastiveHeadTopicPred/logits"
    assert_close(model.visual_head(x), GOLDEN[f"{prefix}_vcl_{mode}{pooled}"], 1e-10)
    assert_close(model.topic_head(x), GOLDEN[f"{prefix}_tcl_{mode}{pooled}"], 1e-10)
    if mode == "train" and not pooled:
        statistics = "ContrastiveHeadTopicPred/after_train/head.mlp_vcl"
        state = model.visual_head.state_dict()
        for theirs, ours in {"linear_a_bn": "bn1", "linear_b_bn": "bn2"}.items():
            for name in ("running_mean", "running_var"):
                assert_close(state[f"{ours}.{name}"].norm(), GOLDEN[f"{statistics}.{theirs}.{name}/norm"], 1e-10)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_simclr_head(features: torch.Tensor, mode: str) -> None:
    model = filled_model("pretrain_simclr", topical=False).train(mode == "train")
    assert_close(model.visual_head(features), GOLDEN[f"ContrastiveHead/logits_{mode}"], 1e-10)


def test_pair_classifier_equals_one_pair_at_a_time() -> None:
    torch.manual_seed(0)
    head = TopicHead(16, 8, 4).double().eval()
    x = torch.randn(5, 16, dtype=torch.float64)
    logits = head(x)
    u = head.projection(x)
    for i in range(5):
        for j in range(5):
            forwards = head.score(head.pair(torch.cat([u[i], u[j]])).relu())
            backwards = head.score(head.pair(torch.cat([u[j], u[i]])).relu())
            assert_close(logits[i, j], torch.cat([forwards, backwards]).detach().numpy(), 1e-12)


def test_projections_are_unit_vectors() -> None:
    embeddings = ProjectionHead(16, 8, 4)(torch.randn(7, 16))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(7))


def test_model_puts_clips_of_a_video_side_by_side() -> None:
    class MeanColour(torch.nn.Module):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return clips.mean(dim=(2, 3, 4), keepdim=True)

    model = HicoModel(MeanColour(), torch.nn.Identity(), TopicHead(3, 8, 4))
    clips = torch.arange(2 * 3 * 3, dtype=torch.float32).view(2, 3, 3, 1, 1, 1).expand(2, 3, 3, 2, 4, 4)
    outputs = model(clips)
    torch.testing.assert_close(outputs.embeddings, clips[:, :, :, 0, 0, 0].reshape(6, 3))
    assert outputs.topic_logits.shape == (6, 6, 2)
    assert HicoModel(MeanColour(), torch.nn.Identity(), topical=False)(clips).topic_logits is None
