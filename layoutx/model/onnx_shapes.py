"""The shapes of the values in an ONNX graph: as onnx infers them, once more where a shape is computed of constants."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from layoutx.files.onnx_file import bodies, need_onnx
from layoutx.model.axes import Shape
from layoutx.model.onnx_consts import Const, small_ints

Shapes = dict[str, Shape]


def shapes_of(model: Any) -> Shapes:
    """Value name -> its shape as onnx infers it, None for symbolic sizes; missing where it cannot be told."""
    with suppress(Exception):  # custom operators and contradictions: what is declared has to do
        model = need_onnx().shape_inference.infer_shapes(model, data_prop=True)
    found: Shapes = {}
    graphs = [model.graph]
    for graph in graphs:  # it grows while it is read
        graphs += [body for node in graph.node for a in node.attribute for body in bodies(a)]
        for info in (*graph.input, *graph.value_info, *graph.output):
            kind = info.type.tensor_type
            if kind.HasField("shape"):
                found[info.name] = tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim)
        for proto in graph.initializer:
            found[proto.name] = tuple(proto.dims)
    return found


def settled_shapes(model: Any, consts: Mapping[str, Const], shapes: Shapes) -> Shapes:
    """The shapes with those that depend on numbers which the graph computes of constants: the widths of a Pad.

    Args:
        consts: what in the graph does not depend on its input. shapes: what onnx infers without these numbers.
    """
    computed = {n for node in model.graph.node if node.op_type != "Constant" for n in node.output if n in consts}
    wanted = {
        name
        for node in model.graph.node
        for name in node.input[1:]
        if name in computed and node.output[0] not in consts and None in (shapes.get(node.output[0]) or (None,))
    }
    found = {name: consts[name].value for name in sorted(wanted) if small_ints(consts[name]) is not None}
    if not found:
        return shapes
    onnx = need_onnx()
    again = onnx.ModelProto()
    again.CopyFrom(model)
    kept = [node for node in again.graph.node if not set(node.output) & found.keys()]
    del again.graph.node[:]
    again.graph.node.extend(kept)
    for name, tensor in found.items():
        if tensor is not None:
            again.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(tensor.read()), name))
    return {**shapes, **{name: shape for name, shape in shapes_of(again).items() if shape is not None}}
