"""torchvision's video transformers and image networks without their classifiers, so that they give rows."""

from functools import partial
from typing import Any

import torch
from torch import nn

from hico_core.base.errors import UsageError
from hico_core.data.pictures import Resize, public_picture
from hico_core.encoders.entry import EncoderEntry, nearest
from hico_core.encoders.pictures import CLIP_OF_PICTURES, FrameByFrame, width_of

# Options that torchvision sets only if it loads its own weights, needed here also for weights from a file.
_WITH_WEIGHTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "init_weights": False},
    "vit_h_14": {"image_size": 518},
}


def without_classifier(network: nn.Module) -> str:
    """Remove the last layer, which is the classifier, and return its name."""
    layers = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    network.set_submodule(layers[-1], nn.Identity())
    return layers[-1]


def torchvision_rows(name: str, *, weights: str | None = None) -> nn.Module:
    """A network of torchvision, whose weights keep torchvision's names: clips, or pictures, -> rows (N, F).

    Args:
        name: as for `torchvision.models.get_model`.
        weights: as for `torchvision.models.get_model`; None: random.

    """
    network = _whole(name, weights=weights)
    without_classifier(network)
    return network


def _whole(name: str, *, weights: str | None = None) -> nn.Module:
    from torchvision.models import get_model  # a second to load

    network: nn.Module = get_model(name, weights=weights, **(_WITH_WEIGHTS.get(name, {}) if weights is None else {}))
    return network


def torchvision_pictures(name: str, *, weights: str | None = None) -> nn.Module:
    """The same as `torchvision_rows` for an image network, applied to each frame of a clip."""
    return FrameByFrame(torchvision_rows(name, weights=weights))


def torchvision_entry(name: str) -> EncoderEntry:
    """The entry of an image network, such as `resnet50`, with the input used to evaluate its weights.

    Raises:
        UsageError: there is no network of this name; the message names the nearest.

    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = nearest(name, [*known, *models.list_models(module=models.video)])
        raise UsageError(f"torchvision:{name}: no such network; the nearest is torchvision:{near}")
    shown = models.get_model_weights(name).DEFAULT.transforms()
    (size,), (short_side,) = shown.crop_size, shown.resize_size
    # RegNet's constructor computes widths with tensors, which have no values on meta.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        network = _whole(name)
        classifier = without_classifier(network)
    return EncoderEntry(
        build=partial(torchvision_pictures, name),
        pretrained=partial(torchvision_pictures, name, weights="DEFAULT"),
        picture=public_picture(
            Resize(short_side, interpolation=shown.interpolation.value, antialias=True),
            size=size,
            mean=tuple(shown.mean),
            std=tuple(shown.std),
        ),
        clip=CLIP_OF_PICTURES,
        shortest_window=1,
        feature_dim=width_of(network, 3, size, size),
        gives="rows",
        trains=False,
        licence="BSD-3-Clause",
        beyond=(classifier,),
    )
