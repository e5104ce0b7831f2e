"""The data on its way: what each layer of the target was given and handed on, and between which two it went wrong."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import permutations

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.spec.bound import BoundForm
from layoutx.verify.compare.apart import Apart, apart, where, worst
from layoutx.verify.compare.begun import BESIDE, MASK, counted
from layoutx.verify.compare.limits import FAIL, OK, coarsest, verdict
from layoutx.verify.compare.named import Named, axis_words
from layoutx.verify.compare.outputs import alike
from layoutx.verify.compare.pairs import Couple, Gap
from layoutx.verify.compare.places import in_both
from layoutx.verify.compare.windows import bare, border, cropped, padded
from layoutx.verify.outputs import by_shape


@frozen
class Side:
    """Arrays of one name on both sides, canonical, and how far they are apart."""

    name: str
    expected: Array
    found: Array
    apart: Apart
    verdict: str
    words: tuple[str, ...] = ()
    hint: str = ""


@frozen
class Link:
    """One layer in the run of both models.

    Attributes:
        layer, place: names in the source and in the target; call: which call of the layer.
        at, there: where the call stands in each recording.
        given, gave: the worst of its inputs and of its outputs; None where they cannot be compared.
        before: the layers that hand it its data, by wiring; None where no wiring is known.
    """

    layer: str
    place: str
    call: int
    at: int
    there: int
    given: Side | None
    gave: Side | None
    before: tuple[str, ...] | None = None

    @property
    def agrees(self) -> bool:
        """Whether the target's own call is given what the source's is, and gives the same."""
        return all(side is not None and side.verdict == OK for side in (self.given, self.gave))


def given(couple: Couple, here: Named, there: Named, dtypes: Sequence[str], tolerance: float = 0.0) -> Side | None:
    """The worst of a layer's inputs in the two runs; a border that one model adds outside the layer does not count."""
    sides = []
    mask = here.inputs.get(MASK)
    for name, left in here.inputs.items():
        if name in there.inputs and name != MASK:
            right = there.inputs[name]
            if name not in BESIDE:
                left, right = in_both(left, in_line(left, right, here.lead, there.lead), here.lead, there.lead)
                left, right = (counted({"y": array}, mask)["y"] for array in (left, right))
            sides.append(_side(couple.source.bound, name, *_unframed(couple, left, right), dtypes, tolerance))
    return _worst(sides)


def gave(couple: Couple, here: Named, there: Named, dtypes: Sequence[str], tolerance: float = 0.0) -> Side | None:
    """The worst of a layer's outputs in the two runs, under the same activation."""
    expected, found, _ = alike(couple, here.outputs, there.outputs)
    mask = here.inputs.get(MASK)
    if mask is not None and MASK not in there.inputs:  # it may take the last step that counts behind the layer
        expected = {name: array for name, array in expected.items() if name in ("y", "merged")}
    sides = []
    for name, left in expected.items():
        right = found[name]
        if name == "y":
            left, right = in_both(left, in_line(left, right, here.lead, there.lead), here.lead, there.lead)
        right = counted({name: right}, mask)[name]
        sides.append(_side(couple.source.bound, name, left, right, dtypes, tolerance))
    return _worst(sides)


def _side(bound: BoundForm, name: str, left: Array, right: Array, dtypes: Sequence[str], tolerance: float) -> Side:
    found = apart(left, right)
    said = verdict(found, coarsest((left, right), dtypes), flow=True, tolerance=tolerance)
    return Side(name, left, right, found, said, axis_words(bound, name, left))


def _worst(sides: Sequence[Side]) -> Side | None:
    return sides[worst([side.apart for side in sides])] if sides else None


def _unframed(couple: Couple, left: Array, right: Array) -> tuple[Array, Array]:
    """Both maps without the border that only one has, where it is of zeros."""
    if left.shape == right.shape:
        return left, right
    by = border(right, left, couple.source.bound)
    if by is not None and bare(right, by):
        return left, cropped(right, by)
    by = border(left, right, couple.target.bound)
    if by is not None and bare(left, by):
        return left, padded(right, by)
    return left, right


def in_line(left: Array, right: Array, here: tuple[int, ...], there: tuple[int, ...]) -> Array:
    """`right` with the axes before the layer's own in the order of `left`: one model may put time before batch.

    here, there: the lengths of these axes, which are one in the canonical arrays.
    """
    right, there = _as_often(left, right, here, there)
    if len(here) != len(there) or len(here) < 2 or len(here) > 3 or left.shape[1:] != right.shape[1:]:
        return right
    apart_now = apart(left, right) if here == there else None
    if apart_now is not None and apart_now.relative < 1e-6:
        return right
    split = right.reshape(*there, *right.shape[1:])
    rest = tuple(range(len(there), split.ndim))
    ways = [p for p in permutations(range(len(there))) if tuple(there[i] for i in p) == here]
    turned = [split.transpose(*p, *rest).reshape(right.shape) for p in ways]
    return min([right, *turned], key=lambda array: apart(left, array).largest) if turned else right


def _as_often(
    left: Array, right: Array, here: tuple[int, ...], there: tuple[int, ...]
) -> tuple[Array, tuple[int, ...]]:
    """`right` as often as `left` where one model makes it once and the other for each sample: rows of relative
    positions; once where it is the same for every sample.
    """
    if left.shape[1:] != right.shape[1:] or len(left) == len(right):
        return right, there
    if len(here) > 1 and there in (here[1:], (1, *here[1:])):
        return np.concatenate([right] * here[0]), here
    if len(there) > 1 and here in (there[1:], (1, *there[1:])):
        first = right[: len(left)]
        return (first, here) if np.array_equal(np.concatenate([first] * there[0]), right) else (right, there)
    return right, there


