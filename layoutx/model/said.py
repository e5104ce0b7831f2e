"""What the user says of layers, by name or by pattern: places (--pair), forms (--form), config values (--set)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from itertools import chain
from typing import Any

from layoutx.errors import UsageError
from layoutx.model.identify import ORIGIN
from layoutx.model.mapfile import INNER
from layoutx.model.record import LayerRecord, ModelRecord
from layoutx.spec.registry import Registry

STACKED = "stacked"  # of a path, not of a layer: which axis of the tensors below it counts layers (model/stacked.py)
PARTS = "parts"  # of a path: which rows of the layer there are whose, `query 6, key 6, value 6` (model/fused.py)
OF_PATHS = (STACKED, PARTS)


def pairs_said(pairs: Mapping[str, str], *names: Collection[str]) -> dict[str, str]:
    """Every pair by name: `layers.*.wq: blocks.*.query` is one for each layer that it fits, by its name before that.

    A `*` is any text, the same in both names, in their order; either side's name may stand first.

    Args:
        names: of the layers of each model, and of what holds them: a pattern means the first of these that it fits.

    Raises:
        UsageError: patterns of no layer, of unlike numbers of `*`, that give a layer several places or one that is not
            there; all of it.
    """
    known = {name for own in names for name in own}
    plain = {one: other for one, other in pairs.items() if "*" not in one or one in known}
    made: dict[str, dict[str, str]] = {}  # layer -> pattern -> place
    wrong = []
    for one, other in pairs.items():
        if one in plain:
            continue
        if one.count("*") != other.count("*"):
            wrong.append(f"{one}={other} has {one.count('*')} * on one side and {other.count('*')} on the other")
            continue
        found = next((found for own in names if (found := _written_out(one, other, own))), {})
        lost = [place for place in found.values() if place not in known and INNER.sub("", place) not in known]
        if not found:
            wrong.append(f"no layer has a name like {one}")
        elif lost:
            wrong.append(f"{one}={other} gives {len(lost)} layers a place that is not there, the first {lost[0]}")
        for name, place in found.items():
            made.setdefault(name, {})[f"{one}={other}"] = place
    told = {*plain, *plain.values()}
    made = {name: ways for name, ways in made.items() if name not in told and told.isdisjoint(ways.values())}
    twice = {tuple(ways): name for name, ways in made.items() if len(set(ways.values())) > 1}  # one for all alike
    wrong += [f"{name} is given several places: {', '.join(ways)}" for ways, name in twice.items()]
    if wrong:
        some = ", ".join(list(names[0])[:20])
        do = "a * stands for the same text in both names: --pair 'layers.*.wq=blocks.*.query'"
        raise UsageError("--pair: " + "; ".join(wrong), why=f"the layers are {some}", do=do)
    return {name: next(iter(ways.values())) for name, ways in made.items()} | plain


def _written_out(one: str, other: str, names: Iterable[str]) -> dict[str, str]:
    """Of each name that fits the first pattern: what the second one is with the same texts."""
    pattern, parts = re.compile("(.+?)".join(map(re.escape, one.split("*")))), other.split("*")
    found = {name: match.groups() for name in names if (match := pattern.fullmatch(name))}
    return {name: "".join(chain(*zip(parts, (*texts, ""), strict=True))) for name, texts in found.items()}


def pair_option(name: str, place: str) -> str:
    """The option that says a pair: as a pattern where both names count whole parts alike (`layers.3.wq`)."""
    parts = [re.split(r"([./])", text) for text in (name, place)]
    numbers = [[part for part in own if part.isdigit()] for own in parts]
    if not numbers[0] or numbers[0] != numbers[1]:
        return f"--pair {name}={place}"
    one, other = ("".join("*" if part.isdigit() else part for part in own) for own in parts)
    return f"--pair '{one}={other}'"


def forms_said(forms: Mapping[str, str], model: ModelRecord) -> dict[str, str]:
    """Layer -> the form that the user gave it: by its own name before any pattern.

    Raises:
        UsageError: a name or pattern of no layer; two patterns that give one layer different forms.
    """
    names = [record.name for record in model.layers if record.tensors]
    every = {record.name for record in model.layers}
    unknown = [key for key in forms if key not in every and not _meant(key, names)]
    if unknown:
        raise UsageError(f"--form names no layer: {', '.join(unknown)}", why=f"the layers are {', '.join(names)}")
    found = {name: form for name, form in forms.items() if name in every}
    for name in names:
        said = {key: form for key, form in forms.items() if key not in every and fnmatchcase(name, key)}
        if name in found or not said:
            continue
        if len(set(said.values())) > 1:
            ways = ", ".join(f"{key}={form}" for key, form in said.items())
            raise UsageError(f"--form gives {name} several forms: {ways}", do=f"name the layer itself: {name}=FORM")
        found[name] = next(iter(said.values()))
    return found


def values_said(values: Mapping[str, Any], layer: str) -> dict[str, Any]:
    """The config values that the user gave one layer: `key` for all, `pattern.key`, `layer.key`; the nearest wins."""
    values = {key: value for key, value in values.items() if key.rpartition(".")[2] not in OF_PATHS}
    if not values:
        return {}
    found = {key: value for key, value in values.items() if "." not in key}
    parts = [(*key.rpartition("."), value) for key, value in values.items() if "." in key]
    found |= {key: value for name, _, key, value in parts if name != layer and fnmatchcase(layer, name)}
    return found | {key: value for name, _, key, value in parts if name == layer}


def stacks_said(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the user says of layers that are kept as one, in whichever model there are such."""
    return {key: value for key, value in values.items() if key.rpartition(".")[2] in OF_PATHS}


def check_values(values: Mapping[str, Any], model: ModelRecord, registry: Registry, known: Iterable[str] = ()) -> None:
    """Refuse values that nothing reads: the user would take them for heard.

    Args:
        known: keys that stand beside the layers of this model.

    Raises:
        UsageError: a key that no layer reads, or a pattern that no layer has.
    """
    layers = [record for record in model.layers if record.tensors]
    values = {said: value for said, value in values.items() if said.rpartition(".")[2] not in OF_PATHS}
    for said in values:
        name, dot, _ = said.rpartition(".")
        if dot and not _meant(name, [record.name for record in layers]):
            names = ", ".join(record.name for record in layers[:20])
            raise UsageError(f"--set {said} names no layer: {name!r}", why=f"the layers are {names}")
    unread = [said for said in values if not any(_reads(record, said, registry) for record in layers)]
    if unread:
        read = {key for record in layers if record.form for key in registry.form(record.form).config}
        keys = ", ".join(sorted({key for key in (*known, *ORIGIN) if key in read})) or "none of the kind"
        raise UsageError(
            f"--set names no config key that a layer of this model reads: {', '.join(unread)}",
            why=f"keys that files leave out: {keys}",
            do="`layoutx specs show FORM` lists the keys of a form",
        )


def _reads(record: LayerRecord, said: str, registry: Registry) -> bool:
    """Whether a value is meant for this layer and read by its form; a layer without a form is refused for itself."""
    key = said.rpartition(".")[2]
    if key not in values_said({said: None}, record.name):
        return False
    return key in registry.form(record.form).config if record.form else "." in said


def _meant(pattern: str, names: Iterable[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for name in names)
