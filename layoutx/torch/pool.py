"""Pooling with Keras' padding="same": windows over the border see only what is there, at any stride."""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layoutx.torch.padding import Size, each, padded


class _Pool(nn.Module):
    """x (batch, channels, ...); each side of y is ceil(length / stride) long. `stride`: kernel_size unless given."""

    rank: Final[int]

    def __init__(self, rank: int, kernel_size: Size, stride: Size | None = None) -> None:
        super().__init__()
        self.rank = rank
        self.kernel_size = list(each(kernel_size, rank))
        self.stride = list(each(kernel_size if stride is None else stride, rank))

    def extra_repr(self) -> str:
        """The window and its steps."""
        return f"kernel_size={tuple(self.kernel_size)}, stride={tuple(self.stride)}"


class _MaxPool(_Pool):
    def forward(self, x: Tensor) -> Tensor:
        """The largest number in each window."""
        x = padded(x, "same", self.kernel_size, self.stride, [1] * self.rank, -float("inf"))
        if self.rank == 1:
            return F.max_pool1d(x, self.kernel_size, self.stride)
        if self.rank == 2:
            return F.max_pool2d(x, self.kernel_size, self.stride)
        return F.max_pool3d(x, self.kernel_size, self.stride)


class _AvgPool(_Pool):
    def _means(self, x: Tensor) -> Tensor:
        x = padded(x, "same", self.kernel_size, self.stride, [1] * self.rank)
        if self.rank == 1:
            return F.avg_pool1d(x, self.kernel_size, self.stride)
        if self.rank == 2:
            return F.avg_pool2d(x, self.kernel_size, self.stride)
        return F.avg_pool3d(x, self.kernel_size, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        """The mean of each window, over the positions that are there."""
        return self._means(x) / self._means(torch.ones_like(x[:1, :1]))


class MaxPool1dSame(_MaxPool):
    """Keras' MaxPooling1D with padding="same": x (batch, channels, length)."""

    def __init__(self, kernel_size: Size, stride: Size | None = None) -> None:
        super().__init__(1, kernel_size, stride)


class MaxPool2dSame(_MaxPool):
    """Keras' MaxPooling2D with padding="same": x (batch, channels, h, w)."""

    def __init__(self, kernel_size: Size, stride: Size | None = None) -> None:
        super().__init__(2, kernel_size, stride)


class MaxPool3dSame(_MaxPool):
    """Keras' MaxPooling3D with padding="same": x (batch, channels, d, h, w)."""

    def __init__(self, kernel_size: Size, stride: Size | None = None) -> None:
        super().__init__(3, kernel_size, stride)


class AvgPool1dSame(_AvgPool):
    """Keras' AveragePooling1D with padding="same": x (batch, channels, length)."""

    def __init__(self, kernel_size: Size, stride: Size | None = None) -> None:
        super().__init__(1, kernel_size, stride)


class AvgPool2dSame(_AvgPool):
    """Keras' AveragePooling2D with padding="same": x (batch, channels, h, w)."""

    def __init__(self, kernel_size: Size, stride: Size | None = None) -> None:
        super().__init__(2, kernel_size, stride)


class AvgPool3dSame(_AvgPool):
    """Keras' AveragePooling3D with padding="same": x (batch, channels, d, h, w)."""

    def __init__(self, kernel_size: Size, stride: Size | None = None) -> None:
        super().__init__(3, kernel_size, stride)
