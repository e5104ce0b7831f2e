"""What other libraries on TensorFlow 1 called their variables, in the words of tf.layers and of the cells of 1.15."""

from __future__ import annotations

import re
from collections.abc import Mapping

from layoutx.files.tf_checkpoint import AVERAGE

# the variables of one layer as a library names them -> as tf.layers and the cells of 1.15 do; a row counts where its
# first word is there and no variable of the layer is called otherwise
ROWS: tuple[Mapping[str, str], ...] = (
    # tensorflow 1.15 contrib/layers/python/layers/layers.py (slim); cells of 1.0 and 1.1:
    # contrib/rnn/python/tools/checkpoint_convert.py RNN_NAME_REPLACEMENTS
    {"weights": "kernel", "biases": "bias"} | {f"w_{gate}_diag": f"w_{gate}_diag" for gate in "fio"},
    {"depthwise_weights": "depthwise_kernel", "pointwise_weights": "pointwise_kernel", "biases": "bias"},
    {"pointwise_weights": "pointwise_kernel", "depthwise_weights": "depthwise_kernel", "biases": "bias"},
    # deepmind/sonnet 1.36 sonnet/python/modules/basic.py, conv.py; openai/gpt-2 src/model.py conv1d
    {"w": "kernel", "b": "bias"},
    # tflearn 0.5 layers/core.py, conv.py; tensorpack 0.11 models/fc.py, conv2d.py
    {"W": "kernel", "b": "bias"},
    # openai/gpt-2 src/model.py norm
    {"g": "gamma", "b": "beta"},
    # tensor2tensor 1.15 layers/common_layers.py layer_norm_vars
    {"layer_norm_scale": "gamma", "layer_norm_bias": "beta"},
    # tensorflow 0.12 python/ops/rnn_cell.py LSTMCell
    {"W_0": "kernel", "B": "bias", "W_P_0": "projection.kernel"}
    | {f"W_{gate}_diag": f"w_{gate.lower()}_diag" for gate in "FIO"},
)
# how people call the two variables of a layer that they write out: W_fc1 and b_fc1, softmax_w and softmax_b, w1 and b1
_WHAT = r"(?P<what>[wW](?:eights?)?|kernel|[bB](?:ias(?:es)?)?)"
HABITS = tuple(
    re.compile(pattern)
    for pattern in (rf"{_WHAT}_?(?P<whose>\d+)", rf"{_WHAT}_(?P<whose>\w*[a-zA-Z]\w*)", rf"(?P<whose>\w+)_{_WHAT}")
)
KEPT = ("output_weights", "output_bias")  # Google's BERT: a row for each class, as tf1.Output says
# tensorflow 0.12 python/ops/rnn_cell.py _linear: a scope of its own
LINEAR = {"Linear.Matrix": "kernel", "Linear.Bias": "bias"}
# tensorpack 0.11 models/batch_norm.py, whose moving averages of the statistics are the statistics
STATISTICS = {"mean.EMA": "moving_mean", "variance.EMA": "moving_variance"}


def today(names: Mapping[str, str]) -> dict[str, str]:
    """Dotted names as tf.layers spells them: `conv1.weights` becomes `conv1.kernel`.

    Only names change that are all of one library in their scope, and none becomes one that is there already.

    Args:
        names: dotted name -> the file's own; an average of a variable that is there too is none of them.
    """
    short = _paired({name: _joined(name) for name in names})
    scopes: dict[str, set[str]] = {}
    for name in short.values():
        scope, _, last = name.rpartition(".")
        scopes.setdefault(scope, set()).add(last)
    rows = {scope: _row(own) for scope, own in scopes.items()}
    found: dict[str, str] = {}
    for name, own in names.items():
        scope, dot, last = short[name].rpartition(".")
        new = f"{scope}{dot}{rows[scope].get(last, last)}"
        taken = new in found or (new != name and new in names)
        found[name if taken else new] = own
    return found


def _paired(names: Mapping[str, str]) -> dict[str, str]:
    """Variables that a script made one by one, `W_fc1` and `b_fc1`, `out_w` and `out_b`, as two of one layer."""
    ends: dict[tuple[str, str], dict[str, list[str]]] = {}
    for name, now in names.items():
        scope, dot, last = now.rpartition(".")
        for pattern in HABITS if last not in KEPT else ():
            if match := pattern.fullmatch(last):
                what = "kernel" if match["what"][0] in "wWkK" else "bias"
                ends.setdefault((scope + dot, match["whose"]), {}).setdefault(what, []).append(name)
    found = dict(names)
    for (scope, whose), own in ends.items():
        if own.keys() == {"kernel", "bias"} and all(len(held) == 1 for held in own.values()):
            layer = whose if not whose.isdigit() else f"layer{whose}"
            if not any(now.startswith(f"{scope}{layer}.") or now == scope + layer for now in names.values()):
                found |= {held[0]: f"{scope}{layer}.{what}" for what, held in own.items()}
    return found


def _joined(name: str) -> str:
    """A name whose last parts are one word to us."""
    name = name.removesuffix(f".{AVERAGE}")  # alone in a file that was saved for evaluation
    for ends in (LINEAR, STATISTICS):
        for end, new in ends.items():
            if re.search(rf"(^|\.){re.escape(end)}$", name):
                return name.removesuffix(end) + new
    return name


def _row(own: set[str]) -> Mapping[str, str]:
    return next((row for row in ROWS if next(iter(row)) in own and own <= row.keys()), {})
