"""Image networks as encoders of clips."""

# N clips, T frames, F feature width.

import torch
from torch import Tensor, nn

from hico_core.data.pictures import ClipShape

# A few frames that span about the same time as the clips of torchvision's video networks; neighbours hardly differ.
CLIP_OF_PICTURES = ClipShape(8, 7.5)


class FrameByFrame(nn.Module):
    """The mean of an image network's rows over the frames of a clip.

    Args:
        of_picture: (N, 3, S, S) -> rows (N, F).

    """

    def __init__(self, of_picture: nn.Module) -> None:
        super().__init__()
        self.of_picture = of_picture

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, S, S) -> (N, F)."""
        pictures = clips.transpose(1, 2).flatten(0, 1)
        rows: Tensor = self.of_picture(pictures)
        return rows.float().unflatten(0, (len(clips), -1)).mean(dim=1)


def width_of(network: nn.Module, *shape: int) -> int:
    """Width of a network's output for one input of this shape; on the device `meta`, nothing is computed."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        made: Tensor = network.eval()(torch.zeros(1, *shape, device=device))
    return made.shape[1]
