"""RNN, GRU and LSTM as Keras and TensorFlow 1 compute them, where torch's own are another function.

What torch lacks: the reset gate before the product (GRU), gates other than sigmoid, states other than tanh, peepholes.
The layouts are torch's (gates i f g o and r z n; two biases that are added). Every name says its direction,
`weight_ih_forward`: weights of another function must neither load into `nn.GRU` or `nn.GRUCell`, nor be taken for
theirs.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layoutx.torch.activations import activated, known


class Weights(NamedTuple):
    """The parameters of one direction."""

    ih: Tensor
    hh: Tensor
    bias_ih: Tensor | None
    bias_hh: Tensor | None
    peephole: Tensor | None
    projection: Tensor | None


class Recurrent(nn.Module):
    """What RNN, GRU and LSTM share: parameters for each direction, and the walk along time."""

    bidirectional: Final[bool]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        gates: int,
        bias: bool,
        batch_first: bool,
        bidirectional: bool,
        go_backwards: bool,
        activation: str,
        peephole: bool = False,
        proj_size: int = 0,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        self.batch_first = batch_first
        self.bidirectional = bidirectional
        self.go_backwards = go_backwards
        self.activation = known(activation)
        self.gates = gates
        self.proj_size = proj_size
        self.state_size = proj_size or hidden_size
        for direction in ("forward", "backward"):
            there = bidirectional or direction == "forward"
            self._add(f"weight_ih_{direction}", there, gates * hidden_size, input_size)
            self._add(f"weight_hh_{direction}", there, gates * hidden_size, self.state_size)
            self._add(f"bias_ih_{direction}", there and bias, gates * hidden_size)
            self._add(f"bias_hh_{direction}", there and bias, gates * hidden_size)
            self._add(f"weight_ph_{direction}", there and peephole, 3 * hidden_size)
            self._add(f"weight_hr_{direction}", there and proj_size > 0, proj_size, hidden_size)
        self.reset_parameters()

    def _add(self, name: str, there: bool, *shape: int) -> None:
        self.register_parameter(name, nn.Parameter(torch.empty(shape)) if there else None)

    def reset_parameters(self) -> None:
        """Uniform numbers within 1 / sqrt(hidden_size), as torch's own recurrent layers begin."""
        for weight in self.parameters():
            nn.init.uniform_(weight, -(self.hidden_size**-0.5), self.hidden_size**-0.5)

    def _step(self, x: Tensor, states: list[Tensor], own: Weights) -> list[Tensor]:
        """The states after one step; the first is the output. x (batch, gates*hidden): the input's share."""
        return states

    def _along(self, x: Tensor, states: list[Tensor], own: Weights, backward: bool) -> tuple[Tensor, list[Tensor]]:
        """Outputs (time, batch, hidden) in the order of x, whichever end is read first; the states after all steps."""
        shares = F.linear(x, own.ih, own.bias_ih)
        outputs: list[Tensor] = []
        for t in range(x.shape[0]):
            states = self._step(shares[x.shape[0] - 1 - t if backward else t], states, own)
            outputs.append(states[0])
        y = torch.stack(outputs)
        return (y.flip(0) if backward else y), states

    def _run(self, x: Tensor, before: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The whole layer; states (directions, batch, size) before and after."""
        x = x.transpose(0, 1) if self.batch_first else x
        x = x.flip(0) if self.go_backwards else x
        y, after = self._along(x, [s[0] for s in before], self._forward_weights(), False)
        after = [s.unsqueeze(0) for s in after]
        if self.bidirectional:
            back, last = self._along(x, [s[1] for s in before], self._backward_weights(), True)
            y = torch.cat((y, back), -1)
            after = [torch.cat((s, t.unsqueeze(0))) for s, t in zip(after, last)]  # noqa: B905  script has no strict
        return (y.transpose(0, 1) if self.batch_first else y), after

    def _forward_weights(self) -> Weights:
        return Weights(
            self.weight_ih_forward,
            self.weight_hh_forward,
            self.bias_ih_forward,
            self.bias_hh_forward,
            self.weight_ph_forward,
            self.weight_hr_forward,
        )

    def _backward_weights(self) -> Weights:
        return Weights(
            self.weight_ih_backward,
            self.weight_hh_backward,
            self.bias_ih_backward,
            self.bias_hh_backward,
            self.weight_ph_backward,
            self.weight_hr_backward,
        )

    def _zeros(self, x: Tensor, size: int) -> Tensor:
        batch = x.shape[0] if self.batch_first else x.shape[1]
        return torch.zeros(2 if self.bidirectional else 1, batch, size, dtype=x.dtype, device=x.device)

    def extra_repr(self) -> str:
        """The constructor's arguments where they are not the defaults."""
        flags = ("batch_first", "bidirectional", "go_backwards", "reset_after", "peephole")
        text = [f"{self.input_size}, {self.hidden_size}", f"activation={self.activation!r}"]
        text += [f"gate_activation={self.gate_activation!r}"] if hasattr(self, "gate_activation") else []
        text += [f"{name}=True" for name in flags if getattr(self, name, False)]
        text += ["bias=False"] * (not self.bias) + [f"proj_size={self.proj_size}"] * bool(self.proj_size)
        text += [f"forget_bias={self.forget_bias}"] if getattr(self, "forget_bias", 0.0) else []
        return ", ".join(text)


class RNN(Recurrent):
    """Keras' SimpleRNN with any of its activations: h' = activation(W x + b_ih + R h + b_hh).

    x (time, batch, input), or (batch, time, input) with `batch_first`; returns y (time, batch, directions*hidden) and
    the last state h (directions, batch, hidden), as `nn.RNN`. `h` before the first step: zeros unless given.

    Args:
        activation: one of `layoutx.torch.activations.ACTIVATIONS`.
        bidirectional: a second direction beside the first (Keras' Bidirectional with merge_mode="concat").
        go_backwards: x is read from its end, and y stays in that order, as in Keras.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        activation: str = "tanh",
        go_backwards: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, 1, bias, batch_first, bidirectional, go_backwards, activation)

    def _step(self, x: Tensor, states: list[Tensor], own: Weights) -> list[Tensor]:
        return [activated(self.activation, x + F.linear(states[0], own.hh, own.bias_hh))]

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y and the last state."""
        y, states = self._run(x, [self._zeros(x, self.hidden_size) if h is None else h])
        return y, states[0]


class GRU(Recurrent):
    """Keras' GRU in both its forms, with any of its activations; the reset gate stands before the product by default.

    r, z = gate(W x + b_ih + R h + b_hh); n = activation(W x + b_ih + R (r h) + b_hh), or with `reset_after`
    activation(W x + b_ih + r (R h + b_hh)), which is `nn.GRU`; h' = z h + (1 - z) n.

    x (time, batch, input), or (batch, time, input) with `batch_first`; returns y (time, batch, directions*hidden) and
    the last state h (directions, batch, hidden), as `nn.GRU`. weight_ih (3*hidden, input), weight_hh (3*hidden,
    hidden), gates r z n.

    Args:
        activation, gate_activation: of `layoutx.torch.activations.ACTIVATIONS`.
        bidirectional, go_backwards: as for `RNN`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        activation: str = "tanh",
        gate_activation: str = "sigmoid",
        reset_after: bool = False,
        go_backwards: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, 3, bias, batch_first, bidirectional, go_backwards, activation)
        self.gate_activation = known(gate_activation)
        self.reset_after = reset_after

    def _step(self, x: Tensor, states: list[Tensor], own: Weights) -> list[Tensor]:
        h, size = states[0], 2 * self.hidden_size
        if self.reset_after:
            share = F.linear(h, own.hh, own.bias_hh)
            r, z = activated(self.gate_activation, x[:, :size] + share[:, :size]).chunk(2, 1)
            n = activated(self.activation, x[:, size:] + r * share[:, size:])
        else:
            bias = own.bias_hh
            gates = x[:, :size] + F.linear(h, own.hh[:size], None if bias is None else bias[:size])
            r, z = activated(self.gate_activation, gates).chunk(2, 1)
            share = F.linear(r * h, own.hh[size:], None if bias is None else bias[size:])
            n = activated(self.activation, x[:, size:] + share)
        return [z * h + (1.0 - z) * n]

    def forward(self, x: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """y and the last state."""
        y, states = self._run(x, [self._zeros(x, self.hidden_size) if h is None else h])
        return y, states[0]


class LSTM(Recurrent):
    """Keras' LSTM with any of its activations, and TensorFlow 1's LSTMCell with peepholes and projection.

    i, f = gate(W x + b_ih + R h + b_hh + p c), to f's sum also `forget_bias`; g = activation(W x + b_ih + R h + b_hh);
    c' = f c + i g; o = gate(... + p c'); h' = P (o activation(c')).

    x (time, batch, input), or (batch, time, input) with `batch_first`; returns y (time, batch, directions*h) and the
    last states (h, c), (directions, batch, proj_size or hidden) and (directions, batch, hidden), as `nn.LSTM`.
    weight_ih (4*hidden, input), weight_hh (4*hidden, h), gates i f g o; weight_ph (3*hidden), peepholes of i f o;
    weight_hr (proj_size, hidden).

    Args:
        proj_size: length of the projected output; 0 for none.
        activation, gate_activation: of `layoutx.torch.activations.ACTIVATIONS`.
        peephole: the gates see the cell state: i and f the old one, o the new one.
        forget_bias: added to the forget gate when it runs; TensorFlow 1 adds 1.0, Keras keeps it in the bias.
        bidirectional, go_backwards: as for `RNN`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        batch_first: bool = False,
        bidirectional: bool = False,
        proj_size: int = 0,
        activation: str = "tanh",
        gate_activation: str = "sigmoid",
        peephole: bool = False,
        forget_bias: float = 0.0,
        go_backwards: bool = False,
    ) -> None:
        super().__init__(
            input_size, hidden_size, 4, bias, batch_first, bidirectional, go_backwards, activation, peephole, proj_size
        )
        self.gate_activation = known(gate_activation)
        self.peephole = peephole
        self.forget_bias = forget_bias

    def _step(self, x: Tensor, states: list[Tensor], own: Weights) -> list[Tensor]:
        h, c = states[0], states[1]
        i, f, g, o = (x + F.linear(h, own.hh, own.bias_hh)).chunk(4, 1)
        peephole, projection = own.peephole, own.projection
        if peephole is not None:
            i = i + peephole[: self.hidden_size] * c
            f = f + peephole[self.hidden_size : 2 * self.hidden_size] * c
        i, f = activated(self.gate_activation, i), activated(self.gate_activation, f + self.forget_bias)
        c = f * c + i * activated(self.activation, g)
        if peephole is not None:
            o = o + peephole[2 * self.hidden_size :] * c
        h = activated(self.gate_activation, o) * activated(self.activation, c)
        return [h if projection is None else F.linear(h, projection), c]

    def forward(self, x: Tensor, hc: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """y and the last states."""
        if hc is None:
            hc = (self._zeros(x, self.state_size), self._zeros(x, self.hidden_size))
        y, states = self._run(x, [hc[0], hc[1]])
        return y, (states[0], states[1])
