"""Values on their way into and out of the bodies of If, Loop and Scan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layoutx.model.onnx_axes import Flow, Value


def entered(flow: Flow, node: Any, body: Any, consts: Mapping[str, object]) -> dict[str, Value]:
    """What the inputs of a body are: a Loop's states after its counter and condition, a Scan's states and slices.

    A state has the dims that it begins with. An If has no inputs, its branches read what is around them.
    """
    found = {info.name: Value(None, (), f"the body of {node.op_type}") for info in body.input}
    skipped = 2 if node.op_type == "Loop" else 0
    states = len(node.input) - skipped - _sliced(node)
    for i, (info, name) in enumerate(zip(body.input[skipped:], node.input[skipped:], strict=False)):
        value = flow.values.get(name, Value())
        if name in consts:  # zeros to begin with: their shape is that of any value
            found[info.name] = Value(flow.fresh(flow.shapes.get(info.name) or flow.shapes.get(name), info.name))
        elif i < states:
            found[info.name] = value
        elif value.dims is not None and _in_front(node):
            found[info.name] = Value(value.dims[1:], value.makers)
        else:
            found[info.name] = Value(None, value.makers, node.op_type)
    return found


def left(flow: Flow, node: Any, body: Any) -> dict[str, Value]:
    """What the outputs of the node are, after a body was walked: of an If those of its last branch, with all makers."""
    skipped = 1 if node.op_type == "Loop" else 0
    states = len(body.output)
    if node.op_type in ("Loop", "Scan"):
        states = len(node.input) - 2 * skipped - _sliced(node)
    found = {}
    for i, (name, info) in enumerate(zip(node.output, body.output[skipped:], strict=False)):
        value = flow.values.get(info.name, Value())
        before = flow.values.get(name, Value()).makers if node.op_type == "If" else ()
        makers = tuple(dict.fromkeys((*before, *value.makers)))
        if i < states:
            found[name] = Value(value.dims, makers, value.lost)
        elif value.dims is None or not _in_front(node):
            found[name] = Value(None, makers, node.op_type)
        else:
            found[name] = Value(((flow.axis("t", name, None),), *value.dims), makers)
    return found


def _sliced(node: Any) -> int:
    """How many inputs a Scan takes one slice after the other."""
    return next((int(a.i) for a in node.attribute if a.name == "num_scan_inputs"), 0)


def _in_front(node: Any) -> bool:
    """Whether slices are taken from, and put together along, the first axis."""
    names = ("scan_input_axes", "scan_output_axes")
    return not any(any(a.ints) for a in node.attribute if a.name in names)
