"""The table of encoders: how each is built, what it is shown of a video, and what it gives.

A new network is one entry here; docs/encoders.md adds one in ten lines.
"""

# N clips, T frames, S their side in pixels, F feature width; T', H', W' the maps' frames, height and width.

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from hico_core.base.errors import UsageError
from hico_core.config import AugmentConfig, DataConfig
from hico_core.data.pictures import ClipShape, Picture, clip_shape_for, picture_for
from hico_core.model.s3dg import FEATURE_DIM, S3DG
from hico_core.model.s3dg_tiny import S3DGTiny


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderEntry:
    """One encoder, without its weights."""

    build: Callable[[], nn.Module]  # with random weights; (N, 3, T, S, S) -> maps (N, F, T', H', W') or rows (N, F)
    picture: Picture  # what it is shown of each frame
    clip: ClipShape  # how many frames it usually gets, and how many a second
    shortest_window: int  # frames
    feature_dim: int  # F
    gives: Literal["maps", "rows"]
    trains: bool  # here, by hico pretrain and hico finetune
    licence: str  # of the code


# What the paper's encoder was trained on.
_PAPER_PICTURE, _PAPER_CLIP = picture_for(DataConfig(), AugmentConfig()), clip_shape_for(DataConfig())

ENCODERS = {
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
