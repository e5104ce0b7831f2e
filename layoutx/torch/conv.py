"""Convolutions padded by name as Keras does, at any stride; their weights are those of `nn.Conv1d`, 2d and 3d.

torch itself refuses padding="same" at a stride, and padding by a number pads both ends alike.
"""

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from layoutx.torch.padding import Size, convolved, padded, word


class _ConvSame(_ConvNd):
    """What the three ranks share; each is also torch's own convolution, whose parameters and constructor these are."""

    words: tuple[str, ...] = ("same", "valid")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str = "same",
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias)
        self.padding = word(padding, *self.words)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of the padded x."""
        x = padded(x, self.padding, self.kernel_size, self.stride, self.dilation)
        return convolved(x, self.weight, self.bias, self.stride, self.dilation, self.groups)


class Conv1dSame(_ConvSame, nn.Conv1d):
    """Keras' Conv1D: x (batch, in, length) -> (batch, out, ceil(length / stride)), weight (out, in/groups, k).

    Args:
        padding: "same"; or "causal" (a position sees none after it), or "valid" for none.
    """

    words = ("same", "causal", "valid")


class Conv2dSame(_ConvSame, nn.Conv2d):
    """Keras' Conv2D, and its DepthwiseConv2D with groups=in_channels: x (batch, in, h, w) -> y (batch, out, h', w').

    weight (out, in/groups, kh, kw); each side of y is ceil(length / stride) long.

    Args:
        padding: "same", or "valid" for none.
    """


class Conv3dSame(_ConvSame, nn.Conv3d):
    """Keras' Conv3D: x (batch, in, d, h, w), weight (out, in/groups, kd, kh, kw); otherwise as `Conv2dSame`."""
