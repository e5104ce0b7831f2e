"""How torch calls an activation: its own name for some, a keyword or a formula for others."""

from __future__ import annotations

FORMULAS = {
    "gelu_tanh": 'F.gelu(x, approximate="tanh")',
    "hard_sigmoid_0.2": "(0.2 * x + 0.5).clamp(0, 1)",
    "hard_sigmoid_1/6": "F.hardsigmoid(x)",
    "hard_silu": "F.hardswish(x)",
    "log_sigmoid": "F.logsigmoid(x)",
    "exponential": "torch.exp(x)",
    "tanh": "torch.tanh(x)",
    "sigmoid": "torch.sigmoid(x)",
}


def said_in_torch(name: str, dim: int) -> str:
    """The line that applies an activation to `x`; dim: the axis of the channels, for what sums over them."""
    if name in FORMULAS:
        return f"x = {FORMULAS[name]}"
    if name == "softmax":
        return f"x = F.softmax(x, {dim})"
    stem, _, slope = name.rpartition("_")
    return f"x = F.{stem}(x, {slope})" if stem == "leaky_relu" else f"x = F.{name}(x)"
