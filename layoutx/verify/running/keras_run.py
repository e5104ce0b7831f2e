"""A live Keras model (Keras 3, tf_keras): run in float64, every layer's inputs and outputs recorded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.model.keras_live import made_array
from layoutx.plan.plan import Array
from layoutx.verify.made import probes
from layoutx.verify.plain import packed
from layoutx.verify.recording import Recording
from layoutx.verify.running.events import Event, calls_of
from layoutx.verify.running.given import Inputs, listed, no_layer, resolved, widest, widest_layer
from layoutx.verify.running.keras_double import float64_clone, in_float64, same_state
from layoutx.verify.running.keras_watch import (
    Known,
    Watch,
    children,
    is_model,
    is_tensor,
    library_of,
)
from layoutx.verify.running.nested import flattened


@dataclass
class KerasRunner:
    """Runs a Keras model at inference; its weights, states and random generators stay what they are.

    A Keras 3 model computes in float64 under exchanged dtype policies; of a tf_keras model a clone is run.
    """

    model: Any
    framework: str = "keras"
    known: dict[str, Known] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    clone: Any = None
    note: str = ""

    def layers(self) -> Mapping[str, str]:
        """Layer name -> class name; those of nested models as `outer/inner`."""
        return {name: type(known.layer).__name__ for name, known in self._known(self.model).items()}

    def inputs(self, long: bool = False) -> tuple[Array, ...]:
        """Random inputs of the model's own shapes; () where it has none. Integers below the vocabulary."""
        from layoutx.model.keras_live import live_records

        try:
            record = live_records(self.model, lambda name: True)
        except LayoutxError:  # the config of a custom model is not followed
            return ()
        return tuple(probes(self.model, record, long=long))

    def record(self, inputs: Inputs, double: bool = True) -> Recording:
        """One run at inference, in float64 where the model can (`note` says why not).

        Raises:
            UsageError: the model does not run on these inputs.
        """
        return widest(lambda wide, note: self._recorded(inputs, wide, note), double and self._doubles())

    def layer(self, name: str, inputs: Sequence[Array], names: Sequence[str] = ()) -> tuple[Array, ...]:
        """What one layer gives alone, in float64; in the model's own dtype where that fails.

        Raises:
            UsageError: there is no layer of this name. ModelError: it does not run on these inputs.
        """
        name = resolved(name, self.layers())

        def run(double: bool) -> tuple[Array, ...]:
            known = self._known(self._model(double)).get(name)
            if known is None:
                raise no_layer(name, self.layers())
            with self._running(known.layer, double):
                return _alone(known, self._seen(name), inputs, tuple(names), library_of(self.model), double)

        return widest_layer(run, name, self._doubles())

    def repeat(self, inputs: Inputs) -> tuple[tuple[Array, ...], tuple[Array, ...], tuple[Array, ...]] | None:
        """Outputs as a plain call gives them, twice, and at inference: they differ where training is wired in."""
        data = self._data(inputs)
        try:
            with same_state(self.model):
                first = _outputs(self.model(data))
                second = _outputs(self.model(data))
            with same_state(self.model):
                return first, second, _outputs(self.model(data, training=False))
        except Exception:
            return None

    def _doubles(self) -> bool:
        """Whether products of float64 are computed in it: on torch Keras 3 rounds them, and gives float64 all the same.

        keras 3.15.1 src/backend/common/dtypes.py BIT64_TO_BIT32_DTYPE.
        """
        library = library_of(self.model)
        return not hasattr(library, "Operation") or library.config.backend() != "torch"

    def _model(self, double: bool) -> Any:
        """The model to call: this one, or the float64 clone of a tf_keras model, made once."""
        if not double or hasattr(library_of(self.model), "Operation"):
            return self.model
        if self.clone is None:
            self.clone = float64_clone(self.model)
        return self.clone

    @contextmanager
    def _running(self, layer: Any, double: bool) -> Iterator[None]:
        """A layer, or the whole model, computes in float64 inside, and keeps its states."""
        with ExitStack() as stack:
            stack.enter_context(same_state(layer))
            if double and hasattr(library_of(self.model), "Operation"):
                stack.enter_context(in_float64(layer))
            yield

    def _recorded(self, inputs: Inputs, double: bool, note: str) -> Recording:
        model = self._model(double)
        with self._running(model, double), Watch(model) as watch:
            result = model(self._data(inputs), training=False)
            outputs = tuple(watch.array(t) for t in flattened(result, is_tensor))
        self.events = [event for event in watch.events if event.layer]
        calls = calls_of(self.events)
        self.known = {**{k: v for k, v in watch.known.items() if k}, **dict(children(model, ""))}
        floats = [(call.layer, a) for call in calls for a in call.outputs[:1] if double and a.dtype.kind == "f"]
        other = [layer for layer, array in floats if array.dtype != np.float64]
        if other:
            note = f"not in float64: {', '.join(dict.fromkeys(other))}"
        dtype = next((a.dtype.name for a in outputs if a.dtype.kind not in "iub"), "float64")
        library = library_of(model)
        given = listed(inputs, _names(model))
        note = "; ".join(text for text in (self.note, note) if text)
        return Recording("keras", str(library.__version__), dtype, given, outputs, calls, {}, note)

    def _data(self, inputs: Inputs) -> Any:
        names = _names(self.model)
        if isinstance(inputs, Mapping) and (
            not names or isinstance(getattr(self.model, "_inputs_struct", None), Mapping)
        ):
            return {key: np.asarray(value) for key, value in inputs.items()}
        return packed(self.model, listed(inputs, names))

    def _known(self, model: Any) -> dict[str, Known]:
        static = dict(children(model, ""))
        return {**{k: v for k, v in self.known.items() if k not in static and model is self.model}, **static}

    def _seen(self, name: str) -> list[Event]:
        return [event for event in self.events if event.layer == name]


