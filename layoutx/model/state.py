"""A state dict without its module: layers from module paths, forms from names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from layoutx.files.store import Store, Tensor
from layoutx.model.identify import guesses
from layoutx.model.keyed import Keyed, prefixes
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.guess import Guess
from layoutx.spec.registry import Registry

_STACK = re.compile(r"^(?P<role>\w+?)_l(?P<layer>\d+)(?P<reverse>_reverse)?$")


def state_records(keyed: Keyed, registry: Registry) -> ModelRecord:
    """Layers in order of first appearance; a module path whose tensors fit several forms is left without one."""
    done: set[str] = set()
    layers: list[LayerRecord] = []
    for prefix in prefixes(keyed.tensors):
        below = {short: full for short, full in keyed.under(prefix).items() if full not in done}
        direct = {short: full for short, full in below.items() if "." not in short}
        if not direct:
            continue
        found = _whole(prefix, below, keyed, registry) if below.keys() != direct.keys() else []
        found = found or _instances(prefix, direct, keyed, registry)
        layers += found
        done |= {tensor.name for record in found for tensor in record.tensors.values()}
    store = keyed.store or Store(Path("<state dict>"), "live", keyed.tensors)
    return ModelRecord(keyed.framework, "", tuple(layers), store)


def _whole(prefix: str, below: Mapping[str, str], keyed: Keyed, registry: Registry) -> list[LayerRecord]:
    """A module whose form takes in its submodules (attention with its out_proj); [] where none does."""
    record = _record(prefix, {short: keyed.tensors[full] for short, full in below.items()}, {})
    found = guesses(record, registry, keyed.framework)
    return [_formed(record, found)] if len({g.form for g in found}) == 1 else []


def _instances(prefix: str, direct: Mapping[str, str], keyed: Keyed, registry: Registry) -> list[LayerRecord]:
    """One record, or one a layer of a stacked recurrent module."""
    matches = {short: _STACK.match(short) for short in direct}
    if not all(matches.values()):
        record = _record(prefix, {short: keyed.tensors[full] for short, full in direct.items()}, {})
        return [_formed(record, guesses(record, registry, keyed.framework))]
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
            _record(name, first, {"layer": number}), guesses(_record(name, first, {}), registry, keyed.framework)
        )
        own = {re.sub(r"_l0", f"_l{number}", short, count=1): tensor for short, tensor in formed.tensors.items()}
        found.append(_record(name, own, {"layer": number}, formed))
    return found


def _record(
    name: str, tensors: Mapping[str, Tensor], instance: Mapping[str, int], like: LayerRecord | None = None
) -> LayerRecord:
    if like is None:
        return LayerRecord(name, "", "", {}, tensors, instance)
    return LayerRecord(name, like.class_name, like.form, like.config, tensors, instance, note=like.note)


def _formed(record: LayerRecord, found: list[Guess]) -> LayerRecord:
    forms = list(dict.fromkeys(g.form for g in found))
    if len(forms) != 1:
        note = f"its tensors fit {', '.join(forms)}: say which with --form" if forms else "no form fits its tensors"
        return LayerRecord(record.name, "", "", {}, record.tensors, record.instance, note=note)
    first = found[0]
    tensors = dict(zip(first.names, record.tensors.values(), strict=True))
    name = first.form.split(".", 1)[1]
    return LayerRecord(
        record.name, name, first.form, first.config, tensors, record.instance, note=f"form from {first.why}"
    )
