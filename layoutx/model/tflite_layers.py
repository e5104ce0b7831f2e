"""One operator of a TensorFlow Lite graph as a layer: its form, its config, its constants, and why it has no form."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from layoutx.files.store import NOTHING, Store, Tensor
from layoutx.files.tflite_file import QUANTIZED, SKIPPED
from layoutx.files.tflite_ops import SLOTS, Operator
from layoutx.frozen import frozen
from layoutx.model.onnx_names import unique

# operators that are wiring: the ONNX operator that does the same to the axes of its data -> BuiltinOperator of
# tensorflow/compiler/mlir/lite/schema/schema.fbs, number and name
_ALIKE: Mapping[str, Mapping[int, str]] = {
    "Add": {
        0: "ADD",
        41: "SUB",
        18: "MUL",
        42: "DIV",
        78: "POW",
        55: "MAXIMUM",
        57: "MINIMUM",
        99: "SQUARED_DIFFERENCE",
    },
    "Sub": {99: "SQUARED_DIFFERENCE"},
    "Relu": {
        19: "RELU",
        20: "RELU_N1_TO_1",
        21: "RELU6",
        152: "RELU_0_TO_1",
        14: "LOGISTIC",
        28: "TANH",
        111: "ELU",
        98: "LEAKY_RELU",
        117: "HARD_SWISH",
        150: "GELU",
        25: "SOFTMAX",
        50: "LOG_SOFTMAX",
        47: "EXP",
        73: "LOG",
        75: "SQRT",
        76: "RSQRT",
        59: "NEG",
        101: "ABS",
        92: "SQUARE",
        53: "CAST",
        6: "DEQUANTIZE",
        8: "FLOOR",
        104: "CEIL",
        116: "ROUND",
        158: "SIGN",
        105: "REVERSE_V2",
        11: "L2_NORMALIZATION",
        114: "QUANTIZE",
    },
    "Reshape": {22: "RESHAPE", 43: "SQUEEZE", 70: "EXPAND_DIMS"},
    "Transpose": {39: "TRANSPOSE"},
    "Concat": {2: "CONCATENATION"},
    "Resize": {
        34: "PAD",
        60: "PADV2",
        100: "MIRROR_PAD",
        65: "SLICE",
        23: "RESIZE_BILINEAR",
        97: "RESIZE_NEAREST_NEIGHBOR",
        130: "BROADCAST_TO",
    },
    "Blocks": {37: "BATCH_TO_SPACE_ND", 38: "SPACE_TO_BATCH_ND"},
    "Pool": {17: "MAX_POOL_2D", 1: "AVERAGE_POOL_2D", 12: "L2_POOL_2D"},
    "StridedSlice": {45: "STRIDED_SLICE"},
    "Reduce": {40: "MEAN", 74: "SUM", 82: "REDUCE_MAX", 89: "REDUCE_MIN", 81: "REDUCE_PROD"},
    "": {16: "LSTM", 24: "RNN", 27: "SVDF", 52: "BIDIRECTIONAL_SEQUENCE_LSTM", 46: "BIDIRECTIONAL_SEQUENCE_RNN"}
    | {119: "WHILE", 126: "BATCH_MATMUL", 77: "SHAPE", 83: "PACK", 88: "UNPACK", 49: "SPLIT", 102: "SPLIT_V"}
    | {94: "FILL", 96: "RANGE", 123: "SELECT_V2", 107: "GATHER_ND", 129: "CALL_ONCE", 144: "ASSIGN_VARIABLE"},
}
WIRING = {str(number): kind for kind, found in _ALIKE.items() for number in found}
_NAMES = {str(number): name for found in _ALIKE.values() for number, name in found.items()}
SHORT = {"UNIDIRECTIONAL_SEQUENCE_LSTM": "lstm", "UNIDIRECTIONAL_SEQUENCE_RNN": "rnn"}
FLAT = {"CONV_2D": "Conv1D", "DEPTHWISE_CONV_2D": "DepthwiseConv1D", "TRANSPOSE_CONV": "Conv1DTranspose"}
EXPAND, SQUEEZE, ZEROS, SPACE = ("70", "22"), ("43", "22"), ("6",), "38"
# the constant without which an operator is no layer, and its rank
MAIN: Mapping[str, tuple[str, int | None]] = {
    "FULLY_CONNECTED": ("filter", 2),
    "CONV_2D": ("filter", 4),
    "DEPTHWISE_CONV_2D": ("filter", 4),
    "CONV_3D": ("filter", 5),
    "CONV_3D_TRANSPOSE": ("filter", 5),
    "TRANSPOSE_CONV": ("weights", 4),
    "GATHER": ("params", 2),
    "EMBEDDING_LOOKUP": ("value", 2),
    "PRELU": ("alpha", None),
    "UNIDIRECTIONAL_SEQUENCE_RNN": ("input_to_input_weights", 2),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ("input_to_forget_weights", 2),
}
STATES = ("x", "output_shape", "input_activation_state", "input_cell_state", "hidden_state")
CONVERTER_CLIP = 10.0  # what the converter writes for every LSTM of tf_keras, which clips nothing itself
# what the converter appends to the path of a Keras layer, and those of it that make a product with a kernel
_PRODUCT = re.compile(
    r"Conv\dD|convolution|conv\dd?_transpose|conv_transpose|MatMul|Tensordot|depthwise|embedding_lookup"
)
_STEP = re.compile(
    _PRODUCT.pattern
    + r"|BiasAdd|ReadVariableOp|FusedBatchNormV3|batchnorm|Reshape|Squeeze|ExpandDims|ReverseV2|moments"
    r"|Relu\w*|Tanh|Sigmoid|Elu|Softmax|add|mul|sub|Neg|Rsqrt|strided_slice|Gather|ResourceGather"
)


@dataclass(slots=True)
class Graph:
    """The operators of a file, and what is where.

    Attributes:
        shapes: value -> its shape, the batch as one.
        consts: value -> the constant that it is, through a DEQUANTIZE of half precision too.
        maker, readers: value -> positions of operators.
    """

    store: Store
    operators: tuple[Operator, ...]
    shapes: Mapping[str, tuple[int, ...]]
    consts: dict[str, Tensor] = field(default_factory=dict)
    maker: dict[str, int] = field(default_factory=dict)
    readers: dict[str, list[int]] = field(default_factory=dict)


@frozen
class Reading:
    """What one operator is as a layer; `form` is "" where it has none, which `note` explains."""

    form: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] = NOTHING
    note: str = ""


def graph_of(store: Store, operators: tuple[Operator, ...], shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """The operators with their constants."""
    graph = Graph(store, operators, shapes, dict(store.tensors))
    for at, op in enumerate(operators):
        for name in op.outputs:
            graph.maker.setdefault(name, at)
        for name in op.inputs.values():
            graph.readers.setdefault(name, []).append(at)
        held = graph.consts.get(op.inputs.get("0", ""))
        if op.name in ZEROS and held is not None and held.dtype.kind == "f" and len(op.outputs) == 1:
            graph.consts[op.outputs[0]] = held
    return graph


def read_operator(graph: Graph, op: Operator) -> Reading | None:
    """The layer that an operator is; None for wiring."""
    if op.name in ZEROS and op.outputs and op.outputs[0] in graph.consts:
        return None
    held = {slot: graph.consts[name] for slot, name in op.inputs.items() if name in graph.consts and slot not in STATES}
    lost = [name for name in op.inputs.values() if name in graph.store.metadata.get(SKIPPED, "").split(", ")]
    weights = {slot: tensor for slot, tensor in held.items() if _is_weight(graph, tensor)}
    if not weights and not lost:
        return None
    if op.name not in SLOTS:
        note = f"a constant of {called(op)}: no layer that layoutx knows, or a part of one"
        return Reading("", weights, note=note) if weights else None
    reason = _refused(graph, op, held, lost)
    if reason:
        return Reading("", held, dict(op.config), reason)
    return _formed(graph, op, held)


def _is_weight(graph: Graph, tensor: Tensor) -> bool:
    """Whether a constant is more than a number, a shape or an index."""
    return tensor.size > 1 and (
        tensor.dtype.kind == "f" or tensor.dtype.name == "bfloat16" or _quantised(graph, tensor)
    )


def _quantised(graph: Graph, tensor: Tensor) -> bool:
    return QUANTIZED + tensor.name in graph.store.metadata


def _refused(graph: Graph, op: Operator, held: Mapping[str, Tensor], lost: list[str]) -> str:
    """Why an operator that has a form has none here."""
    if lost:
        return f"its constant {lost[0]} is not stored as plain numbers"
    quantised = [slot for slot, tensor in held.items() if _quantised(graph, tensor) or tensor.dtype.kind in "iu"]
    if quantised:
        return f"quantised ({', '.join(quantised)}): layoutx does not undo that; convert the model without quantisation"
    slot, rank = MAIN[op.name]
    if slot not in held:
        return f"its {slot} is computed in the graph, and no constant"
    if rank is not None and len(held[slot].shape) != rank:
        return f"its {slot} has {len(held[slot].shape)} axes, not {rank}"
    extra = [slot for slot in held if slot == "projection_bias" or slot.endswith("layer_norm_coefficients")]
    if extra:
        return f"no other framework's layer has {', '.join(extra)}"
    if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM" and "input_to_input_weights" not in held:
        return "it has no input gate (1 - forget gate stands for it), which no other framework's layer does"
    return ""


def _formed(graph: Graph, op: Operator, held: Mapping[str, Tensor]) -> Reading:
    form, config, notes = op.name, dict(op.config), []
    main = held[MAIN[op.name][0]]
    data = graph.shapes.get(op.inputs.get("x", ""), ())
    if form == "CONV_2D" and len(main.shape) == 4 and data and main.shape[-1] and data[-1] % main.shape[-1] == 0:
        config["_groups"] = data[-1] // main.shape[-1]
    if form in FLAT and _is_flat(graph, op, main):
        form = FLAT[form]
        config |= {key: config[key][-1:] for key in ("strides", "dilations") if key in config}
        block = _block(graph, op)
        if block > 1:
            config["dilations"] = [block]
            notes.append(f"its dilation is the block of the SPACE_TO_BATCH_ND before it, {block}; padding is there too")
    if form == "PRELU":
        config["rank"] = max(len(main.shape) - 1, 0)
    if form == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        config["_projection"] = "projection_weights" in held
        if config.get("cell_clip") == CONVERTER_CLIP:
            config["cell_clip"] = 0.0
            notes.append(
                "the operator clips cell states beyond 10, as the converter always has it; the target does not"
            )
    if form.startswith("UNIDIRECTIONAL") and graph.maker.get(op.inputs.get("x", "")) is not None:
        before = graph.operators[graph.maker[op.inputs["x"]]]
        if before.name == "105":
            notes.append("it reads its data backwards: the REVERSE_V2 before it stays with the target")
    return Reading(f"tflite.{form}", held, config, "; ".join(notes))


def _is_flat(graph: Graph, op: Operator, kernel: Tensor) -> bool:
    """Whether it is a 1D convolution that lies between two reshapes, with one row everywhere."""
    x = op.inputs.get("x", "")
    made = graph.maker.get(x)
    if made is None or graph.operators[made].name not in EXPAND or len(kernel.shape) != 4 or kernel.shape[1] != 1:
        return False
    before = graph.operators[made].inputs.get("0", "")
    after = [graph.operators[at] for name in op.outputs for at in graph.readers.get(name, [])]
    outs = [graph.shapes.get(name, ()) for reader in after if reader.name in SQUEEZE for name in reader.outputs]
    rows = graph.shapes.get(x, ())
    return len(graph.shapes.get(before, ())) == 3 and rows[1:2] == (1,) and any(len(out) == 3 for out in outs)


def _block(graph: Graph, op: Operator) -> int:
    """The dilation of a 1D convolution that the converter left outside: the block of a SPACE_TO_BATCH_ND."""
    expand = graph.operators[graph.maker[op.inputs["x"]]]
    made = graph.maker.get(expand.inputs.get("0", ""))
    space = graph.operators[made] if made is not None else None
    block = graph.consts.get(space.inputs.get("1", "")) if space is not None and space.name == SPACE else None
    return int(block.read().reshape(-1)[0]) if block is not None and block.size == 1 else 1


def called(op: Operator) -> str:
    """An operator's name; its number where layoutx knows nothing of it."""
    return _NAMES.get(op.name, f"operator {op.name}" if op.name.isdigit() else op.name)


def layer_name(op: Operator, tensors: Mapping[str, Tensor], taken: Collection[str]) -> str:
    """A short name, one that no other layer has: `c1` of "sequential/c1/Conv2D;...", else that of the operator.

    Of the names that the converter joins with ";" those count first that make a product with a kernel: the others may
    be of a normalisation that was folded into it.
    """
    pieces = [
        re.sub(r"[:#]\d+$", "", piece)
        for name in [*(tensor.name for tensor in tensors.values()), *op.outputs]
        for piece in name.split(";")
        if "/" in piece and not piece.startswith("arith.")
    ]
    paths = [[part for part in piece.split("/") if part] for piece in pieces]
    products = [path for path in paths if any(_is(_PRODUCT, part) for part in path[2:])]
    for path in (*products, *paths):
        own = list(path)
        while len(own) > 2 and _is(_STEP, own[-1]):
            own.pop()
        if len(own) > 1:
            return unique("/".join(own[1:]), taken)
    return unique(SHORT.get(op.name, called(op).lower().replace(" ", "_")), taken)


def _is(pattern: re.Pattern[str], part: str) -> bool:
    return re.fullmatch(rf"({pattern.pattern})(_?\d+)?", part) is not None