def _alone(
    known: Known, seen: Sequence[Event], inputs: Sequence[Array], names: tuple[str, ...], library: Any, double: bool
) -> tuple[Array, ...]:
    """One layer called as the last run called it, where it was given as much."""
    names = names or ("",) * len(inputs)
    tensors = [
        np.asarray(a, np.float64) if double and np.asarray(a).dtype.kind == "f" else np.asarray(a) for a in inputs
    ]
    layer = known.layer
    if known.how == "cell":
        layer = library.layers.RNN(layer, return_sequences=True, dtype="float64" if double else None)
        return _outputs(layer(tensors[0], mask=dict(zip(names, tensors, strict=True)).get("mask"), training=False))
    if known.how == "steps":
        batch, steps = tensors[0].shape[:2]
        merged = [a.reshape(batch * steps, *a.shape[2:]) for a in tensors]
        found = _alone(Known(layer), seen, merged, names, library, double)
        return tuple(a.reshape(batch, steps, *a.shape[1:]) for a in found)
    form = next((e.given for e in seen if e.given.names == names), None)
    if form is not None:
        args, kwargs = form.filled(tensors)
    else:
        plain = [t for t, key in zip(tensors, names, strict=True) if not key]
        args = (plain if len(plain) > 1 else plain[0],)
        kwargs = {key: t for t, key in zip(tensors, names, strict=True) if key}
    known_keys = signature(layer.call).parameters  # tf_keras takes the masks of attention from the tensors alone
    kwargs = {k: v for k, v in kwargs.items() if k != "training" and (k in known_keys or not k.endswith("_mask"))}
    if getattr(layer, "_call_has_training_arg", getattr(layer, "_expects_training_arg", False)) or is_model(layer):
        kwargs["training"] = False
    return _outputs(layer(*args, **kwargs))


def _names(model: Any) -> tuple[str, ...]:
    """The names of a wired model's inputs, in order."""
    found = getattr(model, "inputs", None) or []
    names = getattr(model, "input_names", None) or [str(t.name).split(":")[0] for t in found]
    return tuple(names) if found else ()


def _outputs(result: Any) -> tuple[Array, ...]:
    return tuple(made_array(t) for t in flattened(result, is_tensor))
