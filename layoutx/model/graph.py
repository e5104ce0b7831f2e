"""A model's wiring as plain data: layers in the model's own order, and who feeds each call of each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from layoutx.files.store import NOTHING
from layoutx.model import entry as said
from layoutx.model.entry import bad_config, class_of, is_custom, is_operation, mapping_of, named, registered, shape_of

MODELS = ("Sequential", "Functional", "Model")
SAID = "live data_format"  # config key of keras_opened, none of Keras': where a live layer says its channels stand
PARTS = ("layer", "backward_layer", "cell")  # config keys under which a wrapper keeps what it wraps


@dataclass(frozen=True, slots=True)
class Ref:
    """One output of one call of one layer; layer "" is the graph's own input number `tensor`."""

    layer: str
    call: int = 0
    tensor: int = 0
    keyword: str = ""


@dataclass(frozen=True, slots=True)
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
    calls: tuple[tuple[Ref, ...], ...] = ()
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
        return dict(self.parts).get(key)


@dataclass(frozen=True, slots=True)
class Graph:
    """Layers in `model.layers` order with the wiring between them.

    `wired` is False for a subclassed model, whose config holds no layers or no connections.
    """

    name: str
    class_name: str
    layers: tuple[Node, ...] = ()
    inputs: tuple[Ref, ...] = ()
    outputs: tuple[Ref, ...] = ()
    wired: bool = True
    by_name: Mapping[str, Node] = field(default_factory=dict)


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
        return _functional(class_name, name, body, layers, where)
    shape = body.get("build_input_shape") or mapping_of(config.get("build_config")).get("input_shape")
    found = _sequential(class_name, name, layers, shape, where)
    return _unwired(found) if body.get("unwired") else found  # made by keras_opened: Keras writes no such key


def _unwired(graph: Graph) -> Graph:
    """The same layers, nothing known about who feeds whom."""
    nodes = tuple(replace(node, calls=()) for node in graph.layers)
    return Graph(graph.name, graph.class_name, nodes, wired=False, by_name={node.name: node for node in nodes})


