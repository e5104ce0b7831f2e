"""Keras 1's layers once more, in plain NumPy: its own array order, its own orientation, its own equations.

Independent of the specs and of the reference: written from keras 1.2.2 `keras/layers/*.py`, `call` and `step` of each
class, and `keras/backend/*_backend.py`. Theano's `conv2d` is a true convolution; TensorFlow's is a correlation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Array = np.ndarray
Weights = Mapping[str, Array]


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def hard_sigmoid(x: Array) -> Array:
    return np.minimum(np.maximum(0.2 * x + 0.5, 0.0), 1.0)


def simple_rnn(w: Weights, x: Array) -> dict[str, Array]:
    h, outs = np.zeros((len(x), w["U"].shape[1])), []
    for t in range(x.shape[1]):
        h = np.tanh(np.dot(x[:, t], w["W"]) + w["b"] + np.dot(h, w["U"]))
        outs.append(h)
    return {"y": np.stack(outs, 1), "h": h[None]}


def lstm(w: Weights, x: Array) -> dict[str, Array]:
    """Twelve arrays (cpu, mem) or three, in blocks i f c o (gpu)."""
    units = w["U_i" if "U_i" in w else "U"].shape[0]
    h = c = np.zeros((len(x), units))
    outs = []
    for t in range(x.shape[1]):
        if "U_i" in w:
            pre = {g: np.dot(x[:, t], w[f"W_{g}"]) + w[f"b_{g}"] + np.dot(h, w[f"U_{g}"]) for g in "ifco"}
        else:
            z = np.dot(x[:, t], w["W"]) + np.dot(h, w["U"]) + w["b"]
            pre = {g: z[:, k * units : (k + 1) * units] for k, g in enumerate("ifco")}
        c = hard_sigmoid(pre["f"]) * c + hard_sigmoid(pre["i"]) * np.tanh(pre["c"])
        h = hard_sigmoid(pre["o"]) * np.tanh(c)
        outs.append(h)
    return {"y": np.stack(outs, 1), "h": h[None], "c": c[None]}


def gru(w: Weights, x: Array) -> dict[str, Array]:
    """Nine arrays (cpu, mem) or three, in blocks z r h (gpu)."""
    units = w["U_z" if "U_z" in w else "U"].shape[0]
    if "U" in w:
        cut = {g: slice(k * units, (k + 1) * units) for k, g in enumerate("zrh")}
        w = {f"{a}_{g}": w[a][..., cut[g]] for a in "WUb" for g in "zrh"}
    h, outs = np.zeros((len(x), units)), []
    for t in range(x.shape[1]):
        z = hard_sigmoid(np.dot(x[:, t], w["W_z"]) + w["b_z"] + np.dot(h, w["U_z"]))
        r = hard_sigmoid(np.dot(x[:, t], w["W_r"]) + w["b_r"] + np.dot(h, w["U_r"]))
        hh = np.tanh(np.dot(x[:, t], w["W_h"]) + w["b_h"] + np.dot(r * h, w["U_h"]))
        h = z * h + (1 - z) * hh
        outs.append(h)
    return {"y": np.stack(outs, 1), "h": h[None]}


def bidirectional(layer: Callable[[Weights, Array], dict[str, Array]], w: Weights, x: Array) -> dict[str, Array]:
    ahead = layer({k.removeprefix("forward_layer/"): v for k, v in w.items() if k.startswith("forward")}, x)
    back = layer({k.removeprefix("backward_layer/"): v for k, v in w.items() if k.startswith("backward")}, x[:, ::-1])
    states = {name: np.concatenate([ahead[name], back[name]]) for name in ahead if name != "y"}
    return {"y": np.concatenate([ahead["y"], back["y"][:, ::-1]], -1), **states}


def conv2d(x: Array, w: Array, theano: bool, same: bool = False, rate: int = 1) -> Array:
    """x (batch, in, row, column), w (out, in, row, column), one step at a time."""
    rows, cols = w.shape[2:]
    if same:
        half = [(k // 2, k // 2) if theano else ((k - 1) // 2, k // 2) for k in (rows, cols)]
        x, length = np.pad(x, [(0, 0), (0, 0), *half]), x.shape[2:]
    else:
        length = (x.shape[2] - (rows - 1) * rate, x.shape[3] - (cols - 1) * rate)
    y = np.zeros((len(x), len(w), *length))
    for n, o, p, q, i, a, b in np.ndindex(*y.shape, x.shape[1], rows, cols):
        row, col = (rows - 1 - a, cols - 1 - b) if theano else (a, b)
        y[n, o, p, q] += x[n, i, p + row * rate, q + col * rate] * w[o, i, a, b]
    return y


def to_th(x: Array, ordering: str) -> Array:
    return x if ordering == "th" else np.moveaxis(x, -1, 1)


def from_th(y: Array, ordering: str) -> Array:
    return y if ordering == "th" else np.moveaxis(y, 1, -1)


def kernel_th(w: Array, ordering: str) -> Array:
    """TH kernel (depth, input_depth, rows, cols), TF kernel (rows, cols, input_depth, depth)."""
    return w if ordering == "th" else np.transpose(w, (3, 2, 0, 1))


def convolution2d(w: Weights, x: Array, ordering: str, backend: str, **how: int) -> dict[str, Array]:
    y = conv2d(to_th(x, ordering), kernel_th(w["W"], ordering), backend == "theano", **how)
    return {"y": from_th(y + w["b"][None, :, None, None], ordering)}


def convolution1d(w: Weights, x: Array, backend: str, old: bool, **how: int) -> dict[str, Array]:
    """1.0: kernel (out, in, length, 1), ordering th; from 1.1: (length, 1, in, out), ordering tf."""
    kernel = w["W"] if old else np.transpose(w["W"], (3, 2, 0, 1))
    y = conv2d(np.moveaxis(x, 1, 2)[..., None], kernel, backend == "theano", **how)[..., 0]
    return {"y": np.moveaxis(y + w["b"][None, :, None], 1, 2)}


def deconvolution2d(w: Weights, x: Array, ordering: str, backend: str, stride: int) -> dict[str, Array]:
    """The gradient of the convolution that `conv2d` computes, with the inputs' and outputs' channels exchanged."""
    x, kernel = to_th(x, ordering), kernel_th(w["W"], ordering)
    (rows, cols), (height, width) = kernel.shape[2:], x.shape[2:]
    y = np.zeros((len(x), len(kernel), (height - 1) * stride + rows, (width - 1) * stride + cols))
    for n, i, p, q, o, a, b in np.ndindex(*x.shape, len(kernel), rows, cols):
        row, col = (rows - 1 - a, cols - 1 - b) if backend == "theano" else (a, b)
        y[n, o, p * stride + row, q * stride + col] += x[n, i, p, q] * kernel[o, i, a, b]
    return {"y": from_th(y + w["b"][None, :, None, None], ordering)}


def separable_convolution2d(w: Weights, x: Array, ordering: str) -> dict[str, Array]:
    depth = w["depthwise_kernel"]
    point = w["pointwise_kernel"]
    if ordering == "th":
        depth, point = np.transpose(depth, (2, 3, 1, 0)), np.transpose(point, (2, 3, 1, 0))
    x = to_th(x, ordering)
    rows, cols, channels, mult = depth.shape
    between = np.zeros((len(x), channels * mult, x.shape[2] - rows + 1, x.shape[3] - cols + 1))
    for c, m in np.ndindex(channels, mult):
        between[:, c * mult + m] = conv2d(x[:, c : c + 1], depth[None, None, :, :, c, m], False)[:, 0]
    y = np.einsum("bchw,co->bohw", between, point[0, 0]) + w["b"][None, :, None, None]
    return {"y": from_th(y, ordering)}


def locally_connected1d(w: Weights, x: Array) -> dict[str, Array]:
    places, rows, _ = w["W"].shape
    length = rows // x.shape[2]
    y = [x[:, p : p + length].reshape(len(x), rows) @ w["W"][p] + w["b"][p] for p in range(places)]
    return {"y": np.stack(y, 1)}


def locally_connected2d(w: Weights, x: Array, ordering: str, size: tuple[int, int]) -> dict[str, Array]:
    height, width = (x.shape[2], x.shape[3]) if ordering == "th" else (x.shape[1], x.shape[2])
    out_rows, out_cols = height - size[0] + 1, width - size[1] + 1
    out = np.zeros((len(x), out_rows, out_cols, w["W"].shape[2]))
    for i, j in np.ndindex(out_rows, out_cols):
        rows, cols = slice(i, i + size[0]), slice(j, j + size[1])
        window = x[:, :, rows, cols] if ordering == "th" else x[:, rows, cols, :]
        out[:, i, j] = window.reshape(len(x), -1) @ w["W"][i * out_cols + j]
    y = np.moveaxis(out, -1, 1) if ordering == "th" else out
    return {"y": y + w["b"] if "b" in w else y}


def conv_lstm2d(w: Weights, x: Array, ordering: str, backend: str) -> dict[str, Array]:
    """border_mode valid for the input, always same for the state."""
    theano, steps = backend == "theano", []
    h = c = None
    for t in range(x.shape[1]):
        now = to_th(x[:, t], ordering)
        pre = {g: conv2d(now, kernel_th(w[f"W_{g}"], ordering), theano) for g in "ifco"}
        h, c = (np.zeros_like(pre["i"]),) * 2 if h is None else (h, c)
        for g in "ifco":
            pre[g] = pre[g] + w[f"b_{g}"][None, :, None, None]
            pre[g] = pre[g] + conv2d(h, kernel_th(w[f"U_{g}"], ordering), theano, same=True)
        c = hard_sigmoid(pre["f"]) * c + hard_sigmoid(pre["i"]) * np.tanh(pre["c"])
        h = hard_sigmoid(pre["o"]) * np.tanh(c)
        steps.append(from_th(h, ordering))
    return {"y": np.stack(steps, 1), "h": steps[-1], "c": from_th(c, ordering)}


def batch_normalization(w: Weights, x: Array, axis: int, epsilon: float, theano: int = 8) -> dict[str, Array]:
    """From 1.0.8 on; before, each release of 1.0 (`theano`: its last number there) divided by something else.

    keras@1.0.5 normalization.py l.133 (either backend); @1.0.6 theano_backend.py l.317, @1.0.7 l.389.
    """
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    mean, var, beta, gamma = (w[k].reshape(shape) for k in ("running_mean", "running_std", "beta", "gamma"))
    if theano <= 6:
        return {"y": gamma * ((x - mean) / (var + epsilon)) + beta}
    root = np.sqrt(var) + epsilon if theano == 7 else np.sqrt(var + epsilon)
    return {"y": (x - mean) / root * gamma + beta}


def relu(x: Array, alpha: Array | float = 0.0, max_value: Array | float = np.inf) -> Array:
    return np.minimum(np.maximum(x, 0.0), max_value) - alpha * np.maximum(-x, 0.0)


def prelu(w: Weights, x: Array) -> dict[str, Array]:
    return {"y": relu(x) + w["alphas"] * (x - abs(x)) * 0.5}


def srelu(w: Weights, x: Array) -> dict[str, Array]:
    t_right = w["t_left"] + abs(w["t_right"])
    left = w["t_left"] + relu(x - w["t_left"], w["a_left"], t_right - w["t_left"])
    return {"y": left + relu(x - t_right) * w["a_right"]}


def parametric_softplus(w: Weights, x: Array) -> dict[str, Array]:
    return {"y": np.log(1 + np.exp(w["betas"] * x)) * w["alphas"]}


def dense(w: Weights, x: Array) -> dict[str, Array]:
    return {"y": np.dot(x, w["W"]) + w["b"]}


def embedding(w: Weights, x: Array) -> dict[str, Array]:
    return {"y": w["W"][x]}


def highway(w: Weights, x: Array) -> dict[str, Array]:
    weight = sigmoid(np.dot(x, w["W_carry"]) + w["b_carry"])
    return {"y": np.tanh(np.dot(x, w["W"]) + w["b"]) * weight + (1 - weight) * x}


def maxout_dense(w: Weights, x: Array) -> dict[str, Array]:
    return {"y": np.max(np.tensordot(x, w["W"], (1, 1)) + w["b"], axis=1)}
