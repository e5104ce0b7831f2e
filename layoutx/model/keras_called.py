"""What a live layer of the user's own class does with the layers it holds: its `call`, run on symbolic tensors."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

from layoutx.frozen import frozen
from layoutx.model.graph import NUMBERS, Graph, graph_of
from layoutx.model.keras_rules import follows
from layoutx.model.keras_shown import shown

Entry = dict[str, Any]
BATCH, LENGTH = 1009, 7  # of axes without a size, where a call asks for numbers; no axis is as long as the first


@frozen
class Calls:
    """A layer's symbolic inputs and outputs; `sized`: axes behind the batch have sizes that the layer leaves open.

    `numbers`: what layers in it are given that comes from no input: the positions that a table is looked up at.
    """

    inputs: list[Any]
    outputs: list[Any]
    sized: bool = False
    numbers: tuple[Any, ...] = ()


def wired(
    layer: Any, calls: Calls | None, held: Sequence[Any], entries: Sequence[Entry], *, whole: bool = False
) -> Entry | None:
    """The body of a config that wires the held layers as the layer's own `call` does (Keras 3 alone).

    Where it does something of which nobody knows what becomes of the axes, it is marked `unwired`: it tells who feeds
    whom, and nothing else.

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
    sure = whole or (not calls.sized and _followed(graph_of({"class_name": "Functional", "config": body})))
    return body if sure else {**body, "unwired": True}


def own_graph(layer: Any) -> Calls | None:
    """The graph of a functional model of a class of its own; None of one whose class has a `call` of its own."""
    keras = sys.modules.get("keras")
    if keras is None or not type(layer).call.__module__.startswith("keras.src.models.functional"):
        return None
    return Calls(keras.tree.flatten(layer.inputs), keras.tree.flatten(layer.outputs))


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
    if not all(one.built for one in held):  # a symbolic call would make weights that nobody asked for
        return None
    if not has_call(layer):
        return _apart(keras, held)
    if not layer.built:
        return None
    for sized in (False, True):  # many a call asks for the size of the batch, which a symbol does not have
        made = list[list[int]]()
        try:
            args, kwargs = _given(layer, keras, made if sized else None)
            with _told_by_call(held, keras), shown(held, keras) as numbers:
                outputs = keras.tree.flatten(layer.call(*args, **kwargs))
        except Exception:  # the user's code may do anything on tensors without numbers; then it is not known
            continue
        flat = [x for one in (*args, *kwargs.values()) for x in keras.tree.flatten(one)]  # a dict would be sorted
        inputs = [x for x in flat if isinstance(x, keras.KerasTensor)]
        outputs = [x for x in outputs if x is not None]
        ok = bool(inputs and outputs) and all(isinstance(x, keras.KerasTensor) for x in outputs)
        return Calls(inputs, outputs, any(LENGTH in lengths for lengths in made), tuple(numbers)) if ok else None
    return None


@contextmanager
def _told_by_call(held: Sequence[Any], keras: Any) -> Iterator[None]:
    """Layers with a `call` of the user's own, and the output shapes of Keras' class, tell them by that call.

    A cache among the arguments (of a subclass of MultiHeadAttention) is none that Keras' own shapes are told of.
    """
    spec = keras.Operation.compute_output_spec
    ours = [
        one
        for one in held
        if not type(one).call.__module__.startswith("keras.src")
        and type(one).compute_output_spec.__module__.startswith("keras.src")
        and type(one).compute_output_spec is not keras.layers.Layer.compute_output_spec
    ]
    for one in ours:
        object.__setattr__(one, "compute_output_spec", MethodType(spec, one))
    try:
        yield
    finally:
        for one in ours:
            object.__delattr__(one, "compute_output_spec")


def has_call(layer: Any) -> bool:
    """Whether a model says what it computes: of one that trains others (a GAN) only its `train_step` may."""
    call = getattr(type(layer), "call", None)
    home = str(getattr(call, "__module__", "")).split(".")[0]
    return home not in ("keras", "tf_keras") or getattr(call, "__qualname__", "") not in ("Model.call", "Layer.call")