def node_of(entry: Any, where: str) -> Node:
    """One layer of a config, without its wiring; wrappers and nested models are opened."""
    class_name = class_of(entry, where)
    body = entry.get("config")
    inner = graph_of(entry, where) if _is_model(class_name, body) else None
    config: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
    name = named(str(entry.get("name") or config.get("name") or (inner.name if inner else "")), "name", where)
    if inner is None and not isinstance(body, Mapping):
        raise bad_config(f'The config of "{class_name}" is not an object', where)
    parts = () if inner else tuple(_parts(config, f'{where}, layer "{name}"'))
    return Node(
        name,
        class_name,
        config,
        (),
        inner,
        parts,
        is_custom(entry, class_name),
        str(entry.get("shared_object_id") or ""),
        named(registered(entry, class_name), "registered name", where),
        is_operation(entry, config),
        shape_of(config, entry, f'{where}, layer "{name}"'),
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
    if not isinstance(body, Mapping) or not isinstance(body.get("layers"), list):
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
    for i, entry in enumerate(entries):
        node = node_of(entry, f'{where}, {class_name} "{name}", layer {i}')
        node = replace(node, name=_unique(node, taken, i), calls=((last,),))
        if not nodes and node.shape is None and shape:
            node = replace(node, shape=said.lengths(shape, "build_input_shape", where))
        nodes.append(node)
        taken.add(node.name)
        last = Ref(node.name)
    return Graph(name, class_name, tuple(nodes), (Ref(""),), (last,), True, {n.name: n for n in nodes})


def _unique(node: Node, taken: Set[str], i: int) -> str:
    name = node.name or f"layer_{i}"
    return name if name not in taken else f"{name}_{i}"


def _functional(class_name: str, name: str, body: Mapping[str, Any], entries: list[Any], where: str) -> Graph:
    where = f'{where}, {class_name} "{name}"'
    nodes: dict[str, Node] = {}
    for i, entry in enumerate(entries):
        node = node_of(entry, f"{where}, layer {i}")
        if not node.name:
            raise bad_config(f"Layer {i} has no name", where)
        if node.name in nodes:
            raise bad_config(f'Two layers are named "{node.name}"', where)
        calls = entry.get("inbound_nodes", [])
        if not isinstance(calls, list):
            raise bad_config(f'inbound_nodes of layer "{node.name}" is not a list', where)
        nodes[node.name] = replace(node, calls=tuple(tuple(_refs(call)) for call in calls))
    offsets = _offsets(nodes, body)
    fixed = {
        n.name: replace(n, calls=tuple(tuple(_resolve(r, nodes, offsets, where) for r in c) for c in n.calls))
        for n in nodes.values()
    }
    _no_circle(fixed, where)
    inputs, outputs = (
        tuple(_resolve(r, nodes, offsets, where) for r in _refs(body.get(key, [])))
        for key in ("input_layers", "output_layers")
    )
    return Graph(name, class_name, tuple(fixed.values()), inputs, outputs, True, fixed)


def _no_circle(nodes: Mapping[str, Node], where: str) -> None:
    """Refuse calls that wait for one another: Keras itself would look for an order of them for ever."""
    calls = [((n.name, i), call) for n in nodes.values() for i, call in enumerate(n.calls)]
    waiting = {key: {(ref.layer, ref.call) for ref in call if ref.layer} for key, call in calls}
    ready = [key for key, needs in waiting.items() if not needs & waiting.keys()]
    readers: dict[tuple[str, int], list[tuple[str, int]]] = {}
    for key, needs in waiting.items():
        for need in needs:
            readers.setdefault(need, []).append(key)
    left = {key: len(needs & waiting.keys()) for key, needs in waiting.items()}
    while ready:
        key = ready.pop()
        del left[key]
        for reader in readers.get(key, ()):
            left[reader] -= 1
            if not left[reader]:
                ready.append(reader)
    if left:
        names = ", ".join(dict.fromkeys(name for name, _ in left))
        raise bad_config(f"The wiring goes in a circle: each of {names} waits for another of them", where)


def _refs(value: Any, keyword: str = "") -> Iterator[Ref]:
    """Every tensor in one call's arguments: Keras 1 and 2 lists, Keras 3 `__keras_tensor__` objects."""
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__":
            history = mapping_of(value.get("config")).get("keras_history")
            if isinstance(history, list) and len(history) == 3:
                yield Ref(str(history[0]), int(history[1]), int(history[2]), keyword)
            return
        if set(value) == {"args", "kwargs"}:
            yield from _refs(value["args"])
            yield from _refs(value["kwargs"])
            return
        for key, item in value.items():
            yield from _refs(item, keyword or str(key))
    elif isinstance(value, list):
        if _is_ref(value):
            yield Ref(value[0], value[1], value[2], keyword)
            if len(value) == 4:
                yield from _refs(value[3])
            return
        for item in value:
            yield from _refs(item, keyword)


def _is_ref(value: list[Any]) -> bool:
    ok = 3 <= len(value) <= 4 and isinstance(value[0], str) and all(type(v) is int for v in value[1:3])
    return ok and value[0] != "_CONSTANT_VALUE" and (len(value) == 3 or isinstance(value[3], Mapping))


def _offsets(nodes: Mapping[str, Node], body: Mapping[str, Any]) -> dict[str, int]:
    """1 for nested models whose call numbers start at 1: Keras 2 counts the model's own construction as call 0."""
    used: dict[str, set[int]] = {}
    ends = [*_refs(body.get("output_layers", []))]
    for ref in [*(r for n in nodes.values() for c in n.calls for r in c), *ends]:
        used.setdefault(ref.layer, set()).add(ref.call)
    return {
        name: 1
        for name, calls in used.items()
        if name in nodes and nodes[name].inner is not None and max(calls) >= len(nodes[name].calls)
    }


def _resolve(ref: Ref, nodes: Mapping[str, Node], offsets: Mapping[str, int], where: str) -> Ref:
    node = nodes.get(ref.layer)
    if node is None:
        raise bad_config(f'The wiring names a layer "{ref.layer}" that the model does not have', where)
    call = ref.call - offsets.get(ref.layer, 0)
    if not 0 <= call < max(1, len(node.calls)):
        raise bad_config(
            f'The wiring uses call {ref.call} of layer "{ref.layer}", which has {len(node.calls)} calls', where
        )
    return replace(ref, call=call)
