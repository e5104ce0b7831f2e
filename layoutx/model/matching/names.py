"""What names tell: equal ones, words in common, and numbers that count alike, from whatever number they start."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import compress
from math import log

from layoutx.frozen import frozen
from layoutx.model.order import counted

_PART = re.compile(r"\d+|[a-z]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_RANK = re.compile(r"(?<=[a-z])[123]d(?![a-z])")  # conv2d: two dimensions, not the second
# what stands for a word by habit
SHORT = {"q": "query", "k": "key", "v": "value", "wq": "query", "wk": "key", "wv": "value", "wo": "o"}
SHORT |= {"attn": "attention", "shortcut": "downsample", "mu": "mean", "cls": "class"}
SHORTEST = 3  # letters by which a word is known: enc of encoder


@frozen
class Name:
    """A layer's path taken apart: its words, its numbers, and what it is without these (`blocks.#.norm#`).

    `counted`: the numbers in which names of this skeleton differ: not those of `resnet_v1_50`.
    """

    text: str
    words: tuple[str, ...]
    numbers: tuple[int, ...]
    skeleton: str
    counted: tuple[int, ...] = ()


def named(text: str) -> Name:
    """A name in its parts: `encoder/conv2d_3` has the words encoder, conv, the number 3."""
    low = _RANK.sub("", _CAMEL.sub("_", text).lower())
    parts = _PART.findall(low)
    words = tuple(SHORT.get(p, p) for p in parts if not p.isdigit())
    return Name(text, words, tuple(int(p) for p in parts if p.isdigit()), re.sub(r"\d+", "#", low))


def all_named(texts: Iterable[str]) -> dict[str, Name]:
    """The names of one model: where `dense` stands beside `dense_1` it is the first of that series, number 0."""
    texts = list(texts)
    series = {counted(text) for text in texts if counted(text) != text}
    found = {text: named(f"{text}_0" if text in series else text) for text in texts}
    families: dict[str, list[tuple[int, ...]]] = {}
    for name in found.values():
        families.setdefault(name.skeleton, []).append(name.numbers)
    vary = {skeleton: [len(set(column)) > 1 for column in zip(*own, strict=True)] for skeleton, own in families.items()}
    return {
        text: replace(name, counted=tuple(compress(name.numbers, vary[name.skeleton]))) for text, name in found.items()
    }


def likeness(left: Iterable[str], right: Iterable[str], weight: Mapping[str, float]) -> float:
    """The share of the words of both names that they have in common, rare ones counting more; 0 to 1."""
    here, there = set(left), set(right)
    common = sum(max((weight.get(b, 1.0) for b in there if _same(a, b)), default=0.0) for a in here)
    total = sum(weight.get(w, 1.0) for w in here | there)
    return min(1.0, 2 * common / (total + common)) if total + common else 0.0


def rarity(names: Sequence[Name]) -> dict[str, float]:
    """Word -> how much it tells between these names: nothing where all have it."""
    many = Counter(word for name in names for word in set(name.words))
    return {word: log((1 + len(names)) / (n + 0.0)) if n < len(names) else 0.0 for word, n in many.items()}


def _same(a: str, b: str) -> bool:
    return a == b or (min(len(a), len(b)) >= SHORTEST and (a.startswith(b) or b.startswith(a)))


@frozen
class Said:
    """What the names of a layer and a place say.

    Attributes:
        equal: what it is worth that they are equal.
        alike: how alike they are.
        both: their skeletons.
        shift: what to add to each number of the one for those of the other; None where they have not as many.
    """

    here: Name
    there: Name
    equal: float
    alike: float
    both: tuple[str, str]
    shift: tuple[int, ...] | None


def said_of(left: Name, right: Name, equal: float, alike: float) -> Said:
    """What two names say, the numbers compared once for all the rounds of a matching."""
    here, there = left.numbers, right.numbers
    if len(here) != len(there):
        here, there = left.counted, right.counted
    many = len(here) == len(there) and bool(here or not left.numbers)
    shift = tuple(b - a for a, b in zip(here, there, strict=True)) if many else None
    return Said(left, right, equal, alike, (left.skeleton, right.skeleton), shift)


def shifts(pairs: Iterable[Said]) -> dict[tuple[str, str], tuple[int, ...]]:
    """By how much the numbers of two families differ: the one shift under which most names have a counterpart.

    Args:
        pairs: names of every layer and every place that it fits; of a layer that has its place, that alone.

    Returns:
        (skeleton, skeleton) -> what to add to each number; families without one such shift are left out. A shift
        that leaves a layer without any place is none: 0, 3, 5 are not 0, 1, 2 though 5 - 2 and 3 - 0 agree. One of
        a single name is none either: any two numbers have a difference.
    """
    votes: dict[tuple[str, str], dict[tuple[int, ...], set[str]]] = {}
    families: dict[str, set[tuple[str, str]]] = {}
    for said in pairs:
        name = said.here.text
        families.setdefault(name, set()).add(said.both)
        if said.shift:
            votes.setdefault(said.both, {}).setdefault(said.shift, set()).add(name)
    alone: dict[tuple[str, str], set[str]] = {}  # names that fit nowhere else
    for name, own in families.items():
        if len(own) == 1:
            alone.setdefault(next(iter(own)), set()).add(name)
    best = {}
    for both, counts in votes.items():
        bound = alone.get(both, set())
        counts = {shift: names for shift, names in counts.items() if bound <= names}
        most = max(map(len, counts.values()), default=0)
        top = [shift for shift, names in counts.items() if len(names) == most]
        if len(top) == 1 and most > 1:
            best[both] = top[0]
    return best


def shifted(said: Said, known: Mapping[tuple[str, str], tuple[int, ...]]) -> bool | None:
    """Whether two numbers correspond; None where nothing is known of their families."""
    shift = known.get(said.both)
    return None if shift is None else said.shift == shift


def series_of(names: Sequence[Name]) -> list[tuple[int, ...]] | None:
    """The numbers of names that differ in nothing else; None where they are no such series."""
    numbers = [name.numbers for name in names]
    one = len({name.skeleton for name in names}) == 1 and len(set(numbers)) == len(numbers)
    return numbers if one and all(numbers) else None
