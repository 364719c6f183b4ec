"""S3D-G, the video encoder of HiCo (Xie et al., ECCV 2018: separable 3D Inception with feature gating)."""

# N clips, C channels, T frames, H height, W width. A suffix names the channels if they change; tensors (N, C, T, H, W),
# which every unit takes and returns, have no suffix.

from types import FunctionType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Channels of one Inception block: (1x1), (1x1 -> 3x3x3), (1x1 -> 3x3x3), (pool -> 1x1).
# The block's output has b0 + b1[1] + b2[1] + b3 channels.
_BLOCKS = {
    #            in,  b0,  b1,         b2,        b3
    "Mixed_3b": (192, 64, (96, 128), (16, 32), 32),
    "Mixed_3c": (256, 128, (128, 192), (32, 96), 64),
    "Mixed_4b": (480, 192, (96, 208), (16, 48), 64),
    "Mixed_4c": (512, 160, (112, 224), (24, 64), 64),
    "Mixed_4d": (512, 128, (128, 256), (24, 64), 64),
    "Mixed_4e": (512, 112, (144, 288), (32, 64), 64),
    "Mixed_4f": (528, 256, (160, 320), (32, 128), 128),
    "Mixed_5b": (832, 256, (160, 320), (32, 128), 128),
    "Mixed_5c": (832, 384, (192, 384), (48, 128), 128),
}

FEATURE_DIM = 1024

# The authors' 1x1x1 units keep PyTorch's epsilon whatever the configuration says; their published
# weights were trained with this mixture, so it is part of the model.
_POINTWISE_BN_EPS = 1e-5


class PointwiseConv(nn.Module):
    """1x1x1 convolution, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 1, bias=False)
        self.bn = nn.BatchNorm3d(out_channels, eps=_POINTWISE_BN_EPS)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, T, H, W) -> (N, C_out, T, H, W)."""
        return self.relu(self.bn(self.convolve(x)))

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution alone.

        On a CPU in channels-last layout, it is a matrix product, whose gradients cost half of the convolution's.
        """
        if x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last_3d):
            return self.conv(x)
        x_NTHWC = x.permute(0, 2, 3, 4, 1)  # a view, contiguous in this order
        return F.linear(x_NTHWC, self.conv.weight.flatten(1)).permute(0, 4, 1, 2, 3)


class TemporalConv(nn.Conv3d):
    """A convolution in time, or in time and space, that is correct in bfloat16 on a CPU.

    There, if a clip has fewer frames than the kernel, oneDNN 3.12 (in PyTorch 2.14) gives weight gradients that are not
    even finite. They are correct if the input is padded beforehand.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, T, H, W) -> (N, C_out, T', H', W')."""
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or x.shape[2] >= self.kernel_size[0]:
            return super().forward(x)
        pad = int(self.padding[0])  # in time only; F.pad counts axes from the last
        padded = F.pad(x, (0, 0, 0, 0, pad, pad))
        in_space = (0, *self.padding[1:])
        return F.conv3d(padded, self.weight, self.bias, self.stride, in_space, self.dilation, self.groups)


def is_plain(conv: nn.Conv3d) -> bool:
    """Whether a convolution is a plain Conv3d with zero padding, so that `TemporalConv` may replace its class.

    A subclass may choose arguments, as torchvision's do. One with methods or properties of its own must remain: they
    may compute something else (`_conv_forward`, parametrised weights), or be needed elsewhere.
    """
    zeros = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    added = [vars(kind) for kind in set(type(conv).__mro__) - set(nn.Conv3d.__mro__)]
    own = {name for names in added for name, value in names.items() if isinstance(value, FunctionType | property)}
    return zeros and own <= {"__init__"}


class SeparableConv(nn.Module):
    """A k x k x k convolution in two steps: 1 x k x k in space, then k x 1 x 1 in time, each with BN and ReLU.

    Kernel size and stride in time equal those in space unless given.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        k: int,
        *,
        stride: int,
        time_k: int | None = None,
        time_stride: int | None = None,
        bn_eps: float,
    ) -> None:
        super().__init__()
        p, t = k // 2, time_k or k
        self.conv1 = nn.Conv3d(in_channels, out_channels, (1, k, k), (1, stride, stride), (0, p, p), bias=False)
        self.conv2 = TemporalConv(
            out_channels, out_channels, (t, 1, 1), (time_stride or stride, 1, 1), (t // 2, 0, 0), bias=False
        )
        self.bn1 = nn.BatchNorm3d(out_channels, eps=bn_eps)
        self.bn2 = nn.BatchNorm3d(out_channels, eps=bn_eps)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, T, H, W) -> (N, C_out, T/time_stride, H/stride, W/stride)."""
        x = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(x)))


