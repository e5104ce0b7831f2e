"""A TensorFlow Lite model as records: one layer for each operator with weights, wired, its axes followed."""

from __future__ import annotations

from collections.abc import Mapping

from layoutx.files.blob import reading
from layoutx.files.store import Store, Tensor
from layoutx.files.tflite_file import SHAPE, SKIPPED, named_tensors, root
from layoutx.files.tflite_ops import read_operators
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.tflite_flow import wired
from layoutx.model.tflite_layers import MAIN, Graph, called, graph_of, layer_name, read_operator

OUT = {  # the axis of the kernel that is its outputs
    "TRANSPOSE_CONV": 0,
    "CONV_2D": 0,
    "DEPTHWISE_CONV_2D": -1,
    "CONV_3D_TRANSPOSE": -2,
    "FULLY_CONNECTED": 0,
}
ADD, THROUGH = "0", ("22", "43", "37")  # RESHAPE, SQUEEZE, BATCH_TO_SPACE_ND


def tflite_records(store: Store) -> ModelRecord:
    """The layers of a `.tflite` file, in the order in which its operators run.

    Raises:
        FileError: the file changed or is damaged.
    """
    operators = read_operators(store.path)
    with reading(store.path, "a TensorFlow Lite model"):
        shapes = {name: table.numbers(SHAPE, "i") for table, name in named_tensors(root(store.path))}
    graph = graph_of(store, operators, {name: shape for name, shape in shapes.items() if min(shape, default=1) > 0})
    with reading(store.path, "a TensorFlow Lite model"):
        records, owner, fused = _records(graph)
        layers = tuple(wired(graph, records, owner, fused))
    return ModelRecord("tflite", store.version, layers, store, _leftover(graph, layers))


def _records(graph: Graph) -> tuple[dict[str, LayerRecord], dict[int, str], dict[int, str]]:
    """Records by name, whose each operator is, and which ADD is a layer's bias."""
    records: dict[str, LayerRecord] = {}
    owner: dict[int, str] = {}
    fused: dict[int, str] = {}
    same: dict[tuple[object, ...], str] = {}
    for at, op in enumerate(graph.operators):
        if at in fused:
            continue
        found = read_operator(graph, op)
        if found is None:
            continue
        tensors = dict(found.tensors)
        bias = _bias_after(graph, at, tensors) if found.form else None
        if bias is not None:
            position, slot, value = bias
            tensors["bias"] = graph.consts[graph.operators[position].inputs[slot]]
            fused[position] = value
        key = (found.form, repr(sorted(found.config.items())), *(tensor.name for tensor in tensors.values()))
        if key not in same:
            name = same[key] = layer_name(op, tensors, records)
            kind = found.form.removeprefix("tflite.") or called(op)
            records[name] = LayerRecord(name, kind, found.form, dict(found.config), tensors, note=found.note)
        owner[at] = same[key]
    return records, owner, fused


def _bias_after(graph: Graph, at: int, tensors: Mapping[str, Tensor]) -> tuple[int, str, str] | None:
    """The ADD that is the bias of a product without one, or with zeros: its position, the slot of the constant
    and the value that it adds to."""
    op = graph.operators[at]
    if op.name not in OUT:
        return None
    own = graph.consts.get(op.inputs.get("bias", ""))
    width = tensors[MAIN[op.name][0]].shape[OUT[op.name]]
    value, through = op.outputs[0] if op.outputs else "", 0
    while len(graph.readers.get(value, [])) == 1 and through < 3:
        position = graph.readers[value][0]
        reader = graph.operators[position]
        if reader.name == ADD:
            slot = next((s for s, name in reader.inputs.items() if name in graph.consts), "")
            const = graph.consts.get(reader.inputs.get(slot, ""))
            fits = const is not None and const.shape == (width,) and const.dtype.kind == "f"
            return (position, slot, value) if fits and (own is None or not own.read().any()) else None
        if reader.name not in THROUGH or not reader.outputs:
            return None
        value, through = reader.outputs[0], through + 1
    return None


def _leftover(graph: Graph, layers: tuple[LayerRecord, ...]) -> dict[str, str]:
    """Constants of no layer, with what they are for."""
    used = {tensor.name for record in layers for tensor in record.tensors.values()}
    found = {}
    for name, tensor in graph.store.tensors.items():
        if name in used:
            continue
        readers = [graph.operators[at] for at in graph.readers.get(name, [])]
        what = "numbers" if tensor.dtype.kind == "f" else "a shape or an index"
        names = ", ".join(dict.fromkeys(called(op) for op in readers))
        found[name] = f"{what} of {names}" if names else "no operator reads it"
    skipped = graph.store.metadata.get(SKIPPED, "")
    return found | {
        name: "not plain numbers of whole bytes" for name in skipped.split(", ") if name and name not in used
    }
