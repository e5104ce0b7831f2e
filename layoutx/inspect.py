"""What a model is made of, from a file or a live model: each layer with its form, each tensor with its named axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError
from layoutx.files.blob import bytes_of
from layoutx.files.certificate import certificate_of
from layoutx.files.guarded import intact
from layoutx.files.open import open_store
from layoutx.files.store import Store, Tensor
from layoutx.model.bindings import bind_record, refine_of
from layoutx.model.callables import built
from layoutx.model.graph import OURS
from layoutx.model.load import live_source, model_of, says_itself, with_forms
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.stacked import check_stacked
from layoutx.plan.naming import with_sizes
from layoutx.show.views import LayerView, ModelView, TensorView
from layoutx.spec.bound import BoundForm
from layoutx.spec.expand import axis_names
from layoutx.spec.registry import Registry, registry

UNREMARKABLE: tuple[Any, ...] = (None, False, "channels_last", "keras", "tensorflow", [], {})


@intact()
def inspect(
    model: Any,
    *,
    forms: Mapping[str, str] = NOTHING,
    specs: Sequence[str | PathLike[str]] = (),
    input_shape: Sequence[int] | None = None,
    from_: str = "",
    values: Mapping[str, Any] = NOTHING,
) -> ModelView:
    """The layers and tensors of a file or a live model; no weight is read, and the model is not run.

    Args:
        model: a path, `package.module:callable`, a torch module, a Keras model, or a tree or module of jax, mlx or
            paddle.
        forms: layer or pattern -> form, where the file cannot tell.
        specs: more spec folders.
        input_shape: the model's input without batch, where the config does not say it.
        from_: whose names a file or a mapping of named tensors holds, where it does not show.
        values: config values that a file does not say ({"release": "1.0.5"}), for all layers that read them, or
            for some ({"up.transpose_kernel": True}).

    Returns:
        A `ModelView`, layer by layer, `view["lstm_1"]`; numbers are read when `arrays()`, `part()` or `stats()` ask
        for them.

    Raises:
        UsageError: no such file or callable. FileError, ModelError: it cannot be read.
    """
    known = registry(specs)
    model = built(model)
    if isinstance(model, (str, PathLike)):
        store = open_store(Path(model))
        read = partial(model_of, store, known, input_shape=input_shape, framework=from_, values=values)
        record = read(forms)
        certified = _certified(store, record, known) if not forms else {}
        if certified and (says_itself(store) or values or record.framework == "tf1"):
            record = _said(read(certified), certified)
        elif certified:  # of names and shapes alone: the layers are the same, and only their forms were missing
            record = _said(_formed(record, known, certified), certified)
    else:
        record = live_source(model, known, forms, values, from_)
        store = record.store
    check_stacked(values, record)
    return view_of(record, store, known)


def _certified(store: Store, model: ModelRecord, known: Registry) -> dict[str, str]:
    """Layer -> form, as the file's certificate says it, for those that names and shapes do not decide."""
    layers = (certificate_of(store) or {}).get("layers")
    said = {}
    for entry in layers if isinstance(layers, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and str(entry.get("target")) in known.forms:
            said[entry["name"].replace("/", ".")] = str(entry["target"])
    return {r.name: said[r.name] for r in model.layers if not r.form and r.tensors and r.name in said}


def _formed(model: ModelRecord, known: Registry, certified: Mapping[str, str]) -> ModelRecord:
    """The model with the certificate's forms, without a second look at its other layers."""
    open_ = replace(model, layers=tuple(record for record in model.layers if record.name in certified))
    found = {record.name: record for record in with_forms(open_, known, certified).layers}
    return replace(model, layers=tuple(found.get(record.name, record) for record in model.layers))


def _said(model: ModelRecord, certified: Mapping[str, str]) -> ModelRecord:
    note = "form from the file's certificate"
    layers = tuple(replace(r, note=note) if r.name in certified else r for r in model.layers)
    return replace(model, layers=layers)


def view_of(model: ModelRecord, store: Store, known: Registry) -> ModelView:
    """A model's records as a view."""
    ordered = store.format != "weights.h5" or store.config is not None
    layers, seen = [], dict[str, int]()
    for record in model.layers:
        for tensor in record.tensors.values():
            seen.setdefault(tensor.name, len(seen))
        layers.append(_layer(record, known, seen if ordered else {}))
    return ModelView(
        file=store.path.name if store.format != "live" else "",
        format=store.format,
        framework=model.framework,
        version=model.version,
        layers=tuple(layers),
        leftover=dict(model.leftover),
        certificate=certificate_of(store),
        bytes=bytes_of(store),
    )


def _layer(record: LayerRecord, known: Registry, positions: Mapping[str, int]) -> LayerView:
    bound, problem, last, first, own = None, "", dict[str, str](), dict[str, str](), dict[str, str]()
    if record.form and record.tensors:
        try:
            bound = bind_record(record, known)
            last = refine_of(record, known, "keras")
            first = {axis: r.first for axis, r in record.refine.items() if axis in last}
            own = refine_of(record, known, bound.form.framework)
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
        first,
        own,
        record.pieces,
        record.inputs,
        record.called,
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
    orders = refine_of(record, known, known.form(record.form).framework)
    for axis, refinement in record.refine.items():
        order = orders.get(axis, axis)
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
        if key == "version" or key.startswith(OURS) or (key not in defaults if record.form else key in ignored):
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
