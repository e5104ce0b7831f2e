"""A form bound to one layer: concrete tensors, sizes and places, with nothing conditional left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.lang.place import Block, Labels
from layoutx.lang.tree import Dim, Layout
from layoutx.spec.schema import Form, Kind
from layoutx.spec.values import ValueMap

Atom = tuple[str, Labels]


@frozen
class BoundTensor:
    """One stored tensor: its shape and where each atom sits in it.

    `cut`: rows, blocks and columns, where the atoms sit in the blocks laid end to end, each read row by row.
    """

    name: str
    shape: tuple[int, ...]
    layout: Layout
    blocks: tuple[Block, ...]
    dtype: str = ""
    cut: tuple[int, int, int] | None = None


@frozen
class Place:
    """Where one atom sits: the tensor and the block in it."""

    tensor: str
    block: Block


@frozen
class BoundForm:
    """One layer as stored by one framework.

    Attributes:
        form, kind: what it is.
        config: the layer's config over the form's defaults.
        sizes: axis -> length, for role axes and for the leaves of refined ones.
        tensors: in the form's order; absent ones left out.
        places: every stored atom -> where.
        facts: fact -> value; settings: setting -> value (canonical convention).
        maps: atom -> how its stored numbers become those of the kind, where they are not the same.
        data: what goes in and out (`x`, `y`, `query`, `h`) -> its dims in the framework's order.
        sized: config keys whose values the sizes told.
        key: all that decided it, beside its form; None where that is not known (`bind` knows it).
    """

    form: Form
    kind: Kind
    config: Mapping[str, Any]
    sizes: Mapping[str, int]
    tensors: tuple[BoundTensor, ...]
    places: Mapping[Atom, Place]
    facts: Mapping[str, Any] = NOTHING
    settings: Mapping[str, Any] = NOTHING
    labels: Mapping[str, tuple[str, ...]] = NOTHING
    data: Mapping[str, tuple[Dim, ...]] = NOTHING
    maps: Mapping[Atom, ValueMap] = NOTHING
    sized: tuple[str, ...] = field(default=(), compare=False, repr=False)
    key: bytes | None = field(default=None, init=False, compare=False, repr=False)

    def of_layer(self, config: Mapping[str, Any], key: bytes | None) -> BoundForm:
        """The same of a layer of another name and other initializers, which shares all the rest."""
        shared = (self.tensors, self.places, self.facts, self.settings, self.labels, self.data, self.maps, self.sized)
        own = BoundForm(self.form, self.kind, config, self.sizes, *shared)
        object.__setattr__(own, "key", key)
        return own

    def tensor(self, name: str) -> BoundTensor:
        """The tensor of that name; KeyError if the form has none."""
        for tensor in self.tensors:
            if tensor.name == name:
                return tensor
        raise KeyError(name)


def atom_text(atom: Atom) -> str:
    """An atom as specs and errors write it: `w_input.f`, `w_input.backward.f`."""
    role, labels = atom
    return ".".join((role, *(label for _, label in labels)))
