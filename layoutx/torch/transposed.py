"""Transposed convolutions cropped by name as Keras does; their weights are those of `nn.ConvTranspose1d`, 2d and 3d."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvTransposeNd

from layoutx.torch.padding import Size, each, word


def cropped(
    y: Tensor,
    space: list[int],
    padding: str,
    kernel: list[int],
    stride: list[int],
    dilation: list[int],
    extra: list[int],
) -> Tensor:
    """The full result (batch, out, ...) cut, or filled up with zeros, to the length that Keras gives it.

    Without `extra`, the output_padding ([] for none), "same" is length * stride long and "valid" at least that long.
    Half of what is too much goes in front. Source: keras 3.15.1 compute_conv_transpose_output_shape in
    keras/src/backend/common/backend_utils.py, and TensorFlow's rule for the crop.
    """
    pads: list[int] = []
    for i in range(len(kernel)):  # F.pad takes the last axis first; a negative number cuts
        axis = len(kernel) - 1 - i
        reach = (kernel[axis] - 1) * dilation[axis] + 1
        full = (space[axis] - 1) * stride[axis] + reach
        length = space[axis] * stride[axis]
        if len(extra) > 0:
            length = full + extra[axis] - (2 * (reach // 2) if padding == "same" else 0)
        elif padding == "valid":
            length += max(reach - stride[axis], 0)
        front = max(full - length, 0) // 2 if padding == "same" else 0
        pads += [-front, length + front - y.shape[axis - len(kernel)]]
    return F.pad(y, pads)


def biased(y: Tensor, bias: Tensor | None) -> Tensor:
    """y (batch, out, ...) and one number an output channel: also where y was filled up."""
    return y if bias is None else y + bias.view([-1] + [1] * (y.dim() - 2))


class _ConvTransposeSame(_ConvTransposeNd):
    """What the three ranks share; each is also torch's own transposed convolution, whose parameters these are."""

    extra: list[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str = "same",
        output_padding: Size | None = None,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, 0, 0, groups, bias, dilation)
        self.padding = word(padding, "same", "valid")
        self.output_padding = None if output_padding is None else each(output_padding, len(self.kernel_size))
        self.extra = list(self.output_padding or ())

    def forward(self, x: Tensor) -> Tensor:
        """The transposed convolution, cropped."""
        if x.dim() == 3:
            y = F.conv_transpose1d(x, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        elif x.dim() == 4:
            y = F.conv_transpose2d(x, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        else:
            y = F.conv_transpose3d(x, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        y = cropped(y, x.shape[2:], self.padding, self.kernel_size, self.stride, self.dilation, self.extra)
        return biased(y, self.bias)

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        sizes = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding!r}"
        more = "" if self.output_padding is None else f", output_padding={self.output_padding}"
        more += "" if self.groups == 1 else f", groups={self.groups}"
        more += "" if self.bias is not None else ", bias=False"
        return f"{self.in_channels}, {self.out_channels}, {sizes}, dilation={self.dilation}{more}"


class ConvTranspose1dSame(_ConvTransposeSame, nn.ConvTranspose1d):
    """Keras' Conv1DTranspose: x (batch, in, length) -> (batch, out, length * stride), weight (in, out/groups, k).

    Args:
        padding: "same" or "valid".
        output_padding: Keras' own, which sets the length; None lets it be length * stride.
    """


class ConvTranspose2dSame(_ConvTransposeSame, nn.ConvTranspose2d):
    """Keras' Conv2DTranspose: x (batch, in, h, w), weight (in, out/groups, kh, kw); as `ConvTranspose1dSame`."""


class ConvTranspose3dSame(_ConvTransposeSame, nn.ConvTranspose3d):
    """Keras' Conv3DTranspose: x (batch, in, d, h, w), weight (in, out/groups, kd, kh, kw); as `ConvTranspose1dSame`."""
