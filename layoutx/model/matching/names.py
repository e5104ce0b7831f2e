"""What names tell: equal ones, words in common, and numbers that count alike, from whatever number they start."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import log

from layoutx.model.order import counted

_PART = re.compile(r"\d+|[a-z]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_RANK = re.compile(r"(?<=[a-z])[123]d(?![a-z])")  # conv2d: two dimensions, not the second
SHORTEST = 3  # letters by which a word is known: enc of encoder


@dataclass(frozen=True, slots=True)
class Name:
    """A layer's path taken apart: its words, its numbers, and what it is without these (`blocks.#.norm#`)."""

    text: str
    words: tuple[str, ...]
    numbers: tuple[int, ...]
    skeleton: str


def named(text: str) -> Name:
    """A name in its parts: `encoder/conv2d_3` has the words encoder, conv, the number 3."""
    low = _RANK.sub("", _CAMEL.sub("_", text).lower())
    parts = _PART.findall(low)
    words = tuple(p for p in parts if not p.isdigit())
    return Name(text, words, tuple(int(p) for p in parts if p.isdigit()), re.sub(r"\d+", "#", low))


def all_named(texts: Iterable[str]) -> dict[str, Name]:
    """The names of one model: where `dense` stands beside `dense_1` it is the first of that series, number 0."""
    texts = list(texts)
    series = {counted(text) for text in texts if counted(text) != text}
    return {text: named(f"{text}_0" if text in series else text) for text in texts}


def likeness(left: Name, right: Name, weight: Mapping[str, float]) -> float:
    """The share of the words of both that they have in common, rare ones counting more; 0 to 1."""
    here, there = set(left.words), set(right.words)
    common = sum(max((weight.get(b, 1.0) for b in there if _same(a, b)), default=0.0) for a in here)
    total = sum(weight.get(w, 1.0) for w in here | there)
    return min(1.0, 2 * common / (total + common)) if total + common else 0.0


def rarity(names: Sequence[Name]) -> dict[str, float]:
    """Word -> how much it tells between these names: nothing where all have it."""
    many = Counter(word for name in names for word in set(name.words))
    return {word: log((1 + len(names)) / (n + 0.0)) if n < len(names) else 0.0 for word, n in many.items()}


def _same(a: str, b: str) -> bool:
    return a == b or (min(len(a), len(b)) >= SHORTEST and (a.startswith(b) or b.startswith(a)))


Pairs = Sequence[tuple[Name, Name]]


def shifts(pairs: Pairs) -> dict[tuple[str, str], tuple[int, ...]]:
    """By how much the numbers of two families differ: the one shift under which most names have a counterpart.

    Args:
        pairs: names of every layer and every place that it fits; of a layer that has its place, that alone.

    Returns:
        (skeleton, skeleton) -> what to add to each number; families without one such shift are left out. A shift
        that leaves a layer without any place is none: 0, 3, 5 are not 0, 1, 2 though 5 - 2 and 3 - 0 agree.
    """
    votes: dict[tuple[str, str], dict[tuple[int, ...], set[str]]] = {}
    families: dict[str, set[tuple[str, str]]] = {}
    for left, right in pairs:
        both = (left.skeleton, right.skeleton)
        families.setdefault(left.text, set()).add(both)
        if left.numbers and len(left.numbers) == len(right.numbers):
            shift = tuple(b - a for a, b in zip(left.numbers, right.numbers, strict=True))
            votes.setdefault(both, {}).setdefault(shift, set()).add(left.text)
    best = {}
    for both, counts in votes.items():
        bound = {name for name, own in families.items() if own == {both}}  # those that fit nowhere else
        counts = {shift: names for shift, names in counts.items() if bound <= names}
        most = max(map(len, counts.values()), default=0)
        top = [shift for shift, names in counts.items() if len(names) == most]
        if len(top) == 1:
            best[both] = top[0]
    return best


def shifted(left: Name, right: Name, known: Mapping[tuple[str, str], tuple[int, ...]]) -> bool | None:
    """Whether two numbers correspond; None where nothing is known of their families."""
    shift = known.get((left.skeleton, right.skeleton))
    if shift is None:
        return None
    return all(a + d == b for a, b, d in zip(left.numbers, right.numbers, shift, strict=True))