def _apart(keras: Any, held: Sequence[Any]) -> Calls | None:
    """The calls of a model without one of its own, which trains models that are functional each: a GAN, a VAE."""
    if not held or not all(getattr(one, "inputs", None) for one in held):
        return None
    inputs = [keras.tree.map_structure(lambda x: keras.KerasTensor(x.shape, x.dtype), one.inputs) for one in held]
    try:
        outputs = [one(given[0] if len(given) == 1 else given) for one, given in zip(held, inputs, strict=True)]
    except Exception:  # inputs in a form of the user's own
        return None
    return Calls(keras.tree.flatten(inputs), keras.tree.flatten(outputs))


def _given(layer: Any, keras: Any, made: list[list[int]] | None) -> tuple[list[Any], dict[str, Any]]:
    """Fresh tensors in place of those of the layer's first call; of the shape that it was built for where it has none.

    Args:
        made: is told which sizes axes without one were given; None: they are given none.

    Raises:
        ValueError: nothing tells what it is called with.
    """

    def shaped(shape: Sequence[int | None]) -> tuple[int | None, ...]:
        if made is None:
            return (None, *shape[1:])
        made.append([LENGTH for n in shape[1:] if n is None])
        return (BATCH, *(LENGTH if n is None else n for n in shape[1:]))

    def fresh(x: Any) -> Any:
        return keras.KerasTensor(shaped(x.shape), x.dtype) if isinstance(x, keras.KerasTensor) else x

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
    tensors = [keras.KerasTensor(shaped(shape)) for shape in shapes.values()]
    named = {name.removesuffix("_shape"): x for name, x in zip(shapes, tensors, strict=True) if name}
    training = inspect.signature(layer.call).parameters.get("training")
    more = {"training": False} if training is not None and training.default is inspect.Parameter.empty else {}
    return ([], {**named, **more}) if named else (tensors, more)


def _body(name: str, held: Sequence[Any], entries: Sequence[Entry], calls: Calls) -> Entry | None:
    inputs, outputs = calls.inputs, calls.outputs
    nodes = _nodes([*inputs, *calls.numbers], outputs)
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
        return {"class_name": "__keras_tensor__", "config": {"keras_history": found}}

    def wires(one: Any) -> list[Entry]:
        return [_inbound(n, ref) for n in nodes if n.operation is one]

    told = [{**e, "name": names[id(one)], "inbound_nodes": wires(one)} for e, one in zip(entries, held, strict=True)]
    told += [{**_operation(one, names[id(one)]), "inbound_nodes": wires(one)} for one in others.values()]
    made = {id(x): {NUMBERS: True} for x in calls.numbers}
    told += [_input(x, names[id(x)], made.get(id(x), {})) for x in fresh]
    first, last = ([ref(x)["config"]["keras_history"] for x in some] for some in (inputs, outputs))
    return {"name": name, "layers": told, "input_layers": first, "output_layers": last}


def _place(x: Any, names: Mapping[int, str], numbers: Mapping[int, int]) -> list[Any]:
    operation, node, tensor = x._keras_history
    return [names[id(operation)], numbers.get(id(operation._inbound_nodes[node]), 0), tensor]


def _nodes(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """Every call that the outputs come from, each once, a layer's own calls in their order."""
    ends = {id(x) for x in inputs}  # those of a functional model come from layers that it holds
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
    index = [_index(one) for one in node.arguments.args[1:]] if type(node.operation).__name__ == "GetItem" else []
    return {"args": [*refs(node.arguments.args), *index], "kwargs": plain}


def _index(key: Any) -> Any:
    """`x[:, -1]`: what is between the brackets, as Keras writes it."""
    if isinstance(key, (list, tuple)):
        return [_index(one) for one in key]
    if isinstance(key, slice):
        return {"class_name": "__slice__", "config": {"start": key.start, "stop": key.stop, "step": key.step}}
    return {"class_name": "__ellipsis__", "config": {}} if key is Ellipsis else key


def _operation(one: Any, name: str) -> Entry:
    try:
        config = dict(one.get_config())
    except Exception:  # an operation made with something that no config holds
        config = {}
    for key, value in config.items():
        if isinstance(value, (list, tuple)):
            config[key] = [None if type(n) is int and n == BATCH else n for n in value]
    return {"module": type(one).__module__, "class_name": type(one).__name__, "name": name, "config": config}


def _input(x: Any, name: str, more: Mapping[str, Any]) -> Entry:
    config = {"name": name, "batch_shape": list(x.shape), **more}
    return {"module": "keras.layers", "class_name": "InputLayer", "name": name, "config": config, "inbound_nodes": []}
