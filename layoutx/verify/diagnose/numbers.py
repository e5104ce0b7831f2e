"""The stored numbers of a layer, copied and opened: each atom a view that an edit may write into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.blocks import memory, settle
from layoutx.plan.plan import Array
from layoutx.plan.views import view
from layoutx.spec.bound import Atom, BoundForm
from layoutx.verify.diagnose.suspect import Suspect


@frozen
class Numbers:
    """Copies of some stored tensors as flat memory; what is written into an atom's view changes the copy only."""

    bound: BoundForm
    memory: Mapping[str, Array]

    def atom(self, atom: Atom, axes: Sequence[str] | None = None) -> Array:
        """An atom's numbers as stored (sign included), its axes in the given order or that of its place."""
        place = self.bound.places[atom]
        strides = place.block.strides
        order = tuple(strides) if axes is None else axes
        loops = [(self.bound.sizes[axis], strides[axis]) for axis in order]
        return view(self.memory[place.tensor], place.block.offset, loops)

    def settled(self) -> dict[str, Array]:
        """The copies as stored tensors."""
        found = {}
        for name, flat in self.memory.items():
            tensor = self.bound.tensor(name)
            array = flat.reshape(tensor.shape)
            settle(tensor, array)
            found[name] = array
        return found


def opened(suspect: Suspect, names: Iterable[str]) -> Numbers:
    """Copies of the target's tensors of these names."""
    bound = suspect.target
    flat = {name: np.array(memory(bound.tensor(name), suspect.stored[name])) for name in dict.fromkeys(names)}
    return Numbers(bound, flat)


def with_stored(suspect: Suspect, changed: Mapping[str, Array]) -> Suspect:
    """The suspect with some tensors of the target replaced."""
    return replace(suspect, stored={**suspect.stored, **changed})


def tensors_of(bound: BoundForm, roles: Iterable[str]) -> tuple[str, ...]:
    """Names of the tensors that hold any of these roles, in the form's order."""
    wanted = set(roles)
    held = {place.tensor for (role, _), place in bound.places.items() if role in wanted}
    return tuple(tensor.name for tensor in bound.tensors if tensor.name in held)


def roles_in(bound: BoundForm, tensor: str) -> tuple[str, ...]:
    """The roles that a tensor holds."""
    return tuple(dict.fromkeys(role for (role, _), place in bound.places.items() if place.tensor == tensor))


def atoms_of(bound: BoundForm, role: str) -> tuple[Atom, ...]:
    """The atoms of a role, in the form's order."""
    return tuple(atom for atom in bound.places if atom[0] == role)


def is_float(suspect: Suspect, tensor: str) -> bool:
    """Whether a stored tensor holds numbers that mistakes are about, not a counter."""
    return tensor in suspect.stored and suspect.stored[tensor].dtype.kind not in "iub"
