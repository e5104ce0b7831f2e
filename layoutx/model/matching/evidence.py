"""What speaks for each pair of a layer and a place, kind by kind, in one table of scores."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

from layoutx.model.keyed import Keyed
from layoutx.model.matching.doubts import beside, disordered, kept
from layoutx.model.matching.groups import together
from layoutx.model.matching.habits import contradicted, unruly
from layoutx.model.matching.names import Said, all_named, likeness, rarity, said_of, series_of, shifted, shifts
from layoutx.model.matching.neighbours import Neighbours, known_as
from layoutx.model.matching.peers import among_peers
from layoutx.model.matching.sequence import aligned
from layoutx.model.matching.values import Numbers
from layoutx.model.order import counted
from layoutx.model.places import Candidate, plain
from layoutx.model.storing import Layer

# What a full agreement of each kind is worth: nothing outweighs the same numbers, a margin of DECIDES decides.
SAME_NUMBERS, SAME_NAME, SAME_END, WORDS, COUNTED, ORDER, WIRED = 20.0, 3.0, 2.5, 1.5, 2.0, 2.0, 2.0
CAME_ALIKE = 2.0  # neighbours in the same ways: this alone decides before any habit does, however many there are
BESIDE = 1.0  # of what nothing feeds
ALIKE = 0.001  # the order of a few layers where that of the whole is not kept: it ranks, and does not decide
DECIDES = 0.5

NUMBERS = "the same numbers"
NAME = "same name"
COUNT = "numbered in this order"
IN_ORDER = "same order, shapes fit"
WIRING = "wired alike"
WORD = "similar name"
PEERS = "beside the same layers"

Scores = dict[str, float]  # kind of evidence -> what it is worth
Table = dict[tuple[str, int], Scores]  # (layer, number of its candidate) -> scores


@dataclass
class Clues:
    """What is known of both models, gathered once.

    Attributes:
        said: of every pair what its names say.
        texts: layer -> the name that speaks for it: its user's, where the file has that beside its own.
        order: whether each side's own order is known.
        wires: of both sides, or None.
        numbers: fingerprints, None where the values are not to be read.
        torn: layers whose numbers count in another order than that in which both models define them.
        solved: scores of a group -> its best assignment, as `assigned` gives it.
        written: the layers' names in every order in which their model may define them, `layers` in the first.
    """

    layers: Sequence[Layer]
    options: Mapping[str, Sequence[Candidate]]
    order: tuple[bool, bool]
    wires: Neighbours | None = None
    numbers: Numbers | None = None
    said: Mapping[tuple[str, int], Said] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    read: dict[tuple[str, int], tuple[float, tuple[str, ...]]] = field(default_factory=dict)
    torn: set[str] = field(default_factory=set)
    solved: dict[tuple[Any, ...], tuple[list[int], list[float]]] = field(default_factory=dict)
    written: Sequence[Sequence[str]] = ()


def clues(
    layers: Sequence[Layer],
    options: Mapping[str, Sequence[Candidate]],
    order: tuple[bool, bool],
    orders: Sequence[Sequence[str]] = (),
) -> Clues:
    """What names and order tell, before anything is read or traced; `orders` as `orders_of` gives them."""
    by_name = {layer.record.name: layer for layer in layers}
    written = [own for order_ in orders if len(own := [name for name in order_ if name in by_name]) == len(by_name)]
    layers = [by_name[name] for name in written[0]] if written else layers
    texts = {layer.record.name: layer.record.called or layer.record.name for layer in layers}
    texts = texts if len(set(texts.values())) == len(texts) else {name: name for name in texts}
    here = all_named(texts.values())
    there = all_named({place_name(c) for own in options.values() for c in own})
    rare = rarity([*here.values(), *there.values()])
    alike = cache(lambda left, right: likeness(left, right, rare))  # many names have the same words
    said = {
        (name, at): said_of(left, right, _equal(text, c.prefix), alike(left.words, right.words) + _own_name(text, c))
        for name, text in texts.items()
        for left in (here[text],)
        for at, c in enumerate(options[name])
        for right in (there[place_name(c)],)
    }
    return Clues(layers, options, order, said=said, texts=texts, written=written or [list(by_name)])


def place_name(candidate: Candidate) -> str:
    """What a place is called: its module path, and which of its layers (`rnn/layer_1`)."""
    inner = "".join(f"/{axis}_{n}" for axis, n in candidate.instance.items())
    return f"{candidate.prefix}{inner}"


def table(
    found: Clues,
    rest: Mapping[str, Sequence[int]],
    known: Mapping[str, Candidate],
    keyed: Keyed,
    *,
    ordered: bool,
    counted: bool = True,
) -> Table:
    """Scores of every pair that is still possible.

    Args:
        rest: layer -> the numbers of its candidates that are left.
        known: layers that have their place.
        ordered: the order counts too: a model's own order is that of its definition, not of its calls.
        counted: numbers in the names count too: `up1` may be the last of a decoder.
    """
    scores: Table = {(name, at): {} for name, own in rest.items() for at in own}
    _names(found, rest, known, scores, counted)
    if ordered:
        _ranked(found, rest, scores)
    if found.wires is None and all(found.order):
        _torn(found, scores)
    if ordered and all(found.order):
        _order(found, rest, known, scores)
    if found.wires is not None:
        _wired(found, rest, known, scores)
    if found.numbers is not None:
        _values(found, keyed, scores)
    wired = {name for (name, _), own in scores.items() if own.get(WIRING, 0) > 0}
    places = {(name, at): place_name(found.options[name][at]) for name, at in scores if name not in wired}
    for key, share in among_peers(places, {name: place_name(own) for name, own in known.items()}).items():
        scores[key][PEERS] = BESIDE * share
    return scores


def _names(
    found: Clues,
    rest: Mapping[str, Sequence[int]],
    placed: Mapping[str, Candidate],
    scores: Table,
    counting: bool,
) -> None:
    keys = [*scores, *((n, at) for n, own in placed.items() for at, c in enumerate(found.options[n]) if c is own)]
    known = shifts(found.said[key] for key in keys)
    # Keras counts dense, dense_1, others dense1, dense2: where one of a series has no namesake, the others' say nothing
    met = {key[0] for key in scores if found.said[key].equal}
    doubtful = {counted(found.texts[name]) for name in rest if name not in met}

    def trusted(name: str) -> bool:
        return (series := counted(found.texts[name])) == found.texts[name] or series not in doubtful

    for key, own in scores.items():
        said = found.said[key]
        counts = shifted(said, known)
        if said.equal and (counts or (counts is None and trusted(key[0]))):
            own[NAME] = said.equal
        else:
            own[WORD] = WORDS * said.alike
        if counts and counting:  # of equal names too: else a like name with the same numbers would be worth more
            own[COUNT] = COUNTED


def _equal(name: str, prefix: str) -> float:
    """What it is worth that a layer's name is a path, or one of them the end of the other; 0 where it is neither."""
    if plain(prefix) == plain(name):
        return SAME_NAME
    inner = plain(prefix) in _ends(name) or plain(name) in _ends(prefix)
    return SAME_END if inner or plain(prefix.rpartition(".")[2]) == plain(name) else 0.0


