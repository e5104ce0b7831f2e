"""Locally connected layers: a convolution whose every output position has a kernel and a bias of its own."""

import torch
from torch import Tensor, nn

from layoutx.torch.padding import Size, each


class _LocallyConnected(nn.Module):
    def __init__(
        self,
        rank: int,
        in_channels: int,
        out_channels: int,
        output_size: Size,
        kernel_size: Size,
        stride: Size,
        bias: bool,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.output_size = list(each(output_size, rank))
        self.kernel_size = list(each(kernel_size, rank))
        self.stride = list(each(stride, rank))
        self.weight = nn.Parameter(torch.empty(*self.output_size, out_channels, in_channels, *self.kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels, *self.output_size)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform numbers within 1 / sqrt(numbers that one output sees), as torch's convolutions begin."""
        seen = self.in_channels * torch.Size(self.kernel_size).numel()
        for weight in self.parameters():
            nn.init.uniform_(weight, -(seen**-0.5), seen**-0.5)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        sizes = f"output_size={self.output_size}, kernel_size={self.kernel_size}, stride={self.stride}"
        return f"{self.in_channels}, {self.out_channels}, {sizes}" + ("" if self.bias is not None else ", bias=False")


class LocallyConnected1d(_LocallyConnected):
    """tf_keras' LocallyConnected1D: x (batch, in, length) -> y (batch, out, oh).

    weight (oh, out, in, kh), bias (out, oh); no padding: length is at least (oh - 1) * stride + kh.

    Args:
        output_size: oh, the number of output positions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        output_size: Size,
        kernel_size: Size,
        stride: Size = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(1, in_channels, out_channels, output_size, kernel_size, stride, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Each window by its own kernel."""
        windows = x.unfold(2, self.kernel_size[0], self.stride[0])
        y = torch.einsum("bihk,hoik->boh", windows, self.weight)
        return y if self.bias is None else y + self.bias


class LocallyConnected2d(_LocallyConnected):
    """tf_keras' LocallyConnected2D: x (batch, in, h, w) -> y (batch, out, oh, ow).

    weight (oh, ow, out, in, kh, kw), bias (out, oh, ow); no padding.

    Args:
        output_size: (oh, ow), the number of output positions.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        output_size: Size,
        kernel_size: Size,
        stride: Size = 1,
        bias: bool = True,
    ) -> None:
        super().__init__(2, in_channels, out_channels, output_size, kernel_size, stride, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Each window by its own kernel."""
        rows = x.unfold(2, self.kernel_size[0], self.stride[0])
        windows = rows.unfold(3, self.kernel_size[1], self.stride[1])
        y = torch.einsum("bihwkl,hwoikl->bohw", windows, self.weight)
        return y if self.bias is None else y + self.bias
