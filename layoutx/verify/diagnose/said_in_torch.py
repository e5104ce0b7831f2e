"""How torch calls an activation: its own name for some, a keyword or a formula for others."""

from __future__ import annotations

from collections.abc import Sequence

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
KERAS = ("relu", "tanh", "sigmoid", "softmax", "gelu", "elu", "selu", "softplus", "softsign", "silu", "exponential")


def said_in_torch(name: str, dim: int) -> str:
    """The line that applies an activation to `x`; dim: the axis of the channels, for what sums over them."""
    if name in FORMULAS:
        return f"x = {FORMULAS[name]}"
    if name == "softmax":
        return f"x = F.softmax(x, {dim})"
    stem, _, slope = name.rpartition("_")
    return f"x = F.{stem}(x, {slope})" if stem == "leaky_relu" else f"x = F.{name}(x)"


def said_in(framework: str, code: str) -> str:
    """A fix in the words of the target's framework: one activation in those of Keras, anything else in torch's."""
    if framework == "torch" or not code.startswith(("x = ", "h = ", "a, b = ")):
        return code
    act = next((name for name in KERAS if code in (said_in_torch(name, -1), said_in_torch(name, 1))), "")
    if framework in ("keras", "tf_keras") and act:
        return f"x = {framework}.activations.{act}(x)"
    return f"{code}   # as torch says it"


def axes_in_words(order: Sequence[int]) -> str:
    """An order of the axes behind the batch in words: `w h c` of maps, `0 2 1` of sequences."""
    letters = {3: "hwc", 4: "dhwc"}.get(len(order))
    return " ".join(letters[i - 1] for i in order) if letters else " ".join(map(str, (0, *order)))


def permuted(order: Sequence[int]) -> str:
    """The arguments of torch's permute, which keeps the channels of maps, not those of sequences, first."""
    last = len(order)
    if last < 3:
        return ", ".join(map(str, (0, *order)))
    there = {axis: axis + 1 if axis != last else 1 for axis in range(1, last + 1)}
    moved = {there[to]: there[of] for to, of in enumerate(order, 1)}
    return ", ".join(map(str, (0, *(moved[axis] for axis in sorted(moved)))))
