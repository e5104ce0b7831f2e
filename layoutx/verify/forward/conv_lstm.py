"""An LSTM whose products are convolutions: one convolution of all inputs, then one of the hidden state at each step."""

from __future__ import annotations

import numpy as np

from layoutx.errors import SizeError
from layoutx.verify.forward.activations import activation
from layoutx.verify.forward.conv import correlate
from layoutx.verify.forward.shapes import Array, Arrays, Facts, common_dtype, need, sizes_of


def conv_lstm(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """i, f, o = gate(W * x + R * h + b); g = act(W * x + R * h + b); c' = f c + i g; h' = o act(c').

    Gates in the order i f g o: w_input (gate, hidden, input, ...), w_recurrent (gate, hidden, hidden_prev, ...),
    b_input and b_recurrent (gate, hidden) or absent; x (batch, time, ..., input) -> y (batch, time, ..., hidden);
    h, c (batch, ..., hidden), the states after the last step. Settings `strides`, `dilation`, `padding` as `conv`
    for the input; the hidden state is convolved with stride 1, no dilation and padding "same".
    Facts `activation`, `gate_activation`.
    """
    act, gate = activation(facts.get("activation", "tanh")), activation(facts.get("gate_activation", "sigmoid"))
    w, r = need("conv_lstm", roles, "w_input", "w_recurrent")
    (data,) = need("conv_lstm", x, "x")
    sizes = _sizes(roles, w, r, data)
    zero = np.zeros(w.shape[:2], common_dtype(data, w))
    bias = roles.get("b_input", zero) + roles.get("b_recurrent", zero)
    steps = data.reshape(-1, *data.shape[2:])
    drive = _gates(steps, w, settings) + bias
    drive = drive.reshape(*data.shape[:2], *drive.shape[1:])
    h = c = np.zeros((sizes["batch"], *drive.shape[2:-2], sizes["hidden"]), drive.dtype)
    outputs = []
    for t in range(sizes["time"]):
        i, f, g, o = np.moveaxis(drive[:, t] + _gates(h, r, {"padding": "same"}), -2, 0)
        c = gate(f) * c + gate(i) * act(g)
        h = gate(o) * act(c)
        outputs.append(h)
    return {"y": np.stack(outputs, axis=1), "h": h, "c": c}


def _gates(data: Array, kernel: Array, settings: Facts) -> Array:
    """data (batch, ..., input), kernel (gate, hidden, input, ...) -> (batch, ..., gate, hidden)."""
    gates, hidden = kernel.shape[:2]
    y = correlate(data, kernel.reshape(1, gates * hidden, *kernel.shape[2:]), settings)
    return y.reshape(*y.shape[:-2], gates, hidden)


def _sizes(roles: Arrays, w: Array, r: Array, data: Array) -> dict[str, int]:
    sizes = sizes_of(
        "conv_lstm",
        {
            "w_input": (w, "gate hidden input k..."),
            "w_recurrent": (r, "gate hidden hidden_prev k..."),
            "b_input": (roles.get("b_input"), "gate hidden"),
            "b_recurrent": (roles.get("b_recurrent"), "gate hidden"),
            "x": (data, "batch time space... input"),
        },
    )
    if sizes["gate"] != 4:
        raise SizeError(f"conv_lstm: w_input has {sizes['gate']} gates, not 4", where=f"w_input {w.shape}")
    if sizes["hidden_prev"] != sizes["hidden"]:
        raise SizeError(f"conv_lstm: hidden_prev is {sizes['hidden_prev']} and hidden {sizes['hidden']}")
    if w.ndim != data.ndim:
        raise SizeError(f"conv_lstm: the kernel has {w.ndim - 3} spatial axes and x has {data.ndim - 3}")
    return sizes
