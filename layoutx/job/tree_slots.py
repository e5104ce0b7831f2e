"""The arrays of a live model of jax, mlx or paddle, given new numbers: in place, or as a new model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import ConversionError
from layoutx.files.store import Part
from layoutx.model.tree import family, head, leaves_of, tensor_of, unbound
from layoutx.plan.plan import Array


class TreeSlot:
    """One array of a tree: read as NumPy's, written once `placed` gives the model its new numbers."""

    def __init__(self, name: str, leaf: Any) -> None:
        self.tensor = tensor_of(name, leaf)
        self.new: Array | None = None

    def read(self) -> Array:
        """A copy of its values."""
        return self.look().copy()

    def look(self) -> Array:
        """Its values."""
        return np.asarray(self.tensor.read())

    @property
    def dtype(self) -> Any:
        """Its dtype as NumPy sees it."""
        return self.tensor.dtype

    def write(self, array: Array) -> None:
        """Keep an array for it; wider floats are filled exactly."""
        self.new = np.array(array, dtype=self.dtype)


class LayerSlot:
    """One layer of an array that holds many: kept until the array is given its new numbers."""

    def __init__(self, whole: TreeSlot, part: Part) -> None:
        self.whole = whole
        self.part = part
        self.new = None

    def read(self) -> Array:
        """A copy of its values."""
        return np.array(self.part.of(self.whole.look() if self.whole.new is None else self.whole.new))

    @property
    def dtype(self) -> Any:
        """Its dtype as NumPy sees it."""
        return self.whole.dtype

    def write(self, array: Array) -> None:
        """Keep it in a copy of the array, whose other layers stay."""
        if self.whole.new is None:
            self.whole.new = self.whole.read()
        self.part.of(self.whole.new)[...] = array


def tree_slots(model: Any, stacked: Mapping[str, Part] = NOTHING) -> dict[str, Any]:
    """Name -> array of a live model; random keys have none.

    Args:
        stacked: names of layers that the model keeps as one array -> which they are.
    """
    keys = {name for name, leaf in leaves_of(model).items() if "key<" in str(getattr(leaf, "dtype", ""))}
    found = {name: TreeSlot(name, leaf) for name, leaf in leaves_of(model).items() if name not in keys}
    return {**found, **{name: LayerSlot(found[part.whole.name], part) for name, part in stacked.items()}}


def changes(model: Any) -> bool:
    """Whether a model's arrays can be replaced within it: of jax only those of nnx."""
    return family(head(model)) in ("nnx", "mlx", "paddle")


def placed(model: Any, slots: Mapping[str, Any]) -> Any:
    """The model with the numbers that its slots were given: itself where it can change, else a new one.

    A linen module comes back as it was given: bound to its new variables, or beside them.

    Raises:
        ConversionError: one array under two names that get different numbers.
    """
    new = {name: slot.new for name, slot in slots.items() if slot.new is not None}
    own = family(head(model))
    if own == "mlx":
        return _mlx(model, new)
    if own == "paddle":
        state = model.state_dict()
        for name, array in new.items():
            state[name].set_value(array)
        return model
    if own == "nnx":
        from flax import nnx

        nnx.update(model, _replaced(nnx.state(model), leaves_of(model), new))
        return model
    if own == "flax":
        module, variables = unbound(model)
        variables = _replaced(variables, leaves_of(model), new)
        return (module, variables) if isinstance(model, tuple) else module.bind(variables)
    return _replaced(model, leaves_of(model), new)


def _replaced(tree: Any, leaves: Mapping[str, Any], new: Mapping[str, Array]) -> Any:
    """A tree with new arrays in the places of old ones."""
    import jax
    import jax.numpy as jnp

    found: dict[int, Array] = {}
    for name, array in new.items():
        first = found.setdefault(id(leaves[name]), array)
        if not np.array_equal(first, array):
            raise ConversionError(
                f"the target has one array at {name} and at another place",
                why="the source has different numbers for the two",
                do="make the target's arrays different objects: jax.tree.map(jnp.array, model)",
            )
    return jax.tree_util.tree_map(lambda leaf: jnp.asarray(found[id(leaf)]) if id(leaf) in found else leaf, tree)


def _mlx(model: Any, new: Mapping[str, Array]) -> Any:
    import mlx.core as mx
    from mlx.utils import tree_unflatten

    leaves = leaves_of(model)
    wide = {name: np.asarray(a, np.float32) if a.dtype.kind not in "iufb" else a for name, a in new.items()}
    model.update(tree_unflatten([(name, mx.array(a).astype(leaves[name].dtype)) for name, a in wide.items()]))
    return model
