"""The classifier gives what the authors' gives."""

import numpy as np
import torch
from goldens import assert_close, authors_state, load_arrays, rng

from hico_core.checkpoints.authors_names import import_state_dict
from hico_core.model.classifier import VideoClassifier

GOLDEN = load_arrays("heads_a.npz")
SEED = int(GOLDEN["seed"])


class Maps(torch.nn.Module):
    """An encoder that has been run already."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps


def test_scores() -> None:
    shape = (6, 1024, *GOLDEN["map_thw"])
    features = rng(SEED, "head_features").standard_normal((6, 1024)).astype(np.float32).clip(min=0)
    maps = rng(SEED, "head_maps").standard_normal(shape).astype(np.float32).clip(min=0)
    maps += features[:, :, None, None, None]
    model = VideoClassifier(int(GOLDEN["BaseHead/num_classes"]), Maps()).double()
    state = authors_state("finetune_hmdb51", SEED)
    model.load_state_dict({f"out.{name}": state[f"head.out.{name}"] for name in ("weight", "bias")})
    scores = model(torch.from_numpy(maps).double())
    assert_close(scores, GOLDEN["BaseHead/out_train_from_maps"], 1e-10)
    assert_close(scores.softmax(dim=1), GOLDEN["BaseHead/out_eval_from_maps"], 1e-10)


def test_its_encoder_has_the_names_of_theirs() -> None:
    theirs = {name: value for name, value in authors_state("finetune_hmdb51", SEED).items() if "head." not in name}
    ours = VideoClassifier(51).state_dict()
    assert set(import_state_dict(theirs)) | {"out.weight", "out.bias"} == set(ours)
