"""One ONNX node with given weights, run once: onnxruntime in float32, the onnx reference evaluator in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.verify.live.arrays import Array, Arrays, cast_all, inputs, options, refused
from layoutx.verify.live.onnx_packed import Node, packed_nodes

OPSET = 23  # the first with RMSNormalization and Attention
IR = 10  # version of the file's own format: every onnxruntime of these years takes it
OUTPUTS = {"RNN": ("y", "h"), "GRU": ("y", "h"), "LSTM": ("y", "h", "c")}

# what the reference evaluator of onnx 1.23.2 does not compute, or computes wrongly; onnxruntime does it in float32
NO_FLOAT64 = {
    "RNN": "no activation but Tanh (onnx/reference/ops/op_rnn.py choose_act)",
    "LSTM": "the attribute activations is not read (op_lstm.py)",
    "GRU": "the attribute activations is not read (op_gru.py)",
    "ConvTranspose": "group > 1 slices the weights by output channels (op_conv_transpose.py)",
}


def precision(form: str, config: Mapping[str, Any], dtype: str = "float64") -> str:
    """The dtype that `run` computes in: float64 falls back to float32 where `NO_FLOAT64` says why."""
    op = form.removeprefix("onnx.")
    plain = {"RNN": ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}.get(op, [])
    given = list(config.get("activations") or plain)
    lacks = config.get("group", 1) != 1 if op == "ConvTranspose" else given not in (plain, plain * 2)
    return "float32" if op in NO_FLOAT64 and lacks else dtype


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float64") -> dict[str, Array]:
    """What the operator gives (opset 23), by its own axis order: RNN X (time, batch, input), Y (time, direction, batch,
    hidden), Y_h and Y_c (direction, batch, hidden).

    `config` holds the node's attributes; `rank` and `version` are ignored, and so is what is None. `tensors` are named
    by input slot; x takes the first slot that no tensor has. Composites: `onnx.MatMul` with `bias` adds an Add;
    `onnx.Normalization` (sub.B, div.B; mul.B, add.B with invert) is two nodes;
    `onnx.SeparableConv` (depthwise.W, pointwise.W, pointwise.B or none; attributes of the depthwise Conv);
    `onnx.AttentionProjections` ({q,k,v,out}.B (in, out), `.bias` or none; num_heads, num_kv_heads) uses Attention;
    `onnx.MultiheadAttention` is that of `onnx_packed`.

    ONNX keeps float attributes in float32: an epsilon that float32 does not hold shows in the ninth digit.

    Raises:
        UsageError: no such operator, or a missing input.
        BindError: a tensor that is no input slot, or weights that the operator refuses.
    """
    op = form.removeprefix("onnx.")
    dtype = precision(form, config, dtype)
    attributes = {k: v for k, v in options(config, "rank").items() if v is not None}
    data, weights = cast_all(x, dtype), cast_all(tensors, dtype)
    names = OUTPUTS.get(op, ("y",))
    if op == "AttentionProjections":
        inputs(form, data, "query", "key", "value")
        nodes = _attention(attributes, weights)
    elif op == "MultiheadAttention":
        inputs(form, data, "query", "key", "value")
        nodes = packed_nodes(attributes, weights)
    elif op == "SeparableConv":
        nodes = _separable(attributes, weights, inputs(form, data, "x")[0].shape[1])
    elif op == "Normalization":
        rank, axis = data["x"].ndim, attributes.get("axis", -1)
        weights = {n: a.reshape(-1, *[1] * (rank - 2)) if axis == 1 else a for n, a in weights.items()}
        first, second = ("mul", "add") if attributes.get("invert") else ("sub", "div")
        steps = [(first, "x", "moved"), (second, "moved", "y")]
        nodes = [(name.capitalize(), [source, f"{name}.B"], [made], {}) for name, source, made in steps]
    elif op == "MatMul":
        nodes = _biased("x", "", "y", weights)
    else:
        nodes = [(op, _slots(op, form, weights), list(names), _attributes(op, attributes, weights, dtype))]
    try:
        results = _evaluate(nodes, weights, data, names, dtype)
    except UsageError:
        raise
    except Exception as error:  # both evaluators raise their own unrelated classes
        raise refused(form, tensors, error) from error
    return dict(zip(names, results, strict=True))


def _slots(op: str, form: str, weights: Arrays) -> list[str]:
    """Input names of the node in the schema's order, "" for an optional slot that is left out."""
    from onnx import defs

    if not defs.has(op):
        raise UsageError(f"ONNX has no operator {op}")
    schema = [slot.name for slot in defs.get_schema(op, OPSET).inputs]
    unknown = [name for name in weights if name not in schema]
    if unknown:
        raise refused(form, weights, f"{', '.join(unknown)} is no input; the slots are {', '.join(schema)}")
    free = next(slot for slot in schema if slot not in weights)
    slots = ["x" if slot == free else slot if slot in weights else "" for slot in schema]
    while not slots[-1]:
        slots.pop()
    return slots


