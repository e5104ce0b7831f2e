"""Every call of every layer of a Keras model, seen at `Layer.__call__` while the model runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import numpy as np

from layoutx.frozen import frozen
from layoutx.model.keras_live import made_array
from layoutx.plan.plan import Array
from layoutx.verify.running.events import Event
from layoutx.verify.running.nested import Arguments, Place, arguments, flattened
from layoutx.verify.running.untouched import changed

ATTENTION = ("MultiHeadAttention", "GroupedQueryAttention", "GroupQueryAttention")


@frozen
class Known:
    """A layer with the way in which it is called alone.

    Attributes:
        how: "cell" one cell of a stack, "steps" a layer inside a TimeDistributed model, else "".
    """

    layer: Any
    how: str = ""


@dataclass(slots=True)
class Frame:
    """A call that has not ended: who is called, what its inner layers are named after, and what they did."""

    layer: Any
    prefix: str
    opened: bool
    events: list[Event] = field(default_factory=list)


def library_of(model: Any) -> Any:
    """The package of a live Keras model: keras or tf_keras."""
    homes = {c.__module__.split(".")[0] for c in type(model).__mro__}
    return sys.modules["tf_keras" if "tf_keras" in homes else "keras"]


def is_model(layer: Any) -> bool:
    """Whether a layer is a model of its own, whose layers have records."""
    return hasattr(layer, "layers") and hasattr(layer, "predict")


def is_stock(layer: Any) -> bool:
    """Whether the layer's class is one of Keras' own."""
    return type(layer).__module__.split(".")[0] in ("keras", "tf_keras")


def children(layer: Any, prefix: str, how: str = "") -> Iterator[tuple[str, Known]]:
    """Every layer below one, named as records name them: `outer/inner`, what a wrapper wraps by the wrapper's name."""
    for number, (name, inner, own) in enumerate(_below(layer)):
        key = prefix + (f"cell_{number}" if own == "cell" else name)
        yield key, Known(inner, own or how)
        below = prefix if type(layer).__name__ == "TimeDistributed" else f"{key}/"
        yield from children(inner, below, "steps" if type(inner).__name__ == "TimeDistributed" else own or how)


def _below(layer: Any) -> Iterator[tuple[str, Any, str]]:
    kind = type(layer).__name__
    if is_model(layer):
        yield from ((inner.name, inner, "") for inner in layer.layers)
    elif not is_stock(layer):
        for inner in layer._flatten_layers(include_self=False, recursive=False):
            yield inner.name, inner, ""
    elif kind == "TimeDistributed" and is_model(layer.layer):
        yield layer.layer.name, layer.layer, ""
    elif kind == "Bidirectional":
        yield from ((inner.name, inner, "") for inner in (layer.forward_layer, layer.backward_layer))
    elif kind == "RNN" and type(layer.cell).__name__ == "StackedRNNCells":
        yield from ((cell.name, cell, "cell") for cell in layer.cell.cells)


