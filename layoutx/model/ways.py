"""What operations without weights do to the ways of values: windows that pool, operands laid beside each other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from layoutx.model.record import Way

JOINED, ACTIVE, SIGMOID, TIMES, GATE = "joined", "active", "sigmoid", "times", "gate"
_KINDS = (
    (re.compile(r"max_?pool(ing)?_?[123]?d?(_?with_?indices)?|reduce_window_max"), "max"),
    (re.compile(r"(avg|average)_?pool(ing)?_?[123]?d?|reduce_window_sum"), "avg"),
    (re.compile(r"cat|concat|concatenate|concatenation|concatv2|[hvd]?stack|pack"), JOINED),
    (re.compile(r"mul|multiply|times"), TIMES),
    (re.compile(r"sigmoid|logistic"), SIGMOID),
    (
        re.compile(
            r"((leaky|hard|quick)_?)?(relu_?6?|gelu\w*|silu|swish|tanh|sigmoid|[cs]?elu|mish)|"
            "erf|softplus|softsign"
        ),
        ACTIVE,
    ),
)


@lru_cache(4096)  # names of operations are the model's: a class of one's own is one too
def kind_of(name: str) -> str:
    """What an operation of any framework does to ways: "max", "avg", JOINED, ACTIVE, SIGMOID, TIMES; "" for all else.

    A pooling over all positions is none: it is written as a mean as well.
    """
    low = name.lower()
    return next((kind for pattern, kind in _KINDS if pattern.fullmatch(low)), "")


def linked(wires: Mapping[str, Iterable[Way]]) -> bool:
    """Whether any layer is known to feed another; `wires`: layer -> what feeds it."""
    return any(way.maker for found in wires.values() for way in found)


def passed(kind: str, groups: Sequence[Sequence[Way]]) -> tuple[Way, ...]:
    """The ways of what an operation makes.

    Args:
        kind: what `kind_of` says of it.
        groups: the ways of each value that it reads, in order; () of one that no layer made.
    """
    if kind == JOINED:
        return _joined(groups)
    if kind == TIMES:
        groups = _gated([group for group in groups if group])
    ways: Iterable[Way] = (way for group in groups for way in group)
    if len({way.of for group in groups for way in group}) > 1:  # a sum of joined values and of one that is not
        ways = (replace(way, at=0, of=1) for way in ways)
    if kind in (ACTIVE, SIGMOID):
        ways = (replace(way, active=kind) for way in ways)
    elif kind and kind != TIMES:
        ways = (replace(way, pooled=tuple(sorted({*way.pooled, kind}))) for way in ways)
    return tuple(dict.fromkeys(ways))


def _gated(groups: Sequence[Sequence[Way]]) -> Sequence[Sequence[Way]]:
    """The factors of a product, those that went through an activation told apart from those that did not.

    What is multiplied by an activation of itself (x * sigmoid(x)) has gone through one. Of two that did, the one behind
    a sigmoid is the gate: tanh(a) * sigmoid(b).
    """
    active = [all(way.active for way in group) for group in groups]
    if len(groups) > 1 and all(active):
        active = [all(way.active == SIGMOID for way in group) for group in groups]
    if len(groups) < 2 or len(set(active)) == 1:
        return groups
    if len({frozenset(way.maker for way in group) for group in groups}) == 1:
        return [[replace(way, active=ACTIVE) for way in group] for group in groups]
    made = []
    for group, gate in zip(groups, active, strict=True):
        tags = (GATE,) if gate else ()
        made.append([replace(way, active="", pooled=tuple(sorted({*way.pooled, *tags}))) for way in group])
    return made


def through(ways: Sequence[Way], last: Way) -> tuple[Way, ...]:
    """The ways of a value at the end of one more way."""
    if last == Way(last.maker):
        return tuple(ways)
    ways = [replace(way, at=last.at, of=last.of) for way in ways] if last.of > 1 else ways
    return tuple(replace(way, pooled=tuple(sorted({*way.pooled, *last.pooled}))) for way in ways)


def _joined(groups: Sequence[Sequence[Way]]) -> tuple[Way, ...]:
    sizes = [max((way.of for way in group), default=1) for group in groups]
    begins = [sum(sizes[:i]) for i in range(len(sizes))]
    made = (
        replace(way, at=begin + way.at, of=sum(sizes))
        for begin, group in zip(begins, groups, strict=True)
        for way in group
    )
    return tuple(dict.fromkeys(made))