class FeatureGating(nn.Module):
    """Scale each channel by a sigmoid of a linear map of all channels' means (the G of S3D-G)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, T, H, W) -> the same shape."""
        gate_NC = self.fc(x.mean(dim=(2, 3, 4))).sigmoid()
        return x * gate_NC[:, :, None, None, None]


class InceptionBlock(nn.Module):
    """Four branches side by side, each gated, joined along the channels.

    Args:
        in_channels: C_in.
        b0: channels of the 1x1x1 branch.
        b1: channels of a 1x1x1 unit and the separable 3x3x3 one after it.
        b2: channels of another such pair of units.
        b3: channels of the 1x1x1 unit after the pool.
        gating: scale channels by learned gates.
        bn_eps: epsilon of the batch norms inside separable units.

    """

    def __init__(
        self,
        in_channels: int,
        b0: int,
        b1: tuple[int, int],
        b2: tuple[int, int],
        b3: int,
        *,
        gating: bool,
        bn_eps: float,
    ) -> None:
        super().__init__()
        self.branch0 = nn.Sequential(PointwiseConv(in_channels, b0))
        self.branch1 = nn.Sequential(PointwiseConv(in_channels, b1[0]), SeparableConv(*b1, 3, stride=1, bn_eps=bn_eps))
        self.branch2 = nn.Sequential(PointwiseConv(in_channels, b2[0]), SeparableConv(*b2, 3, stride=1, bn_eps=bn_eps))
        self.branch3 = nn.Sequential(nn.MaxPool3d(3, stride=1, padding=1), PointwiseConv(in_channels, b3))
        self.gating_b0 = FeatureGating(b0) if gating else nn.Identity()
        self.gating_b1 = FeatureGating(b1[1]) if gating else nn.Identity()
        self.gating_b2 = FeatureGating(b2[1]) if gating else nn.Identity()
        self.gating_b3 = FeatureGating(b3) if gating else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, T, H, W) -> (N, b0 + b1[1] + b2[1] + b3, T, H, W)."""
        # The pool's branch first: gradients of x are added in the reverse order, which affects their last bit.
        out3 = self.gating_b3(self.branch3(x))
        out0 = self.gating_b0(self.branch0(x))
        out1 = self.gating_b1(self.branch1(x))
        out2 = self.gating_b2(self.branch2(x))
        return torch.cat([out0, out1, out2, out3], dim=1)


class S3DG(nn.Module):
    """The encoder: (N, 3, T, H, W) -> feature maps (N, 1024, T/8, H/32, W/32).

    Units have their names from the S3D paper (Conv_1a ... Mixed_5c); `named_children()` lists them in the order in
    which they run. Convolutions are initialised from a normal distribution with standard deviation 0.01, as in the
    authors' code, and gating layers with PyTorch's default.

    Args:
        gating: scale channels by learned gates (S3D-G); without it the network is plain S3D.
        bn_eps: epsilon of the batch norms inside separable units.

    """

    feature_dim = FEATURE_DIM

    def __init__(self, *, gating: bool = True, bn_eps: float = 1e-3) -> None:
        super().__init__()

        def mixed(name: str) -> InceptionBlock:
            return InceptionBlock(*_BLOCKS[name], gating=gating, bn_eps=bn_eps)

        def spatial_pool() -> nn.MaxPool3d:
            return nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

        self.Conv_1a = SeparableConv(3, 64, 7, stride=2, bn_eps=bn_eps)
        self.MaxPool_2a = spatial_pool()
        self.Conv_2b = PointwiseConv(64, 64)
        self.Conv_2c = SeparableConv(64, 192, 3, stride=1, bn_eps=bn_eps)
        self.MaxPool_3a = spatial_pool()
        self.Mixed_3b = mixed("Mixed_3b")
        self.Mixed_3c = mixed("Mixed_3c")
        self.MaxPool_4a = nn.MaxPool3d(3, stride=2, padding=1)
        self.Mixed_4b = mixed("Mixed_4b")
        self.Mixed_4c = mixed("Mixed_4c")
        self.Mixed_4d = mixed("Mixed_4d")
        self.Mixed_4e = mixed("Mixed_4e")
        self.Mixed_4f = mixed("Mixed_4f")
        self.MaxPool_5a = nn.MaxPool3d(2, stride=2)
        self.Mixed_5b = mixed("Mixed_5b")
        self.Mixed_5c = mixed("Mixed_5c")

        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.normal_(module.weight, std=0.01)

    def forward(self, clips: Tensor) -> Tensor:
        """(N, 3, T, H, W) -> (N, 1024, T/8, H/32, W/32)."""
        x = clips
        for unit in self.children():
            x = unit(x)
        return x
