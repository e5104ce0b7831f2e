"""Opens a graph into leaves: the layers that become records, with form, config and place in a `.weights.h5` file."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from sys import intern
from typing import Any

from layoutx.files.store import NOTHING
from layoutx.frozen import frozen
from layoutx.model.graph import Graph, Node
from layoutx.model.keras_slots import CELLS, RNNS, Piece, pieces, remark, stock

EXPORTED = {"GroupQueryAttention": "GroupedQueryAttention"}  # a config has the public name, a group that of the class
Number = Callable[
    [str, tuple[Node, ...]], Iterable[str | None]
]  # container path, children -> group names (None: not written)


@frozen
class Leaf:
    """One future record.

    `name` joined with outer names; `top` the layer of the outermost model that holds it; `group` its
    HDF5 group in a `.weights.h5` file (None where it was written elsewhere); `own` what it should store
    (None where its class is unknown); `form` without checking that the registry knows it.
    """

    name: str
    top: str
    node: Node
    group: str | None
    own: tuple[Piece, ...] | None
    form: str
    config: Mapping[str, Any]
    note: str = ""
    path: tuple[str, ...] = ()


@lru_cache(1024)
def snake(name: str) -> str:
    """The group name of a class: keras 3.15.1 naming.to_snake_case."""
    name = name.split(">")[-1]
    name = re.sub(r"\W+", "", EXPORTED.get(name, name))
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def leaves_of(graph: Graph, version: int, number: Number, container: str = "layers") -> Iterator[Leaf]:
    """Every leaf of the model in `model.layers` order."""
    yield from _children(graph, "", "", "", version, number, container, ())


def _children(
    graph: Graph, prefix: str, top: str, group: str, version: int, number: Number, container: str, path: tuple[str, ...]
) -> Iterator[Leaf]:
    root = _join(group, container)
    for node, name in zip(graph.layers, number(root, graph.layers), strict=True):
        place = None if name is None else f"{root}/{name}"
        yield from _open(
            node, prefix + node.name, top or node.name, place, version, number, container, (*path, node.name)
        )


def _open(
    node: Node,
    name: str,
    top: str,
    group: str | None,
    version: int,
    number: Number,
    container: str,
    path: tuple[str, ...],
) -> Iterator[Leaf]:
    inner, note = node, ""
    place = group or "?"
    if node.inner is not None and node.inner.layers:
        yield from _children(node.inner, f"{name}/", top, place, version, number, container, path)
        return
    wrapped, kind = node.part("layer"), stock(node)
    if kind == "SpectralNormalization" and wrapped is not None and wrapped.inner is None:
        inner, note = wrapped, f"SpectralNormalization({wrapped.class_name})"
    if kind == "TimeDistributed" and wrapped is not None:
        if wrapped.inner is not None:
            yield from _children(wrapped.inner, f"{name}/", top, f"{place}/layer", version, number, container, path)
            return
        inner, note = wrapped, f"TimeDistributed({wrapped.class_name})"
    cells = cells_of(inner) if stock(inner) == "RNN" else ()
    if cells:
        below = f"{place}/layer" if inner is not node else place
        root = f"{below}/cell/cells"
        for i, (cell, cell_group) in enumerate(zip(cells, number(root, cells), strict=True)):
            form = CELLS.get(stock(cell), "")
            own = pieces(cell, version)
            more = {} if i == len(cells) - 1 else {"return_sequences": True}
            merged = {**_outer(inner.config), **cell.config, **more, "version": version}
            text = f"cell {i} of {len(cells)} of RNN({', '.join(c.class_name for c in cells)})"
            yield Leaf(
                f"{name}/cell_{i}",
                top,
                cell,
                f"{root}/{cell_group}",
                own,
                f"keras.{form}" if form else "",
                merged,
                text,
                (*path, cell.name),
            )
        return
    form, config = form_of(inner)
    note = (
        note or remark(inner) or (unlike_directions(inner) if inner.parts and stock(inner) == "Bidirectional" else "")
    )
    yield Leaf(name, top, node, group, pieces(node, version), form, {**config, "version": version}, note, path)


def cells_of(node: Node) -> tuple[Node, ...]:
    """The cells of RNN([cell, cell]) or RNN(StackedRNNCells), () for any other layer."""
    holder = node.part("cell")
    found = holder if holder is not None and stock(holder) == "StackedRNNCells" else node
    return tuple(part for key, part in found.parts if key.startswith("cells/"))


def form_of(node: Node) -> tuple[str, Mapping[str, Any]]:
    """Form name and config of one layer; RNN(LSTMCell) is an LSTM, Bidirectional takes the config of what it wraps."""
    name = stock(node)
    cell = node.part("cell") if name == "RNN" else None
    if cell is not None and stock(cell) in CELLS:
        return "keras." + CELLS[stock(cell)], {**_outer(node.config), **cell.config}
    if name == "Bidirectional":
        inner = node.part("layer")
        form, config = form_of(inner) if inner is not None else ("", NOTHING)
        if form.removeprefix("keras.") not in RNNS or unlike_directions(node):
            return "", node.config
        merge = {"merge_mode": node.config.get("merge_mode", "concat")}
        return "keras.Bidirectional." + form.removeprefix("keras."), {**config, **merge}
    return intern(f"keras.{name or node.registered or node.class_name}"), node.config


def unlike_directions(node: Node) -> str:
    """Why the two layers of a Bidirectional are not one layer read in two directions; "" where they are.

    Keras gives a `backward_layer` of its own where the user did; it must be the other with go_backwards turned.
    """
    forward, backward = node.part("layer"), node.part("backward_layer")
    if forward is None:
        return ""
    if forward.config.get("go_backwards"):
        return "its forward layer reads backwards"
    if backward is None:
        return ""
    if stock(backward) != stock(forward):
        return f"its backward layer is another class, {backward.class_name}"
    same = ("units", "activation", "recurrent_activation", "use_bias", "reset_after", "return_sequences")
    other = [key for key in same if forward.config.get(key) != backward.config.get(key)]
    return f"its backward layer differs in {', '.join(other)}" if other else ""


def _outer(config: Mapping[str, Any]) -> dict[str, Any]:
    """What an RNN's config says about the loop, without its cell."""
    return {key: value for key, value in config.items() if key not in ("cell", "cells")}


def _join(group: str, name: str) -> str:
    return f"{group}/{name}" if group else name
