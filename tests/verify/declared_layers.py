"""Recurrent layers of frameworks that nobody can run here, replayed in NumPy from their published equations.

Weights go by their published blocks, which `cut` names one by one; nothing here reads a spec.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Array = np.ndarray
Blocks = Mapping[str, Array]


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def cut(array: Array, order: str, axis: int = 0) -> dict[str, Array]:
    """Equal blocks along an axis, by the letters of the order: `ifgo`."""
    return dict(zip(order, np.split(array, len(order), axis), strict=True))


def lstm(
    x: Array,
    w: Blocks,
    r: Blocks,
    b: Blocks,
    *,
    peep: Blocks | None = None,
    project: Array | None = None,
    forget: float = 0.0,
    backward: bool = False,
) -> dict[str, Array]:
    """x (time, batch, input), w[gate] (hidden, input), r[gate] (hidden, state) -> y (time, batch, state), h, c."""
    peep = peep or dict.fromkeys("ifo", 0.0)
    h, c = np.zeros((x.shape[1], r["i"].shape[1])), np.zeros((x.shape[1], len(r["i"])))
    outs = {}
    for t in reversed(range(len(x))) if backward else range(len(x)):
        pre = {g: x[t] @ w[g].T + h @ r[g].T + b[g] for g in "ifgo"}
        i = sigmoid(pre["i"] + peep["i"] * c)
        f = sigmoid(pre["f"] + peep["f"] * c + forget)
        c = f * c + i * np.tanh(pre["g"])
        h = sigmoid(pre["o"] + peep["o"] * c) * np.tanh(c)
        h = h if project is None else h @ project.T
        outs[t] = h
    return {"y": np.stack([outs[t] for t in sorted(outs)]), "h": h, "c": c}


def gru(
    x: Array, w: Blocks, r: Blocks, b: Blocks, b_r: Blocks, after: bool, backward: bool = False
) -> dict[str, Array]:
    """As `lstm`; b_r: biases of the recurrent product; `after`: the reset gate is applied to that product."""
    h, outs = np.zeros((x.shape[1], len(r["z"]))), {}
    for t in reversed(range(len(x))) if backward else range(len(x)):
        z = sigmoid(x[t] @ w["z"].T + b["z"] + h @ r["z"].T + b_r["z"])
        reset = sigmoid(x[t] @ w["r"].T + b["r"] + h @ r["r"].T + b_r["r"])
        inner = reset * (h @ r["n"].T + b_r["n"]) if after else (reset * h) @ r["n"].T + b_r["n"]
        h = z * h + (1 - z) * np.tanh(x[t] @ w["n"].T + b["n"] + inner)
        outs[t] = h
    return {"y": np.stack([outs[t] for t in sorted(outs)]), "h": h}


def rnn(x: Array, w: Array, r: Array, b: Array, function: str, backward: bool = False) -> dict[str, Array]:
    act = {"tanh": np.tanh, "relu": lambda v: np.maximum(v, 0.0), "sigmoid": sigmoid}[function]
    h, outs = np.zeros((x.shape[1], len(r))), {}
    for t in reversed(range(len(x))) if backward else range(len(x)):
        outs[t] = h = act(x[t] @ w.T + h @ r.T + b)
    return {"y": np.stack([outs[t] for t in sorted(outs)]), "h": h}


def joined(runs: list[dict[str, Array]]) -> dict[str, Array]:
    """Directions side by side in y (time, batch, direction * hidden), one after the other in h and c."""
    states = {name: np.stack([run[name] for run in runs]) for name in runs[0] if name != "y"}
    return {"y": np.concatenate([run["y"] for run in runs], -1), **states}


def flat(array: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """One flat array taken apart, in order."""
    ends = np.cumsum([int(np.prod(s)) for s in shapes])
    assert ends[-1] == array.size
    return [part.reshape(s) for part, s in zip(np.split(array, ends[:-1]), shapes, strict=True)]