class Watch:
    """Gathers the calls of one run, those of layers that are made on the fly too.

    Attributes:
        events: the calls in the order in which they ended.
        known: name -> layer.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.events: list[Event] = []
        self.known: dict[str, Known] = {}
        self._frames: list[Frame] = []
        self._arrays: dict[int, tuple[Any, Array]] = {}
        self._stack = ExitStack()
        self._thread = get_ident()

    def __enter__(self) -> Watch:
        library = library_of(self.model)
        base = library.layers.Layer
        classes = [base, *([library.Operation] if hasattr(library, "Operation") else [])]
        changes = [(c, "__call__", self._watched(vars(c)["__call__"])) for c in classes]
        # tf_keras computes a nested model's mask by running it once more
        masks = vars(base).get("_set_mask_metadata")
        changes += [(base, "_set_mask_metadata", self._unseen(masks))] if masks is not None else []
        self._stack.enter_context(changed(changes))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def array(self, value: Any) -> Array:
        """The tensor as an array, one for each tensor."""
        if id(value) not in self._arrays:
            self._arrays[id(value)] = (value, made_array(value))
        return self._arrays[id(value)][1]

    def _watched(self, original: Any) -> Any:
        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            above = self._frames[-1] if self._frames else None
            passing = layer is not self.model if above is None else above.layer is layer or not above.opened
            # another thread's call is none of this run; a Keras 3 layer is called once more as an Operation
            if passing or get_ident() != self._thread:
                return original(layer, *args, **kwargs)
            return self._called(original, layer, above, args, kwargs)

        return call

    def _unseen(self, original: Any) -> Any:
        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            if get_ident() != self._thread:
                return original(layer, *args, **kwargs)
            self._frames.append(Frame(None, "", False))
            try:
                return original(layer, *args, **kwargs)
            finally:
                self._frames.pop()

        return call

    def _called(self, original: Any, layer: Any, above: Frame | None, args: Any, kwargs: Any) -> Any:
        name = "" if above is None else above.prefix + _name(layer, above)
        given = arguments(args, {**kwargs, **_masks(layer, args, kwargs)}, is_tensor)
        inputs = tuple(self.array(t) for t in given.tensors)
        frame = Frame(layer, _prefix(layer, name, above), _opens(layer))
        self._frames.append(frame)
        try:
            result = original(layer, *args, **kwargs)
        finally:
            self._frames.pop()
        outputs = tuple(self.array(t) for t in flattened(result, is_tensor))
        steps = _steps(layer, inputs)
        events = frame.events
        if steps is not None:
            mask = next((a for a, key in zip(inputs, given.names, strict=True) if key == "mask"), None)
            events = list(together(events, *steps, type(layer).__name__ == "RNN", mask))
        if outputs and type(layer).__name__ != "StackedRNNCells":
            events.append(Event(name, type(layer).__name__, given.form(), inputs, outputs))
            self.known.setdefault(name, Known(layer))
        (self.events if above is None else above.events).extend(events)
        return result


def _name(layer: Any, above: Frame) -> str:
    stack = above.layer.cell if type(above.layer).__name__ == "RNN" else above.layer
    cells = stack.cells if type(stack).__name__ == "StackedRNNCells" else None
    number = next((i for i, cell in enumerate(cells or ()) if cell is layer), None)
    return str(layer.name) if number is None else f"cell_{number}"


def _prefix(layer: Any, name: str, above: Frame | None) -> str:
    """What the layers inside are named after; a wrapped model does not show in their names."""
    if above is None:
        return ""
    wrapped = type(above.layer).__name__ == "TimeDistributed" or type(layer).__name__ == "StackedRNNCells"
    return above.prefix if wrapped else f"{name}/"


def _opens(layer: Any) -> bool:
    """Whether the calls inside are layers of their own, and not parts of a stock layer."""
    kind = type(layer).__name__
    if is_model(layer) or not is_stock(layer) or kind == "Bidirectional":
        return True
    if kind == "TimeDistributed":
        return is_model(layer.layer)
    return kind == "StackedRNNCells" or (kind == "RNN" and type(layer.cell).__name__ == "StackedRNNCells")


def _steps(layer: Any, inputs: Sequence[Array]) -> tuple[int, int] | None:
    """Batch and number of steps of a layer that calls what it holds once a step; else None."""
    kind = type(layer).__name__
    loops = (kind == "RNN" or kind == "TimeDistributed") and inputs and inputs[0].ndim > 1
    return (inputs[0].shape[0], inputs[0].shape[1]) if loops and _opens(layer) else None


def together(
    events: Sequence[Event], batch: int, steps: int, cells: bool, mask: Array | None = None
) -> Iterator[Event]:
    """The calls of all steps as one, time on axis 1; of cells x and y alone, as a loop of its own over them gives y.

    Args:
        mask: (batch, step) False where a loop over cells keeps what it had.
    """
    groups: dict[str, list[Event]] = {}
    for event in events:
        groups.setdefault(event.layer, []).append(event)
    for calls in groups.values():
        if cells:
            yield from _cell(calls[-steps:], steps, mask)
            continue
        whole = len(calls) == 1 and steps > 1
        # K.rnn calls once more at first, to see what comes out
        times = len(calls) // (steps + 1 if len(calls) % steps and len(calls) % (steps + 1) == 0 else steps)
        kept = calls[-times * steps :]
        for step in [calls] if whole else [kept[j::times] for j in range(times)]:
            inputs = _stacked([e.inputs for e in step], whole, batch, steps)
            outputs = _stacked([e.outputs for e in step], whole, batch, steps)
            yield Event(step[0].layer, step[0].class_name, step[0].given, inputs, outputs)


def _cell(calls: Sequence[Event], steps: int, mask: Array | None) -> Iterator[Event]:
    if len(calls) < steps:
        return
    x, y = (np.stack([getattr(e, side)[0] for e in calls], axis=1) for side in ("inputs", "outputs"))
    if mask is None:
        yield Event(calls[0].layer, calls[0].class_name, Arguments((), ("",), (Place(0),)), (x,), (y,))
        return
    for t in range(steps):
        y[:, t] = np.where(mask[:, t, None], y[:, t], y[:, t - 1] if t else 0)
    given = Arguments((), ("", "mask"), (Place(0),), {"mask": Place(1)})
    yield Event(calls[0].layer, calls[0].class_name, given, (x, mask), (y,))


def _stacked(sides: Sequence[tuple[Array, ...]], whole: bool, batch: int, steps: int) -> tuple[Array, ...]:
    if whole:  # all steps as one batch
        return tuple(a.reshape(batch, steps, *a.shape[1:]) if len(a) == batch * steps else a for a in sides[0])
    return tuple(np.stack(arrays, axis=1) for arrays in zip(*sides, strict=True))


def _masks(layer: Any, args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The masks that Keras hands on beside the tensors (mask_zero, Masking), where the layer's call reads them."""
    if is_model(layer):
        return {}
    if type(layer).__name__ in ATTENTION:
        return _attention_masks(args, kwargs)
    reads = getattr(layer, "_call_has_mask_arg", getattr(layer, "_expects_mask_arg", False))
    if not reads or kwargs.get("mask") is not None or len(args) != 1:
        return {}
    if isinstance(args[0], (list, tuple)):
        masks = [implicit(tensor) for tensor in args[0]]
        return {"mask": masks} if any(mask is not None for mask in masks) else {}
    mask = implicit(args[0])
    return {} if mask is None else {"mask": mask}


def implicit(tensor: Any) -> Any:
    """The mask that a tensor carries; None for none."""
    return getattr(tensor, "_keras_mask", None)


def _attention_masks(args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The masks of query, key and value; with them the causal one, which is a flag of the call."""
    given = {**dict(zip(("query", "value", "key"), args, strict=False)), **kwargs}
    found = {f"{name}_mask": implicit(given.get(name)) for name in ("query", "value", "key")}
    masks = {name: mask for name, mask in found.items() if mask is not None and kwargs.get(name) is None}
    if masks and kwargs.get("use_causal_mask") and kwargs.get("attention_mask") is None:
        steps = given["query"].shape[1], given["value"].shape[1]
        masks["attention_mask"] = np.tril(np.ones((1, *map(int, steps)), bool))
    return masks


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor with numbers in it, of TensorFlow, torch, jax or NumPy; no symbolic one."""
    kind = type(value)
    return kind.__name__ in ("EagerTensor", "ndarray", "ArrayImpl") or (
        kind.__module__.startswith("torch") and hasattr(value, "detach")
    )
