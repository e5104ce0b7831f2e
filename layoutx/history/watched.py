"""What a history records of a live model: layers and tensors by their names, and how to get their numbers now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError, UsageError
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.model.bindings import bind_record, refine_of
from layoutx.model.keras_live import is_keras, variables
from layoutx.model.keyed import torch_tensor
from layoutx.model.load import live_source
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.registry import Registry, registry
from layoutx.verify.sides import BOTH, LOOKUP, UNIT, Dimension, dimensions, plain_dimensions
from layoutx.words import near

Array = np.ndarray[Any, Any]
SUMMARY = "summary"


@frozen
class Slot:
    """One tensor that is recorded.

    Attributes:
        layer, name, key: the layer's name, the tensor's in its form and in the model.
        axes: the names of its dimensions; unit: the dimension that counts units, None where that is not known.
        state: moved by data, without a gradient. stored: the dtype in the file.
    """

    layer: str
    name: str
    key: str
    shape: tuple[int, ...]
    dtype: str
    axes: tuple[str, ...]
    unit: int | None
    state: bool
    about: str
    stored: str

    def kept(self, what: str) -> tuple[int, ...]:
        """The shape of what the file keeps of it: all of it, or a number a unit."""
        if what != SUMMARY:
            return self.shape
        return (0,) if self.unit is None else (self.shape[self.unit],)

    def to_dict(self, what: str) -> dict[str, Any]:
        """As the head of the file says it."""
        shape = self.kept(what)
        stored = "float32" if what == SUMMARY else self.stored
        size = int(np.prod(shape, dtype=np.int64)) * dtype_of(stored).itemsize
        return {
            "layer": self.layer, "name": self.name, "key": self.key, "shape": list(self.shape), "dtype": self.dtype,
            "axes": list(self.axes), "unit": self.unit, "state": self.state, "about": self.about, "stored": stored,
            "kept": list(shape), "nbytes": size,
        }  # fmt: skip


@frozen
class Watched:
    """A live model: what is recorded of it, and `now()`, its numbers in the order of the slots."""

    framework: str
    layers: tuple[Mapping[str, Any], ...]
    slots: tuple[Slot, ...]
    now: Callable[[], list[Array]]


def watched(model: Any, patterns: Sequence[str], stored: str) -> Watched:
    """A live Keras model or torch module, or those of its layers that the patterns mean.

    Args:
        stored: a narrower dtype for floats in the file; "" for their own.

    Raises:
        UsageError: a pattern that means no layer. ModelError: tensors that hold no plain numbers.
    """
    known = registry()
    found = live_source(model, known, {})
    names = [record.name for record in found.layers]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no layer is called {pattern!r}", why=near(pattern, names, "the layers are"))
    chosen = [r for r in found.layers if not patterns or any(fnmatchcase(r.name, p) for p in patterns)]
    slots, taken = [], set[str]()
    for record in chosen:
        for slot in _slots(record, known, stored):
            if slot.key not in taken:  # layers that share a tensor
                taken.add(slot.key)
                slots.append(slot)
    layers = tuple({"name": r.name, "class": r.class_name, "form": r.form, "kind": _kind(r, known)} for r in chosen)
    return Watched(found.framework, layers, tuple(slots), _reader(model, found, slots))


def dtype_of(name: str) -> np.dtype[Any]:
    """A dtype by name; those that NumPy lacks are of ml_dtypes."""
    try:
        return np.dtype(name)
    except TypeError:
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
        return found


def _kind(record: LayerRecord, known: Registry) -> str:
    return known.kind_of(record.form).name if record.form else ""


def _slots(record: LayerRecord, known: Registry, stored: str) -> list[Slot]:
    bound = None
    if record.form and record.tensors:
        try:
            bound = bind_record(record, known)
        except LayoutxError:
            bound = None  # its tensors are recorded all the same, with axes that have no names
    own = {t.name: t for t in bound.tensors} if bound is not None else {}
    found = []
    for name, tensor in record.tensors.items():
        dims: tuple[Dimension, ...] = plain_dimensions(tensor.shape)
        state, about = False, ""
        if bound is not None and name in own:
            dims = dimensions(bound, own[name], refine_of(record, known, bound.form.framework), record.pieces)
            roles = [bound.kind.roles[r] for r in dict.fromkeys(b.role for b in own[name].blocks)]
            state, about = all(r.state for r in roles), "; ".join(r.about for r in roles if r.about)
        short = stored if stored and tensor.dtype.kind not in "iub" else str(tensor.dtype)
        axes = tuple(d.name for d in dims)
        shape = tuple(tensor.shape)
        args = (record.name, name, tensor.name, shape, str(tensor.dtype), axes, _unit(dims), state, about, short)
        found.append(Slot(*args))
    return found


def _unit(dims: Sequence[Dimension]) -> int | None:
    """The dimension that counts units: of what comes out, else channels, else rows that are looked up."""
    for side in (UNIT, BOTH, LOOKUP):
        own = [i for i, d in enumerate(dims) if d.side == side and d.size > 1]
        if own:
            return own[-1]
    return None


def _reader(model: Any, found: ModelRecord, slots: Sequence[Slot]) -> Callable[[], list[Array]]:
    tensors: dict[str, Tensor] = {t.name: t for r in found.layers for t in r.tensors.values()}
    if is_keras(model):
        live = variables(model)
        own = [live.get(slot.key) for slot in slots]
        return lambda: [
            tensors[slot.key].read() if v is None else np.asarray(v) for slot, v in zip(slots, own, strict=True)
        ]
    if hasattr(model, "state_dict"):

        def now() -> list[Array]:
            held = model.state_dict(keep_vars=True)  # asked anew: a module that moved to a GPU has other memory
            return [np.asarray(torch_tensor(slot.key, held[slot.key]).read()) for slot in slots]

        return now
    return lambda: [np.asarray(tensors[slot.key].read()) for slot in slots]
