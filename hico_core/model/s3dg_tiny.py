"""A small encoder made of S3D-G's parts, for tests, laptops and experiments on synthetic videos."""

# N clips, T frames, H height, W width.

from torch import Tensor, nn

from hico_core.model.s3dg import FeatureGating, SeparableConv

# Channels and strides of the units: (in, out, stride in space, stride in time).
_UNITS = ((3, 16, 2, 1), (16, 32, 2, 1), (32, 64, 2, 2), (64, 128, 1, 2))


class S3DGTiny(nn.Module):
    """Four separable units, gated from the second on: (N, 3, T, H, W) -> maps (N, 128, T/4, H/8, W/8).

    It has 186 thousand parameters. Convolutions keep PyTorch's default initialisation, which is fine for four layers.
    """

    feature_dim = 128

    def __init__(self) -> None:
        super().__init__()
        self.units = nn.Sequential()
        for place, (in_channels, out_channels, stride, time_stride) in enumerate(_UNITS):
            unit = nn.Sequential()
            kernel = 5 if place == 0 else 3
            unit.append(
                SeparableConv(
                    in_channels, out_channels, kernel, time_k=3, stride=stride, time_stride=time_stride, bn_eps=1e-5
                )
            )
            if place > 0:
                unit.append(FeatureGating(out_channels))
            self.units.append(unit)

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> (N, 128, T/4, H/8, W/8)."""
        maps: Tensor = self.units(clips)
        return maps
