"""The variables of a live model, read as arrays and written in place: all checked before the first is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import ConversionError, UsageError, raise_all
from layoutx.files.store import Part
from layoutx.job.jobs import Job
from layoutx.job.rooms import Room, new_room, taken_over, torch_room
from layoutx.model.callables import no_class
from layoutx.model.keras_live import array_of, dtype_of, is_keras, variables
from layoutx.model.keyed import torch_tensor
from layoutx.model.torch_keyed import is_export
from layoutx.plan.plan import Array
from layoutx.verify.plain import is_torch


class Slot:
    """One variable of a live model: read as an array, written from one."""

    def __init__(self, variable: Any, torch: bool, after: Callable[[], None] | None = None) -> None:
        self.variable = variable
        self.torch = torch
        self.after = after

    def read(self) -> Array:
        """A copy of its values."""
        return self.look().copy()

    def look(self) -> Array:
        """Its values, without a copy where they lie on the CPU row by row."""
        return torch_tensor("", self.variable).read() if self.torch else array_of(self.variable)

    @property
    def dtype(self) -> Any:
        """Its dtype as NumPy sees it."""
        return torch_tensor("", self.variable).dtype if self.torch else dtype_of(self.variable)

    @property
    def strides(self) -> tuple[int, ...] | None:
        """Where its elements lie, in elements from the first; None: row by row, or wherever it puts them itself."""
        value = self.inner
        return None if value is None or value.is_contiguous() else tuple(value.stride())

    @property
    def inner(self) -> Any:
        """The torch tensor that it is, or that a Keras variable of the torch backend holds; None of the others."""
        value = self.variable if self.torch else getattr(self.variable, "_value", None)
        return value if hasattr(value, "data_ptr") else None

    def room(self) -> Room | None:
        """Memory to fill, in place where that can be done; None of a tensor that lies elsewhere (a device).

        Raises:
            ModelError: it has no memory at all.
        """
        value = self.inner
        if value is None:
            return new_room(tuple(self.variable.shape), self.dtype, self.take)
        if value.is_meta:
            self.look()  # says so
        found = torch_room(value)
        if found is None or self.after is None:
            return found
        return Room(found.flat, found.strides, lambda: _both(found.done, self.after))

    def take(self, array: Array) -> None:
        """Be given an array that nobody else writes to."""
        if self.torch or not taken_over(self.variable, array):
            self.write(array)
        elif self.after is not None:
            self.after()

    def write(self, array: Array) -> None:
        """Copy an array into it; wider floats are filled exactly."""
        if not self.torch:
            self.variable.assign(array)
            if self.after is not None:
                self.after()
            return
        import torch

        from layoutx.files.torch_file import torch_of

        with torch.no_grad():
            self.variable.copy_(torch_of(torch, "", array))


class PartSlot(Slot):
    """One layer's part of a variable that holds several."""

    def __init__(self, whole: Slot, part: Part, shape: tuple[int, ...]) -> None:
        super().__init__(whole.variable, whole.torch, whole.after)
        self.whole, self.part, self.shape = whole, part, shape

    def look(self) -> Array:
        """Its values."""
        found: Array = np.ascontiguousarray(self.part.of(self.whole.look())).reshape(self.shape)
        return found

    @property
    def strides(self) -> None:
        """Its runs lie apart: it is filled elsewhere, and copied."""
        return None

    @property
    def inner(self) -> None:
        """It is no tensor of torch's."""
        return None

    def room(self) -> Room:
        """Memory to fill, which is copied into the variable."""
        return new_room(self.shape, self.dtype, self.write)

    def write(self, array: Array) -> None:
        """Copy an array into it."""
        if not self.torch:
            whole = self.whole.read()
            place = self.part.of(whole)
            place[...] = array.reshape(place.shape)
            self.whole.write(whole)
            return
        import torch

        from layoutx.files.torch_file import torch_of

        with torch.no_grad():
            place = self.part.of(self.variable)
            place.copy_(torch_of(torch, "", array).reshape(place.shape))


def _both(*calls: Callable[[], None] | None) -> None:
    for call in calls:
        if call is not None:
            call()


def slots_of(model: Any, parts: Mapping[str, Part] = NOTHING) -> dict[str, Slot]:
    """Name -> variable of a live torch module, torch.export program or Keras model.

    Args:
        parts: name of a layer's part of a variable -> which.
    """
    found = _variables(model)
    return {**found, **{n: PartSlot(found[p.whole.name], p, _shape_of(p)) for n, p in parts.items()}}


def _shape_of(part: Part) -> tuple[int, ...]:
    """The shape of a part, its groups laid together."""
    shape, at = part.whole.shape, part.axis
    many = () if part.stop is None else (part.groups * (part.stop - part.index),)
    return (*shape[:at], *many, *shape[at + 1 :])


def _variables(model: Any) -> dict[str, Slot]:
    if is_keras(model):
        after = _copied(model)
        return {name: Slot(value, False, after.get(id(value))) for name, value in variables(model).items()}
    state = model.state_dict if is_export(model) else model.state_dict(keep_vars=True)
    return {name: Slot(value, True) for name, value in state.items() if hasattr(value, "copy_")}


def _copied(model: Any) -> dict[int, Callable[[], None]]:
    """Variable -> what makes its layer compute with it: Normalization keeps a copy of its statistics."""
    layers = model._flatten_layers() if hasattr(model, "_flatten_layers") else ()
    ends = [layer for layer in layers if hasattr(layer, "finalize_state")]
    return {id(variable): layer.finalize_state for layer in ends for variable in layer.weights}


def writable(model: Any, verb: str, else_do: str) -> None:
    """Refuse a target whose weights cannot be set in place.

    Raises:
        UsageError: it is no live torch module or Keras model.
    """
    no_class(model)
    if not is_keras(model) and not is_torch(model) and not is_export(model):
        raise UsageError(
            f"{verb} does not write into a {type(model).__name__}",
            why=f"the target of {verb} is a live torch module or Keras model, whose weights are set in place",
            do=else_do,
        )


def check_slots(job: Job, slots: Mapping[str, Any]) -> None:
    """Refuse a target that lacks a variable of the job.

    Raises:
        LayoutxError: with the names of all that are missing.
    """
    names = [full for layer in job.layers for full in layer.targets.values()]
    missing = [ConversionError(f"the target has no variable {name}") for name in names if name not in slots]
    raise_all(missing, "the target does not take these weights")


def write(arrays: Mapping[str, Array], slots: Mapping[str, Any]) -> None:
    """Write every array into its variable."""
    for name, array in arrays.items():
        slots[name].write(array)
