"""The table of encoders: how each is built, what input it takes from a video, and what it returns.

To add a network, add an entry here, or let a function of your own return it (`python:package.module:function`);
docs/encoders.md adds one in ten lines.
"""

# N clips, T frames, S their side in pixels, F feature width; T', H', W' the maps' frames, height and width.

from collections.abc import Mapping
from functools import partial

from torch import nn

from hico_core.base.errors import UsageError
from hico_core.config import AugmentConfig, DataConfig
from hico_core.data.pictures import ClipShape, Picture, Resize, clip_shape_for, picture_for, public_picture
from hico_core.encoders.baselines import MOTION_DIM, PIXELS_DIM, Motion, Pixels
from hico_core.encoders.entry import EncoderEntry as EncoderEntry
from hico_core.encoders.entry import nearest
from hico_core.encoders.python_function import python_entry
from hico_core.encoders.timm_pictures import timm_entry
from hico_core.encoders.torchvision_rows import torchvision_entry, torchvision_rows
from hico_core.encoders.torchvision_video import torchvision_video
from hico_core.encoders.transformers_rows import transformers_entry
from hico_core.model.s3dg import FEATURE_DIM, S3DG
from hico_core.model.s3dg_tiny import S3DGTiny

# The input on which the paper's encoder was trained.
_PAPER_PICTURE, _PAPER_CLIP = picture_for(DataConfig(), AugmentConfig()), clip_shape_for(DataConfig())

# The input of torchvision's convolutional networks trained on Kinetics.
_kinetics = partial(public_picture, mean=(0.43216, 0.394666, 0.37645), std=(0.22803, 0.22145, 0.216989))


def _torchvision_video(
    name: str, *, picture: Picture, num_frames: int, shortest_window: int, feature_dim: int
) -> EncoderEntry:
    """A convolutional network of torchvision, with the input used to evaluate its Kinetics weights."""

    def pretrained() -> nn.Module:
        from torchvision.models import get_model_weights

        network = torchvision_video(name)
        state = get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
        network.load_state_dict({key: state[key] for key in network.state_dict()})
        return network

    return EncoderEntry(
        build=partial(torchvision_video, name),
        picture=picture,
        clip=ClipShape(num_frames, fps=15.0),
        shortest_window=shortest_window,
        feature_dim=feature_dim,
        gives="maps",
        trains=True,
        licence="BSD-3-Clause",
        pretrained=pretrained,
        beyond=("fc", "classifier"),
    )


def _torchvision_transformer(
    name: str, *, picture: Picture, clip: ClipShape, is_exact: bool, feature_dim: int
) -> EncoderEntry:
    """A video transformer of torchvision, with the input used to evaluate its Kinetics weights."""
    return EncoderEntry(
        build=partial(torchvision_rows, name),
        pretrained=partial(torchvision_rows, name, weights="DEFAULT"),
        picture=picture,
        clip=clip,
        shortest_window=clip.num_frames if is_exact else 1,
        longest_window=clip.num_frames if is_exact else None,
        feature_dim=feature_dim,
        gives="rows",
        trains=False,
        licence="BSD-3-Clause",
        beyond=("head",),
    )


_MVIT = partial(
    _torchvision_transformer,
    picture=public_picture(Resize(256), size=224, mean=(0.45,) * 3, std=(0.225,) * 3),
    clip=ClipShape(16, 7.5),
    is_exact=True,
    feature_dim=768,
)
_SWIN = partial(
    _torchvision_transformer,
    picture=public_picture(Resize(256), size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    clip=ClipShape(32, 15.0),
    is_exact=False,
)

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
        f"torchvision:{name}": _torchvision_video(
            name, picture=_kinetics(Resize(128, 171), size=112), num_frames=16, shortest_window=1, feature_dim=512
        )
        for name in ("r3d_18", "mc3_18", "r2plus1d_18")
    },
    "torchvision:s3d": _torchvision_video(
        "s3d", picture=_kinetics(Resize(256, 256), size=224), num_frames=128, shortest_window=8, feature_dim=1024
    ),
    "torchvision:mvit_v1_b": _MVIT("mvit_v1_b"),
    "torchvision:mvit_v2_s": _MVIT("mvit_v2_s"),
    "torchvision:swin3d_t": _SWIN("swin3d_t", feature_dim=768),
    "torchvision:swin3d_s": _SWIN("swin3d_s", feature_dim=768),
    "torchvision:swin3d_b": _SWIN("swin3d_b", feature_dim=1024),
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


# Families of encoders that are not listed one by one: the form of their names, and a description.
FAMILIES = {
    "torchvision:NAME": "any network of torchvision.models that classifies pictures, frame by frame",
    "timm:NAME": "any network of timm (extra timm), frame by frame",
    "hf:FOLDER": "VideoMAE, V-JEPA 2, TimeSformer; DINOv2, DINOv3 frame by frame (extra hf); hf:ID=DEFAULT downloads",
    "FILE.pt2": "what `hico convert --to exported` writes",
    "python:package.module:function": "a function that returns a network or an entry; runs that code",
}


def entry_of(name: str, *, download: bool = False) -> EncoderEntry:
    """The entry of the encoder with a given name.

    Args:
        name: in the table, or of a family: torchvision:NAME for an image network, timm:NAME, hf:FOLDER,
            python:package.module:function, whose code this runs.
        download: allow downloading the configuration of a network that lies on a hub.

    Raises:
        UsageError: there is no such encoder; the message names the one with the most similar spelling.
        HicoError: a folder cannot be read.

    """
    if name in ENCODERS:
        return ENCODERS[name]
    family, _, rest = name.partition(":")
    if family == "torchvision":
        return torchvision_entry(rest)
    if family == "timm":
        return timm_entry(rest)
    if family == "hf":
        return transformers_entry(rest, download=download)
    if family == "python":
        return python_entry(rest, shown=ENCODERS["s3dg"])
    raise UsageError(f"{name}: no such encoder; the nearest is {nearest(name, ENCODERS)} (`hico config encoders`)")
