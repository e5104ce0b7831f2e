"""What lies between two layers, told from the numbers alone: what the source does there, and what the target does."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import permutations
from operator import ne

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.compare.pairs import Gap
from layoutx.verify.diagnose.operation import Op
from layoutx.verify.diagnose.ops import activations, ops
from layoutx.verify.diagnose.pieces import beside
from layoutx.verify.diagnose.scales import affine
from layoutx.verify.diagnose.ways import BESIDE, BUDGET, CLOSE, ONLY, PLUS, Way, far, made, makes, spread, starts, ways

UNKNOWN = "something that is not among the known ways"


@frozen
class Found:
    """What explains a gap.

    Attributes:
        mode: the failure mode, "" where the list has no number for it.
        what: in one sentence. code: the fix in the target's code; option: in layoutx.
        before, after: largest difference without and with the fix.
        tried: how many ways were tried; rivals: others that fit as well; families: the kinds of operations tried.
        layer: whose stored numbers are wrong, where it is they; "" for what lies between layers.
    """

    gap: Gap
    what: str
    mode: str = ""
    code: str = ""
    before: float = float("nan")
    after: float = float("nan")
    tried: int = 0
    rivals: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    option: str = ""
    layer: str = ""

    @property
    def known(self) -> bool:
        """Whether it is explained; not all that is can be repaired by an operation."""
        return self.after == self.after or bool(self.mode)


def missing(found: Found, lost: Collection[str]) -> Found:
    """The same where the source has a layer there that has no counterpart."""
    names = [name for name in lost if any(name in part.replace("/", " ").split() for part in found.gap.passed)]
    if not names or found.after == found.after:
        return found
    what = f"{found.gap.place} the source has {', '.join(names)}, which the target lacks"
    return replace(found, what=what, mode="F14")


def between(gap: Gap, budget: float = BUDGET) -> Found:
    """Explain a gap; `what` starts with "none of these" where nothing that is known fits. budget: seconds a side."""
    gap = spread(gap)
    return replace(_between(gap, budget), families=_groups(gap))


def _groups(gap: Gap) -> tuple[str, ...]:
    """The kinds of operations that can make what is handed on."""
    arrays = {array.shape: array for array in (*(start.array for start in starts(gap, True)), gap.given)}
    names = [op.group for array in arrays.values() for op in ops(array, gap.expected.shape)]
    return tuple(name for name in dict.fromkeys(names) if name != "nothing")


def _between(gap: Gap, budget: float) -> Found:
    here, many = _ways(gap, True, budget)
    there, more = _ways(gap, False, budget)
    same = bool(here and there) and here[0].words == there[0].words
    if here and there and not same:
        return _told(gap, here, there, many + more)
    direct, few = _direct(gap)
    tried = many + more + few
    if direct:
        return _lacking(gap, direct, tried)
    if here and not same:
        return _told(gap, here, there, tried)
    what = f"none of these: nothing that is known makes what the source hands on {gap.place}"
    if there:
        what += f" (the target does: {there[0].words})"
    return Found(gap, what, before=gap.found.largest, tried=tried)


def _ways(gap: Gap, source: bool, budget: float) -> tuple[list[Way], int]:
    """The ways of one model; of layers whose maps are of different sizes first each laid beside the others."""
    goal, act = (gap.expected, gap.act) if source else (gap.given, gap.there_act)
    arrays = gap.left if source else gap.right
    apart = len({array.shape[:-1] for array in (*arrays, goal)}) > 1
    found, many = beside(gap, source, budget) if apart else ([], 0)
    if not found:
        found, more = ways(starts(gap, source), goal, act, budget)
        many += more
    if not found and not apart:
        found, more = beside(gap, source, budget)
        many += more
    return found, many


def behind(gap: Gap) -> Found | None:
    """A fault of its own behind another one: what the source does there gives something else of the target's numbers.

    None where both models do the same, or where nobody can tell what one of them does.
    """
    gap = spread(gap)
    here, many = ways(starts(gap, True), gap.expected, gap.act)
    fitting = [array for array in _orders(gap) if array.shape == gap.expected.shape]
    own = [array for way in here if (array := made(gap, way, False)) is not None]
    size = CLOSE * max(float(np.abs(gap.given).max(initial=0.0)), 1e-26)
    if not own or not np.isfinite(size) or any(far(a, given) <= size for a in own for given in fitting):
        return None
    for given in fitting:
        gap = replace(gap, given=given)
        there, more = ways(starts(gap, False), given, gap.there_act)
        if there and not any(way.words == here[0].words for way in there):
            break
    else:
        return None  # what came in wrong may explain it
    if gap.cropped and {op.group for op in {*_all(here[0])} ^ {*_all(there[0])}} == {"border"}:
        return None  # what the layer's own padding makes too much is what is cut here
    found = _told(gap, here, there, many + more)
    wrong, right = (
        made(gap, replace(there[0], act=there[0].act if gap.there_act else ""), True),
        made(gap, here[0], True),
    )
    if wrong is None or right is None:
        return None
    return replace(found, before=far(wrong, gap.expected), after=far(right, gap.expected), families=_groups(gap))


def _orders(gap: Gap) -> list[Array]:
    """What the target hands on; of outputs, whose axes nobody names, in any order: a wrong one may be nearer."""
    if gap.after:
        square = gap.given.ndim > 2 and gap.given.shape[0] == gap.given.shape[1]  # batch and time by the same nearness
        return [gap.given, np.swapaxes(gap.given, 0, 1)] if square else [gap.given]
    return [gap.given.transpose(order) for order in permutations(range(gap.given.ndim))]


def outward(gap: Gap, first: bool) -> Gap:
    """The gap before the outputs with the channels of maps last, as all that layers give has them.

    Args:
        first: whether the source has them first.
    """
    if gap.after or not first or gap.expected.ndim < 4 or gap.given.ndim != gap.expected.ndim:
        return gap
    return replace(gap, expected=np.moveaxis(gap.expected, 1, -1), given=np.moveaxis(gap.given, 1, -1))


def by_chance(found: Found, side: str = "target") -> Found:
    """The same where one model's outputs change from run to run, which no operation does that was tried."""
    if UNKNOWN not in found.what and found.after == found.after:
        return found
    what = f"{found.gap.place} the {side} does something that changes from run to run"
    return replace(found, what=what, mode="F10", code="F.dropout(x, p, training=self.training)")


