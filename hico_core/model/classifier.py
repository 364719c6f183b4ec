"""The model of finetuning: the encoder with a linear classifier on top."""

# N clips, T frames, H height, W width, F feature width, C classes; T', H', W' of the encoder's maps.

import torch
from torch import Tensor, nn

from hico_core.model.pooling import averaged
from hico_core.model.s3dg import FEATURE_DIM, S3DG

# The entry that distinguishes a classifier's weights from those of a pretraining model.
CLASSIFIER = "out.weight"


class VideoClassifier(nn.Module):
    """Clips -> class scores.

    Args:
        num_classes: C.
        backbone: (N, 3, T, H, W) -> feature maps (N, F, T', H', W') or rows (N, F).
        feature_dim: F.

    """

    def __init__(self, num_classes: int, backbone: nn.Module | None = None, feature_dim: int = FEATURE_DIM) -> None:
        super().__init__()
        self.backbone = backbone or S3DG()
        self.out = nn.Linear(feature_dim, num_classes)

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> (N, C), before the softmax."""
        maps_NFTHW = self.backbone(clips)
        # As in pretraining, averages and everything computed from them are not in 16 bits.
        with torch.autocast(clips.device.type, enabled=False):
            exact = torch.promote_types(maps_NFTHW.dtype, torch.float32)
            scores_NC: Tensor = self.out(averaged(maps_NFTHW, exact))
            return scores_NC
