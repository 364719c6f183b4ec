"""torchvision's convolutional video networks as encoders: everything except their classifiers, with the same names."""

from collections import OrderedDict

from torch import nn

# Pooling and classifier, which follow the maps.
_AFTER_THE_MAPS = frozenset({"avgpool", "fc", "classifier"})


def torchvision_video(name: str) -> nn.Sequential:
    """A network of torchvision with random weights: (N, 3, T, S, S) -> maps (N, F, T', H', W').

    Args:
        name: r3d_18, mc3_18, r2plus1d_18 (Tran et al., CVPR 2018) or s3d (Xie et al., ECCV 2018).

    """
    from torchvision.models import get_model  # a second to load

    parts = get_model(name, weights=None).named_children()
    return nn.Sequential(OrderedDict((part, module) for part, module in parts if part not in _AFTER_THE_MAPS))
