"""Encoders of a user, as `python:made_encoders:NAME` finds them."""

from torch import Tensor, nn


class TinyMaps(nn.Module):
    """Two convolutions with batch norms: (N, 3, T, H, W) -> maps (N, 12, T/2, H/4, W/4)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(3, 6, 3, stride=(1, 2, 2), padding=1), nn.BatchNorm3d(6), nn.ReLU())
        self.second = nn.Sequential(nn.Conv3d(6, 12, 3, stride=2, padding=1), nn.BatchNorm3d(12), nn.ReLU())

    def forward(self, clips: Tensor) -> Tensor:
        return self.second(self.first(clips))


def maps() -> nn.Module:
    return TinyMaps()


def rows() -> nn.Module:
    """The same, averaged: (N, 12)."""
    return nn.Sequential(TinyMaps(), nn.AdaptiveAvgPool3d(1), nn.Flatten())


def with_dropout() -> nn.Module:
    return nn.Sequential(TinyMaps(), nn.Dropout(0.5))


class Doubled(nn.Conv3d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return 2 * super()._conv_forward(input, weight, bias)


class WithArguments(nn.Conv3d):
    def __init__(self) -> None:
        super().__init__(4, 4, (3, 1, 1), padding=(1, 0, 0))


def convolutions() -> nn.Module:
    """Two plain ones; then one that computes something else, one with parametrised weights and a lazy one."""
    return nn.Sequential(
        nn.Conv3d(3, 4, 1),
        WithArguments(),
        Doubled(4, 4, 1),
        nn.utils.parametrizations.weight_norm(nn.Conv3d(4, 4, 3, padding=1)),
        nn.LazyConv3d(12, 1),
    )


def long_clips_only() -> nn.Module:
    return nn.Conv3d(3, 4, (32, 1, 1))


def of_sixteen_frames() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool3d((None, 1, 1)), nn.Flatten(), nn.Linear(3 * 16, 4))


def pictures() -> nn.Module:
    return nn.Flatten(1, 2)


def two() -> nn.Module:
    class Two(nn.Module):
        def forward(self, clips: Tensor) -> tuple[Tensor, Tensor]:
            return clips, clips

    return Two()


class FrameByFrame(nn.Module):
    """A 2D convolution for each frame, then dropout: (N, 3, T, H, W) -> rows (N, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.of_picture = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, clips: Tensor) -> Tensor:
        maps = self.of_picture(clips.transpose(1, 2).flatten(0, 1))
        return maps.mean(dim=(2, 3)).unflatten(0, (len(clips), -1)).mean(dim=1)


def frame_by_frame() -> nn.Module:
    return FrameByFrame()
