"""What a live layer of the user's own class does with the layers it holds: its `call`, run on symbolic tensors."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from layoutx.frozen import frozen
from layoutx.model.keras_shown import numbers_as_symbols, shown

Entry = dict[str, Any]
BATCH = 1009  # where a call asks for numbers; no axis is as long
LENGTHS = (7, 11)  # of the other axes without a size: what a call does with either of them, no length decides


@frozen
class Calls:
    """A layer's symbolic inputs and outputs; `sized`: axes behind the batch have sizes that the layer leaves open.

    `even`: what the call does is the same whatever these sizes are. `numbers`: what layers in it are given that comes
    from no input (the positions that a table is looked up at), and what it gives that comes from none.
    """

    inputs: list[Any]
    outputs: list[Any]
    sized: bool = False
    even: bool = True
    numbers: tuple[Any, ...] = ()


def own_graph(layer: Any) -> Calls | None:
    """The graph of a functional model of a class of its own; None of one whose class has a `call` of its own."""
    keras = sys.modules.get("keras")
    if keras is None or not type(layer).call.__module__.startswith("keras.src.models.functional"):
        return None
    return Calls(keras.tree.flatten(layer.inputs), keras.tree.flatten(layer.outputs))


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
    found = _called(layer, held, keras, None) or _called(layer, held, keras, LENGTHS[0])  # many a call asks for sizes
    if found is None or not found.sized:
        return found
    again = _called(layer, held, keras, LENGTHS[1])
    return replace(found, even=again is not None and _deeds(again) == _deeds(found))


def _called(layer: Any, held: Sequence[Any], keras: Any, length: int | None) -> Calls | None:
    """One symbolic call; None where it cannot be made.

    Args:
        length: of axes that the layer leaves open; None: they stay open, the batch as well.
    """
    made = list[list[int]]()
    try:
        args, kwargs = _given(layer, keras, length, made)
        with shown(held, keras) as numbers:
            outputs = keras.tree.flatten(layer.call(*args, **kwargs))
            more = numbers_as_symbols(outputs, numbers, keras)
    except Exception:  # the user's code may do anything on tensors without numbers; then it is not known
        return None
    flat = [x for one in (*args, *kwargs.values()) for x in keras.tree.flatten(one)]  # a dict would be sorted
    inputs = [x for x in flat if isinstance(x, keras.KerasTensor)]
    known = inputs and any(isinstance(x, keras.KerasTensor) for x in outputs)
    return Calls(inputs, more, any(made), numbers=tuple(numbers)) if known else None


def _deeds(calls: Calls) -> list[Any]:
    """What is done from the inputs to the outputs, in one order: each operation, its options, where its data come from.

    Without the names, which Keras counts on from call to call.
    """
    nodes = _reached([*calls.inputs, *calls.numbers], calls.outputs)
    ends = {id(x): i for i, x in enumerate([*calls.inputs, *calls.numbers])}
    at = {id(node): i for i, node in enumerate(nodes)}

    def source(x: Any) -> Any:
        if id(x) in ends:
            return ends[id(x)]
        operation, node, tensor = x._keras_history
        return at[id(operation._inbound_nodes[node])], tensor

    keras = sys.modules["keras"]
    found = [[source(x) for x in calls.outputs]]
    for node in nodes:
        told = operation_entry(node.operation, "")
        given = keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
        values = [source(x) if isinstance(x, keras.KerasTensor) else _plainly(x) for x in given]
        found.append([told["class_name"], {**told["config"], "name": ""}, values])
    return found


def _plainly(value: Any) -> str:
    """An argument as two calls can be compared by it; numbers of an array depend on lengths, as positions do."""
    return repr(value) if isinstance(value, (int, float, str, slice, type(None), type(Ellipsis))) else ""


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


def _given(layer: Any, keras: Any, length: int | None, made: list[list[int]]) -> tuple[list[Any], dict[str, Any]]:
    """Fresh tensors in place of those of the layer's first call; of the shape that it was built for where it has none.

    Args:
        length: of axes without one; None: they stay so. made: is told which lengths were given.

    Raises:
        ValueError: nothing tells what it is called with.
    """

    def shaped(shape: Sequence[int | None]) -> tuple[int | None, ...]:
        if length is None:
            return (None, *shape[1:])
        made.append([length for n in shape[1:] if n is None])
        return (BATCH, *(length if n is None else n for n in shape[1:]))

    def fresh(x: Any) -> Any:
        return keras.KerasTensor(shaped(x.shape), x.dtype) if isinstance(x, keras.KerasTensor) else x

    if layer._inbound_nodes:
        said = layer._inbound_nodes[0].arguments
        args, kwargs = keras.tree.map_structure(fresh, (list(said.args), dict(said.kwargs)))
        return args, {name: x for name, x in kwargs.items() if name != "training" or _takes(layer, name)}
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


def _takes(layer: Any, name: str) -> bool:
    """Whether the call has such an argument; Keras takes `training` of any layer, and keeps it to itself."""
    parameters = inspect.signature(layer.call).parameters
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def nodes_of(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """Every call that the outputs come from, each once, a layer's own calls in their order."""
    return sorted(_reached(inputs, outputs), key=lambda node: node.operation._inbound_nodes.index(node))


def _reached(inputs: Sequence[Any], outputs: Sequence[Any]) -> list[Any]:
    """The same, from the outputs back."""
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
    return list(found.values())


def operation_entry(one: Any, name: str) -> Entry:
    try:
        config = dict(one.get_config())
    except Exception:  # an operation made with something that no config holds
        config = {}
    for key, value in config.items():
        if isinstance(value, (list, tuple)):
            config[key] = [None if type(n) is int and n == BATCH else n for n in value]
    return {"module": type(one).__module__, "class_name": type(one).__name__, "name": name, "config": config}
