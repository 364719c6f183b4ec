"""Encoders that know nothing of video, which any real one should beat: mean pictures, and where something moves."""

# N clips, T frames, S their side in pixels.

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PIXELS_SIDE = 8
_MOTION_SIDE, _MOTION_PARTS = 32, 4

PIXELS_DIM = 3 * _PIXELS_SIDE**2
MOTION_DIM = _MOTION_PARTS * _MOTION_SIDE**2


class Pixels(nn.Module):
    """The mean picture of a clip in 8 x 8 pixels."""

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, S, S) -> (N, 192)."""
        return F.adaptive_avg_pool2d(clips.mean(dim=2), _PIXELS_SIDE).flatten(1)


class Motion(nn.Module):
    """How much each of 32 x 32 places of the picture changes from frame to frame, in four parts of a clip."""

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, S, S) -> (N, 4096), T at least 5."""
        grey_NTHW = clips.mean(dim=1)
        parts = grey_NTHW.diff(dim=1).abs().tensor_split(_MOTION_PARTS, dim=1)
        energy_NPHW = torch.stack([part_NTHW.mean(dim=1) for part_NTHW in parts], dim=1)
        return F.adaptive_avg_pool2d(energy_NPHW, _MOTION_SIDE).flatten(1)