def _own_name(name: str, place: Candidate) -> float:
    """1 where a parameter that belongs to no layer is called alike on both sides, whatever holds it."""
    alone = list(place.names.values()) == [place.prefix]
    return float(alone and plain(place.prefix.rpartition(".")[2]) == plain(re.split(r"[./]", name)[-1]))


@lru_cache(65536)  # each name is compared with many
def _ends(path: str) -> frozenset[str]:
    """What is left of a path below the modules around it, of two names or more: the last alone is many layers'."""
    parts = re.split(r"[./]", path)
    return frozenset(plain("".join(parts[at:])) for at in range(1, len(parts) - 1))


def _order(found: Clues, rest: Mapping[str, Sequence[int]], known: Mapping[str, Candidate], scores: Table) -> None:
    """Pairs that every alignment of the two whole orders has, in whichever order a model was written."""
    rows: dict[str, Mapping[int, float]] = {}
    for layer in found.layers:
        name = layer.record.name
        if name in known:
            rows[name] = {known[name].at: 1.0}
            continue
        own = {at: sum(scores[name, at].values()) for at in rest.get(name, ())}
        rows[name] = {found.options[name][at].at: 1.0 + 0.001 * min(worth, 5.0) for at, worth in own.items()}
    by_order, kept = aligned(rows, found.written)
    doubtful = disordered(found, rest, together(found.options, rest), by_order)
    for name, position in by_order.items():
        for at in rest.get(name, ()):
            if found.options[name][at].at == position:
                sure = name in kept and name not in found.torn and name not in doubtful
                scores[name, at][IN_ORDER] = ORDER if sure else ALIKE


