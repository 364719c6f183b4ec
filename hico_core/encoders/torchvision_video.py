"""torchvision's convolutional video networks without their classifiers, so that they give maps."""

# N clips, F feature width; T', H', W' the maps' frames, height and width.

from collections import OrderedDict

from torch import nn

# What is left out, by torchvision's names: the average over the maps, and what follows it.
_CLASSIFIER = ("avgpool", "fc", "classifier")


def torchvision_video(name: str) -> nn.Module:
    """r3d_18, mc3_18, r2plus1d_18 or s3d, with random weights: (N, 3, T, S, S) -> maps (N, F, T', H', W').

    The names of its weights are torchvision's.
    """
    from torchvision.models import get_model

    whole = get_model(name, weights=None)
    return nn.Sequential(OrderedDict(part for part in whole.named_children() if part[0] not in _CLASSIFIER))
