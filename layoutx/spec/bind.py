"""Form + config + shapes -> BoundForm: conditions chosen, sizes solved, every atom placed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import BindError, LayoutxError, raise_all
from layoutx.lang.place import Block, place, shape_of
from layoutx.lang.show import show
from layoutx.lang.sizes import extent
from layoutx.lang.tree import Product, Sum
from layoutx.spec.bound import Atom, BoundForm, BoundTensor, Place, atom_text
from layoutx.spec.draft import Draft, aliases_of, drafts_of, labels_of
from layoutx.spec.expand import axis_names
from layoutx.spec.frame import Frame, frame_of, reads_of, renamed, values_at
from layoutx.spec.memo import Memo, key_of
from layoutx.spec.objects import spelled
from layoutx.spec.schema import Cases, Form, Kind, Reading, choose, plain
from layoutx.spec.sizing import sizes_of
from layoutx.spec.values import SAME, ValueMap

UNKNOWN = "unknown"  # stands in a config for what the file does not say and nobody may guess


def bind(
    kind: Kind,
    form: Form,
    config: Mapping[str, Any] = NOTHING,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    sizes: Mapping[str, int] = NOTHING,
    refine: Mapping[str, str] = NOTHING,
    instance: Mapping[str, Any] = NOTHING,
    omit: Collection[str] = (),
) -> BoundForm:
    """Bind a form to one layer.

    Args:
        config: the layer's config; what is missing takes the form's defaults.
        shapes: tensor name -> stored shape, where the tensors are at hand: optional tensors that are
            not in it are absent, and every dimension is an equation for the sizes.
        sizes: axis -> length, where known from elsewhere.
        refine: axis -> layout dims that it is made of, as `{"input": "(h w c)"}`.
        instance: the value of the form's `each` axis, as `{"layer": 1}`.
        omit: optional tensors that this layer does not have.

    Raises:
        BindError: a requirement of the form that the config does not meet, a tensor missing or unknown,
            a size that nothing determines.
        SizeError: shapes and config contradict each other.
    """
    reads = reads_of(form)
    stored = None if shapes is None else [(name, tuple(shape)) for name, shape in shapes.items()]
    read = values_at(reads.all, config)
    key = key_of(read, stored, dict(sizes), dict(refine), dict(instance), sorted(omit))

    def made() -> BoundForm:
        new = _bind(kind, form, config, shapes, sizes, refine, instance, omit)
        return new.of_layer(new.config, key)

    found = _bound.get((kind, form), key, made)
    full = {**form.config, **config}
    for name in found.sized:
        full[name] = found.config[name]
    return found.of_layer(full, found.key)  # one key for all of them


_bound: Memo[BoundForm] = Memo(2048)
_meanings: Memo[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = Memo()


def _bind(
    kind: Kind,
    form: Form,
    config: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]] | None,
    sizes: Mapping[str, int],
    refine: Mapping[str, str],
    instance: Mapping[str, Any],
    omit: Collection[str],
) -> BoundForm:
    full = {**form.config, **config}
    _require(form, full)
    frame = frame_of(kind, form, full, shapes=shapes, sizes=sizes, refine=refine, instance=instance, omit=omit)
    solved = sizes_of(form, full, config, frame.layer, shapes, dict(sizes))
    sized = _sized(form, config, solved, frame)
    full |= sized
    if not sized.keys().isdisjoint(reads_of(form).decide):
        equal, pinned = renamed(form, full, frame.spatial)
        frame = replace(frame, equal=equal, pinned=pinned)
    tensors, places = _places(form, frame, solved)
    read = values_at(reads_of(form).mean, full)
    facts, settings, data = _meanings.get((kind, form), key_of(read), lambda: _meaning(kind, form, full))
    maps = _maps(kind, form, full, places)
    return BoundForm(form, kind, full, solved, tensors, places, facts, settings, frame.labels, data, maps, tuple(sized))


def _meaning(kind: Kind, form: Form, full: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Facts, settings, and the order of the data."""
    facts = {name: _fact(form, name, full, known.default) for name, known in kind.facts.items()}
    settings = {name: _setting(cases, full) for name, cases in form.settings.items()}
    data = {name: choose(cases, full) or () for name, cases in form.data.items()}
    return facts, settings, data


def _maps(kind: Kind, form: Form, config: Mapping[str, Any], places: Mapping[Atom, Place]) -> dict[Atom, ValueMap]:
    """Atom -> the map of its values; the spec names a role, or some labels of it: `b_input.f`."""
    aliases = aliases_of(kind)
    found: dict[Atom, ValueMap] = {}
    for pattern, cases in form.maps.items():
        role, *labels = pattern.split(".")
        wanted = {aliases.get(label, label) for label in labels}
        if role not in kind.roles or wanted - {label for known in kind.labels.values() for label in known}:
            raise BindError(f"{pattern} names no numbers of the kind {kind.name}", where=f"{form.name}: maps")
        spec = choose(cases, config)
        if spec is None:
            continue
        try:
            value = spec.bound(config)
        except KeyError as error:
            raise BindError(
                f"{form.name} needs a number for {error.args[0]}",
                where=f"its config has {error.args[0]}={config.get(error.args[0])!r}",
                why=f"the framework changes {pattern} by it while it runs",
                do="give it in the config",
            ) from error
        if value != SAME:
            found.update({atom: value for atom in places if atom[0] == role and wanted <= {x for _, x in atom[1]}})
    return found


