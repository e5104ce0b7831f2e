"""What a live layer of the user's own class does with the layers it holds: its `call`, run on symbolic tensors."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from layoutx.model.graph import Graph, graph_of, walk
from layoutx.model.keras_rules import follows

Entry = dict[str, Any]
Calls = tuple[list[Any], list[Any]]


def wired(layer: Any, calls: Calls | None, held: Sequence[Any], entries: Sequence[Entry]) -> Entry | None:
    """The body of a config that wires the held layers as the layer's own `call` does (Keras 3 alone).

    Args:
        calls: what `calls_of` found.
        held: the layers that it holds; entries: their own configs, one for each.

    Returns:
        None where the call cannot be run so, or does something that nobody can follow: known wholly or not at all.
    """
    if calls is None:
        return None
    body = _body(layer.name, held, entries, *calls)
    return body if body is not None and _followed(graph_of({"class_name": "Functional", "config": body})) else None


def _followed(graph: Graph) -> bool:
    nodes = [node for _, node in walk(graph)]
    return all(node.inner.wired if node.inner is not None else follows(node) for node in nodes)


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """The user's layers forget the calls that were made meanwhile, and Keras the names that it gave."""
    layers = [one for one in getattr(model, "_flatten_layers", list)() if hasattr(one, "_inbound_nodes")]
    before = [(one, list(one._inbound_nodes), list(one._outbound_nodes)) for one in layers]
    state = sys.modules.get("keras.src.backend.common.global_state")
    names = state.get_global_attribute("object_name_uids") if state is not None else None
    counts = dict(names or {})
    try:
        yield
    finally:
        for one, inbound, outbound in before:
            one._inbound_nodes[:], one._outbound_nodes[:] = inbound, outbound
        if state is not None and (given := state.get_global_attribute("object_name_uids")) is not None:
            given.clear()
            given.update(counts)


def calls_of(layer: Any, held: Sequence[Any]) -> Calls | None:
    """The symbolic tensors that the layer's `call` was given, and those that it made of them."""
    keras = sys.modules.get("keras")
    if keras is None or not isinstance(layer, keras.layers.Layer) or not hasattr(layer, "_inbound_nodes"):
        return None
    if not all(one.built for one in (layer, *held)):  # a symbolic call would make weights that nobody asked for
        return None
    try:
        args, kwargs = _given(layer, keras)
        outputs = keras.tree.flatten(layer.call(*args, **kwargs))
    except Exception:  # the user's code may do anything on tensors without numbers; then it is not known
        return None
    inputs = [x for x in keras.tree.flatten((args, kwargs)) if isinstance(x, keras.KerasTensor)]
    ok = bool(inputs and outputs) and all(isinstance(x, keras.KerasTensor) for x in outputs)
    return (inputs, outputs) if ok else None


def _given(layer: Any, keras: Any) -> tuple[list[Any], dict[str, Any]]:
    """Fresh tensors in place of those of the layer's first call; of the shape that it was built for where it has none.

    Raises:
        ValueError: nothing tells what it is called with.
    """

    def fresh(x: Any) -> Any:
        return keras.KerasTensor((None, *x.shape[1:]), x.dtype) if isinstance(x, keras.KerasTensor) else x

    if layer._inbound_nodes:
        said = layer._inbound_nodes[0].arguments
        args, kwargs = keras.tree.map_structure(fresh, (list(said.args), dict(said.kwargs)))
        return args, kwargs
    built = layer.get_build_config() or {}
    shapes = built.get("shapes_dict") or {"": built.get("input_shape")}
    flat = all(isinstance(s, (tuple, list)) and len(s) > 1 and not isinstance(s[0], (tuple, list, dict))
               for s in shapes.values())  # fmt: skip
    if not flat:
        raise ValueError("no plain shapes")
    tensors = [keras.KerasTensor((None, *shape[1:])) for shape in shapes.values()]
    named = {name.removesuffix("_shape"): x for name, x in zip(shapes, tensors, strict=True) if name}
    training = inspect.signature(layer.call).parameters.get("training")
    more = {"training": False} if training is not None and training.default is inspect.Parameter.empty else {}
    return ([], {**named, **more}) if named else (tensors, more)


def _body(
    name: str, held: Sequence[Any], entries: Sequence[Entry], inputs: Sequence[Any], outputs: Sequence[Any]
) -> Entry | None:
    nodes = _nodes(inputs, outputs)
    layer = sys.modules["keras"].layers.Layer
    own = {id(one) for one in held}
    others = {id(n.operation): n.operation for n in nodes if id(n.operation) not in own}
    if any(isinstance(one, layer) for one in others.values()):
        return None  # a layer that lies elsewhere: its weights are not of this layer's groups
    names: dict[int, str] = {}
    for i, one in enumerate([*held, *others.values(), *inputs]):
        wanted = "input" if i >= len(held) + len(others) else one.name
        names[id(one)] = wanted if wanted not in names.values() else f"{wanted}_{i}"
    numbers = {id(n): sum(m.operation is n.operation for m in nodes[:i]) for i, n in enumerate(nodes)}

    def ref(x: Any) -> Entry:
        found = [names[id(x)], 0, 0] if id(x) in names else _place(x, names, numbers)
        return {"class_name": "__keras_tensor__", "config": {"keras_history": found}}

    def wires(one: Any) -> list[Entry]:
        return [_inbound(n, ref) for n in nodes if n.operation is one]

    told = [{**e, "name": names[id(one)], "inbound_nodes": wires(one)} for e, one in zip(entries, held, strict=True)]
    told += [{**_operation(one, names[id(one)]), "inbound_nodes": wires(one)} for one in others.values()]
    told += [_input(x, names[id(x)]) for x in inputs]
    first, last = ([ref(x)["config"]["keras_history"] for x in some] for some in (inputs, outputs))
    return {"name": name, "layers": told, "input_layers": first, "output_layers": last}


def _place(x: Any, names: Mapping[int, str], numbers: Mapping[int, int]) -> list[Any]:
    operation, node, tensor = x._keras_history
    return [names[id(operation)], numbers[id(operation._inbound_nodes[node])], tensor]


def _nodes(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """Every call that the outputs come from, each once, a layer's own calls in their order."""
    ends = {id(x) for x in inputs}
    found: dict[int, Any] = {}
    waiting = list(outputs)
    while waiting:
        x = waiting.pop()
        if id(x) in ends:
            continue
        operation, at, _ = x._keras_history
        node = operation._inbound_nodes[at]
        if id(node) not in found:
            found[id(node)] = node
            waiting += node.arguments.keras_tensors
    return sorted(found.values(), key=lambda node: node.operation._inbound_nodes.index(node))


def _inbound(node: Any, ref: Any) -> Entry:
    keras = sys.modules["keras"]

    def refs(value: Any) -> list[Entry]:
        return [ref(x) for x in keras.tree.flatten(value) if isinstance(x, keras.KerasTensor)]

    kwargs = {key: refs(value) for key, value in node.arguments.kwargs.items()}
    plain = {key: some[0] if len(some) == 1 else some for key, some in kwargs.items() if some}
    return {"args": refs(node.arguments.args), "kwargs": plain}


def _operation(one: Any, name: str) -> Entry:
    try:
        config = dict(one.get_config())
    except Exception:  # an operation made with something that no config holds
        config = {}
    return {"module": type(one).__module__, "class_name": type(one).__name__, "name": name, "config": config}


def _input(x: Any, name: str) -> Entry:
    config = {"name": name, "batch_shape": list(x.shape)}
    return {"module": "keras.layers", "class_name": "InputLayer", "name": name, "config": config, "inbound_nodes": []}
