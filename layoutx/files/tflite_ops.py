"""The operators of a `.tflite` file: which constant is in which input slot, and the options that specs read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layoutx.files.blob import reading
from layoutx.files.flatbuffer import BrokenError, Table
from layoutx.files.tflite_file import GRAPHS, TENSORS, named_tensors, root
from layoutx.frozen import frozen

_GATES = ("input", "forget", "cell", "output")
_LSTM = (
    "x",
    *(f"input_to_{gate}_weights" for gate in _GATES),
    *(f"recurrent_to_{gate}_weights" for gate in _GATES),
    *(f"cell_to_{gate}_weights" for gate in ("input", "forget", "output")),
    *("input_gate_bias", "forget_gate_bias", "cell_bias", "output_gate_bias"),
    *("projection_weights", "projection_bias", "input_activation_state", "input_cell_state"),
    *(f"{gate}_layer_norm_coefficients" for gate in _GATES),
)
# operator -> its inputs in order, by the names of tensorflow/compiler/mlir/lite/ir/tfl_ops.td; x is the data
SLOTS: Mapping[str, tuple[str, ...]] = {
    "FULLY_CONNECTED": ("x", "filter", "bias"),
    "CONV_2D": ("x", "filter", "bias"),
    "DEPTHWISE_CONV_2D": ("x", "filter", "bias"),
    "CONV_3D": ("x", "filter", "bias"),
    "TRANSPOSE_CONV": ("output_shape", "weights", "x", "bias"),
    "CONV_3D_TRANSPOSE": ("output_shape", "filter", "x", "bias"),
    "GATHER": ("params", "x"),
    "EMBEDDING_LOOKUP": ("x", "value"),
    "PRELU": ("x", "alpha"),
    "UNIDIRECTIONAL_SEQUENCE_RNN": (
        *("x", "input_to_input_weights", "recurrent_to_input_weights", "input_gate_bias", "hidden_state"),
    ),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM,
}
# numbers of the enumeration BuiltinOperator in tensorflow/compiler/mlir/lite/schema/schema.fbs; others are shown
CODES = {
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    7: "EMBEDDING_LOOKUP",
    9: "FULLY_CONNECTED",
    36: "GATHER",
    54: "PRELU",
    35: "UNIDIRECTIONAL_SEQUENCE_RNN",
    44: "UNIDIRECTIONAL_SEQUENCE_LSTM",
    67: "TRANSPOSE_CONV",
    132: "CONV_3D",
    141: "CONV_3D_TRANSPOSE",
}
ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6", "TANH", "SIGN_BIT")
PADDINGS = ("SAME", "VALID")
FORMATS = ("DEFAULT", "SHUFFLED4x16INT8")
Field = tuple[int, str, Any, tuple[str, ...]]  # number, type, default, names of the values


def _int(number: int, default: int = 0) -> Field:
    return number, "<i", default, ()


def _word(number: int, words: tuple[str, ...]) -> Field:
    return number, "<b", 0, words


def _flag(number: int) -> Field:
    return number, "<?", False, ()


_SPACE_3D: dict[str, Field] = {
    "padding": _word(0, PADDINGS),
    "stride_d": _int(1),
    "stride_w": _int(2),
    "stride_h": _int(3),
    "fused_activation_function": _word(4, ACTIVATIONS),
    "dilation_d": _int(5, 1),
    "dilation_w": _int(6, 1),
    "dilation_h": _int(7, 1),
}
_STRIDES: dict[str, Field] = {"padding": _word(0, PADDINGS), "stride_w": _int(1), "stride_h": _int(2)}
# operator -> the fields of its options that specs read
OPTIONS: Mapping[str, Mapping[str, Field]] = {
    "FULLY_CONNECTED": {"fused_activation_function": _word(0, ACTIVATIONS), "weights_format": _word(1, FORMATS)},
    "CONV_2D": {
        **_STRIDES,
        "fused_activation_function": _word(3, ACTIVATIONS),
        "dilation_w": _int(4, 1),
        "dilation_h": _int(5, 1),
    },
    "DEPTHWISE_CONV_2D": {
        **_STRIDES,
        "depth_multiplier": _int(3),
        "fused_activation_function": _word(4, ACTIVATIONS),
        "dilation_w": _int(5, 1),
        "dilation_h": _int(6, 1),
    },
    "TRANSPOSE_CONV": {**_STRIDES, "fused_activation_function": _word(3, ACTIVATIONS)},
    "CONV_3D": _SPACE_3D,
    "CONV_3D_TRANSPOSE": _SPACE_3D,
    "GATHER": {"axis": _int(0), "batch_dims": _int(1)},
    "UNIDIRECTIONAL_SEQUENCE_RNN": {"time_major": _flag(0), "fused_activation_function": _word(1, ACTIVATIONS)},
    "UNIDIRECTIONAL_SEQUENCE_LSTM": {
        "fused_activation_function": _word(0, ACTIVATIONS),
        "cell_clip": (1, "<f", 0.0, ()),
        "proj_clip": (2, "<f", 0.0, ()),
        "time_major": _flag(3),
        "diagonal_recurrent_tensors": _flag(5),
    },
}


@frozen
class Operator:
    """One operator of a model.

    Attributes:
        name: as in the enumeration BuiltinOperator, its number where SLOTS does not have it; "custom: ..." for others.
        inputs: slot -> tensor name as in the store (a name that is not there is no constant); the slots that are left
            out are missing. Slots of unknown operators are numbers.
        outputs: tensor names.
        config: options by the keys of the specs: `strides` and `dilations` are lists, height before width.
    """

    name: str
    inputs: Mapping[str, str]
    outputs: tuple[str, ...]
    config: Mapping[str, Any]


def read_operators(path: Path) -> tuple[Operator, ...]:
    """The operators of all graphs of a `.tflite` file, graph by graph in the order in which they run.

    Raises:
        FileError: the file is damaged, or no flatbuffer of this schema.
    """
    with reading(path, "a TensorFlow Lite model"):
        model = root(path)
        codes = [_code(table) for table in model.tables(1)]
        names = [name for _, name in named_tensors(model)]
        found, start = [], 0
        for graph in model.tables(GRAPHS):
            many = len(graph.tables(TENSORS))
            own = names[start : start + many]
            start += many
            found += [_operator(table, codes, own) for table in graph.tables(3)]
        return tuple(found)


def _code(table: Table) -> str:
    """Old files have the number in a byte, new ones in an int beside it."""
    number = max(table.value(0, "<b"), table.value(3, "<i"))
    return f"custom: {table.text(1)}" if number == 32 else CODES.get(number, str(number))


def _operator(table: Table, codes: list[str], names: list[str]) -> Operator:
    index = table.value(0, "<I")
    if index >= len(codes):
        raise BrokenError(f"an operator is number {index} of {len(codes)}")
    name, inputs, outputs = codes[index], table.numbers(1, "i"), table.numbers(2, "i")
    if max((*inputs, *outputs), default=-1) >= len(names) or min(outputs, default=0) < 0:
        raise BrokenError(f"an operator uses tensors beyond the {len(names)} of its graph")
    slots = SLOTS.get(name, ())
    held = {slots[n] if n < len(slots) else str(n): names[tensor] for n, tensor in enumerate(inputs) if tensor >= 0}
    options = table.table(4)
    return Operator(name, held, tuple(names[tensor] for tensor in outputs), _config(name, options) if options else {})


def _config(name: str, options: Table) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for key, (number, code, default, words) in OPTIONS.get(name, {}).items():
        value = options.value(number, code, default)
        if words and not 0 <= value < len(words):
            raise BrokenError(f"{key} of {name} is {value}")
        config[key] = words[value] if words else value
    for key in ("stride", "dilation"):
        if f"{key}_h" in config:
            config[f"{key}s"] = [config.pop(f"{key}_{axis}") for axis in "dhw" if f"{key}_{axis}" in config]
    return config