def _attributes(op: str, attributes: dict[str, Any], weights: Arrays, dtype: str) -> dict[str, Any]:
    """Recurrent nodes need `hidden_size` and the number of directions; GroupNormalization says what it computes in."""
    if op == "GroupNormalization" and dtype == "float64":
        # without it, float32; the evaluator's LayerNormalization and RMSNormalization refuse it and compute in float64
        return {"stash_type": 11, **attributes}
    if op not in OUTPUTS or "R" not in weights:
        return attributes
    directions, _, hidden = weights["R"].shape
    return {"hidden_size": hidden, "direction": "bidirectional" if directions == 2 else "forward", **attributes}


def _biased(source: str, prefix: str, target: str, weights: Arrays) -> list[Node]:
    """MatMul by `{prefix}B`, and Add of `{prefix}bias` where there is one."""
    if f"{prefix}bias" not in weights:
        return [("MatMul", [source, f"{prefix}B"], [target], {})]
    product = f"{target}_product"
    return [
        ("MatMul", [source, f"{prefix}B"], [product], {}),
        ("Add", [product, f"{prefix}bias"], [target], {}),
    ]


def _separable(attributes: dict[str, Any], weights: Arrays, channels: int) -> list[Node]:
    first = ["x", "depthwise.W", *(["depthwise.B"] if "depthwise.B" in weights else [])]
    second = ["middle", "pointwise.W", *(["pointwise.B"] if "pointwise.B" in weights else [])]
    return [
        ("Conv", first, ["middle"], {**attributes, "group": channels}),
        ("Conv", second, ["y"], {}),
    ]


def _attention(attributes: dict[str, Any], weights: Arrays) -> list[Node]:
    heads = attributes["num_heads"]
    many = {"q_num_heads": heads, "kv_num_heads": attributes.get("num_kv_heads") or heads}
    project = [("query", "q"), ("key", "k"), ("value", "v")]
    return [
        *(node for source, name in project for node in _biased(source, f"{name}.", name, weights)),
        ("Attention", ["q", "k", "v"], ["mixed"], many),
        *_biased("mixed", "out." if "out.B" in weights else "o.", "y", weights),
    ]


def _evaluate(nodes: list[Node], weights: Arrays, data: Arrays, names: tuple[str, ...], dtype: str) -> list[Array]:
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.DOUBLE if dtype == "float64" else TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, slots, outputs, **attributes) for op, slots, outputs, attributes in nodes],
        "layer",
        [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape) for n, a in data.items()],
        [helper.make_tensor_value_info(name, kind, None) for name in names],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    if dtype == "float64":
        from onnx.reference import ReferenceEvaluator

        return [np.asarray(r) for r in ReferenceEvaluator(model).run(list(names), dict(data))]
    import onnxruntime

    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), quiet, providers=["CPUExecutionProvider"])
    return [np.asarray(r) for r in session.run(list(names), dict(data))]
