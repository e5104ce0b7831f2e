"""Two runs without weights: what their activations show of each layer and of what lies between the layers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.compare.behind import INPUTS
from layoutx.verify.compare.pairs import Check, Gap, Handed
from layoutx.verify.diagnose.between import UNKNOWN, Found, behind, between
from layoutx.verify.diagnose.ops import activations, merges
from layoutx.verify.diagnose.ways import makes
from layoutx.verify.diagnose.within import FUNCTIONS, Pair, gap_of, said_of, same, within
from layoutx.verify.recording import Call, Recording

BUDGET = 20.0  # seconds for all places together
Alone = Callable[[str, Sequence[Array], Sequence[str]], Sequence[Array]]


def from_runs(
    source: Recording,
    target: Recording,
    checks: Sequence[Check],
    channels: tuple[bool, bool],
    alone: Alone | None = None,
) -> Iterator[Found]:
    """Explain what differs between two runs.

    Args:
        checks: the comparison of the two. channels: whether each framework keeps channels first.
        alone: runs one layer of the target on inputs that it is given; None where it is only recorded.
    """
    end = time.monotonic() + BUDGET
    pairs: list[Pair] = []
    for check in checks:
        pair = _pair(source, target, check, channels, alone, pairs)
        pairs += [pair] if pair is not None else []
    spoilt = False
    for number, pair in enumerate(pairs):
        if time.monotonic() > end:
            return
        if pair.given is not None and not pair.fed_alike and (spoilt or not pair.same):
            found = _before(pair, pairs[:number], spoilt)
            yield from [] if found is None else [found]
        if not pair.right:
            yield within(pair)
        spoilt = spoilt or not pair.same
    ends = _ends(source, target, channels)
    if ends is not None and pairs and not same(*ends):
        found = _between(pairs[-1], "", ends, _earlier(pairs), spoilt)
        yield from [] if found is None else [found]


def _pair(
    source: Recording,
    target: Recording,
    check: Check,
    channels: tuple[bool, bool],
    alone: Alone | None,
    earlier: Sequence[Pair],
) -> Pair | None:
    here = source.of(check.layer, check.call)
    there = target.of(check.place, check.call) or target.of(check.place) if check.place else None
    if here is None or there is None or not here.outputs or not there.outputs:
        return None
    given, order = None, None
    if here.inputs and there.inputs:
        given = (_last(here, here.inputs[0], channels[0]), _last(there, there.inputs[0], channels[1]))
        order = _flattened(given, earlier) if channels[0] != channels[1] else None
        given = (given[0], _aligned(given[0], given[1] if order is None else given[1][:, order]))
    gave = (_last(here, here.outputs[0], channels[0]), _last(there, there.outputs[0], channels[1]))
    own = None
    if alone is not None and given is not None and not same(*given) and given[0].shape == given[1].shape:
        fed = given[0] if order is None else given[0][:, np.argsort(order)]
        own = _alone(alone, there, _back(there, fed, channels[1]))
        own = _aligned(gave[0], _last(there, own, channels[1])) if own is not None else None
    return _with_activation(
        Pair(check, given, (gave[0], _aligned(*gave)), here.class_name, own=own, rows=order is not None)
    )


def _with_activation(pair: Pair) -> Pair:
    """A layer that ends with an activation in one framework and not in the other is the same layer."""
    here, there = pair.gave[0], pair.gave[1] if pair.own is None else pair.own
    if here.ndim == there.ndim and 2 * here.shape[-1] == there.shape[-1]:
        return next((replace(pair, merge=op) for op in merges() if makes(there, (op,), here)), pair)
    if here.shape != there.shape or same(here, there):
        return pair
    for op in activations():
        if makes(there, (op,), here):
            return replace(pair, act=op.name)
        if makes(here, (op,), there):
            return replace(pair, gave=(op.apply(here), pair.gave[1]))
    return pair


def _flattened(given: tuple[Array, Array], earlier: Sequence[Pair]) -> Array | None:
    """The order in which the target's columns are the source's, behind a map that each flattens in its own order."""
    maps = [pair.gave[0] for pair in reversed(earlier) if pair.gave[0].ndim > 3][:1]
    if not maps or given[0].ndim != 2 or given[0].shape != given[1].shape or same(*given):
        return None
    channels, many = maps[0].shape[-1], given[0].shape[1]
    if many % channels or many == channels:
        return None
    order = np.arange(many).reshape(channels, -1).T.reshape(-1)
    plain, turned = (float(np.abs(given[0] - array).sum()) for array in (given[1], given[1][:, order]))
    return order if turned < plain else None


def _alone(alone: Alone, call: Call, x: Array) -> Array | None:
    """What the target's layer gives of the source's own input."""
    try:
        own = alone(call.layer, (x, *call.inputs[1:]), call.names)
    except Exception:  # frameworks raise what they like
        return None
    return own[0] if len(own) else None


def _last(call: Call, array: Array, first: bool) -> Array:
    """A map with its channels last."""
    flat = array.ndim == 3 and "1d" in call.class_name.lower()
    moves = first and (array.ndim > 3 or flat)
    return np.asarray(np.moveaxis(array, 1, -1) if moves else array, np.float64)


def _back(call: Call, array: Array, first: bool) -> Array:
    flat = array.ndim == 3 and "1d" in call.class_name.lower()
    like = call.inputs[0].dtype
    return np.ascontiguousarray(np.moveaxis(array, -1, 1) if first and (array.ndim > 3 or flat) else array).astype(like)


def _aligned(left: Array, right: Array) -> Array:
    """The second with batch and time as in the first, where only that makes them the same."""
    if left.ndim > 2 and right.ndim == left.ndim and not same(left, right):
        turned = np.swapaxes(right, 0, 1)
        return turned if same(left, turned) and left.shape[:2] == turned.shape[:2] else right
    return right


def _before(pair: Pair, earlier: Sequence[Pair], spoilt: bool) -> Found | None:
    assert pair.given is not None
    if earlier:
        return _between(earlier[-1], pair.check.layer, pair.given, _earlier(earlier), spoilt, pair.check.place)
    gap = gap_of((), pair.check.layer, pair.given, (), (pair.check.place,))
    return _named(gap, between(gap))


def _between(
    before: Pair, after: str, arrays: tuple[Array, Array], handed: tuple[Handed, ...], spoilt: bool, place: str = ""
) -> Found | None:
    gap = gap_of((before.check.layer,), after, arrays, handed, (before.check.place, place))
    gap = replace(gap, left=before.gave[:1], right=before.gave[1:], act=before.act)
    if before.merge is not None:  # what the source merges inside the layer, the target may merge behind it
        gap = replace(gap, left=before.gave[1:])
    elif before.act:
        gap = replace(gap, gave={"y": before.gave[0]}, there_gave={"y": before.gave[1]})
    if before.same and not spoilt:
        return _named(gap, between(gap))
    found = behind(gap)
    if found is None or (found.mode in FUNCTIONS and not before.same):
        return None  # an activation may be part of the layer on one side
    return None if found.mode == "F7" and gap.given.shape != gap.expected.shape else found  # so may a border


def _named(gap: Gap, found: Found) -> Found:
    """The same, or what the numbers say of both sides where no operation between layers has a name."""
    if found.known and UNKNOWN not in found.what:
        return found
    place = f"between {', '.join(gap.before) or 'the inputs'} and {gap.after or 'the outputs'}"
    said = said_of(gap, place, gap.given, gap.expected)
    return replace(said, families=found.families, tried=found.tried) if said is not None else found


def _earlier(pairs: Sequence[Pair]) -> tuple[Handed, ...]:
    found: list[Handed] = []
    for number, pair in reversed(list(enumerate(pairs))):
        found.append(Handed(f"what {pair.check.layer} gives", *pair.gave))
        if pair.given is not None:
            words = INPUTS if not number else f"what {pair.check.layer} is given"
            found.append(Handed(words, *pair.given))
    return tuple(found[:24])


def _ends(source: Recording, target: Recording, channels: tuple[bool, bool]) -> tuple[Array, Array] | None:
    if not source.outputs or not target.outputs:
        return None
    arrays = [
        np.asarray(np.moveaxis(r.outputs[0], 1, -1) if first and r.outputs[0].ndim > 3 else r.outputs[0], np.float64)
        for r, first in zip((source, target), channels, strict=True)
    ]
    return arrays[0], _aligned(arrays[0], arrays[1])
