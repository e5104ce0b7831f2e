"""A model to look at: layers by name, tensors with their indices and axes, gates as views into the stored arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.files.store import Tensor
from layoutx.plan.blocks import memory
from layoutx.plan.plan import Array
from layoutx.plan.run import view
from layoutx.spec.bound import BoundForm, atom_text


@dataclass(frozen=True, slots=True)
class TensorView:
    """One stored tensor of a layer.

    Attributes:
        name: as the form calls it; key: as the file does.
        index: in the layer's get_weights(); position: in the model's. None where the order is unknown.
        text: `kernel (input 2000, output 32)`; without names where no form is known.
        state: moved by training without a gradient (running statistics); frozen: the layer is not trained.
    """

    name: str
    key: str
    index: int
    position: int | None
    shape: tuple[int, ...]
    dtype: str
    text: str
    state: bool = False
    frozen: bool = False

    @property
    def size(self) -> int:
        """Number of elements."""
        total = 1
        for length in self.shape:
            total *= length
        return total

    @property
    def role(self) -> str:
        """ "trainable", "frozen" or "state"."""
        return "state" if self.state else "frozen" if self.frozen else "trainable"


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer.

    Attributes:
        form: "" where the class is unknown or holds no weights.
        config: what decides its tensors and its function, without defaults.
        notes: why a form was chosen, where its inputs come from. problem: why it does not fit its form.
    """

    name: str
    class_name: str
    form: str
    config: Mapping[str, Any]
    tensors: tuple[TensorView, ...]
    notes: tuple[str, ...] = ()
    problem: str = ""
    sources: Mapping[str, Tensor] = field(default=NOTHING, repr=False, compare=False)
    bound: BoundForm | None = field(default=None, repr=False, compare=False)
    last: Mapping[str, str] = field(default=NOTHING, repr=False, compare=False)

    @property
    def parameters(self) -> int:
        """Numbers that the layer stores, state included."""
        return sum(t.size for t in self.tensors)

    def arrays(self) -> dict[str, Array]:
        """Form tensor name -> the stored array, read now."""
        return {name: tensor.read() for name, tensor in self.sources.items()}

    def roles(self) -> dict[str, Array]:
        """The layer's numbers under the names of its mathematics, in canonical axis order.

        Raises:
            UsageError: the layer's form is not known.
        """
        from layoutx.verify.roles import roles

        return roles(self._form(), self.arrays(), self.last)

    def part(self, name: str) -> Array:
        """One role, or the block of one gate or direction: `kernel`, `w_input.f`, `w_input.backward.f`.

        Returns:
            A read-only view into the stored array, with the axes in the order in which they are stored:
            `w_input.f` of a Keras LSTM is (input, hidden), of torch's (hidden, input). A role that has a
            tensor of its own is that tensor.

        Raises:
            UsageError: no such part, with those that there are; or a role that lies in several blocks.
        """
        bound = self._form()
        whole = [t for t in bound.tensors if {b.role for b in t.blocks} == {name}]
        if len(whole) == 1 and sum(role == name for role, _ in bound.places) == len(whole[0].blocks):
            block = self.sources[whole[0].name].read().view()
            return _settled(block, whole[0].blocks[0].negated)
        found = [(atom, place) for atom, place in bound.places.items() if name in _spellings(atom, bound)]
        if len(found) != 1:
            known = ", ".join(dict.fromkeys(_spellings(atom, bound)[-1] for atom in bound.places))
            what = f"{self.name} has no part {name!r}" if not found else f"{name} of {self.name} lies in several blocks"
            raise UsageError(what, why=f"its parts: {known}")
        ((_, place),) = found
        flat = memory(bound.tensor(place.tensor), self.sources[place.tensor].read())
        steps = sorted(place.block.strides.items(), key=lambda x: -abs(x[1]))
        block = view(flat, place.block.offset, [(bound.sizes[axis], step) for axis, step in steps])
        return _settled(block, place.block.negated)

    def _form(self) -> BoundForm:
        if self.bound is None:
            raise UsageError(f"the form of {self.name} is not known", why=self.problem or "; ".join(self.notes))
        return self.bound


def _settled(block: Array, negated: bool) -> Array:
    block = -block if negated else block
    block.flags.writeable = False
    return block


def _spellings(atom: tuple[str, tuple[tuple[str, str], ...]], bound: BoundForm) -> tuple[str, ...]:
    """The names of a part: with all its labels, and without those that the form has only one of."""
    role, labels = atom
    kept = [label for axis, label in labels if len(bound.labels.get(axis, ())) > 1]
    names = [atom_text(atom), ".".join((role, *kept))]
    for axis, label in labels:  # a framework's own letter: c for g
        for alias in bound.kind.labels.get(axis, {}).get(label, ()):
            names.insert(0, ".".join((role, *(alias if x == label else x for x in kept))))
    return tuple(names)


@dataclass(frozen=True)
class ModelView:
    """A model; `view["dense_1"]` is a layer, `print(view)` a table.

    Attributes:
        leftover: tensors that no layer owns -> why. certificate: of a file that layoutx wrote.
    """

    file: str
    format: str
    framework: str
    version: str
    layers: tuple[LayerView, ...]
    leftover: Mapping[str, str] = NOTHING
    certificate: Mapping[str, Any] | None = None
    bytes: int = 0

    def __getitem__(self, name: str) -> LayerView:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise UsageError(f"no layer is called {name!r}", why=f"the layers are {', '.join(x.name for x in self.layers)}")

    def __iter__(self) -> Iterator[LayerView]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def parameters(self) -> int:
        """All numbers of all layers, state included; a tensor of two layers counts once."""
        sizes = {t.key: t.size for layer in self.layers for t in layer.tensors}
        return sum(sizes.values())

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON."""
        from layoutx.show.inspect_text import as_dict

        return as_dict(self)

    def text(self, width: int = 99, color: bool = False) -> str:
        """The table for a terminal, at most `width` columns."""
        from layoutx.show.inspect_text import as_text

        return as_text(self, width, color)

    def __str__(self) -> str:
        return self.text()
