"""The minimal gated unit of flax: one gate is both what is kept and what is seen of the past."""

from __future__ import annotations

import numpy as np

from layoutx.errors import UsageError
from layoutx.verify.forward.activations import activation
from layoutx.verify.forward.recurrent import States, product, recurrent
from layoutx.verify.forward.shapes import Array, Arrays, Facts


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
