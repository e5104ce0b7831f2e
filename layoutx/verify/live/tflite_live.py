"""One TensorFlow Lite operator with given constants, as a model of its own, run by the interpreter (TF 2.21)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.files.tflite_ops import SLOTS
from layoutx.verify.live.arrays import Array, Arrays, cast_all, inputs, options, refused

STATES = {"hidden_state": "h", "input_activation_state": "h", "input_cell_state": "c"}
# what the converter makes of a layer with one spatial axis: the operator on data of height one
ONE_ROW = {"Conv1D": "CONV_2D", "DepthwiseConv1D": "DEPTHWISE_CONV_2D", "Conv1DTranspose": "TRANSPOSE_CONV"}
CLASSES = {  # operator -> class of the schema that holds its options
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "CONV_3D": "Conv3DOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "CONV_3D_TRANSPOSE": "Conv3DOptions",
    "GATHER": "GatherOptions",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNNOptions",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTMOptions",
}
FLAGS = {
    "DEFAULT": 0,
    "SHUFFLED4x16INT8": 1,
    "SAME": 0,
    "VALID": 1,
    "NONE": 0,
    "RELU": 1,
    "RELU_N1_TO_1": 2,
    "RELU6": 3,
    "TANH": 4,
    "SIGN_BIT": 5,
}


def run(form: str, config: Mapping[str, Any], tensors: Arrays, x: Arrays, dtype: str = "float32") -> dict[str, Array]:
    """What the real operator gives, always in float32, its constants in the input slots of their names.

    `config` holds the operator's options in lower case, but `strides` and `dilations` as one list (height first).
    Where it does not say so, `padding` is VALID and the activation of a recurrent operator TANH. Keys that begin with
    `_` are the specs' own. `tflite.Conv1D`, `tflite.DepthwiseConv1D` and `tflite.Conv1DTranspose` are the operators of
    two axes on data of height one. A transposed convolution gets the output shape that its padding and strides give.
    States are (1, batch, hidden).

    Raises:
        UsageError: no such operator, or a missing input.
        BindError: the operator does not take the options or the tensors.
    """
    name = form.removeprefix("tflite.")
    if name not in SLOTS and name not in ONE_ROW:
        raise UsageError(f"no operator of TensorFlow Lite is run for {form}", where=f"known: {', '.join(SLOTS)}")
    operator = ONE_ROW.get(name, name)
    (data,) = inputs(form, cast_all(x, "float32"), "x")
    data = data.astype(np.int32) if np.issubdtype(data.dtype, np.integer) else data
    given = {key: value for key, value in options(config).items() if not key.startswith("_")}
    if name in ONE_ROW:
        data = data[:, None]
        given |= {key: [1, *_list(given[key], 1)] for key in ("strides", "dilations") if key in given}
    if name == "PRELU" and data.ndim > 4:  # the interpreter of TensorFlow 2.21 aborts the whole process
        raise refused(form, tensors, f"PRELU takes data of at most 4 dimensions, not {data.ndim}")
    constants = cast_all(tensors, "float32")
    if unknown := [key for key in constants if key not in SLOTS[operator] or key == "x"]:
        raise refused(form, tensors, f"{operator} has the inputs {', '.join(SLOTS[operator])}, not {unknown[0]}")
    try:
        constants |= _implied(operator, given, constants, data)
        found = _interpreted(_model(operator, given, constants, data), operator, data)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise refused(form, tensors, f"{type(error).__name__}: {error}") from error
    return {**found, "y": found["y"][:, 0]} if name in ONE_ROW else found


def precision(form: str, config: Mapping[str, Any], dtype: str = "float64") -> str:
    """TensorFlow Lite computes in float32."""
    return "float32"


def _list(value: Any, rank: int) -> list[int]:
    return [int(v) for v in value] if isinstance(value, (list, tuple)) else [int(value)] * rank


def _implied(operator: str, config: Mapping[str, Any], constants: Arrays, x: Array) -> dict[str, Array]:
    """The inputs that are no weights: the shape of what a transposed convolution gives, and first states of zeros."""
    if "output_shape" in SLOTS[operator]:
        conv3d = operator == "CONV_3D_TRANSPOSE"
        kernel = constants["filter" if conv3d else "weights"].shape
        size, out = (kernel[:3], kernel[3]) if conv3d else (kernel[1:3], kernel[0])
        steps, apart = (_list(config.get(key, 1), len(size)) for key in ("strides", "dilations"))
        reach = [0 if config.get("padding") == "SAME" else (k - 1) * d + 1 for k, d in zip(size, apart, strict=True)]
        space = [n * s + max(r - s, 0) for n, s, r in zip(x.shape[1:-1], steps, reach, strict=True)]
        return {"output_shape": np.array([x.shape[0], *space, out], np.int32)}
    batch = x.shape[1 if config.get("time_major") else 0]
    if operator == "UNIDIRECTIONAL_SEQUENCE_RNN":
        return {"hidden_state": np.zeros((batch, len(constants["input_gate_bias"])), np.float32)}
    if operator == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        sizes = constants["recurrent_to_output_weights"].shape
        return {
            "input_activation_state": np.zeros((batch, sizes[1]), np.float32),
            "input_cell_state": np.zeros((batch, sizes[0]), np.float32),
        }
    return {}


def _model(operator: str, config: Mapping[str, Any], constants: Arrays, x: Array) -> bytes:
    """A flatbuffer of one operator, built with the schema that comes with TensorFlow."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    held = {name: constants[name] for name in SLOTS[operator] if name in constants}
    order = ["x", *held, "y"]
    arrays = {"x": x, **held, "y": np.zeros((), np.float32)}
    stored = [name for name in held if name not in STATES]
    tensors = [_tensor(schema, name, arrays[name], stored) for name in order]
    buffers = [schema.BufferT() for _ in range(len(stored) + 1)]  # the first one is empty by convention
    for buffer, name in zip(buffers[1:], stored, strict=True):
        buffer.data = np.frombuffer(held[name].tobytes(), np.uint8)
    code, op, graph, model = schema.OperatorCodeT(), schema.OperatorT(), schema.SubGraphT(), schema.ModelT()
    code.builtinCode = getattr(schema.BuiltinOperator, operator)
    code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
    op.opcodeIndex, op.outputs = 0, [order.index("y")]
    op.inputs = [order.index(name) if name in order else -1 for name in SLOTS[operator]]  # -1: left out
    if operator in CLASSES:
        op.builtinOptionsType = getattr(schema.BuiltinOptions, CLASSES[operator])
        op.builtinOptions = _options(getattr(schema, f"{CLASSES[operator]}T")(), config)
    elif config:
        raise ValueError(f"{operator} takes no {', '.join(config)}")
    graph.tensors, graph.inputs, graph.outputs, graph.operators = tensors, [0], op.outputs, [op]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], buffers
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(schema: Any, name: str, array: Array, stored: list[str]) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.isVariable = name, list(array.shape), name in STATES
    tensor.buffer = stored.index(name) + 1 if name in stored else 0
    whole = np.issubdtype(array.dtype, np.integer)
    tensor.type = schema.TensorType.INT32 if whole else schema.TensorType.FLOAT32
    return tensor


