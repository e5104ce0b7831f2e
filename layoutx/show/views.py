"""A model to look at: layers by name, tensors with their indices and axes, gates as views into the stored arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from math import prod
from typing import TYPE_CHECKING, Any

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.files.store import Tensor
from layoutx.frozen import frozen
from layoutx.model.record import Piece
from layoutx.spec.bound import BoundForm
from layoutx.words import listed, near

if TYPE_CHECKING:
    from layoutx.plan.plan import Array
    from layoutx.stats import Stats


@frozen
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
        return prod(self.shape)

    @property
    def role(self) -> str:
        """ "trainable", "frozen" or "state"."""
        return "state" if self.state else "frozen" if self.frozen else "trainable"


@frozen
class LayerView:
    """One layer.

    Attributes:
        form: "" where the class is unknown or holds no weights.
        config: what decides its tensors and its function, without defaults.
        notes: why a form was chosen, where its inputs come from. problem: why it does not fit its form.
        last, first, own: refined axis -> its dims with channels last, first, and as the file has them.
        pieces: axis -> what it is made of. inputs: the layers that feed it.
        called: what its user called it, where `name` is one that the file made (`dense_1` in Keras' weights files).
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
    first: Mapping[str, str] = field(default=NOTHING, repr=False, compare=False)
    own: Mapping[str, str] = field(default=NOTHING, repr=False, compare=False)
    pieces: Mapping[str, tuple[Piece, ...]] = field(default=NOTHING, repr=False, compare=False)
    inputs: tuple[str, ...] = ()
    called: str = ""

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

    def part(self, name: str, axes: str = "", **index: int) -> Array:
        """One role, the block of one gate or direction, one head or filter of it, for any framework's file.

        Args:
            name: `kernel`, `w_input.f`, `recurrent.f`, `w_input.backward.f`, `w_query[head=2]`, `kernel[out=5]`; the
                name of a stored tensor does as well (`bias.f`).
            axes: the order wanted, "hidden input", or "stored".
            index: axis -> which one: `part("w_query", head=2)`.

        Returns:
            A read-only view into the stored array. What the layer reads stands first and what it makes last, whatever
            the framework stores: `w_input.f` is (input, hidden), so that `x @ part("w_input.f")` is its share of
            the gate. A role of several blocks that has a tensor of its own is that tensor, turned likewise.

        Raises:
            UsageError: no such part, with those that there are; or a role that lies in several blocks.
        """
        from layoutx.show.parts import array_of, part_of

        bound = self._form()
        return array_of(bound, part_of(bound, name, index, self.name), lambda t: self.sources[t].read(), axes)

    def _form(self) -> BoundForm:
        if self.bound is None:
            raise UsageError(f"the form of {self.name} is not known", why=self.problem or "; ".join(self.notes))
        return self.bound


@frozen
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
        """A layer by its name, what its user called it, or the end of it where only one ends so: `d1` of `decoder/d1`.

        Raises:
            UsageError: no layer is called so, or several are.
        """
        if not isinstance(name, str):
            raise UsageError(f"a layer has a name, not a number: {name!r}", do=f"write .layers[{name!r}]")
        wanted = name.replace(".", "/")
        for same in (name, wanted):
            for layer in self.layers:
                if same in (layer.name, layer.name.replace(".", "/")):
                    return layer
        ends = [x for x in self.layers if name and x.called.replace(".", "/") == wanted]
        ends = ends or [x for x in self.layers if name and x.name.replace(".", "/").endswith(f"/{wanted}")]
        if len(ends) == 1:
            return ends[0]
        raise UsageError(f"no layer is called {name!r}", why=self._near(wanted, [x.name for x in ends]))

    def _near(self, wanted: str, ends: Sequence[str]) -> str:
        """What may have been meant: layers that end so, parts of one, names that are alike; else all names."""
        names = [layer.name for layer in self.layers]
        parts = [name for name in names if name.replace(".", "/").startswith(f"{wanted}/")]
        if ends or parts:
            return f"there are {listed([*ends, *parts])}"
        return near(wanted, names, "the layers are")

    def __iter__(self) -> Iterator[LayerView]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def parameters(self) -> int:
        """All numbers of all layers, state included; a tensor of two layers counts once."""
        sizes = {t.key: t.size for layer in self.layers for t in layer.tensors}
        return sum(sizes.values())

    def stats(self) -> Stats:
        """Read the weights: the numbers of every tensor, the norms of every layer, and what looks wrong."""
        from layoutx.stats import stats

        return stats(self)

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
