"""The table of encoders: how each is built, what it is shown of a video, and what it gives.

A new network is one entry here, or what a function of anybody's returns (`python:package.module:function`);
docs/encoders.md adds one in ten lines.
"""

# N clips, T frames, S their side in pixels, F feature width; T', H', W' the maps' frames, height and width.

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from hico_core.base.errors import UsageError
from hico_core.config import AugmentConfig, DataConfig
from hico_core.data.pictures import ClipShape, Picture, Resize, clip_shape_for, picture_for, public_picture
from hico_core.encoders.baselines import MOTION_DIM, PIXELS_DIM, Motion, Pixels
from hico_core.encoders.torchvision_video import torchvision_video
from hico_core.model.s3dg import FEATURE_DIM, S3DG
from hico_core.model.s3dg_tiny import S3DGTiny


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderEntry:
    """One encoder, without its weights."""

    build: Callable[[], nn.Module]  # with random weights; (N, 3, T, S, S) -> maps (N, F, T', H', W') or rows (N, F)
    picture: Picture  # what it is shown of each frame
    clip: ClipShape  # how many frames it usually gets, and how many a second
    shortest_window: int  # frames
    longest_window: int | None = None  # frames; None: any number
    feature_dim: int  # F
    gives: Literal["maps", "rows"]
    trains: bool  # here, by hico pretrain and hico finetune
    licence: str  # of the code
    pretrained: Callable[[], nn.Module] | None = None  # with the weights of its library, which may download them
    is_whole: bool = False  # `pretrained` downloads nothing, so that the name says all
    beyond: tuple[str, ...] = ()  # parts of the network that weights are published with and that are left out here


# What the paper's encoder was trained on.
_PAPER_PICTURE, _PAPER_CLIP = picture_for(DataConfig(), AugmentConfig()), clip_shape_for(DataConfig())

# What torchvision's convolutional networks were trained on: Kinetics, of which they were shown 16 frames in 1.07 s.
_KINETICS_CLIP = ClipShape(16, 15.0)
_kinetics = partial(public_picture, mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989))


def _torchvision_video(name: str, *, feature_dim: int, picture: Picture, shortest_window: int) -> EncoderEntry:
    def pretrained() -> nn.Module:
        from torchvision.models import get_model_weights

        network = torchvision_video(name)
        state = get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
        network.load_state_dict({key: state[key] for key in network.state_dict()})
        return network

    return EncoderEntry(
        build=partial(torchvision_video, name),
        picture=picture,
        clip=_KINETICS_CLIP,
        shortest_window=shortest_window,
        feature_dim=feature_dim,
        gives="maps",
        trains=True,
        licence="BSD-3-Clause",
        pretrained=pretrained,
        beyond=("fc", "classifier"),
    )


_SMALL_KINETICS = _kinetics(Resize(128, 171), size=112)

ENCODERS: Mapping[str, EncoderEntry] = {
    "s3dg": EncoderEntry(
        build=S3DG,
        picture=_PAPER_PICTURE,
        clip=_PAPER_CLIP,
        shortest_window=8,  # time is halved three times
        feature_dim=FEATURE_DIM,
        gives="maps",
        trains=True,
        licence="Apache-2.0",
    ),
    "s3dg-tiny": EncoderEntry(
        build=S3DGTiny,
        picture=_PAPER_PICTURE,
        clip=_PAPER_CLIP,
        shortest_window=8,
        feature_dim=S3DGTiny.feature_dim,
        gives="maps",
        trains=True,
        licence="Apache-2.0",
    ),
    **{
        f"torchvision:{name}": _torchvision_video(name, feature_dim=512, picture=_SMALL_KINETICS, shortest_window=1)
        for name in ("r3d_18", "mc3_18", "r2plus1d_18")
    },
    "torchvision:s3d": _torchvision_video(
        "s3d", feature_dim=1024, picture=_kinetics(Resize(256, 256), size=224), shortest_window=8
    ),
    "pixels": EncoderEntry(
        build=Pixels,
        picture=public_picture(Resize(64, 64, antialias=True), size=64, mean=(0.0,) * 3, std=(1.0,) * 3),
        clip=_PAPER_CLIP,
        shortest_window=1,
        feature_dim=PIXELS_DIM,
        gives="rows",
        trains=False,
        licence="Apache-2.0",
        is_whole=True,
    ),
    "motion": EncoderEntry(
        build=Motion,
        picture=public_picture(Resize(64, 64, antialias=True), size=64, mean=(0.0,) * 3, std=(1.0,) * 3),
        clip=_PAPER_CLIP,
        shortest_window=5,  # four differences
        feature_dim=MOTION_DIM,
        gives="rows",
        trains=False,
        licence="Apache-2.0",
        is_whole=True,
    ),
}


def entry_of(name: str) -> EncoderEntry:
    """The entry of an encoder's name.

    Raises:
        UsageError: there is none; names the one that is written most like it.

    """
    if name not in ENCODERS:
        (near,) = difflib.get_close_matches(name, ENCODERS, n=1, cutoff=0)
        raise UsageError(f"{name}: no such encoder; the nearest is {near} (`hico config encoders` lists all)")
    return ENCODERS[name]
