"""From the encoder's maps to one row per clip: what features, neighbours and probes look at."""

import torch
from torch import Tensor, nn

from hico_core.base.choices import Pool


def averaged(maps_NFTHW: Tensor, dtype: torch.dtype) -> Tensor:
    """Maps (N, F, T', H', W') -> their averages (N, F), of a type that is exact enough for sums; rows stay rows."""
    return maps_NFTHW.to(dtype) if maps_NFTHW.dim() == 2 else maps_NFTHW.mean(dim=(2, 3, 4), dtype=dtype)


class PooledEncoder(nn.Module):
    """An encoder whose maps are averaged, and projected if asked for.

    Args:
        backbone: (N, 3, T, H, W) -> maps (N, F, T', H', W'), or rows (N, F), which stay as they are.
        pool: over T', H' and W'; "none" leaves the maps as they are.
        head: (N, F) -> (N, D), such as the projection that pretraining compares; it needs pooled maps.

    """

    def __init__(self, backbone: nn.Module, *, pool: Pool = "avg", head: nn.Module | None = None) -> None:
        super().__init__()
        assert head is None or pool == "avg"
        self.backbone, self.pool, self.head = backbone, pool, head

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> (N, F), (N, D) or (N, F, T', H', W'), in float32 whatever the encoder computes in."""
        maps_NFTHW = self.backbone(clips)
        with torch.autocast(clips.device.type, enabled=False):
            exact_NFTHW: Tensor = maps_NFTHW.float()  # before the average, which bfloat16 would round
            if self.pool == "none" or exact_NFTHW.dim() == 2:
                return exact_NFTHW
            rows_NF = exact_NFTHW.mean(dim=(2, 3, 4)) if self.pool == "avg" else exact_NFTHW.amax(dim=(2, 3, 4))
            return rows_NF if self.head is None else self.head(rows_NF)
