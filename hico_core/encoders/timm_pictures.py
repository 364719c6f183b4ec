"""timm's image networks as encoders of clips."""

from functools import partial

import torch
from torch import nn

from hico_core.base.errors import UsageError, require_package
from hico_core.data.pictures import Resize, public_picture
from hico_core.encoders.entry import EncoderEntry, nearest
from hico_core.encoders.pictures import CLIP_OF_PICTURES, FrameByFrame, width_of


def _network(name: str, *, pretrained: bool = False) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0)
    return FrameByFrame(network)


def timm_entry(name: str) -> EncoderEntry:
    """The entry of a network of timm, with the input that timm records for its weights.

    Raises:
        UsageError: there is no network of this name, its input is not supported, or timm is not installed.

    """
    require_package("timm", extra="timm", wanted_by=f"timm:{name}")
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm:{name}: no such network; the nearest is timm:{nearest(name, timm.list_models())}")
    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False, num_classes=0)
    shown = timm.data.resolve_model_data_config(network)
    _, height, width = shown["input_size"]
    if height != width or shown["interpolation"] not in ("bilinear", "bicubic"):
        raise UsageError(f"timm:{name}: needs {height} x {width} pixels, {shown['interpolation']}; not supported")
    # As in timm's own transform: scaled slightly larger and cropped centrally, or squeezed into a square first.
    scaled = int(height / shown["crop_pct"])
    resize = Resize(scaled, scaled if shown["crop_mode"] == "squash" else None, shown["interpolation"], antialias=True)
    classifier = network.pretrained_cfg.get("classifier") or ()
    return EncoderEntry(
        build=partial(_network, name),
        pretrained=partial(_network, name, pretrained=True),
        picture=public_picture(resize, size=height, mean=shown["mean"], std=shown["std"]),
        clip=CLIP_OF_PICTURES,
        shortest_window=1,
        feature_dim=width_of(network, 3, height, width),
        gives="rows",
        trains=False,
        licence="Apache-2.0",
        beyond=(classifier,) if isinstance(classifier, str) else tuple(classifier),
    )
