"""Options of the target's layer that decide its function and show in no tensor: gate_fn, nonlinearity, activation."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from layoutx.model.assumed import keys_of, shown_in_tensors
from layoutx.model.settings import SHAPES, shown
from layoutx.spec.bound import BoundForm

MEANT = {
    "hard_sigmoid_0.2": "clip(0.2 x + 0.5, 0, 1)",
    "hard_sigmoid_1/6": "clip(x / 6 + 0.5, 0, 1)",
    "leaky_relu_0.2": "slope 0.2",
    "leaky_relu_0.01": "slope 0.01",
    "gelu_tanh": "by tanh",
    "linear": "the identity",
}  # functions that layoutx names by what they compute, where frameworks' names say different things


def functions(target: BoundForm, known: Collection[str]) -> Iterator[str]:
    """`nonlinearity="relu"; torch's default is "tanh"`: chosen for the source, to be said when it is built.

    Args:
        known: config keys that the target itself tells; it has been built so already.
    """
    form, config = target.form, target.config
    read = [key for table in (form.facts, form.maps) for cases in table.values() for key in keys_of(cases)]
    told = {*known, *SHAPES, *shown_in_tensors(form), *(key for key, _ in form.sizes)}
    for key in dict.fromkeys(read):
        if key not in told and key in form.config and config.get(key) != form.config[key]:
            meant = f" ({MEANT[str(config[key])]})" if str(config[key]) in MEANT else ""
            yield f"{key}={shown(config[key])}{meant}; {form.framework}'s default is {shown(form.config[key])}"
