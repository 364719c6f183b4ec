"""The encoders that there are, by name and by their weights, and the models built on them."""

from collections.abc import Mapping

from torch import Tensor

from hico_core.base.choices import EncoderName
from hico_core.model.heads import EMBEDDING_DIM, ProjectionHead, TopicHead
from hico_core.model.hico import HicoModel
from hico_core.model.s3dg import S3DG
from hico_core.model.s3dg_tiny import S3DGTiny

Encoder = S3DG | S3DGTiny

# An entry that only one encoder has.
MARKS: dict[str, EncoderName] = {"Conv_1a.conv1.weight": "s3dg", "units.0.0.conv1.weight": "s3dg-tiny"}

# Widths of the small encoder's heads: hidden layer, embedding.
_TINY_HEADS = (128, 64)


def encoder_name(state: Mapping[str, Tensor]) -> EncoderName | None:
    """Which encoder weights are of; None of none that is known."""
    return next((name for mark, name in MARKS.items() if mark in state), None)


def encoder_for(state: Mapping[str, Tensor]) -> Encoder:
    """An encoder that takes these weights, which are of one that is known; it has other weights still."""
    if encoder_name(state) == "s3dg-tiny":
        return S3DGTiny()
    return S3DG(gating=any(".gating_" in name for name in state))


def embedding_dim(encoder: EncoderName) -> int:
    """Width of what the visual head of this encoder's model gives."""
    widths: dict[EncoderName, int] = {"s3dg": EMBEDDING_DIM, "s3dg-tiny": _TINY_HEADS[1]}
    return widths[encoder]


def hico_model(encoder: EncoderName = "s3dg", *, topical: bool = True, recompute: bool = False) -> HicoModel:
    """An encoder with heads that suit it; the default is the paper's model.

    Args:
        encoder: which.
        topical: False leaves the topical head out.
        recompute: see `S3DG`; the small encoder needs no such thing.

    """
    if encoder == "s3dg":
        return HicoModel(S3DG(recompute=recompute), topical=topical)
    if encoder == "s3dg-tiny":
        width, heads = S3DGTiny.feature_dim, _TINY_HEADS
        return HicoModel(S3DGTiny(), ProjectionHead(width, *heads), TopicHead(width, *heads), topical=topical)
    raise ValueError(f"{encoder}: an encoder without a model")
