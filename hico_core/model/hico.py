"""The HiCo model: one encoder, a visual head and a topical head."""

# B videos, K clips per video, N = B * K, T frames, H height, W width, F feature width, D embedding width; T', H', W' of
# the encoder's maps.

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hico_core.model.heads import ProjectionHead, TopicHead
from hico_core.model.pooling import averaged
from hico_core.model.s3dg import S3DG


class Outputs(NamedTuple):
    """The input of the losses; N = videos * clips per video, with the clips of a video next to each other."""

    embeddings: Tensor  # (N, 128) unit vectors
    topic_logits: Tensor | None  # (N, N or all, 2); None if the model has no topical head


class HicoModel(nn.Module):
    """Encoder and heads; without arguments, the model of the paper.

    Args:
        backbone: (N, 3, T, H, W) -> feature maps (N, F, T', H', W') or rows (N, F).
        visual_head: (N, F) -> (N, D) unit vectors.
        topic_head: (N, F) -> (N, N or all, 2).
        topical: False leaves the topical head out (the SimCLR baseline, or visual consistency alone).

    """

    def __init__(
        self,
        backbone: nn.Module | None = None,
        visual_head: nn.Module | None = None,
        topic_head: nn.Module | None = None,
        *,
        topical: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = backbone or S3DG()
        self.visual_head = visual_head or ProjectionHead()
        self.topic_head = (topic_head or TopicHead()) if topical else None

    def forward(self, clips: Tensor, gather_topics: Callable[[Tensor], Tensor] | None = None) -> Outputs:
        """(B, K, 3, T, H, W): K clips of each of B videos.

        Args:
            clips: the videos.
            gather_topics: see `TopicHead`.

        """
        maps_NFTHW = self.backbone(clips.flatten(0, 1))  # (B, K, ...) -> (N, ...), video-major
        # Never in 16 bits, whatever the encoder uses: the heads take little time, and similarities must be precise.
        with torch.autocast(clips.device.type, enabled=False):
            exact = torch.promote_types(maps_NFTHW.dtype, torch.float32)
            features_NF = averaged(maps_NFTHW, exact)
            topic_logits = self.topic_head(features_NF, gather_topics) if self.topic_head is not None else None
            return Outputs(self.visual_head(features_NF), topic_logits)
