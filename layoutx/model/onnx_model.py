"""An ONNX model as records: one layer for each node with weights, wired, its axes followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from layoutx.files.blob import reading
from layoutx.files.onnx_file import bodies, label, opset_of, structure
from layoutx.files.store import Store, Tensor
from layoutx.model.onnx_consts import Const
from layoutx.model.onnx_flow import wired
from layoutx.model.onnx_parts import Parts, parts_of
from layoutx.model.onnx_shapes import settled_shapes, shapes_of
from layoutx.model.onnx_unrolled import unrolled
from layoutx.model.record import MADE, LayerRecord, ModelRecord


def onnx_records(store: Store) -> ModelRecord:
    """The layers of an ONNX file, in the order of its nodes; local functions are opened first.

    Raises:
        FileError: the file changed or is damaged.
    """
    with reading(store.path, "an ONNX model"):
        model = opened(structure(store.path))
        shapes = shapes_of(model)
        parts = parts_of(model.graph, store, shapes, opset_of(model))
        followed, channels = wired(model.graph, parts, settled_shapes(model, parts.consts, shapes))
    layers = unrolled(model.graph, parts, tuple(followed))
    made = _made(model.graph, parts, layers)
    whole = replace(store, tensors={**store.tensors, **{t.name: t for _, t in made.values()}})
    leftover = _leftover(model.graph, parts, store, layers)
    for const, tensor in made.values():
        said = f"{tensor.name} {MADE}"
        leftover |= {t.name: said for t in const.tensors if t.name in leftover}
    leftover |= {copy: f"the numbers of {first}, for another call of its layer" for copy, first in parts.copies.items()}
    return ModelRecord("onnx", store.version, layers, whole, leftover, channels, parts.copies)


def opened(model: Any) -> Any:
    """The model with its local functions written out; as it is where onnx cannot do that."""
    if not model.functions:
        return model
    from onnx import inliner

    return inliner.inline_local_functions(model)


def _made(graph: Any, parts: Parts, layers: Sequence[LayerRecord]) -> dict[str, tuple[Const, Tensor]]:
    """The layers' tensors that the file does not store, as their readers see them."""
    used = {t.name for record in layers for t in record.tensors.values() if record.form}
    found: dict[str, tuple[Const, Tensor]] = {}
    for prefix, _, own in _all_parts(graph, parts):
        for value, const in own.consts.items():
            tensor = const.own or (const.value if const.fold is not None and prefix + value in used else None)
            if tensor is not None and tensor.name in used:
                found.setdefault(tensor.name, (const, tensor))
    return found


def _all_parts(graph: Any, parts: Parts) -> list[tuple[str, Any, Parts]]:
    """A graph and its bodies with their parts and the prefixes of their tensors."""
    found = [("", graph, parts)]
    for prefix, one, own in found:  # it grows while it is read
        for i, inner in own.inner.items():
            names = [a.name for a in one.node[i].attribute for _ in bodies(a)]
            here = f"{prefix}{label(one.node[i], i)}"
            found += [(f"{here}/{name}/", body, inside) for name, (body, inside) in zip(names, inner, strict=True)]
    return found


def _leftover(graph: Any, parts: Parts, store: Store, layers: Sequence[LayerRecord]) -> dict[str, str]:
    """Stored tensors that are no layer's, with what they are for."""
    used = {t.name for record in layers for t in record.tensors.values()}
    readers: dict[str, str] = {}
    for prefix, one, own in _all_parts(graph, parts):
        inside = {i: f"the layer {name}" for name, spans in own.spans.items() for span in spans for i in span}
        for i, node in enumerate(one.node):
            for name in node.input:
                const = own.consts.get(name)
                known = const.known if const is not None else None
                stored = known.name if known is not None else prefix + name
                readers.setdefault(stored, inside.get(i, f"{node.op_type} {label(node, i)}"))
    return {
        name: f"a constant of {readers[name]}" if name in readers else "no node reads it"
        for name in store.tensors
        if name not in used
    }
