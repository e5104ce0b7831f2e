"""Layers that are one sum of products: dense, convolutions of all kinds, locally connected, embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from layoutx.verify.forward.conv import _conv_pads, _crops, _given, _steps
from layoutx.verify.hand.layer import Hand
from layoutx.verify.hand.steps import Step, Term, summed

Spot = tuple[int, ...]


def dense(hand: Hand, formula: str) -> list[Step]:
    """y = x @ kernel + bias."""
    *lead, o = hand.at
    terms = [hand.term("x", (*lead, i), "kernel", (i, o)) for i in range(hand.values["kernel"].shape[0])]
    return [summed("y", "", formula, terms, hand.biases(["bias"], o))]


def embedding(hand: Hand, formula: str) -> list[Step]:
    """y = the row that x names."""
    *lead, dim = hand.at
    name, number = hand.input("x", *lead)
    table, value = hand.weight("table", int(number), dim)
    return [Step("y", "", formula, value, (), ((name, number), (table, value)))]


def conv(hand: Hand, formula: str) -> list[Step]:
    """The kernel's positions that meet the input; those over the padding add nothing."""
    kernel = hand.values["kernel"]
    _, out, inner, *size = kernel.shape
    b, *place, channel = hand.at
    g, o = divmod(channel, out)
    terms = [
        hand.term("x", (b, *q, g * inner + i), "kernel", (g, o, i, *k))
        for k, q in correlated(hand, size, place, hand.bound.settings)
        for i in range(inner)
    ]
    return [summed("y", _outside(terms, size, inner), formula, terms, hand.biases(["bias"], g, o))]


def correlated(hand: Hand, size: Sequence[int], place: Sequence[int], settings: Any) -> Iterator[tuple[Spot, Spot]]:
    """(kernel position, input position) of every product that an output position sums."""
    space = hand.data["x"].shape[1:-1]
    strides, dilation = _steps("conv", settings, len(size))
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    pads = _conv_pads(_given(settings, "padding", 0), space, reach, strides)
    for k in np.ndindex(*size):
        each = zip(place, strides, k, dilation, pads, strict=True)
        q = tuple(p * s + n * d - lo for p, s, n, d, (lo, _) in each)
        if all(0 <= a < n for a, n in zip(q, space, strict=True)):
            yield k, q


def conv_transpose(hand: Hand, formula: str) -> list[Step]:
    """Every input that scatters a product onto this output."""
    _, inner, out, *size = hand.values["kernel"].shape
    space = hand.data["x"].shape[1:-1]
    settings = hand.bound.settings
    strides, dilation = _steps("conv_transpose", settings, len(size))
    reach = [(k - 1) * d + 1 for k, d in zip(size, dilation, strict=True)]
    crops = _crops(settings, space, reach, strides)
    b, *place, channel = hand.at
    g, o = divmod(channel, out)
    terms = []
    for k in np.ndindex(*size):
        full = [p + lo - n * d for p, (lo, _), n, d in zip(place, crops, k, dilation, strict=True)]
        q = tuple(f // s for f, s in zip(full, strides, strict=True))
        on = all(f % s == 0 for f, s in zip(full, strides, strict=True))
        if on and all(0 <= a < n for a, n in zip(q, space, strict=True)):
            terms += [hand.term("x", (b, *q, g * inner + i), "kernel", (g, i, o, *k)) for i in range(inner)]
    return [summed("y", _outside(terms, size, inner), formula, terms, hand.biases(["bias"], g, o))]


def separable_conv(hand: Hand, formula: str) -> list[Step]:
    """Each channel's own window first, then the mixture of all of them at this place."""
    depthwise = hand.values["depthwise"]
    channels, mult, *size = depthwise.shape
    b, *place, o = hand.at
    inner, terms = [], []
    for c in range(channels):
        for m in range(mult):
            own = [
                hand.term("x", (b, *q, c), "depthwise", (c, m, *k))
                for k, q in correlated(hand, size, place, hand.bound.settings)
            ]
            name = f"d[{c}, {m}]"
            inner.append(summed(name, f"channel {c} through its window", "", own, ()))
            terms.append(Term(name, inner[-1].value, *hand.weight("pointwise", o, c, m)))
    last = summed("y", "", formula, terms, hand.biases(["bias"], o))
    largest = {t.left for t in last.terms[:2]}
    return [*(s for s in inner if s.name in largest), last]


def local(hand: Hand, formula: str) -> list[Step]:
    """A window with weights of its own at every place."""
    kernel = hand.values["kernel"]
    rank = (kernel.ndim - 2) // 2
    size, inner = kernel.shape[rank : 2 * rank], kernel.shape[-2]
    b, *place, o = hand.at
    strides, _ = _steps("conv", hand.bound.settings, rank)
    terms = []
    for k in np.ndindex(*size):
        q = tuple(p * s + n for p, s, n in zip(place, strides, k, strict=True))
        terms += [hand.term("x", (b, *q, i), "kernel", (*place, *k, i, o)) for i in range(inner)]
    return [summed("y", "", formula, terms, hand.biases(["bias"], *place, o))]


def _outside(terms: Sequence[Term], size: Sequence[int], inner: int) -> str:
    total = int(np.prod(size)) * inner
    rest = total - len(terms)
    return f"{rest} of the {total} products lie outside of x, where everything is zero" if rest else ""
