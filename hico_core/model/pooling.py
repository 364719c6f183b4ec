"""From the encoder's maps to one row per clip, for features, nearest neighbours and probes."""

import torch
from torch import Tensor, nn

from hico_core.base.choices import Pool


def averaged(maps_NFTHW: Tensor, dtype: torch.dtype) -> Tensor:
    """Maps (N, F, T', H', W') -> their averages (N, F), in a type precise enough for sums; rows are only converted."""
    return maps_NFTHW.to(dtype) if maps_NFTHW.dim() == 2 else maps_NFTHW.mean(dim=(2, 3, 4), dtype=dtype)


class PooledEncoder(nn.Module):
    """An encoder whose maps are pooled and, with a head, projected.

    Args:
        backbone: (N, 3, T, H, W) -> maps (N, F, T', H', W'), or rows (N, F), which need no pooling.
        pool: pooling over T', H' and W'; "none" keeps the maps.
        head: (N, F) -> (N, D), such as the projection trained in pretraining; it needs average pooling.

    """

    def __init__(self, backbone: nn.Module, *, pool: Pool = "avg", head: nn.Module | None = None) -> None:
        super().__init__()
        assert head is None or pool == "avg"
        self.backbone, self.pool, self.head = backbone, pool, head

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> (N, F), (N, D) or (N, F, T', H', W'), in float32 whatever the encoder computes in."""
        maps_NFTHW = self.backbone(clips)
        with torch.autocast(clips.device.type, enabled=False):
            exact_NFTHW: Tensor = maps_NFTHW.float()  # before pooling, which would round in bfloat16
            if self.pool == "none" or exact_NFTHW.dim() == 2:
                return exact_NFTHW
            rows_NF = exact_NFTHW.mean(dim=(2, 3, 4)) if self.pool == "avg" else exact_NFTHW.amax(dim=(2, 3, 4))
            return rows_NF if self.head is None else self.head(rows_NF)
