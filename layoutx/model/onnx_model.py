"""An ONNX model as records: one layer for each node with weights, wired, its axes followed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from layoutx.files.blob import reading
from layoutx.files.onnx_file import label, need_onnx, opset_of, structure
from layoutx.files.store import Store
from layoutx.model.keyed import Keyed, Module
from layoutx.model.onnx_flow import wired
from layoutx.model.onnx_parts import Parts, Shape, parts_of
from layoutx.model.record import ModelRecord


def onnx_records(store: Store) -> ModelRecord:
    """The layers of an ONNX file, in the order of its nodes; local functions are opened first.

    Raises:
        FileError: the file changed or is damaged.
    """
    with reading(store.path, "an ONNX model"):
        model = _opened(structure(store.path))
        shapes = _shapes(model)
        parts = parts_of(model.graph, store, shapes, opset_of(model))
        layers = tuple(wired(model.graph, parts, shapes))
    return ModelRecord("onnx", store.version, layers, store, _leftover(model.graph, parts, store))


def _opened(model: Any) -> Any:
    """The model with its local functions written out; as it is where onnx cannot do that."""
    if not model.functions:
        return model
    from onnx import inliner

    return inliner.inline_local_functions(model)


def _shapes(model: Any) -> dict[str, Shape]:
    """Value name -> its shape as onnx infers it, None for symbolic sizes; missing where it cannot be told."""
    with suppress(Exception):  # custom operators and contradictions: what is declared has to do
        model = need_onnx().shape_inference.infer_shapes(model, data_prop=True)
    found: dict[str, Shape] = {}
    for info in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        kind = info.type.tensor_type
        if kind.HasField("shape"):
            found[info.name] = tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim)
    for proto in model.graph.initializer:
        found[proto.name] = tuple(proto.dims)
    return found


def _leftover(graph: Any, parts: Parts, store: Store) -> dict[str, str]:
    """Tensors of no layer, with what they are for."""
    used = {t.name for record in parts.records.values() for t in record.tensors.values()}
    readers: dict[str, str] = {}
    for i, node in enumerate(graph.node):
        for name in node.input:
            readers.setdefault(name, f"{node.op_type} {label(node, i)}")
    return {
        name: f"a constant of {readers[name]}" if name in readers else "no node reads it"
        for name in store.tensors
        if name not in used
    }


def keyed_view(model: ModelRecord) -> Keyed:
    """An ONNX model as names, `<layer>.<slot>`, with every layer's form, config and followed axes.

    For a conversion from or into a model that has a config of its own.
    """
    tensors, first, tied = {}, dict[str, str](), {}
    modules: dict[str, Module] = {}
    for record in model.layers:
        path = record.name.replace("/", ".")
        modules[path] = Module(record.form, record.class_name, record.config, record.refine, record.note)
        for slot, tensor in record.tensors.items():
            full = f"{path}.{slot}"
            tensors[full] = tensor
            kept = first.setdefault(tensor.name, full)
            if kept != full:
                tied[full] = kept
    return Keyed("onnx", tensors, modules, tied, model.store)