def ends(
    expected: Sequence[Array], found: Sequence[Array], dtypes: Sequence[str], tolerance: float = 0.0
) -> list[Side]:
    """The outputs of both models, each under the order of axes that agrees best."""
    sides = []
    found = by_shape(expected, found)
    for number, left in enumerate(expected):
        if number >= len(found):
            nothing = np.empty(0, left.dtype)
            odd = Apart(float("inf"), 0.0, odd=f"{len(found)} outputs instead of {len(expected)}")
            sides.append(Side(f"output {number}", left, nothing, odd, FAIL))
            continue
        right = min(turned(found[number]), key=lambda a, left=left: _distance(left, a))  # type: ignore[misc]
        gap = apart(left, right)
        said = verdict(gap, coarsest((left, right), dtypes), flow=True, tolerance=tolerance)
        words = ("sample", *(f"axis {i}" for i in range(1, left.ndim - 1)), "unit")[: left.ndim]
        sides.append(Side(f"output {number}" if len(expected) > 1 else "output", left, right, gap, said, words))
    return sides


def repeated(expected: Sequence[Array], found: Sequence[Array]) -> tuple[list[Array], list[Array]]:
    """Outputs as they are, those of one sample, or of none, as often as the other model gives them: a table of
    positions is looked up once for the whole batch, or once for each sample, and the sum after it does not tell.
    """
    pairs = [(_as_many(a, b), _as_many(b, a)) for a, b in zip(expected, found, strict=False)]
    many = len(pairs)
    return [*(a for a, _ in pairs), *expected[many:]], [*(b for _, b in pairs), *found[many:]]


def _as_many(array: Array, other: Array) -> Array:
    one = other.ndim > 1 and array.shape in (other.shape[1:], (1, *other.shape[1:]))
    return np.broadcast_to(array, other.shape) if one else array


def _distance(left: Array, right: Array) -> tuple[bool, int, float]:
    found = apart(left, right)
    return bool(found.odd), found.unlike, found.largest


def turned(array: Array) -> list[Array]:
    """An output as it is, with its channels at the other end, and with time before batch."""
    if array.ndim < 3:
        return [array]
    in_time = [np.moveaxis(array, 2, -1), np.moveaxis(array, -1, 2)] if array.ndim > 3 else []  # maps in time
    return [array, np.moveaxis(array, 1, -1), np.moveaxis(array, -1, 1), np.swapaxes(array, 0, 1), *in_time]


def gaps(
    links: Sequence[Link], outputs: Sequence[Side], finals: Sequence[str] | None, bad: Collection[str] = ()
) -> list[Gap]:
    """Where what is handed on differs though the layers before agree.

    Args:
        links: in the source's order of calls.
        outputs: of the two models; finals: the layers that give them, by wiring; None where no wiring is known.
        bad: layers that differ in their own right: what comes after them is no news.
    """
    found = []
    lost = set(bad)
    for position, link in enumerate(links):
        own = link.given
        earlier = links[:position]
        before = feeding(link, earlier)
        if own is not None and own.verdict != OK and not _spoilt(link, before, earlier, lost):
            found.append(gap_at(before, link, own))
        if (own is not None and own.verdict != OK) or (link.gave is not None and link.gave.verdict != OK):
            lost.add(link.layer)
    wrong = [side for side in outputs if side.verdict != OK]
    tail = [link for link in links if finals is None or link.layer in finals]
    if wrong and not lost and links:
        found.append(gap_at(tail[-1:] or list(links[-1:]), None, wrong[0]))
    return found


def _spoilt(link: Link, before: Sequence[Link], earlier: Sequence[Link], lost: set[str]) -> bool:
    """Whether something wrong came in: from the layers before, or, where no wiring is known, from any earlier one."""
    names = {other.layer for other in (before if link.before is not None else earlier)}
    return bool(lost & (names | set(link.before or ())))


def feeding(link: Link, earlier: Sequence[Link]) -> list[Link]:
    """The layers whose outputs reach this one: by wiring, else the last one that was called."""
    if link.before is None:
        return list(earlier[-1:])
    latest = {other.layer: other for other in earlier if other.layer in link.before}
    return list(latest.values())


def gap_at(before: Sequence[Link], link: Link | None, side: Side) -> Gap:
    """The place before a layer, or before the outputs, where data differs."""
    shown = [b for b in before if b.gave is not None]
    return Gap(
        tuple(b.layer for b in before),
        link.layer if link is not None else "",
        (*(b.place for b in before), link.place if link is not None else ""),
        side.apart,
        side.verdict,
        where(side.apart, side.words),
        side.expected,
        side.found,
        tuple(b.gave.expected for b in shown if b.gave),
        tuple(b.gave.found for b in shown if b.gave),
        hint=side.hint,
        call=link.call if link is not None else 0,
    )


def wiring(inputs: Mapping[str, Sequence[str]], paired: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Layer -> the paired layers whose outputs reach it through layers without a counterpart.

    Args:
        inputs: record name -> the records that feed it; {} where nothing is known.
        paired: names of layers with a counterpart.
    """
    found = {}
    for name in paired:
        if name not in inputs:
            continue
        reached: list[str] = []
        waiting, seen = list(inputs[name]), set[str]()
        while waiting:
            one = waiting.pop()
            if one in seen:
                continue
            seen.add(one)
            if one in paired:
                reached.append(one)
            else:
                waiting += inputs.get(one, ())
        found[name] = tuple(reached)
    return found
