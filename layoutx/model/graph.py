"""A model's wiring as plain data: layers in the model's own order, and who feeds each call of each layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import field, replace
from typing import Any

from layoutx.files.names import refusal_of
from layoutx.files.store import NOTHING
from layoutx.frozen import frozen
from layoutx.model.counted import offsets, resolve, resolved
from layoutx.model.entry import (
    MAPPING,
    bad_config,
    class_of,
    index_of,
    is_custom,
    is_operation,
    keywords_of,
    lengths,
    mapping_of,
    named,
    registered,
    shape_of,
)
from layoutx.model.wiring import Calls, Ref, calls_of, no_circle, refs_of

MODELS = ("Sequential", "Functional", "Model")
OURS = "live "  # how config keys begin that are none of Keras', of layers that keras_opened tells
SAID = f"{OURS}data_format"  # where a live layer says its channels stand
MOVED = f"{OURS}parts"  # what each axis of its output is made of, of a layer that only moves numbers
NUMBERS = f"{OURS}numbers"  # of an input that is none of the model's: positions that its code makes itself
GIVEN = f"{OURS}given"  # of an input of a layer of the user's own: other layers make what it is given
LIVE = f"{OURS}class"  # of a graph that keras_wired made ("layer", "model"); its ends count from 0
VARIABLE = "Variable"  # the class of a weight that a layer of the user's own holds beside its layers (keras_opened)
PARTS = ("layer", "backward_layer", "cell")  # config keys under which a wrapper keeps what it wraps
HOLDS = {*PARTS, "cells"}
SEQUENTIAL = (Ref(""),)  # the inputs of a Sequential model, which names none


@frozen
class Node:
    """One layer of a config.

    Attributes:
        name: the layer's name in its own graph (not joined with outer names).
        class_name: as the file says it, also where it is registered; see `custom`.
        config: the layer's own config.
        calls: for each call of the layer, its input tensors in the order of the arguments.
        inner: the graph, where the layer is itself a model.
        parts: what a wrapper wraps, by config key: `layer`, `backward_layer`, `cell`, `cells/0`...
        custom: the config says that the class is not one of Keras' own.
        registered: the full name of a registered class, "mypkg>Gate", "" where there is none.
        operation: an operation of Keras 3 (`keras.ops.add`), which is no layer and is not counted as one.
        shared: the file's id of the object, "" where it has none.
        shape: the input shape without batch that the entry itself states, None where it does not.
    """

    name: str
    class_name: str
    config: Mapping[str, Any] = NOTHING
    calls: Calls = ()
    inner: Graph | None = None
    parts: tuple[tuple[str, Node], ...] = ()
    custom: bool = False
    shared: str = ""
    registered: str = ""
    operation: bool = False
    shape: tuple[int | None, ...] | None = None

    @property
    def trainable(self) -> bool:
        """The layer's own flag; a frozen container does not show here."""
        return bool(self.config.get("trainable", True))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the layers that feed this one, each once, in order."""
        return tuple(dict.fromkeys(ref.layer for call in self.calls for ref in call if ref.layer))

    def part(self, key: str) -> Node | None:
        """The wrapped layer under this config key."""
        return next((node for name, node in self.parts if name == key), None) if self.parts else None


@frozen
class Graph:
    """Layers in `model.layers` order with the wiring between them.

    `wired` is False for a subclassed model, whose config holds no layers or no connections; where its layers have calls
    all the same, who feeds whom is known, and not what becomes of the axes on the way; `passes`: but perhaps which of
    them come out.
    """

    name: str
    class_name: str
    layers: tuple[Node, ...] = ()
    inputs: tuple[Ref, ...] = ()
    outputs: tuple[Ref, ...] = ()
    wired: bool = True
    by_name: Mapping[str, Node] = field(default_factory=dict)
    passes: bool = False


def graph_of(config: Mapping[str, Any], where: str = "model config") -> Graph:
    """The graph of a Keras model config, of any Keras version, read as plain JSON.

    Raises ModelError with the place where the config is not what Keras writes.
    """
    class_name, body = class_of(config, where), config.get("config")
    if isinstance(body, list):  # Sequential before Keras 2.2.3
        return _sequential(class_name, "", body, None, where)
    if not isinstance(body, Mapping):
        raise bad_config("A model's config is neither a list nor an object", where)
    layers = body.get("layers")
    name = named(str(body.get("name", "")), "model's name", where)
    if not isinstance(layers, list):
        return Graph(name, class_name, wired=False)
    if "input_layers" in body:
        found = _functional(class_name, name, body, layers, where)
        return replace(found, wired=False, passes=bool(body.get("passes"))) if body.get("unwired") else found
    shape = body.get("build_input_shape") or mapping_of(config.get("build_config")).get("input_shape")
    found = _sequential(class_name, name, layers, shape, where)
    return _unwired(found) if body.get("unwired") else found  # made by keras_opened: Keras writes no such key


def _unwired(graph: Graph) -> Graph:
    """The same layers, nothing known about who feeds whom."""
    nodes = tuple(replace(node, calls=()) for node in graph.layers)
    return Graph(graph.name, graph.class_name, nodes, wired=False, by_name={node.name: node for node in nodes})


def node_of(entry: Any, where: str, calls: Calls | None = (), clean: bool = False) -> Node:
    """One layer of a config; wrappers and nested models are opened.

    Args:
        calls: its wiring; None: as the entry says it.
        clean: its names were looked at before.
    """
    class_name = class_of(entry, where, clean)
    body = entry.get("config")
    inner = graph_of(entry, where) if _is_model(class_name, body) else None
    said = isinstance(body, MAPPING)
    config: Mapping[str, Any] = body if said else {}
    if class_name == "GetItem":
        config = {**config, "key": index_of(entry)}
    elif class_name == "TFOpLambda":
        config = {**keywords_of(entry), **config}
    name = str(entry.get("name") or config.get("name") or (inner.name if inner else ""))
    if not clean:
        named(name, "name", where)
    if inner is None and not said:
        raise bad_config(f'The config of "{class_name}" is not an object', where)
    place = f'{where}, layer "{name}"'
    parts = () if inner or config.keys().isdisjoint(HOLDS) else tuple(_parts(config, place))
    custom = is_custom(entry, class_name)
    full_name = registered(entry, class_name)
    if full_name and not clean:
        named(full_name, "registered name", where)
    shape = shape_of(config, entry, place)
    return Node(
        name,
        class_name,
        config,
        calls_of(entry, place) if calls is None else calls,
        inner,
        parts,
        custom,
        str(entry.get("shared_object_id") or ""),
        full_name,
        is_operation(entry, config),
        shape,
    )


def walk(graph: Graph, prefix: str = "") -> Iterator[tuple[str, Node]]:
    """Every layer with its joined name, nested models opened, wrappers closed."""
    for node in graph.layers:
        yield prefix + node.name, node
        if node.inner is not None:
            yield from walk(node.inner, f"{prefix}{node.name}/")


def _is_model(class_name: str, body: Any) -> bool:
    if isinstance(body, list):
        return class_name in MODELS
    if not isinstance(body, MAPPING) or not isinstance(body.get("layers"), list):
        return False
    layers = body["layers"]
    return (
        class_name in MODELS
        or "input_layers" in body
        or (
            bool(layers) and all(isinstance(x, Mapping) and "class_name" in x for x in layers) and class_name != "Merge"
        )
    )


def _parts(config: Mapping[str, Any], where: str) -> Iterator[tuple[str, Node]]:
    for key in PARTS:
        value = config.get(key)
        if isinstance(value, Mapping) and "class_name" in value:
            yield key, node_of(value, f"{where}, {key}")
    cells = config.get("cells")
    if isinstance(cells, list):
        for i, cell in enumerate(cells):
            yield f"cells/{i}", node_of(cell, f"{where}, cells {i}")
    cell = config.get("cell")
    if isinstance(cell, list):  # RNN([cell, cell]) before Keras wrapped the list itself
        for i, entry in enumerate(cell):
            yield f"cells/{i}", node_of(entry, f"{where}, cell {i}")


def _sequential(class_name: str, name: str, entries: list[Any], shape: Any, where: str) -> Graph:
    nodes: list[Node] = []
    taken: set[str] = set()
    last = Ref("")
    clean = _clean(entries)
    for i, entry in enumerate(entries):
        node = node_of(entry, f'{where}, {class_name} "{name}", layer {i}', ((last,),), clean)
        if not node.name or node.name in taken:
            node = replace(node, name=_unique(node, taken, i))
        if not nodes and node.shape is None and shape:
            node = replace(node, shape=lengths(shape, "build_input_shape", where))
        nodes.append(node)
        taken.add(node.name)
        last = Ref(node.name)
    return Graph(name, class_name, tuple(nodes), SEQUENTIAL, (last,), True, {n.name: n for n in nodes})


def _unique(node: Node, taken: Set[str], i: int) -> str:
    name = node.name or f"layer_{i}"
    return name if name not in taken else f"{name}_{i}"


def _functional(class_name: str, name: str, body: Mapping[str, Any], entries: list[Any], where: str) -> Graph:
    where = f'{where}, {class_name} "{name}"'
    nodes: dict[str, Node] = {}
    clean = _clean(entries)
    for i, entry in enumerate(entries):
        node = node_of(entry, f"{where}, layer {i}", None, clean)
        if not node.name:
            raise bad_config(f"Layer {i} has no name", where)
        if node.name in nodes:
            raise bad_config(f'Two layers are named "{node.name}"', where)
        if not isinstance(entry.get("inbound_nodes", []), list):
            raise bad_config(f'inbound_nodes of layer "{node.name}" is not a list', where)
        nodes[node.name] = node
    calls = {name: node.calls for name, node in nodes.items()}
    models = [name for name, node in nodes.items() if node.inner is not None]
    own = () if LIVE in body else [name for name in models if _is_functional(nodes[name])]
    between, ends = offsets(calls, models, own, body, where)
    fixed = {name: _rewired(node, resolved(node.calls, calls, between, where)) for name, node in nodes.items()}
    no_circle({name: node.calls for name, node in fixed.items()}, where)
    inputs, outputs = (
        tuple(resolve(ref, calls, ends, where) for ref in refs_of(body.get(key, []), where))
        for key in ("input_layers", "output_layers")
    )
    return Graph(name, class_name, tuple(fixed.values()), inputs, outputs, True, fixed)


def _is_functional(node: Node) -> bool:
    return node.inner is not None and node.inner.inputs != SEQUENTIAL and node.config.get(LIVE) != "layer"


def _rewired(node: Node, calls: Calls) -> Node:
    return node if calls == node.calls else replace(node, calls=calls)


def _clean(entries: Iterable[Any]) -> bool:
    """Whether none of the names of these layers would be refused: looked at together, in a tenth of the time."""
    names: list[Any] = []
    for entry in (entry for entry in entries if isinstance(entry, MAPPING)):
        names += (entry.get("class_name"), entry.get("registered_name"), entry.get("name"))
        names.append(mapping_of(entry.get("config")).get("name"))
    texts = [name for name in names if name is not None]
    return all(isinstance(text, str) for text in texts) and not refusal_of(texts)
