"""Layers paired with the places of another model: one assignment over all evidence; never by a lucky size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError, MatchError, UsageError, raise_all
from layoutx.frozen import frozen
from layoutx.model.constants import all_constant, one_row, untrained
from layoutx.model.keyed import Keyed
from layoutx.model.matching.evidence import clues, place_name
from layoutx.model.matching.neighbours import neighbours_of
from layoutx.model.matching.outcome import Choice, Outcome, alike, contradicted, settle
from layoutx.model.matching.values import Numbers
from layoutx.model.matching.wiring import Wires, at_inputs, keyed_wires
from layoutx.model.order import keeps_order
from layoutx.model.places import Candidate, candidates, index_of
from layoutx.model.record import LayerRecord
from layoutx.model.several import one_in_several, several_in_one
from layoutx.model.storing import Layer
from layoutx.model.unmatched import (
    ambiguous,
    crowded,
    homeless,
    refused_words,
    squeezed,
    untold,
)
from layoutx.spec.registry import Registry

BY_THE_USER = "paired by the user"
MOST_READ = 64  # layers or tensors without a counterpart: of more it is another model, whose numbers tell nothing
MOST_PAIRS = 2_000_000  # of a layer and a place: comparing them takes a minute and 2.5 GB


@frozen
class Pair:
    """A layer and its place in the keyed model, with the reason for the pairing and how sure it is (0 to 1).

    `alike`: where it could be exchanged with other layers, which habits of naming and order alone tell apart: the first
    of all these.
    """

    record: LayerRecord
    candidate: Candidate
    reason: str
    confidence: float = 1.0
    alike: str = ""


@frozen
class Matching:
    """All layers and what became of them: a pair, places between which nothing decides, or none.

    Attributes:
        pairs: in the layers' order.
        open: layer -> its candidates, the likeliest first.
        lost: layer -> the error that says why it has no place.
        options: layer -> every place that fits.
    """

    pairs: tuple[Pair, ...]
    open: Mapping[str, tuple[Candidate, ...]]
    lost: Mapping[str, LayoutxError]
    options: Mapping[str, Sequence[Candidate]]


def matched(
    layers: Sequence[Layer],
    keyed: Keyed,
    registry: Registry,
    fixed: Mapping[str, str],
    *,
    ordered: bool = True,
    orders: Sequence[Sequence[str]] = (),
    wires: Wires | None = None,
    values: Mapping[str, Any] = NOTHING,
    read: bool = True,
) -> Matching:
    """Find every layer's place, without raising for those that have none.

    Args:
        layers: all of them with a form, in model order where that is known.
        keyed: the other model.
        fixed: layer name -> module path (`rnn`, or `rnn/layer_1` of a stacked module), decided by the user.
        ordered: the layers' order is the model's; else only the numbers in their names tell it.
        orders: names of all of the model's layers in every order in which it may define them, the likeliest first.
        wires: who feeds whom among the layers.
        values: config values that the user adds, where a file of names and numbers does not tell a layout.
        read: compare the numbers of both models from the start; False: only where nothing else decides.

    Raises:
        UsageError: `fixed` names no layer.
        MatchError: more layers of one shape and places for them than can be compared.
    """
    index = index_of(keyed, registry, layers, fixed)
    options = {layer.record.name: candidates(layer, keyed, registry, values, index) for layer in layers}
    unknown = [name for name in fixed if name not in options]
    if unknown:
        raise UsageError(f"--pair names no layer: {', '.join(unknown)}", why=f"the layers are {', '.join(options)}")
    for name, place in fixed.items():
        wanted = place.replace("/", ".")
        options[name] = [c for c in options[name] if wanted in (c.prefix, place_name(c).replace("/", "."))]
    lost: dict[str, LayoutxError] = {
        x.record.name: homeless(x, keyed, registry, fixed.get(x.record.name), at_inputs(wires, x.record.name), layers)
        for x in layers
        if not options[x.record.name]
    }
    if sum(map(len, options.values())) > MOST_PAIRS:
        raise crowded([x for x in layers if options[x.record.name]], options)
    found = clues([x for x in layers if x.record.name not in lost], options, (ordered, keeps_order(keyed)), orders)
    there = keyed_wires(keyed) if wires is not None else None
    found.wires = neighbours_of(wires, there, options) if wires is not None and there is not None else None
    found.numbers = Numbers() if read else None
    outcome = settle(found, keyed, None if read else Numbers)
    by_name = {layer.record.name: layer for layer in layers}
    lost |= {name: squeezed(by_name[name], options[name], outcome.owners()) for name in outcome.lost}
    doubts = {name: own for name, own in contradicted(found, outcome).items() if name not in fixed}
    placed = outcome.chosen.keys() - doubts.keys()
    like = alike(found, outcome)
    pairs = [_pair(layer, outcome, fixed, like) for layer in layers if layer.record.name in placed]
    return Matching(tuple(pairs), {**outcome.open, **doubts}, lost, options)


def _pair(layer: Layer, outcome: Outcome, fixed: Mapping[str, str], like: Mapping[str, str]) -> Pair:
    choice: Choice = outcome.chosen[layer.record.name]
    if layer.record.name in fixed:
        choice = replace(choice, reason=BY_THE_USER, confidence=1.0)
    first = like.get(layer.record.name, "")
    return Pair(layer.record, choice.candidate, choice.reason, choice.confidence, first)


def pair(
    layers: Sequence[Layer],
    keyed: Keyed,
    registry: Registry,
    fixed: Mapping[str, str],
    *,
    whole: bool = True,
    ordered: bool = True,
    orders: Sequence[Sequence[str]] = (),
    wires: Wires | None = None,
    spare: Collection[str] = (),
    values: Mapping[str, Any] = NOTHING,
) -> list[Pair]:
    """Give every layer its place, or refuse; what nobody trained needs none, on either side.

    Args:
        layers, keyed, fixed, ordered, orders, wires, values: as for `matched`.
        whole: every name of the keyed model must be taken by a layer.
        spare: names of the keyed model that may stay as they are.

    Raises:
        UsageError: `fixed` names no layer.
        MatchError: layers without a place, places without a layer, or several ways to pair them; all together.
    """
    found = matched(
        layers, keyed, registry, fixed, ordered=ordered, orders=orders, wires=wires, values=values, read=False
    )
    by_name = {layer.record.name: layer for layer in layers}
    lone = found.lost.keys() - fixed.keys() if len(found.lost) <= MOST_READ else set()
    free = {name for name in lone if all_constant(by_name[name].record.tensors)}
    lost = {name: error for name, error in found.lost.items() if name not in free}
    few = [by_name[name] for name in lost] if len(lost) <= MOST_READ else []
    rest = unused_names(found.pairs, keyed)
    left = several_in_one(few, rest, keyed) or one_in_several(few, rest, keyed)
    nowhere = [error for name, error in lost.items() if not found.options[name]]
    raise_all([*nowhere, *left] if nowhere else [], "layers without a place")
    problems: list[LayoutxError] = [
        ambiguous(layer, found.open[name], keyed) if (name := layer.record.name) in found.open else lost[name]
        for layer in layers
        if layer.record.name in found.open or layer.record.name in lost
    ]
    problems += left
    problems += [untold(by_name[match.record.name], match.candidate) for match in found.pairs if match.candidate.open]
    unused = [name for name in rest if name not in spare] if whole else []
    made = untrained({name: keyed.tensors[name] for name in unused}) if len(unused) <= MOST_READ else {}
    unused = [name for name in unused if name not in made]
    if unused and not problems:
        problems.append(_no_layer(unused, found.pairs, keyed, registry))
    raise_all(problems, "the two models could not be paired")
    return list(found.pairs)


def unused_names(pairs: Sequence[Pair], keyed: Keyed) -> list[str]:
    """The tensors that no layer has; one of two names is used by either of them."""
    taken = {full for match in pairs for full in match.candidate.names.values()}
    held = {keyed.tied.get(name, name) for name in taken}
    return [name for name in keyed.tensors if keyed.tied.get(name, name) not in held and name not in taken]


def _no_layer(unused: Sequence[str], pairs: Sequence[Pair], keyed: Keyed, registry: Registry) -> MatchError:
    """Tensors of a model to which nothing goes: of a class that is refused, or of a layer with other settings."""
    owners = {match.candidate.prefix: match.record.name for match in pairs}
    others = [
        f"{name} is in the place of {owner}, which has nothing for it: the two layers have other settings"
        for name in unused[:3]
        if (owner := owners.get(name.rpartition(".")[0]))
    ]
    return MatchError(
        f"{len(unused)} tensors of the {keyed.framework} model have no layer",
        where=", ".join(unused[:8]) + (", ..." if len(unused) > 8 else ""),
        why=refused_words(unused, registry, keyed.framework) or "; ".join(others),
        do=_left(unused, keyed),
    )


def _left(unused: Sequence[str], keyed: Keyed) -> str:
    """What can be done about tensors without a layer."""
    rows = [name for name in unused if one_row(keyed.tensors[name])]
    if len(rows) < len(unused):
        return f"leave it as it is (a buffer, say): --skip {unused[0]}; or pair it: --pair LAYER=MODULE"
    return (
        f"{rows[0]} has one row, which the model adds everywhere, and the other model has none: if this is the target, "
        "set it to zero; of the source, add it to each row of the table of positions and then set it to zero"
    )