def _sized(form: Form, config: Mapping[str, Any], sizes: Mapping[str, int], frame: Frame) -> dict[str, int]:
    """Config values that the sizes decide where nobody gave them: a default of 32 groups is not this layer's 7."""
    found = {}
    for key, dim, dims, _ in frame.layer.keyed:
        unsaid = key not in config and not isinstance(dim, tuple) and type(form.config.get(key)) is int
        if unsaid and axis_names(dims) <= sizes.keys():
            found[key] = extent(Product(dims), sizes)
    return found


def tensor_names(
    kind: Kind, form: Form, config: Mapping[str, Any] = NOTHING, instance: Mapping[str, Any] = NOTHING
) -> tuple[str, ...]:
    """The tensors that a layer of this config has, optional ones included, in the form's order."""
    full = {**form.config, **config}
    key = key_of(values_at(reads_of(form).decide, full), dict(instance))
    return _names.get((kind, form), key, lambda: _tensor_names(kind, form, full, instance))


_names: Memo[tuple[str, ...]] = Memo()


def _tensor_names(kind: Kind, form: Form, full: Mapping[str, Any], instance: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(draft.name for draft in drafts_of(kind, form, full, labels_of(kind, form, full), instance, None, ()))


def _require(form: Form, config: Mapping[str, Any]) -> None:
    problems: list[LayoutxError] = []
    for key, allowed, why in form.require:
        value = config.get(key)
        if value is not None and plain(value) not in allowed:
            wanted = " or ".join(map(repr, allowed))
            only = f"is described for {key}={wanted} only, not {value!r}"
            only = only if type(allowed) is tuple else f"is not described for {key}={value!r}"
            do = f"say it: --set {key}=VALUE (in Python, values={{{key!r}: ...}})" if value == UNKNOWN else ""
            problems.append(BindError(f"{form.name} {only}", why=why, do=do))
    raise_all(problems, f"{form.name} does not hold for this config")


def _places(form: Form, frame: Frame, sizes: Mapping[str, int]) -> tuple[tuple[BoundTensor, ...], dict[Atom, Place]]:
    tensors: list[BoundTensor] = []
    places: dict[Atom, Place] = {}
    for draft in frame.drafts:
        blocks = []
        for block in place(draft.layout, sizes, draft.labels):
            named = _named(block, frame, draft, form)
            atom = (named.role, named.labels)
            if atom in places:
                raise BindError(
                    f"{atom_text(atom)} is stored twice", where=f"{form.name}: {places[atom].tensor}, {draft.name}"
                )
            places[atom] = Place(draft.name, named)
            blocks.append(named)
        stored = replace(draft.layout, dims=draft.stored) if draft.cut else draft.layout
        cut = _cut(draft, sizes) if draft.cut else None
        tensors.append(BoundTensor(draft.name, shape_of(stored, sizes), stored, tuple(blocks), draft.dtype, cut))
    return tuple(tensors), places


def _cut(draft: Draft, sizes: Mapping[str, int]) -> tuple[int, int, int] | None:
    """Rows, blocks and columns of a tensor that is cut along its enumerated axis."""
    leaves = [leaf for dim in draft.cut for leaf in (dim.dims if isinstance(dim, Product) else (dim,))]
    at = next((i for i, leaf in enumerate(leaves) if isinstance(leaf, Sum)), None)
    if at is None:
        return None
    rows, columns = (extent(Product(tuple(part)), sizes) for part in (leaves[:at], leaves[at + 1 :]))
    return rows, extent(leaves[at], sizes), columns


def _named(block: Block, frame: Frame, draft: Draft, form: Form) -> Block:
    """A block with its strides under the role's own axis names; every axis must be covered exactly once."""
    role = frame.axes.get(block.role)
    if role is None:
        why = f"roles: {', '.join(frame.axes)}"
        raise BindError(f"the kind has no role {block.role!r}", where=_where(form, draft), why=why)
    own = block.labels
    if own not in role:
        wanted = {axis for combination in role for axis, _ in combination}
        own = tuple((axis, label) for axis, label in own if axis in wanted)
    if own not in role:
        what = f"{block.role} is not stored with all its enumerated axes"
        raise BindError(what, where=_where(form, draft), why=f"found {dict(own)}")
    strides: dict[str, int] = {}
    used: set[str] = set()
    for axis in role[own]:
        written = frame.equal.get(axis) or axis
        used.add(written)
        if written in block.strides:
            strides[axis] = block.strides[written]
        elif axis not in frame.pinned:
            raise BindError(
                f"the axis {axis} of {block.role} is not stored",
                where=_where(form, draft),
                do="name it in the layout, or `pin` it to 1",
            )
    extra = block.strides.keys() - used
    if extra:
        raise BindError(f"{block.role} has no axis {', '.join(sorted(extra))}", where=_where(form, draft))
    return Block(block.role, own, block.offset, strides, block.negated)


def _where(form: Form, draft: Draft) -> str:
    return f"{form.name} {draft.name}: {show(draft.layout)}"


def _fact(form: Form, name: str, config: Mapping[str, Any], default: Any) -> Any:
    if name not in form.facts:
        return default
    value = choose(form.facts[name], config)
    if isinstance(value, Reading):
        return _read(value, config)
    return default if value is None else value


def _read(reading: Reading, config: Mapping[str, Any]) -> Any:
    value = config.get(reading.config)
    if isinstance(value, Mapping):  # a serialised Keras object: {"class_name": ..., "config": ...}
        value = spelled(value)
    return reading.values.get(str(value), value)


def _setting(cases: Cases, config: Mapping[str, Any]) -> Any:
    reading = choose(cases, config)
    if not isinstance(reading, Reading):
        return reading
    value = _read(reading, config)
    if reading.complement and isinstance(value, (int, float)):
        return round(1.0 - value, 12)
    return value
