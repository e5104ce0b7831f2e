"""A config that wires the layers in a layer of the user's own as its `call` does, from the symbolic tensors of one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.model.graph import LIVE, NUMBERS, Graph, graph_of
from layoutx.model.keras_called import Calls, Entry, nodes_of, operation_entry
from layoutx.model.keras_rules import follows


def wired(
    layer: Any, calls: Calls | None, held: Sequence[Any], entries: Sequence[Entry], *, whole: bool = False
) -> Entry | None:
    """The body of a config that wires the held layers as the layer's own `call` does (Keras 3 alone).

    Where it does something of which nobody knows what becomes of the axes, it is marked `unwired`: it tells who feeds
    whom, and what its outputs are made of as far as that can be followed all the same (`passes`), and nothing else.

    Args:
        calls: what `calls_of` or `own_graph` found.
        held: the layers that it holds; entries: their own configs, one for each.
        whole: it is a functional model, as which Keras itself would write it.

    Returns:
        None where the call cannot be run so.
    """
    body = _body(layer.name, held, entries, calls) if calls is not None else None
    if calls is None or body is None:
        return None
    body[LIVE] = "model" if whole else "layer"
    sure = whole or (not calls.sized and _followed(graph_of({"class_name": "Functional", "config": body})))
    return body if sure else {**body, "unwired": True, "passes": calls.even}


def _followed(graph: Graph) -> bool:
    """Whether it is known what becomes of the axes of all that reaches the outputs; a mask hands on none of its own."""
    waiting, seen = [ref.layer for ref in graph.outputs], set[str]()
    while waiting:
        name = waiting.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        node = graph.by_name[name]
        if not (node.inner.wired if node.inner is not None else follows(node)):
            return False
        waiting += [ref.layer for call in node.calls for ref in call if not ref.keyword.endswith("mask")]
    return True


def _body(name: str, held: Sequence[Any], entries: Sequence[Entry], calls: Calls) -> Entry | None:
    inputs, outputs = calls.inputs, calls.outputs
    nodes = nodes_of([*inputs, *calls.numbers], outputs)
    layer = sys.modules["keras"].layers.Layer
    own = {id(one) for one in held}
    others = {id(n.operation): n.operation for n in nodes if id(n.operation) not in own}
    if any(isinstance(one, layer) for one in others.values()):
        return None  # a layer that lies elsewhere: its weights are not of this layer's groups
    names: dict[int, str] = {}
    fresh = [x for x in inputs if id(getattr(getattr(x, "_keras_history", None), "operation", None)) not in own]
    fresh += calls.numbers
    for i, one in enumerate([*held, *others.values(), *fresh]):
        wanted = "input" if i >= len(held) + len(others) else one.name
        names[id(one)] = wanted if wanted not in names.values() else f"{wanted}_{i}"
    numbers = {id(n): sum(m.operation is n.operation for m in nodes[:i]) for i, n in enumerate(nodes)}

    def ref(x: Any) -> Entry:
        found = [names[id(x)], 0, 0] if id(x) in names else _place(x, names, numbers)
        shape = {} if calls.sized else {"shape": list(x.shape)}  # lengths that were made up are none of the model's
        return {"class_name": "__keras_tensor__", "config": {"keras_history": found, **shape}}

    def wires(one: Any) -> list[Entry]:
        return [_inbound(n, ref) for n in nodes if n.operation is one]

    told = [{**e, "name": names[id(one)], "inbound_nodes": wires(one)} for e, one in zip(entries, held, strict=True)]
    told += [{**operation_entry(one, names[id(one)]), "inbound_nodes": wires(one)} for one in others.values()]
    made = {id(x): {NUMBERS: True} for x in calls.numbers}
    told += [_input(x, names[id(x)], made.get(id(x), {})) for x in fresh]
    first, last = ([ref(x)["config"]["keras_history"] for x in some] for some in (inputs, outputs))
    return {"name": name, "layers": told, "input_layers": first, "output_layers": last}


def _place(x: Any, names: Mapping[int, str], numbers: Mapping[int, int]) -> list[Any]:
    operation, node, tensor = x._keras_history
    return [names[id(operation)], numbers.get(id(operation._inbound_nodes[node]), 0), tensor]


def _inbound(node: Any, ref: Any) -> Entry:
    keras = sys.modules["keras"]

    def refs(value: Any) -> list[Entry]:
        return [ref(x) for x in keras.tree.flatten(value) if isinstance(x, keras.KerasTensor)]

    kwargs = {key: refs(value) for key, value in node.arguments.kwargs.items()}
    plain = {key: some[0] if len(some) == 1 else some for key, some in kwargs.items() if some}
    index = [_index(one) for one in node.arguments.args[1:]] if type(node.operation).__name__ == "GetItem" else []
    return {"args": [*refs(node.arguments.args), *index], "kwargs": plain}


def _index(key: Any) -> Any:
    """`x[:, -1]`: what is between the brackets, as Keras writes it."""
    if isinstance(key, (list, tuple)):
        return [_index(one) for one in key]
    if isinstance(key, slice):
        return {"class_name": "__slice__", "config": {"start": key.start, "stop": key.stop, "step": key.step}}
    return {"class_name": "__ellipsis__", "config": {}} if key is Ellipsis else key


def _input(x: Any, name: str, more: Mapping[str, Any]) -> Entry:
    config = {"name": name, "batch_shape": list(x.shape), **more}
    return {"module": "keras.layers", "class_name": "InputLayer", "name": name, "config": config, "inbound_nodes": []}
