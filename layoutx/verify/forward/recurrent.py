"""Simple RNN, LSTM and GRU: one loop over time for each direction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from layoutx.errors import SizeError, UsageError
from layoutx.verify.forward.activations import activation
from layoutx.verify.forward.shapes import Array, Arrays, Facts, common_dtype, need, sizes_of

# (x W_i + b_i, the roles of this direction, states) of one step -> the next states; the first state is the output
States = tuple[Array, ...]
Step = Callable[[Array, Arrays, States], States]


def simple_rnn(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """h' = act(W x + b_input + R h + b_recurrent).

    w_input (direction, hidden, input), w_recurrent (direction, hidden, hidden_prev), biases (direction, hidden).
    Data and directions as `lstm`. Fact `activation`.
    """
    act = activation(facts.get("activation", "tanh"))

    def step(drive: Array, own: Arrays, states: States) -> States:
        return (act(drive + states[0] @ own["w_recurrent"].T + own["b_recurrent"]),)

    return recurrent("simple_rnn", 0, 1, step, roles, x, facts)


def lstm(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """i, f, o = gate(...); g = act(...); c' = f c + i g; h' = o act(c').

    Gates in the order i f g o: w_input (direction, gate, hidden, input), w_recurrent (direction, gate, hidden,
    hidden_prev), b_input and b_recurrent (direction, gate, hidden) or absent. peephole (direction, [i f o], hidden) or
    absent: i and f see the old cell state, o the new one. w_projection (direction, proj, hidden) or absent:
    h' = w_projection (o act(c')), and hidden_prev is proj.
    x (batch, time, input) -> y (batch, time, direction*hidden_prev), forward then backward, both aligned to the time
    of x; h (direction, batch, hidden_prev), c (direction, batch, hidden), the states after the last step that each
    direction takes.
    Facts `activation`, `gate_activation`; `direction: backward` where the only direction runs backward.
    """
    act, gate = activation(facts.get("activation", "tanh")), activation(facts.get("gate_activation", "sigmoid"))

    def step(drive: Array, own: Arrays, states: States) -> States:
        h, c = states
        i, f, g, o = np.moveaxis(drive + product(h, own["w_recurrent"]) + own["b_recurrent"], 1, 0)
        p_i, p_f, p_o = own.get("peephole", (0.0, 0.0, 0.0))
        c = gate(f + p_f * c) * c + gate(i + p_i * c) * act(g)
        h = gate(o + p_o * c) * act(c)
        return (h @ own["w_projection"].T if "w_projection" in own else h), c

    return recurrent("lstm", 4, 2, step, roles, x, facts)


def gru(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """z, r = gate(...); h' = z h + (1 - z) n.

    Gates in the order z r n, roles, data and facts as `lstm`. Fact `reset`:
    `after`: n = act(W x + b_input + r (R h + b_recurrent)); `before`: n = act(W x + b_input + R (r h) + b_recurrent).
    """
    act, gate = activation(facts.get("activation", "tanh")), activation(facts.get("gate_activation", "sigmoid"))
    reset = facts.get("reset", "after")
    if reset not in ("after", "before"):
        raise UsageError(f"gru: reset={reset!r} is unknown", where="known: after, before")

    def step(drive: Array, own: Arrays, states: States) -> States:
        (h,), w, b = states, own["w_recurrent"], own["b_recurrent"]
        z, r = np.moveaxis(gate(drive[:, :2] + product(h, w[:2]) + b[:2]), 1, 0)
        inner = r * (h @ w[2].T + b[2]) if reset == "after" else (r * h) @ w[2].T + b[2]
        n = act(drive[:, 2] + inner)
        return (z * h + (1.0 - z) * n,)

    return recurrent("gru", 3, 1, step, roles, x, facts)


def mgu(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """f = gate(...); h' = f h + (1 - f) n (flax 0.12.8 MGUCell).

    Gates in the order f n: w_input (direction, gate, hidden, input), w_recurrent (direction, gate, hidden,
    hidden_prev), b_input and b_recurrent (direction, gate, hidden) or absent; data and directions as `lstm`.
    Facts `activation`, `gate_activation`, `reset`: `after`: n = act(W x + b_input + f (R h + b_recurrent));
    `none`: n = act(W x + b_input + R h + b_recurrent).

    Raises:
        UsageError: another `reset`, an unknown activation, a missing role. SizeError: arrays that do not fit.
    """
    act, gate = activation(facts.get("activation", "tanh")), activation(facts.get("gate_activation", "sigmoid"))
    reset = facts.get("reset", "after")
    if reset not in ("after", "none"):
        raise UsageError(f"mgu: reset={reset!r} is unknown", where="known: after, none")

    def step(drive: Array, own: Arrays, states: States) -> States:
        (h,) = states
        seen, candidate = np.moveaxis(product(h, own["w_recurrent"]) + own["b_recurrent"], 1, 0)
        f = gate(drive[:, 0] + seen)
        n = act(drive[:, 1] + (f * candidate if reset == "after" else candidate))
        return (f * h + (1.0 - f) * n,)

    return recurrent("mgu", 2, 1, step, roles, x, facts)


def product(h: Array, w_recurrent: Array) -> Array:
    """h (batch, hidden_prev) times w_recurrent (gate, hidden, hidden_prev) -> (batch, gate, hidden)."""
    return np.asarray(np.einsum("bp,ghp->bgh", h, w_recurrent))


def recurrent(
    kind: str, gates: int, states: int, step: Step, roles: Arrays, x: Arrays, facts: Facts
) -> dict[str, Array]:
    """Every direction of a recurrent layer: y (batch, time, direction*hidden_prev), and the last states.

    x may hold h0 and c0 (batch, direction, hidden), the first states, and mask (batch, time), False where a step is
    left out: the states stay as they are, and y is zero.

    Args:
        gates: how many the kind has; 0: its roles have no gate axis.
        states: how many it keeps: h, or h and c.
        step: (drive (batch, [gate,] hidden), the roles of one direction, states) -> states.
    """
    w, r = need(kind, roles, "w_input", "w_recurrent")
    (data,) = need(kind, x, "x")
    gate = "gate" if gates else ""
    bias = f"direction {gate} hidden"
    projection = roles.get("w_projection")
    given = {
        "w_input": (w, f"{bias} input"),
        "w_recurrent": (r, f"{bias} hidden_prev"),
        "b_input": (roles.get("b_input"), bias),
        "b_recurrent": (roles.get("b_recurrent"), bias),
        "w_projection": (projection, "direction hidden_prev hidden"),
        "x": (data, "batch time input"),
    }
    sizes = sizes_of(kind, given)
    if gates and sizes["gate"] != gates:
        raise SizeError(f"{kind}: w_input has {sizes['gate']} gates, not {gates}", where=f"w_input {w.shape}")
    if projection is None and sizes["hidden_prev"] != sizes["hidden"]:
        raise SizeError(f"{kind}: hidden_prev is {sizes['hidden_prev']} and hidden {sizes['hidden']}")
    zero = np.zeros(w.shape[:-1], common_dtype(data, w))
    own = {"b_input": zero, "b_recurrent": zero, **roles}
    empty = [np.zeros((sizes["batch"], len(w), sizes[a]), zero.dtype) for a in ("hidden_prev", "hidden")[:states]]
    begin = [x.get(name, array) for name, array in zip(("h0", "c0"), empty, strict=False)]
    runs = [
        _scan(
            step,
            {n: array[d] for n, array in own.items()},
            data,
            tuple(s[:, d] for s in begin),
            backward,
            x.get("mask"),
        )
        for d, backward in enumerate(_backward(kind, sizes["direction"], facts))
    ]
    finals = {name: np.stack([run[1][k] for run in runs]) for k, name in enumerate(("h", "c")[:states])}
    return {"y": np.concatenate([run[0] for run in runs], axis=-1), **finals}


def _scan(
    step: Step, own: Arrays, data: Array, states: States, backward: bool, mask: Array | None
) -> tuple[Array, States]:
    """One direction over data (batch, time, input) -> y (batch, time, hidden_prev) in the time of x, last states."""
    outputs = []
    drive = np.einsum("bti,...i->tb...", data, own["w_input"]) + own["b_input"]
    for t in reversed(range(len(drive))) if backward else range(len(drive)):
        after = step(drive[t], own, states)
        if mask is None:
            states = after
            outputs.append(states[0])
            continue
        counts = mask[:, t, None]
        states = tuple(np.where(counts, new, old) for new, old in zip(after, states, strict=True))
        outputs.append(np.where(counts, states[0], 0))
    return np.stack(outputs[::-1] if backward else outputs, axis=1), states


def _backward(kind: str, directions: int, facts: Facts) -> tuple[bool, ...]:
    only = facts.get("direction", "forward")
    if directions == 2:
        return (False, True)
    if directions != 1 or only not in ("forward", "backward"):
        raise UsageError(f"{kind}: {directions} directions, direction={only!r}", where="known: forward, backward, both")
    return (only == "backward",)
