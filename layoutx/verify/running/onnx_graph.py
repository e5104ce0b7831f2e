"""An ONNX model as it is computed: in float64 by onnx' reference evaluator, in float32 by onnxruntime; nodes alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.files.onnx_file import bodies, opset_of
from layoutx.model.onnx_forms import attributes
from layoutx.model.onnx_nodes import DOMAINS
from layoutx.plan.plan import Array
from layoutx.verify.live.onnx_live import IR, precision
from layoutx.verify.running.given import said

FLOATS = (1, 10, 16)  # TensorProto.DataType: FLOAT, FLOAT16, BFLOAT16
DOUBLE = 11
TYPED = {"Cast": "to", "EyeLike": "dtype", "RandomNormal": "dtype", "RandomUniform": "dtype", "SequenceEmpty": "dtype"}


def doubled(model: Any) -> Any:
    """A copy of a ModelProto whose floats are float64: weights, constants, casts, and what goes in and out."""
    found = type(model)()
    found.CopyFrom(model)
    _double_graph(found.graph, opset_of(found))
    return found


def _double_graph(graph: Any, opset: int) -> None:
    for proto in graph.initializer:
        _double_tensor(proto)
    for info in (*graph.input, *graph.output):
        if info.type.tensor_type.elem_type in FLOATS:
            info.type.tensor_type.elem_type = DOUBLE
    del graph.value_info[:]
    for node in graph.node:
        _double_node(node, opset)


def _double_node(node: Any, opset: int) -> None:
    from onnx import helper, numpy_helper

    for attribute in list(node.attribute):
        if attribute.HasField("t"):
            _double_tensor(attribute.t)
        if node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            value = attribute.f if attribute.name == "value_float" else list(attribute.floats)
            node.attribute.remove(attribute)
            node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.array(value, np.float64))))
        if attribute.name == TYPED.get(node.op_type) and attribute.i in FLOATS:
            attribute.i = DOUBLE
        for body in bodies(attribute):
            _double_graph(body, opset)
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.zeros(1))))
    if node.op_type == "GroupNormalization" and opset >= 21:  # it says what it computes in; float32 where it does not
        kept = [a for a in node.attribute if a.name != "stash_type"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("stash_type", DOUBLE)])


def _double_tensor(proto: Any) -> None:
    from onnx import numpy_helper

    if proto.data_type in FLOATS:
        proto.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(proto).astype(np.float64), proto.name))


def lacking(graph: Any) -> str:
    """Why the reference evaluator does not compute this graph rightly; "" where nothing is known against it."""
    for node in graph.node:
        if node.domain not in DOMAINS:
            return f"{node.op_type} is not an operator of ONNX itself"
        if precision(node.op_type, attributes(node)) != "float64":
            return f"onnx' reference evaluator does not compute {node.op_type} with these attributes"
        if any(lacking(body) for attribute in node.attribute for body in bodies(attribute)):
            return f"in the body of {node.op_type}"
    return ""


def evaluated(model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every value of the graph by name, by onnx' reference evaluator."""
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(model).run(None, dict(feeds), intermediate=True)
    return {name: np.asarray(value) for name, value in found.items() if isinstance(value, (np.ndarray, np.generic))}


def by_runtime(model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Every value of the graph by name, by onnxruntime in the model's own dtype.

    Raises:
        ImportError: onnxruntime is not installed. UsageError: it cannot load the model. Its own errors on running it,
            which are unrelated classes.
    """
    import onnxruntime
    from onnx import ValueInfoProto

    wide = type(model)()
    wide.CopyFrom(model)
    wide.ir_version = min(wide.ir_version, IR)  # of the file's own format: what operators mean, their opsets say
    known = {info.name for info in wide.graph.output}
    made = dict.fromkeys(name for node in wide.graph.node for name in node.output if name and name not in known)
    wide.graph.output.extend(ValueInfoProto(name=name) for name in made)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(wide.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own, unrelated classes
        what = f"onnxruntime {onnxruntime.__version__} does not take the model, whatever its inputs"
        raise UsageError(what, why=said(error), do="give it in an opset that this release knows") from error
    wanted = [output.name for output in session.get_outputs()]
    values = zip(wanted, session.run(wanted, dict(feeds)), strict=True)
    return {name: np.asarray(value) for name, value in values if isinstance(value, (np.ndarray, np.generic))}


def cast_feeds(model: Any, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs in the dtypes that the model declares."""
    from onnx import helper

    kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.input}
    found = {}
    for name, array in feeds.items():
        wanted = helper.tensor_dtype_to_np_dtype(kinds[name]) if kinds.get(name) else array.dtype
        found[name] = np.asarray(array, wanted, order="C")
    return found


def alone(model: Any, nodes: Sequence[Any], given: Sequence[str], constant: Iterable[str]) -> Any:
    """A model of these nodes alone, with the nodes and tensors that make their constants.

    Args:
        given: names of the values that go in; constant: of all values that are the same for every input.
    """
    from onnx import ValueInfoProto, helper

    makers = {name: node for node in model.graph.node for name in node.output if name}
    fixed = set(constant)
    needed: dict[int, Any] = {}

    def need(name: str) -> None:
        maker = makers.get(name)
        if maker is not None and name in fixed and id(maker) not in needed:
            for inner in maker.input:
                need(inner)
            needed[id(maker)] = maker

    for name in (name for node in nodes for name in node.input):
        need(name)
    used = {name for node in (*needed.values(), *nodes) for name in node.input}
    tensors = [proto for proto in model.graph.initializer if proto.name in used]
    outputs = [name for node in nodes for name in node.output if name]
    inputs = [ValueInfoProto(name=name) for name in given]
    for info in inputs:
        info.type.tensor_type.elem_type = 0
    graph = helper.make_graph(
        [*needed.values(), *nodes], "layer", inputs, [ValueInfoProto(name=name) for name in outputs], tensors
    )
    found = helper.make_model(graph, opset_imports=list(model.opset_import))
    found.ir_version = model.ir_version or found.ir_version
    return found


def data_inputs(nodes: Sequence[Any], constant: Mapping[str, Any]) -> list[str]:
    """What goes into a layer of one or two nodes, each value once: neither constants nor what it makes itself."""
    own = {name for node in nodes for name in node.output}
    read = [name for node in nodes for name in node.input if name and name not in constant and name not in own]
    return list(dict.fromkeys(read))