def _torn(found: Clues, scores: Table) -> None:
    """Numbers that count against the order of definition: two habits that contradict each other decide nothing."""
    number = {layer.record.name: i for i, layer in enumerate(found.layers)}
    families: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for (name, at), own in scores.items():
        if COUNT in own and not found.options[name][at].instance:
            said = found.said[name, at]
            families.setdefault(said.both, []).append((name, at))
    here = unruly((found.said[layer.record.name, 0].here, i) for i, layer in enumerate(found.layers))
    there = unruly({found.said[key].there: found.options[key[0]][key[1]].at for key in found.said}.items())
    for keys in families.values():
        pairs = [
            ((found.said[key].here, number[key[0]]), (found.said[key].there, found.options[key[0]][key[1]].at))
            for key in keys
        ]
        if contradicted(pairs, here, there):
            found.torn |= {name for name, _ in keys}
    for (name, _), own in scores.items():
        if name in found.torn:
            own.pop(COUNT, None)


def _wired(found: Clues, rest: Mapping[str, Sequence[int]], known: Mapping[str, Candidate], scores: Table) -> None:
    assert found.wires is not None
    met = {name: known_as(candidate) for name, candidate in known.items()}
    for name, own in rest.items():
        told = found.wires.told(name, own, met)
        for at in own:
            right, wrong, alike = told[at]
            if right or wrong or alike:
                share = (right - wrong) / ((right + wrong) or 1.0)
                scores[name, at][WIRING] = WIRED * share * (1 + 0.1 * (right + wrong)) + CAME_ALIKE * alike


def _values(found: Clues, keyed: Keyed, scores: Table) -> None:
    assert found.numbers is not None
    layers = {layer.record.name: layer for layer in found.layers}
    for key in scores:
        if key not in found.read:
            candidate = found.options[key[0]][key[1]]
            layer = layers[key[0]]
            there = {short: keyed.tensors[full] for short, full in candidate.names.items()}
            found.read[key] = (
                (0.0, ())
                if candidate.bound is None
                else found.numbers.agreement(layer.bound, layer.record.tensors, candidate.bound, there)
            )
        share, roles = found.read[key]
        if roles:
            scores[key][NUMBERS] = SAME_NUMBERS * (1 + share) / 2


def _ranked(found: Clues, rest: Mapping[str, Sequence[int]], scores: Table) -> None:
    """Numbers that count alike by rank, where a group of layers and the places that they fit are one series each.

    On a side without numbers its own order stands for them, but only where the other side has no other order.
    """
    for group in together(found.options, rest):
        cells = {place_name(found.options[n][at]): found.options[n][at] for n in group for at in rest[n]}
        if len(cells) != len(group) or len(group) < 2:
            continue
        said = {place_name(found.options[n][at]): found.said[n, at].there for n in group for at in rest[n]}
        mine = series_of([found.said[name, rest[name][0]].here for name in group])
        yours = series_of([said[name] for name in cells])
        number = {layer.record.name: i for i, layer in enumerate(found.layers)}
        stack = len({candidate.prefix for candidate in cells.values()}) == 1  # layers that run one after another
        if (mine is None or stack) and found.order[0] and (stack or not found.order[1]):
            mine = [(number[name],) for name in group]
        ordered = found.order[1] and not found.order[0]
        if yours is None and ordered and kept(found, rest, group) and beside(cells.values()):
            yours = [(candidate.at,) for candidate in cells.values()]
        if mine is None or yours is None:
            continue
        left = [name for _, name in sorted(zip(mine, group, strict=True))]
        right = [name for _, name in sorted(zip(yours, cells, strict=True))]
        for name, place in zip(left, right, strict=True):
            for at in rest[name]:
                if place_name(found.options[name][at]) == place:
                    scores[name, at][COUNT] = COUNTED