def _lacking(gap: Gap, direct: Sequence[Op], tried: int) -> Found:
    """One operation makes what the source hands on of what the target does."""
    op, rest = direct[0], tuple(other.name for other in direct[1:])
    why = {
        "scale": f"{gap.place} the source's numbers are the target's times {op.name}",
        "move": f"{gap.place} the border of zeros lies elsewhere: the target's map has to be {op.name}",
    }.get(op.group, f"{gap.place}: {op.name} is missing in the target, or is done once too often")
    after = far(op.apply(np.asarray(gap.given, np.float64)), gap.expected)
    return Found(gap, why, op.mode, op.code, gap.found.largest, after, tried, rest)


def _told(gap: Gap, here: Sequence[Way], there: Sequence[Way], tried: int) -> Found:
    right, wrong = _nearest(_cut(gap, there) or here, there)
    if wrong is None:  # the source's operation in its place is no explanation of what the target does
        what = f"none of these: {gap.place} the source does: {right.words}; the target does: {UNKNOWN}"
        return Found(gap, what, before=gap.found.largest, tried=tried, rivals=_rivals(here))
    what = f"{gap.place} the source does: {right.words}; the target does: {wrong.words}"
    right_ops, wrong_ops = (_all(way) for way in (right, wrong))
    odd = [op for op in right_ops if op.name not in {o.name for o in wrong_ops}]
    extra = [op for op in wrong_ops if op.name not in {o.name for o in right_ops}]
    skips = _residual(right, wrong)
    if skips is not None:
        what = f"{gap.place} {skips[0]}; the source does: {right.words}; the target does: {wrong.words}"
    states = right.join != wrong.join and "state" in right.join + wrong.join
    modes = [op.mode for op in (*odd, *extra) if op.mode]
    code = "; ".join(op.code for op in odd if op.code)
    if not odd and extra:
        code = f"leave out {', '.join(op.name for op in extra)}"
    mode = modes[0] if modes else "F18" if states else ""
    code = "; ".join(part for part in (skips[1] if skips is not None else "", _beside(right, wrong), code) if part)
    return Found(gap, what, mode, code, gap.found.largest, _after(gap, right), tried, _rivals(here))


