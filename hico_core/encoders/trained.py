"""Encoders for training: built from the settings of a run, and completed with HiCo's heads."""

# N clips, T frames, S their side in pixels, F feature width; T', H', W' the maps' frames, height and width.

import torch
from torch import Tensor, nn

from hico_core.base.choices import EncoderName
from hico_core.base.errors import HicoError, short_reason
from hico_core.config import ModelConfig
from hico_core.encoders.python_function import PYTHON, REFUSALS, module_of_function
from hico_core.encoders.table import entry_of
from hico_core.model.heads import EMBEDDING_DIM, ProjectionHead, TopicHead
from hico_core.model.hico import HicoModel
from hico_core.model.s3dg import S3DG, TemporalConv, is_plain


def build_encoder(model: ModelConfig) -> nn.Module:
    """An encoder with random weights: (N, 3, T, S, S) -> maps (N, F, T', H', W') or rows (N, F).

    Raises:
        UsageError: it is a function that cannot be called, or that does not return a module.

    """
    if model.encoder.startswith(PYTHON):
        encoder = module_of_function(model.encoder)
    else:
        encoder = entry_of(model.encoder).build() if model.gating else S3DG(gating=False)
    for module in encoder.modules():
        if model.norm_eps is not None and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eps = model.norm_eps
        if isinstance(module, nn.Conv3d) and is_plain(module):
            module.__class__ = TemporalConv  # computes the same, and is correct in bfloat16 on a CPU
    return encoder


def feature_dim(encoder: nn.Module, *, name: str, num_frames: int, size: int) -> int:
    """F of an encoder, found by passing a black clip through it.

    Args:
        encoder: on a CPU; its training mode is restored afterwards.
        name: the encoder's name, for messages.
        num_frames: T.
        size: S, pixels.

    Raises:
        HicoError: it does not accept such a clip, or returns neither maps nor rows.

    """
    was_training = encoder.training
    try:
        with torch.inference_mode():
            made = encoder.eval()(torch.zeros(1, 3, num_frames, size, size))
    except REFUSALS as error:
        clip = f"{num_frames} frames of {size} x {size} pixels"
        raise HicoError(f"{name}: does not accept a clip of {clip} ({short_reason(error)})") from error
    encoder.train(was_training)
    if not isinstance(made, Tensor) or made.dim() not in (2, 5) or len(made) != 1:
        what = f"a tensor of shape {tuple(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
        raise HicoError(f"{name}: returns {what} for a clip, neither maps (1, F, T, H, W) nor a row (1, F)")
    return made.shape[1]


def embedding_dim(feature_dim: int) -> int:
    """Width of the visual head's output for features of a given width."""
    return min(EMBEDDING_DIM, max(feature_dim // 2, 1))


def with_heads(encoder: nn.Module, feature_dim: int, *, topical: bool = True) -> HicoModel:
    """An encoder with heads that suit the width of its features; for S3D-G, the paper's model.

    Args:
        encoder: returns maps or rows.
        feature_dim: F.
        topical: False leaves the topical head out.

    """
    widths = feature_dim, feature_dim, embedding_dim(feature_dim)
    return HicoModel(encoder, ProjectionHead(*widths), TopicHead(*widths), topical=topical)


def hico_model(name: EncoderName = "s3dg", *, topical: bool = True) -> HicoModel:
    """An encoder of the table with random weights and heads; the default is the paper's model."""
    entry = entry_of(name)
    return with_heads(entry.build(), entry.feature_dim, topical=topical)
