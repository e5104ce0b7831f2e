"""What a model is made of: every layer with its form, every tensor with its index, its name in the file and its named axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from layoutx.certificate import certificate_of
from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError, UsageError
from layoutx.files.open import open_store
from layoutx.files.store import Store, Tensor
from layoutx.model.bindings import bind_record, refine_of
from layoutx.model.keyed import Keyed
from layoutx.model.load import live_model, model_of
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.state import state_records
from layoutx.naming import with_sizes
from layoutx.plan.plan import Array
from layoutx.plan.run import view
from layoutx.spec.bound import BoundForm, atom_text
from layoutx.spec.expand import axis_names
from layoutx.spec.registry import Registry, registry

UNREMARKABLE = (None, False, "channels_last", "keras", "tensorflow", [], {})


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
        """"trainable", "frozen" or "state"."""
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
        flat = np.ascontiguousarray(self.sources[place.tensor].read()).reshape(-1)
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
        from layoutx.inspect_text import as_dict

        return as_dict(self)

    def text(self, width: int = 99, color: bool = False) -> str:
        """The table for a terminal, at most `width` columns."""
        from layoutx.inspect_text import as_text

        return as_text(self, width, color)

    def __str__(self) -> str:
        return self.text()


def inspect(
    model: Any,
    *,
    forms: Mapping[str, str] = NOTHING,
    specs: Sequence[str | PathLike[str]] = (),
    input_shape: Sequence[int] | None = None,
) -> ModelView:
    """The layers and tensors of a file or a live model; no weight is read, and nothing of the model is run.

    Args:
        model: a path, a torch module or a Keras model.
        forms: layer -> form, where the file cannot tell.
        specs: more spec folders.
        input_shape: the model's input without batch, where the config does not say it.

    Raises:
        UsageError: no such file. FileError, ModelError: it cannot be read.
    """
    known = registry(tuple(str(p) for p in specs))
    if isinstance(model, (str, PathLike)):
        store = open_store(Path(model))
        record = model_of(store, known, forms, input_shape=input_shape)
    else:
        found = live_model(model, known)
        record = state_records(found, known) if isinstance(found, Keyed) else found
        store = record.store
    return view_of(record, store, known)


def view_of(model: ModelRecord, store: Store, known: Registry) -> ModelView:
    """A model's records as a view."""
    ordered = store.format != "weights.h5" or store.config is not None
    layers, seen = [], dict[str, int]()
    for record in model.layers:
        for tensor in record.tensors.values():
            seen.setdefault(tensor.name, len(seen))
        layers.append(_layer(record, known, seen if ordered else {}))
    size = store.path.stat().st_size if store.path.is_file() else sum(t.nbytes for t in store.tensors.values())
    return ModelView(
        file=store.path.name if store.format != "live" else "",
        format=store.format,
        framework=model.framework,
        version=model.version,
        layers=tuple(layers),
        leftover=dict(model.leftover),
        certificate=certificate_of(store),
        bytes=size,
    )


def _layer(record: LayerRecord, known: Registry, positions: Mapping[str, int]) -> LayerView:
    bound, problem, last = None, "", dict[str, str]()
    if record.form and record.tensors:
        try:
            bound = bind_record(record, known)
            last = refine_of(record, known, "keras")
        except LayoutxError as error:
            problem = error.what
    frozen = record.config.get("trainable") is False
    tensors = []
    for index, (name, tensor) in enumerate(record.tensors.items()):
        text, state = _described(bound, name, tensor)
        position = positions.get(tensor.name)
        shape = tuple(tensor.shape)
        tensors.append(TensorView(name, tensor.name, index, position, shape, str(tensor.dtype), text, state, frozen))
    return LayerView(
        record.name,
        record.class_name,
        record.form,
        _essentials(record, known),
        tuple(tensors),
        tuple(_notes(record, known)),
        problem,
        record.tensors,
        bound,
        last,
    )


def _described(bound: BoundForm | None, name: str, tensor: Tensor) -> tuple[str, bool]:
    """A tensor with its named axes, and whether all that it holds is state."""
    if bound is None or all(t.name != name for t in bound.tensors):
        return f"{name} ({', '.join(map(str, tensor.shape))})", False
    found = bound.tensor(name)
    state = bool(found.blocks) and all(bound.kind.roles[b.role].state for b in found.blocks)
    return with_sizes(bound, found), state


def _notes(record: LayerRecord, known: Registry) -> Iterator[str]:
    if record.note:
        yield record.note
    if not record.form:
        return
    kind = known.kind_of(record.form)
    axes = {name for role in kind.roles.values() for name in axis_names(role.axes)}
    framework = known.form(record.form).framework
    for axis, refinement in record.refine.items():
        order = refinement.last if known.framework(framework).channels == "last" else refinement.first
        if axis in axes and order != axis:
            yield f"{axis} axis: {refinement.why}, in the order {order}"


def _essentials(record: LayerRecord, known: Registry) -> dict[str, Any]:
    """Config values that differ from the form's defaults and do not show in shapes; of other layers, the plain ones."""
    defaults: Mapping[str, Any] = NOTHING
    if record.form:
        form = known.form(record.form)
        shown_by_shapes = {key for key, _ in form.sizes}
        defaults = {key: value for key, value in form.config.items() if key not in shown_by_shapes}
    ignored = known.framework("keras").ignore
    found = {}
    for key, value in record.config.items():
        if key == "version" or (key not in defaults if record.form else key in ignored):
            continue
        value = plain(value)
        if value != plain(defaults.get(key)) and value not in UNREMARKABLE:
            found[key] = value
    return found


def plain(value: Any) -> Any:
    """A config value for people: of a serialised object its name."""
    if isinstance(value, Mapping):
        inner = value.get("config")
        return inner if isinstance(inner, str) else value.get("class_name", "...")
    if isinstance(value, (list, tuple)):
        same = value and all(v == value[0] and not isinstance(v, (list, tuple)) for v in value)
        return value[0] if same else list(value)
    return value
