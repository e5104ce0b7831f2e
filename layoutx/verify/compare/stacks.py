"""Layers of a stack that is one module (torch num_layers): what the lower ones hand on, which no recording shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.compare.alone import modules_of
from layoutx.verify.compare.begun import begun
from layoutx.verify.compare.named import Named, named, named_outputs, ordered, roles_of, without
from layoutx.verify.compare.pairs import Half
from layoutx.verify.compare.states import stack_place
from layoutx.verify.recording import Call
from layoutx.verify.reference import forward_layer

Stacks = Mapping[tuple[str, int], Half]


def title(side: Half) -> str:
    """What a layer is called; one of a stack with its number: `rnn/layer_1`."""
    at, many = stack_place(side.bound)
    own = f"/{side.bound.form.each}_{at}"
    return side.name if many == 1 or side.name.endswith(own) else f"{side.name}{own}"


def stacks_of(sides: Sequence[Half]) -> dict[tuple[str, int], Half]:
    """(module, number of the layer) -> the layer, of all stacks."""
    stacked = [side for side in sides if stack_place(side.bound)[1] > 1]
    return {(modules_of(side)[0], stack_place(side.bound)[0]): side for side in stacked}


def named_in(side: Half, call: Call, last: Mapping[str, str], stacks: Stacks) -> Named:
    """A layer's call by name; of a layer in a stack with what the NumPy reference computes from the stack's input.

    Raises:
        LayoutxError: arrays that do not have the axes that the form says; a lower layer without a counterpart.
    """
    at, many = stack_place(side.bound)
    if many == 1 or not call.inputs:
        return without(named(side.bound, call, side.refine, last), side.less)
    module = modules_of(side)[0]
    first = stacks.get((module, 0))
    if first is None or any((module, k) not in stacks for k in range(at)):
        return named(side.bound, call, side.refine, last)
    x, lead = ordered(first.bound, "x", call.inputs[0], first.refine, last)
    for k in range(at):
        x = _forward(stacks[module, k], x, call)["y"]
    shown = named_outputs(side.bound, call.outputs, {"x": x}, side.refine, last)
    outputs = shown if at == many - 1 else {**_forward(side, x, call), **shown}
    return Named({"x": x, **begun(side.bound, call, False)}, outputs, lead, roles_of(side.bound, call))


def _forward(side: Half, x: Array, call: Call) -> dict[str, Array]:
    weights = {name: tensor.read() for name, tensor in side.tensors.items()}
    data = {"x": x.astype(np.float64), **begun(side.bound, call, False)}
    return forward_layer(side.bound, weights, data, dtype="float64")
