"""What the scopes of TensorFlow 1 names tell: which cell or layer made the variables, and which run both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from layoutx.empty import NOTHING
from layoutx.model.keras_leaves import snake
from layoutx.model.keyed import Keyed
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.bind import bind
from layoutx.spec.guess import Guess
from layoutx.spec.registry import Registry

RECURRENT = ("lstm", "gru", "simple_rnn")
NORMS = ("BatchNorm", "LayerNorm", "InstanceNorm", "GroupNorm")  # their scopes, tensorflow 1.15 contrib/layers
# bidirectional_dynamic_rnn of tensorflow 2.21 python/ops/rnn.py: variables lie in `<scope>/fw/<cell>` and `.../bw/...`
_SIDE = re.compile(r"(?P<front>(?:.+\.)?)(?P<side>fw|bw)\.(?P<cell>[^.]+)\.(?P<rest>.+)")
# what people call layers of a kind in short: of forms that fit alike, those are meant
SHORT = {"conv": ("conv",), "conv_transpose": ("conv_transpose", "deconv", "upconv"), "layer_norm": ("ln",)}
_CELL = re.compile(r"rnn|cell|lstm|gru")


def both_ways(names: Mapping[str, str]) -> dict[str, str]:
    """Dotted names, those of two cells that read in both directions as of one layer: `x.fw.cell.kernel` becomes
    `x.cell.fw.kernel`.

    Cells stacked in each direction stay apart: the outputs of the directions are joined after the last one only.
    """
    sides: dict[tuple[str, str], dict[str, set[str]]] = {}
    matches = {name: _SIDE.fullmatch(name) for name in names}
    for match in matches.values():
        if match is not None:
            sides.setdefault((match["front"], match["cell"]), {}).setdefault(match["side"], set()).add(match["rest"])
    one = {key for key, found in sides.items() if len(found) == 2 and found["fw"] == found["bw"] and _flat(found["fw"])}
    changed = {}
    for name, own in names.items():
        match = matches[name]
        paired = match is not None and (match["front"], match["cell"]) in one
        new = f"{match['front']}{match['cell']}.{match['side']}.{match['rest']}" if match and paired else name
        changed[new if new not in names else name] = own
    return changed


def _flat(rest: Iterable[str]) -> bool:
    """Whether variables are those of one cell: `kernel`, `gates.kernel`, `projection.kernel`."""
    return all(name.count(".") < 2 and "cell_" not in name for name in rest)


def spoken(found: Sequence[Guess], path: str, registry: Registry) -> list[Guess]:
    """Of the forms that fit, those of which the path speaks; a path that speaks of no cell is no cell's.

    Cells and layers that nobody names have the scopes `basic_lstm_cell`, `lstm_cell`, `gru_cell`, `basic_rnn_cell`,
    `dense`, `conv2d`, `batch_normalization` (tf_keras 2.21 legacy_cells.py and legacy_tf_layers), `LayerNorm`,
    `InstanceNorm` (tensorflow 1.15 contrib/layers); names that people give hold such a word, `Conv2d_1a_3x3`.
    """
    parts = [part for part in re.split(r"[./]", path) if part]
    for part in reversed(parts):
        own = _named(found, part, registry)
        if own:
            return [replace(g, why=f"the scope {part!r}; {g.why}") for g in own]
    cells = [g for g in found if registry.kind_of(g.form).name in RECURRENT]
    others = [g for g in found if g not in cells]
    if cells and others and not any(_CELL.search(part.lower()) for part in parts):
        return [replace(g, why=f"no scope of {path!r} speaks of a recurrent cell; {g.why}") for g in others]
    return list(found)


def _named(found: Sequence[Guess], part: str, registry: Registry) -> list[Guess]:
    """The forms whose class a scope is called after; else those whose word stands in it, the longest word first.

    A cell is meant by its whole name only: `coupled_input_forget_gate_lstm_cell` is no `lstm_cell`.
    """
    scope = re.sub(r"_\d+$", "", snake(part))
    words = {g.form: snake(registry.form(g.form).class_name.rsplit(".", 1)[-1]) for g in found}
    exact = [g for g in found if words[g.form] == scope]
    if exact:
        return exact
    text = f"_{scope}_"
    plain = re.sub(r"(?<=[a-z])\d+(?=_)", "", text)
    held = {}
    for g in found:
        kind = registry.kind_of(g.form).name
        own = () if kind in RECURRENT else (words[g.form], *SHORT.get(kind, ()))
        held[g.form] = max((len(word) for word in own if f"_{word}_" in text or f"_{word}_" in plain), default=0)
    longest = max(held.values(), default=0)
    return [g for g in found if longest and held[g.form] == longest]


def giving(found: Sequence[Guess], record: LayerRecord, keyed: Keyed, registry: Registry) -> list[Guess]:
    """Of the forms that fit, those that give as many channels as the norm in their scope takes, where there is one."""
    own = (keyed.tensors.get(f"{record.name}.{norm}.{name}") for norm in NORMS for name in ("beta", "gamma"))
    width = next((tensor.shape[-1] for tensor in own if tensor is not None and tensor.shape), None)
    if width is None:
        return list(found)
    shapes = {name: tensor.shape for name, tensor in record.tensors.items()}

    def given(g: Guess) -> int:
        kind, form = registry.kind_of(g.form), registry.form(g.form)
        sizes = bind(kind, form, {**form.config, **g.config}, shapes=shapes).sizes
        return prod(sizes.get(axis, 1) for axis in ("group", "out", "output"))

    return [g for g in found if given(g) == width] or list(found)


def normalised(layers: Sequence[LayerRecord]) -> list[LayerRecord]:
    """The layers, a norm in the scope of another layer as what alone reads it.

    tensorflow 1.15 contrib/layers: `normalizer_fn` is called on the layer's own output, within its scope, and takes
    the place of its bias.
    """
    bare = {one.name for one in layers if one.form and not any("bias" in name for name in one.tensors)}
    norms = {one.name: one.name.rpartition(".") for one in layers if one.form}
    inside = {name: scope for name, (scope, _, last) in norms.items() if last in NORMS and scope in bare}
    return [replace(one, alone=inside.get(one.name, one.alone)) for one in layers]


def with_assumed(model: ModelRecord, registry: Registry, values: Mapping[str, Any] = NOTHING) -> ModelRecord:
    """The model, each record with a note of the defaults by which its stored numbers are read (`forget_bias`).

    Args:
        values: what the user said, which is not assumed.
    """
    return replace(model, layers=tuple(_assumed(record, registry, values) for record in model.layers))


def _assumed(record: LayerRecord, registry: Registry, values: Mapping[str, Any]) -> LayerRecord:
    if not record.form or record.form not in registry.forms:
        return record
    form = registry.form(record.form)
    keys = {key for cases in form.maps.values() for case in cases for key in case.value.keys}
    said = [
        f"{key}={form.config[key]} is the default of {form.class_name}: the file does not say it (--set {key}=...)"
        for key in sorted(keys)
        if key not in values and key not in record.config
    ]
    return replace(record, note="; ".join(filter(None, [record.note, *said])))
