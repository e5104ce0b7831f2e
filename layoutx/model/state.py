"""A state dict without its module: layers from module paths, forms from names and shapes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError
from layoutx.files.store import Store, Tensor
from layoutx.model.bare import bare_names, stands_alone
from layoutx.model.einsum import EINSUM, einsum_record
from layoutx.model.identify import meaning, undecided
from layoutx.model.keyed import Keyed
from layoutx.model.noted import apart, decided, noted_of
from layoutx.model.parametrized import refusal, sites
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.model.said import values_said
from layoutx.spec.guess import Guess, guess, held_by
from layoutx.spec.memo import Memo, key_of
from layoutx.spec.registry import Registry

MOST_TENSORS, DEEPEST = 40, 5  # of a layer: an attention with all its norms, a cell in a direction in a wrapper
_DOT = re.compile(r"\.")
NO_FORM = "no form fits its tensors"
RUN = "form from the module's class, as a run of it shows"
_STACK = re.compile(r"^(?P<role>\w+?)_l(?P<layer>\d+)(?P<reverse>_reverse)?$")


def state_records(
    keyed: Keyed, registry: Registry, values: Mapping[str, Any] = NOTHING, forms: Collection[str] = ()
) -> ModelRecord:
    """Layers in order of first appearance; a module path whose tensors fit several forms is left without one.

    A form may take in what lies below its module (attention with its `out_proj`, a cell with `ii/kernel`): the
    outermost module whose tensors are all that one form holds is the layer.

    Args:
        values: config values that the user adds, where shapes alone do not tell a layout.
        forms: names and patterns of the layers that the user gives a form: where all that a module holds has one, the
            module itself is none.
    """
    keyed = replace(keyed, tensors=keyed.distinct().tensors) if keyed.framework == "paddle" else keyed
    noted = noted_of(keyed.store, keyed.framework)
    if noted and forms:  # what the user says comes before the certificate
        said = [t.name for n, t in keyed.tensors.items() if any(fnmatchcase(n.rpartition(".")[0], f) for f in forms)]
        noted = {name: one for name, one in noted.items() if name not in {*said}}
    keyed = replace(keyed, noted=noted)
    parts = {name: _note(refusal(site)) for site in sites(keyed) for name in site.parts.values()}
    layers = _layers("", {name: name for name in keyed.tensors}, keyed, registry, values, forms)
    full = {tensor.name: name for name, tensor in keyed.tensors.items()} if parts else {}
    bare = bare_names(keyed, registry)
    below = cache(partial(_below, keyed))
    named = partial(_named, bare=bare, keyed=keyed, below=below, forms=forms)
    layers = [own for record in layers for own in named(_in_parts(record, parts, full))]
    if keyed.framework == "tf1":
        from layoutx.model.tf1_scopes import normalised

        layers = normalised(layers)
    order = {tensor.name: at for at, tensor in enumerate(keyed.tensors.values())}
    layers.sort(key=lambda record: min(order[tensor.name] for tensor in record.tensors.values()))
    store = keyed.store or Store(Path("<state dict>"), "live", {**keyed.tensors, **keyed.kept})
    tied = {name: f"the same tensor as {first}" for name, first in keyed.tied.items() if name not in keyed.tensors}
    return ModelRecord(keyed.framework, "", tuple(layers), store, {**keyed.leftover, **keyed.beside, **tied})


def _below(keyed: Keyed) -> Counter[str]:
    """Module path with a dot -> how many tensors lie below it."""
    return Counter(name[: dot.end()] for name in keyed.tensors for dot in _DOT.finditer(name))


def _named(
    record: LayerRecord,
    bare: Mapping[str, tuple[str, ...]],
    keyed: Keyed,
    below: Callable[[], Mapping[str, int]],
    forms: Collection[str],
) -> list[LayerRecord]:
    """Parameters outside any layer, each under its own name: the model's ("" is no path to type), or a block's.

    A module that holds nothing else is no layer either, unless the user gives it a form.
    """
    if record.form or record.note != NO_FORM:
        return [record]
    start = f"{record.name}." if record.name else ""
    holds = {start + short: tensor for short, tensor in record.tensors.items()}
    known = [n for n in holds if not start or n in bare]
    holder = bool(start and known) and below()[start] > sum(n in keyed.tensors for n in holds)
    alone = len(known) == len(holds) and all(stands_alone(n, bare[n]) for n in known if start)
    alone = alone and not any(fnmatchcase(record.name, form) for form in forms)
    own = [n for n in known if not start or holder or alone]
    rest = {short: tensor for short, tensor in record.tensors.items() if start + short not in own}
    each = [replace(record, name=name, tensors={name.rpartition(".")[2]: holds[name]}) for name in own]
    return [*([replace(record, tensors=rest)] if rest else []), *each]


def _in_parts(record: LayerRecord, parts: Mapping[str, str], full: Mapping[str, str]) -> LayerRecord:
    """A layer of whose tensors one is but a part of a weight has no form, whatever its shapes would fit.

    Args:
        parts: dotted name of a part -> why; full: the file's name -> the dotted one, where there are any.
    """
    said = [parts[full[t.name]] for t in record.tensors.values() if full[t.name] in parts] if parts else []
    return replace(record, form="", class_name="", config={}, note=said[0]) if said else record


def _note(error: LayoutxError) -> str:
    return "; ".join(text for text in (error.line, error.do) if text)


def _layers(
    prefix: str,
    below: Mapping[str, str],
    keyed: Keyed,
    registry: Registry,
    values: Mapping[str, Any],
    forms: Collection[str],
) -> list[LayerRecord]:
    """The layers of one module: itself, or what it holds directly and the layers of its submodules."""
    module = keyed.modules.get(prefix)
    if module is not None and module.names and set(module.names.values()) <= set(below.values()):
        held = {short: keyed.tensors[full] for short, full in module.names.items()}
        whole = LayerRecord(prefix, module.class_name, module.form, module.config, held, note=RUN)
        rest = {short: full for short, full in below.items() if full not in module.names.values()}
        return [whole, *(_layers(prefix, rest, keyed, registry, values, forms) if rest else [])]
    inner: dict[str, dict[str, str]] = {}
    for short, full in below.items():
        head, dot, tail = short.partition(".")
        if dot:
            inner.setdefault(head, {})[tail] = full
    direct = {short: full for short, full in below.items() if "." not in short}
    found = (
        (_cells(prefix, inner, keyed, registry, values) or _whole(prefix, below, keyed, registry, values))
        if inner and not (forms and _apart(prefix, below, forms))
        else []
    )
    if found:
        return found
    if direct:
        found = _instances(prefix, direct, keyed, registry, values)
    for head, rest in inner.items():
        found += _layers(f"{prefix}.{head}" if prefix else head, rest, keyed, registry, values, forms)
    return found


def _apart(prefix: str, below: Mapping[str, str], forms: Collection[str]) -> bool:
    """Whether the user gives each of the modules that a module holds a form, and not the module itself."""
    paths = {short.rpartition(".")[0] for short in below}
    if "" in paths or any(fnmatchcase(prefix, one) for one in forms):
        return False
    names = [f"{prefix}.{path}" if prefix else path for path in paths]
    return all(any(fnmatchcase(name, one) for one in forms) for name in names)


def _cells(
    prefix: str, inner: Mapping[str, Mapping[str, str]], keyed: Keyed, registry: Registry, values: Mapping[str, Any]
) -> list[LayerRecord]:
    """One record a layer of a stacked recurrent module that numbers its cells, `0.cell.weight_ih` (paddle)."""
    cells = [name for rest in inner.values() for name in rest]
    if len(inner) < 2 or not all(key.isdigit() for key in inner) or not all(name.startswith("cell") for name in cells):
        return []
    found = []
    for number, rest in inner.items():
        first = {f"0.{short}": keyed.tensors[full] for short, full in rest.items()}
        formed = _formed(_record("", first, {}), _guesses(_record("", first, {}), keyed, registry, values), registry)
        own = {f"{number}.{short}": keyed.tensors[full] for short, full in rest.items()}
        found.append(_record(f"{prefix}/layer_{number}", own, {"layer": int(number)}, formed))
    return found


def _whole(
    prefix: str, below: Mapping[str, str], keyed: Keyed, registry: Registry, values: Mapping[str, Any]
) -> list[LayerRecord]:
    """A module whose form takes in its submodules; [] where none does."""
    if len(below) > MOST_TENSORS or max(short.count(".") for short in below) > DEEPEST:
        return []
    slash = _slashed(registry, keyed.framework)
    tensors = {short.replace(".", "/") if slash else short: keyed.tensors[full] for short, full in below.items()}
    if apart(tensors.values(), keyed.noted):
        return []
    record = _record(prefix, tensors, {})
    found = _guesses(record, keyed, registry, values)
    return [_formed(record, found, registry)] if found else []


def _guesses(record: LayerRecord, keyed: Keyed, registry: Registry, values: Mapping[str, Any]) -> list[Guess]:
    """The forms that fit by their names; where the live module's class is known, those of its class, with its config.

    Names decide: what lies in a tree under other names has no order that could stand for them.
    """
    module = keyed.modules.get(record.name)
    shapes = {name: tensor.shape for name, tensor in record.tensors.items()}
    if keyed.framework == "tf1":
        from layoutx.model.tf1_scopes import giving, spoken

        found = guess(registry, "tf1", shapes, known=values_said(values, record.name))
        return spoken(giving(found, record, keyed, registry), record.name, registry)
    if module is not None and module.form and registry.form(module.form).by_class:
        found = held_by(registry, module.form, shapes)
    else:
        found = guess(registry, keyed.framework, shapes, record.name, values_said(values, record.name))
        found = decided(found, record.tensors.values(), keyed.noted) if keyed.noted else found
    if module is None or not module.form:
        return found
    own = [g for g in found if g.form == module.form]
    return [replace(g, config={**g.config, **module.config}, why=f"the module's class; {g.why}") for g in own]


def _slashed(registry: Registry, framework: str) -> bool:
    """Whether the specs of a framework spell paths inside a layer with "/"."""
    return _spelling.get((registry,), key_of(framework), lambda: _spells(registry, framework))


_spelling: Memo[bool] = Memo()


def _spells(registry: Registry, framework: str) -> bool:
    """Asked of the names alone, so that no form has to be read for it."""
    own = f"{framework}."
    return any("/" in name for form, names in registry.tensor_names().items() if form.startswith(own) for name in names)


def _instances(
    prefix: str, direct: Mapping[str, str], keyed: Keyed, registry: Registry, values: Mapping[str, Any]
) -> list[LayerRecord]:
    """One record, or one a layer of a stacked recurrent module."""
    matches = {short: _STACK.match(short) for short in direct}
    if not all(matches.values()):
        record = _record(prefix, {short: keyed.tensors[full] for short, full in direct.items()}, {})
        told = _einsum(record, keyed, registry, values)
        if told is not None:
            return [told]
        return [_formed(record, _guesses(record, keyed, registry, values), registry)]
    stacks: dict[int, dict[str, Tensor]] = {}
    for short, full in direct.items():
        match = matches[short]
        assert match is not None
        stacks.setdefault(int(match["layer"]), {})[short] = keyed.tensors[full]
    found = []
    for number, tensors in sorted(stacks.items()):
        name = prefix if len(stacks) == 1 else f"{prefix}/layer_{number}"
        first = {re.sub(r"_l\d+", "_l0", short, count=1): tensor for short, tensor in tensors.items()}
        formed = _formed(
            _record(name, first, {"layer": number}),
            _guesses(_record(name, first, {}), keyed, registry, values),
            registry,
        )
        own = {re.sub(r"_l0", f"_l{number}", short, count=1): tensor for short, tensor in formed.tensors.items()}
        found.append(_record(name, own, {"layer": number}, formed))
    return found


def _einsum(record: LayerRecord, keyed: Keyed, registry: Registry, values: Mapping[str, Any]) -> LayerRecord | None:
    """An Einsum whose equation the live module tells, or the user of this layer; None for all others."""
    form, module = f"{keyed.framework}.Einsum", keyed.modules.get(record.name)
    if form not in registry.forms or "kernel" not in record.tensors or (module and module.form not in ("", form)):
        return None
    said = values_said({key: value for key, value in values.items() if "." in key}, record.name)
    config = dict(module.config) if module and module.form == form else {}
    equation = said.get(EINSUM) or config.get(EINSUM)
    if not equation:
        return None
    note = "form from the module's class" if module and module.form else f"form from its equation {equation}"
    return einsum_record(
        replace(record, class_name="Einsum", form=form, config={**config, EINSUM: equation}, note=note)
    )


def _record(
    name: str, tensors: Mapping[str, Tensor], instance: Mapping[str, int], like: LayerRecord | None = None
) -> LayerRecord:
    if like is None:
        return LayerRecord(name, "", "", {}, tensors, instance)
    return LayerRecord(name, like.class_name, like.form, like.config, tensors, instance, note=like.note)


def _formed(record: LayerRecord, found: list[Guess], registry: Registry) -> LayerRecord:
    if len({meaning(g, registry) for g in found}) != 1:
        note = undecided(record.name, found, registry) if found else NO_FORM
        return LayerRecord(record.name, "", "", {}, record.tensors, record.instance, note=note)
    first = found[0]
    tensors = dict(zip(first.names, record.tensors.values(), strict=True))
    name = first.form.split(".", 1)[1]
    return LayerRecord(
        record.name, name, first.form, first.config, tensors, record.instance, note=f"form from {first.why}"
    )
