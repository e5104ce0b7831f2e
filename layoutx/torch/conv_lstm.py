"""An LSTM whose products are convolutions, as Keras' ConvLSTM1D, 2D and 3D compute it."""

import torch
from torch import Tensor, nn

from layoutx.torch.activations import activated, known
from layoutx.torch.padding import Size, convolved, each, padded, word


class ConvLSTM(nn.Module):
    """i, f, o = gate(W * x + R * h + b), g = activation(W * x + R * h + b); c' = f c + i g, h' = o activation(c').

    x (time, batch, in, ...), or (batch, time, in, ...) with `batch_first`; returns y (time, batch, hidden, ...) and the
    last states (h, c), each (batch, hidden, ...). weight_ih (4*hidden, in, ...), weight_hh (4*hidden, hidden, ...),
    bias (4*hidden), gates i f g o. The hidden state is convolved at stride 1, padded to stay as large.

    Args:
        padding: "valid" or "same", of the input.
        stride, dilation: of the window on the input.
        activation, gate_activation: of `layoutx.torch.activations.ACTIVATIONS`; Keras 2 has hard_sigmoid_0.2 gates.
        go_backwards: x is read from its end, and y stays in that order, as in Keras.
    """

    rank = 0  # spatial axes: each class below has its own

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str = "valid",
        dilation: Size = 1,
        bias: bool = True,
        batch_first: bool = False,
        activation: str = "tanh",
        gate_activation: str = "sigmoid",
        go_backwards: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.hidden_channels = hidden_channels
        self.kernel_size = list(each(kernel_size, self.rank))
        self.stride = list(each(stride, self.rank))
        self.padding = word(padding, "valid", "same")
        self.dilation = list(each(dilation, self.rank))
        self.batch_first = batch_first
        self.activation = known(activation)
        self.gate_activation = known(gate_activation)
        self.go_backwards = go_backwards
        self.ones = [1] * self.rank
        self.weight_ih = nn.Parameter(torch.empty(4 * hidden_channels, in_channels, *self.kernel_size))
        self.weight_hh = nn.Parameter(torch.empty(4 * hidden_channels, hidden_channels, *self.kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.empty(4 * hidden_channels)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform numbers within 1 / sqrt(numbers that one gate sees)."""
        seen = (self.in_channels + self.hidden_channels) * torch.Size(self.kernel_size).numel()
        for weight in self.parameters():
            nn.init.uniform_(weight, -(seen**-0.5), seen**-0.5)

    def forward(self, x: Tensor, hc: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """y and the last states."""
        x = x.transpose(0, 1) if self.batch_first else x
        x = x.flip(0) if self.go_backwards else x
        steps = padded(x.flatten(0, 1), self.padding, self.kernel_size, self.stride, self.dilation)
        shares = convolved(steps, self.weight_ih, self.bias, self.stride, self.dilation, 1)
        shares = shares.unflatten(0, [x.shape[0], x.shape[1]])
        zeros = torch.zeros_like(shares[0, :, : self.hidden_channels])
        h, c = (zeros, zeros) if hc is None else hc
        outputs: list[Tensor] = []
        for share in shares:
            h, c = self._step(share, h, c)
            outputs.append(h)
        y = torch.stack(outputs)
        return (y.transpose(0, 1) if self.batch_first else y), (h, c)

    def _step(self, share: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        before = padded(h, "same", self.kernel_size, self.ones, self.ones)
        i, f, g, o = (share + convolved(before, self.weight_hh, None, self.ones, self.ones, 1)).chunk(4, 1)
        c = activated(self.gate_activation, f) * c + activated(self.gate_activation, i) * activated(self.activation, g)
        return activated(self.gate_activation, o) * activated(self.activation, c), c

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        window = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding!r}"
        names = f"activation={self.activation!r}, gate_activation={self.gate_activation!r}"
        return f"{self.in_channels}, {self.hidden_channels}, {window}, dilation={self.dilation}, {names}"


class ConvLSTM1d(ConvLSTM):
    """Keras' ConvLSTM1D: x (time, batch, in, length), weights (4*hidden, in, k); all else as in `ConvLSTM`."""

    rank = 1


class ConvLSTM2d(ConvLSTM):
    """Keras' ConvLSTM2D: x (time, batch, in, h, w), weights (4*hidden, in, kh, kw); all else as in `ConvLSTM`."""

    rank = 2


class ConvLSTM3d(ConvLSTM):
    """Keras' ConvLSTM3D: x (time, batch, in, d, h, w), weights (4*hidden, in, kd, kh, kw); all else as `ConvLSTM`."""

    rank = 3
