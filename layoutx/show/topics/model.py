"""What each element of `model.get_weights()` is: layer, role, axes, trainable or state, and the file's name for it."""

from __future__ import annotations

from typing import Any

from layoutx.explained import Block, Rows, Say
from layoutx.show.tables import plural
from layoutx.show.views import ModelView
from layoutx.words import listed

CALLED = {
    "keras": "model.get_weights()[i]",
    "keras1": "model.get_weights()[i]",
    "torch": "the state dict's keys",
    "onnx": "the initializers of the graph",
}


def whole(view: ModelView) -> tuple[str, list[Block], dict[str, Any]]:
    """The title, the table of all arrays, and the same as plain values."""
    keras = view.framework.startswith("keras")
    rows, data = list[tuple[str, ...]](), list[dict[str, Any]]()
    for layer in view.layers:
        for tensor in layer.tensors:
            index = "?" if tensor.position is None else str(tensor.position)
            kind = tensor.role if layer.bound is not None or tensor.frozen else "?"
            rows.append((index if keras else "", layer.name, tensor.text, kind, tensor.key))
            data.append(
                {
                    "index": tensor.position,
                    "layer": layer.name,
                    "form": layer.form,
                    "name": tensor.name,
                    "index_in_layer": tensor.index,
                    "shape": list(tensor.shape),
                    "roles": _roles(layer, tensor.name),
                    "axes": tensor.text.partition(" (")[2].rstrip(")"),
                    "kind": None if kind == "?" else kind,
                    "key": tensor.key,
                }
            )
    count = len({t.key for layer in view.layers for t in layer.tensors})
    name = view.file or "the model"
    what = CALLED.get(view.framework, f"the arrays of {view.framework or 'the file'}")
    title = f"{name} holds {plural(count, 'array')} in {plural(len(view.layers), 'layer')}: {what}."
    blocks: list[Block] = [Rows(("i" if keras else "", "layer", "array", "", "name in the file"), tuple(rows))]
    blocks += _remarks(view, keras)
    return title, blocks, {"arrays": data, "leftover": dict(view.leftover)}


def _roles(layer: Any, name: str) -> list[str]:
    if layer.bound is None:
        return []
    return sorted({b.role for t in layer.bound.tensors if t.name == name for b in t.blocks})


def _remarks(view: ModelView, keras: bool) -> list[Block]:
    found = list[str]()
    empty = [layer.name for layer in view.layers if not layer.tensors]
    if keras and any(t.position is None for layer in view.layers for t in layer.tensors):
        found.append("i ?: the file keeps no order of the layers, and names them by class and number (dense_1), not as "
                     "the model does; the .keras file or the live model says both.")  # fmt: skip
    if keras:
        found.append("A layer's own get_weights() counts its arrays from 0, in this order.")
    if any(t.state for layer in view.layers for t in layer.tensors):
        found.append("state: moved by training without a gradient (running statistics), and read at inference.")
    unknown = [layer.name for layer in view.layers if layer.tensors and layer.bound is None]
    if unknown:
        found.append(f"?: the form of {listed(unknown)} is not known; name it with --form LAYER=FORM.")
    if any(t.frozen for layer in view.layers for t in layer.tensors):
        found.append("frozen: the layer's trainable is False.")
    if empty:
        found.append(f"Without weights: {listed(empty)}.")
    if view.leftover:
        what = "constants of the graph" if view.framework == "onnx" else "optimizer state"
        found.append(f"{plural(len(view.leftover), 'more array')} of no layer ({what}, say).")
    found.append("`layoutx explain FILE LAYER` says what one layer's arrays mean.")
    return [Say(" ".join(found))]