def _cut(gap: Gap, there: Sequence[Way]) -> list[Way]:
    """What the target itself has to do, where its layer gives a larger map and it cuts the wrong end of that."""
    if not gap.cropped or not any(op.group == "border" for way in there for op in way.ops):
        return []
    return ways(starts(gap, False), gap.expected)[0]


def _beside(right: Way, wrong: Way) -> str:
    """The line that lays what several layers give side by side in the source's order; "" where that is no matter."""
    inner = sorted(op.name for op in right.inner) == sorted(op.name for op in wrong.inner)
    if right.join == wrong.join or not inner or not (right.join.endswith(BESIDE) and wrong.join.endswith(BESIDE)):
        return ""
    return f"x = torch.cat([{right.join.removesuffix(BESIDE).strip()}], dim)   # what they give, in this order"


def _nearest(here: Sequence[Way], there: Sequence[Way]) -> tuple[Way, Way | None]:
    """Of all that fits on both sides what differs least: two operations may stand in either order."""
    if not there:
        return here[0], None
    pairs = [(right, wrong) for right in here for wrong in there]
    return min(pairs, key=lambda pair: sum(map(ne, pair[0].parts, pair[1].parts)) + len(pair[0].parts))


def _all(way: Way | None) -> list[Op]:
    """Every operation of a way, the layer's own activation first."""
    if way is None:
        return []
    own = [op for op in activations() if op.name == way.act]
    return [*own, *way.inner, *(op for op in way.ops if op.group != "nothing")]


def _rivals(here: Sequence[Way]) -> tuple[str, ...]:
    return tuple(way.words for way in here[1:4])


def _after(gap: Gap, way: Way) -> float:
    """What is left of the difference where the target does what the source does."""
    found = made(gap, way, False)
    return far(found, gap.expected) if found is not None else float("nan")


def _direct(gap: Gap) -> tuple[list[Op], int]:
    """What has to be done to the target's numbers: one operation that keeps the shape, or another scale."""
    given, expected = np.asarray(gap.given, np.float64), np.asarray(gap.expected, np.float64)
    if given.shape != expected.shape or not np.isfinite(expected).all():
        return [], 0
    all_ = [op for op in ops(given, expected.shape) if op.group != "nothing"]
    found = [op for op in all_ if makes(given, (op,), expected)]
    scaled = affine(given, expected)
    return ([*found, *([scaled] if scaled is not None and not found else [])], len(all_) + 1)


def _residual(right: Way, wrong: Way | None) -> tuple[str, str] | None:
    """(what is wrong, the line of code) where the two ways differ in what is added; None where they do not.

    Args:
        right, wrong: what the source and the target do; None where nobody knows what the target does.
    """
    there = (wrong.join, wrong.skip) if wrong is not None else ("", "")
    if (right.join, right.skip) == there or not _adds(right):
        return None
    if wrong is not None and _adds(wrong):
        said = "the residual connection is taken from the wrong place"
    elif wrong is not None and not wrong.skip and (right.skip or wrong.join.startswith(ONLY)):
        said = "the residual connection, x + f(x), is missing in the target"
    else:
        return None
    other = right.skip.removeprefix(PLUS) or "all that is added in the source"
    return said, f"x = f(x) + y   # y: {other}"


def _adds(way: Way) -> bool:
    return way.join == "added" or way.skip.startswith(PLUS)
