"""Trivial encoders that any real one should beat: the mean picture of a clip, and where something moves in it."""

# N clips, T frames, S their side in pixels.

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_SIDE = 8  # cells along either side of the picture
_PARTS = 4  # parts of a clip whose motion is measured separately

PIXELS_DIM = 3 * _SIDE**2
MOTION_DIM = _PARTS * _SIDE**2


class Pixels(nn.Module):
    """The mean picture of a clip, reduced to 8 x 8 pixels."""

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, S, S) -> (N, 192)."""
        return F.adaptive_avg_pool2d(clips.mean(dim=2), _SIDE).flatten(1)


class Motion(nn.Module):
    """The change from frame to frame in each of 8 x 8 cells of the picture, for each of four parts of a clip."""

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, S, S) -> (N, 256), root mean squares; T at least 5."""
        energy_NTHW = clips.mean(dim=1).diff(dim=1).square()
        parts = [part_NTHW.mean(dim=1) for part_NTHW in energy_NTHW.tensor_split(_PARTS, dim=1)]
        return F.adaptive_avg_pool2d(torch.stack(parts, dim=1), _SIDE).sqrt().flatten(1)
