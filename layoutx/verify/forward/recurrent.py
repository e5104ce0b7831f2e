"""Simple RNN, LSTM and GRU: one loop over time for each direction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from layoutx.errors import SizeError, UsageError
from layoutx.verify.forward.activations import activation
from layoutx.verify.forward.shapes import Array, Arrays, Facts, common_dtype, need, sizes_of

# (x W_i + b_i, R, b_r, states) of one step -> the next states; the first state is the output
Step = Callable[[Array, Array, Array, tuple[Array, ...]], tuple[Array, ...]]


def simple_rnn(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """h' = act(W x + b_input + R h + b_recurrent).

    w_input (direction, hidden, input), w_recurrent (direction, hidden, hidden_prev), biases (direction, hidden).
    Data and directions as `lstm`. Fact `activation`.
    """
    act = activation(facts.get("activation", "tanh"))

    def step(drive: Array, r: Array, b: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        return (act(drive + states[0] @ r.T + b),)

    return _run("simple_rnn", "", 1, step, roles, x, facts)


def lstm(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """i, f, o = gate(...); g = act(...); c' = f c + i g; h' = o act(c').

    Gates in the order i f g o: w_input (direction, gate, hidden, input), w_recurrent (direction, gate, hidden,
    hidden_prev), b_input and b_recurrent (direction, gate, hidden) or absent.
    x (batch, time, input) -> y (batch, time, direction*hidden), forward then backward, both aligned to the time of
    x; h, c (direction, batch, hidden), the states after the last step that each direction takes.
    Facts `activation`, `gate_activation`; `direction: backward` where the only direction runs backward.
    """
    act, gate = activation(facts.get("activation", "tanh")), activation(facts.get("gate_activation", "sigmoid"))

    def step(drive: Array, r: Array, b: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        h, c = states
        i, f, g, o = np.moveaxis(drive + _product(h, r) + b, 1, 0)
        c = gate(f) * c + gate(i) * act(g)
        return gate(o) * act(c), c

    return _run("lstm", "gate", 2, step, roles, x, facts)


def gru(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """z, r = gate(...); h' = z h + (1 - z) n.

    Gates in the order z r n, roles, data and facts as `lstm`. Fact `reset`:
    `after`: n = act(W x + b_input + r (R h + b_recurrent)); `before`: n = act(W x + b_input + R (r h) + b_recurrent).
    """
    act, gate = activation(facts.get("activation", "tanh")), activation(facts.get("gate_activation", "sigmoid"))
    reset = facts.get("reset", "after")
    if reset not in ("after", "before"):
        raise UsageError(f"gru: reset={reset!r} is unknown", where="known: after, before")

    def step(drive: Array, recurrent: Array, b: Array, states: tuple[Array, ...]) -> tuple[Array, ...]:
        (h,) = states
        z, r = np.moveaxis(gate(drive[:, :2] + _product(h, recurrent[:2]) + b[:2]), 1, 0)
        if reset == "after":
            n = act(drive[:, 2] + r * (h @ recurrent[2].T + b[2]))
        else:
            n = act(drive[:, 2] + (r * h) @ recurrent[2].T + b[2])
        return (z * h + (1.0 - z) * n,)

    return _run("gru", "gate", 1, step, roles, x, facts)


def _product(h: Array, recurrent: Array) -> Array:
    return np.asarray(np.einsum("bp,ghp->bgh", h, recurrent))


def _run(kind: str, gate: str, states: int, step: Step, roles: Arrays, x: Arrays, facts: Facts) -> dict[str, Array]:
    w, r = need(kind, roles, "w_input", "w_recurrent")
    (data,) = need(kind, x, "x")
    bias = f"direction {gate} hidden"
    given = {
        "w_input": (w, f"{bias} input"),
        "w_recurrent": (r, f"{bias} hidden_prev"),
        "b_input": (roles.get("b_input"), bias),
        "b_recurrent": (roles.get("b_recurrent"), bias),
        "x": (data, "batch time input"),
    }
    sizes = sizes_of(kind, given)
    if gate and sizes["gate"] != (wanted := {"lstm": 4, "gru": 3}[kind]):
        raise SizeError(f"{kind}: w_input has {sizes['gate']} gates, not {wanted}", where=f"w_input {w.shape}")
    if sizes["hidden_prev"] != sizes["hidden"]:
        raise SizeError(f"{kind}: hidden_prev is {sizes['hidden_prev']} and hidden {sizes['hidden']}")
    zero = np.zeros(w.shape[:-1], common_dtype(data, w))
    b_i, b_r = roles.get("b_input", zero), roles.get("b_recurrent", zero)
    begin = (np.zeros((sizes["batch"], sizes["hidden"]), zero.dtype),) * states
    runs = [
        _scan(step, np.einsum("bti,...i->tb...", data, w[d]) + b_i[d], r[d], b_r[d], begin, backward)
        for d, backward in enumerate(_backward(kind, sizes["direction"], facts))
    ]
    finals = {name: np.stack([run[1][k] for run in runs]) for k, name in enumerate(("h", "c")[:states])}
    return {"y": np.concatenate([run[0] for run in runs], axis=-1), **finals}


def _scan(
    step: Step, drive: Array, r: Array, b: Array, states: tuple[Array, ...], backward: bool
) -> tuple[Array, tuple[Array, ...]]:
    """One direction: drive (time, batch, [gate,] hidden) -> y (batch, time, hidden) in the time of x, last states."""
    outputs = []
    for t in reversed(range(len(drive))) if backward else range(len(drive)):
        states = step(drive[t], r, b, states)
        outputs.append(states[0])
    return np.stack(outputs[::-1] if backward else outputs, axis=1), states


def _backward(kind: str, directions: int, facts: Facts) -> tuple[bool, ...]:
    only = facts.get("direction", "forward")
    if directions == 2:
        return (False, True)
    if directions != 1 or only not in ("forward", "backward"):
        raise UsageError(f"{kind}: {directions} directions, direction={only!r}", where="known: forward, backward, both")
    return (only == "backward",)