def _options(found: Any, config: Mapping[str, Any]) -> Any:
    """The operator's options, filled; strides and dilations are spread over their fields.

    Files always say padding and activation, so the schema's own defaults (SAME, NONE) never speak.
    """
    if hasattr(found, "padding"):
        found.padding = FLAGS["VALID"]
    if hasattr(found, "timeMajor"):
        found.fusedActivationFunction = FLAGS["TANH"]
    rank = 3 if hasattr(found, "strideD") else 2
    for key, begin in (("strides", "stride{}"), ("dilations", "dilation{}Factor")):
        for axis, value in zip("DHW"[3 - rank :], _list(config.get(key, 1), rank), strict=True):
            if hasattr(found, begin.format(axis)):
                setattr(found, begin.format(axis), value)
            elif value != 1:
                raise ValueError(f"it has no {key}")
    for key, value in config.items():
        if key in ("strides", "dilations"):
            continue
        first, *rest = key.split("_")
        field = first + "".join(word.capitalize() for word in rest)
        if not hasattr(found, field):
            raise ValueError(f"it has no option {key}")
        setattr(found, field, FLAGS[value] if isinstance(value, str) else value)
    return found


def _interpreted(model: bytes, operator: str, x: Array) -> dict[str, Array]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import warnings

    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf.lite is about to move to a package of its own
        # the plain kernels: no delegate that repacks weights for one machine
        plain = tf.lite.experimental.OpResolverType.BUILTIN_REF
        interpreter = tf.lite.Interpreter(model_content=model, experimental_op_resolver_type=plain)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    places = {tensor["name"]: tensor["index"] for tensor in interpreter.get_tensor_details()}
    # a state is an input that the operator changes
    states = {STATES[name]: interpreter.get_tensor(places[name])[None] for name in SLOTS[operator] if name in STATES}
    return {"y": interpreter.get_tensor(places["y"]), **states}
