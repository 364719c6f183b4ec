"""The encoder with a linear classifier on top: what finetuning trains."""

import torch
from torch import Tensor, nn

from hico_core.model.s3dg import FEATURE_DIM, S3DG

# The entry that tells a classifier's weights from those of a pretraining model.
CLASSIFIER = "out.weight"


class VideoClassifier(nn.Module):
    """Clips -> scores of classes.

    Args:
        num_classes: C.
        backbone: (N, 3, T, H, W) -> feature maps (N, F, T', H', W').
        feature_dim: F.

    """

    def __init__(self, num_classes: int, backbone: nn.Module | None = None, feature_dim: int = FEATURE_DIM) -> None:
        super().__init__()
        self.backbone = backbone or S3DG()
        self.out = nn.Linear(feature_dim, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> (N, C), before the softmax."""
        maps = self.backbone(clips)
        with torch.autocast(clips.device.type, enabled=False):
            exact = torch.float32 if maps.dtype == torch.bfloat16 else maps.dtype
            scores: Tensor = self.out(maps.mean(dim=(2, 3, 4), dtype=exact))
            return scores
