"""A gated feed-forward block, as language models have it: down(act(gate(x)) * up(x))."""

from __future__ import annotations

from layoutx.verify.forward.activations import activation
from layoutx.verify.forward.shapes import Array, Arrays, Facts, biased, need, sizes_of


def gated_mlp(roles: Arrays, x: Arrays, facts: Facts, settings: Facts) -> dict[str, Array]:
    """y = w_down (act(w_gate x + b_gate) * (w_up x + b_up)) + b_down.

    w_gate, w_up (inner, input), w_down (output, inner), b_gate, b_up (inner) and b_down (output) or absent;
    x (batch..., input) -> y (batch..., output). Fact `activation`.
    """
    w_gate, w_up, w_down = need("gated_mlp", roles, "w_gate", "w_up", "w_down")
    (data,) = need("gated_mlp", x, "x")
    biases = {
        name: (roles.get(name), "output" if name == "b_down" else "inner") for name in ("b_gate", "b_up", "b_down")
    }
    given = {
        "w_gate": (w_gate, "inner input"),
        "w_up": (w_up, "inner input"),
        "w_down": (w_down, "output inner"),
        "x": (data, "batch... input"),
    }
    sizes_of("gated_mlp", {**given, **biases})
    gate = activation(str(facts.get("activation", "silu")))(_linear(data, w_gate, roles.get("b_gate")))
    return {"y": _linear(gate * _linear(data, w_up, roles.get("b_up")), w_down, roles.get("b_down"))}


def _linear(data: Array, weight: Array, bias: Array | None) -> Array:
    return biased(data @ weight.T, bias)
