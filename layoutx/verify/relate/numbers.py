"""The numbers of a layer, atom by atom, with named axes: what is looked for in the other file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from layoutx.frozen import frozen
from layoutx.lang.place import Block, Labels
from layoutx.plan.blocks import memory
from layoutx.plan.plan import Array
from layoutx.plan.views import view
from layoutx.spec.bound import Atom, BoundForm, atom_text
from layoutx.spec.schema import holds
from layoutx.spec.values import SAME, ValueMap


@frozen
class Numbers:
    """One atom: what its stored numbers mean, in an array with a dimension for each of its axes.

    `role` is "b_input + b_recurrent" for a sum that the forward pass cannot tell apart.
    """

    role: str
    labels: Labels
    axes: tuple[str, ...]
    array: Array

    @property
    def atom(self) -> Atom:
        """Its role and labels."""
        return self.role, self.labels

    @property
    def text(self) -> str:
        """As specs write it: `w_input.f`."""
        return atom_text(self.atom)


def numbers_of(bound: BoundForm, tensors: Mapping[str, Array]) -> dict[Atom, Numbers]:
    """Atom -> its numbers; views of the stored arrays where nothing has to be computed.

    Args:
        tensors: form tensor name -> array; absent ones are left out.
    """
    flat = {name: memory(bound.tensor(name), array) for name, array in tensors.items()}
    found = {}
    for atom, place in bound.places.items():
        if place.tensor in flat:
            block = place.block
            array = view(flat[place.tensor], block.offset, [(bound.sizes[a], s) for a, s in block.strides.items()])
            array = np.negative(array) if block.negated and array.dtype.kind not in "ub" else array
            value = bound.maps.get(atom, SAME)
            array = array if value == SAME else meaning(array, value)
            found[atom] = Numbers(*atom, tuple(block.strides), array)
    return found


def meaning(stored: Array, value: ValueMap) -> Array:
    """What stored numbers mean, in float64."""
    return np.asarray(value.times * (stored.astype(np.float64) + value.shift) ** value.power + value.add)


def sums_of(bound: BoundForm, numbers: Mapping[Atom, Numbers]) -> Iterator[Numbers]:
    """The sums that the forward pass cannot tell apart, in float64: `b_input + b_recurrent` of each gate."""
    for gauge in bound.kind.gauge:
        first, *others = gauge.roles
        for (role, labels), own in numbers.items():
            allowed = all(dict(labels).get(axis) in known for axis, known in gauge.labels.items())
            parts = [numbers.get((other, labels)) for other in others]
            if role != first or not allowed or not holds(gauge.when, bound.facts) or None in parts:
                continue
            total = own.array.astype(np.float64)
            for part in parts:
                assert part is not None
                total = total + part.array.astype(np.float64)
            yield Numbers(" + ".join(gauge.roles), labels, own.axes, np.asarray(total))


def slot(block: Block, flat: Array, sizes: Mapping[str, int]) -> Array:
    """What stands at a place of a tensor's flat memory; a view, a dimension for each axis of the block."""
    return view(flat, block.offset, [(sizes[axis], stride) for axis, stride in block.strides.items()])
