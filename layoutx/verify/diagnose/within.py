"""One layer of two runs that is given the same and gives something else: what the numbers say of it without weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.limits import FAIL
from layoutx.verify.compare.pairs import Check, Gap, Handed
from layoutx.verify.diagnose.between import Found
from layoutx.verify.diagnose.operation import Op
from layoutx.verify.diagnose.ops import activations
from layoutx.verify.diagnose.unlike import order_words, permutation, spoils, unlike
from layoutx.verify.diagnose.ways import CLOSE, far
from layoutx.verify.forward.activations import activation

NORMS = ("batchnorm", "batch_norm")
NEAR = 0.1  # a factor of one epsilon for another
NO_WEIGHTS = "give the weights of the recorded model (weights=) and its layers are searched like those of a live one"


@frozen
class Pair:
    """A call and its counterpart, channels last: what went in and what came out, in the source and in the target.

    Attributes:
        act: the activation that is part of the layer in the source only.
        own: what the target's layer gives of what the source's was given, where it was run on that.
        rows: its inputs are a flattened map, whose numbers stand in another order in the target.
        merge: what makes the target's two directions, side by side, the source's output.
    """

    check: Check
    given: tuple[Array, Array] | None
    gave: tuple[Array, Array]
    class_name: str
    act: str = ""
    own: Array | None = None
    rows: bool = False
    merge: Op | None = None

    @property
    def fed_alike(self) -> bool:
        """Whether both were given the same."""
        return self.given is not None and same(*self.given)

    @property
    def same(self) -> bool:
        """Whether both give the same."""
        return self._alike(self.gave[1])

    @property
    def right(self) -> bool:
        """Whether the layer itself is the same, as far as that can be told."""
        return self.same or (self._alike(self.own) if self.own is not None else not self.fed_alike)

    def _alike(self, there: Array) -> bool:
        there = self.merge.apply(there) if self.merge is not None else there
        return same(self.gave[0], activation(self.act)(there) if self.act and there.ndim else there)


def same(left: Array, right: Array) -> bool:
    size = float(np.abs(left).max(initial=0.0))
    return far(left, right) <= 10 * CLOSE * max(size, 1e-26)


def gap_of(
    before: tuple[str, ...], after: str, arrays: tuple[Array, Array], handed: tuple[Handed, ...], places: Any
) -> Gap:
    return Gap(before, after, places, apart(*arrays), FAIL, "", *arrays, earlier=handed)


def within(pair: Pair) -> Found:
    """A layer that is given the same and gives something else."""
    name, (expected, given) = pair.check.layer, pair.gave
    given = given if pair.own is None else pair.own
    shown = f"layer {name}" if pair.check.place in ("", name) else f"layer {name} ({pair.check.place})"
    gap = gap_of((name,), "", (expected, given), (), (pair.check.place, ""))
    scaled = next((op for op in unlike(given, expected)), None)
    if scaled is not None and scaled.group == "scale":
        return _scaled(gap, pair, shown, scaled)
    said = said_of(gap, shown, given, expected) or _under(gap, shown, given, expected)
    if said is not None:
        return replace(said, option=NO_WEIGHTS)
    before = gap.found.largest
    if pair.rows:
        orders = "h w c in the source and c h w in the target"
        what = f"{shown} reads a flattened map, {orders}: its rows may be in the other order"
        return Found(gap, what, "F1", "layoutx port turns the rows", before, tried=1, families=KINDS, option=NO_WEIGHTS)
    what = f"none of these: nothing that the numbers alone show makes what the source's {shown} gives; {NO_WEIGHTS}"
    return Found(gap, what, before=before, tried=1, families=KINDS)


def _under(gap: Gap, shown: str, given: Array, expected: Array) -> Found | None:
    """Units in another order, seen under the activation that only the source's layer ends with."""
    if given.shape != expected.shape:
        return None
    for op in activations():
        own = op.apply(given)
        if np.isfinite(own).all() and (order := permutation(own, expected, given.ndim - 1)) is not None:
            words, mode = order_words(order, "units")
            what = f"{shown}: the target's numbers have to be turned, and then go through {op.name}: {words}"
            code = "x = x[..., order]"
            return Found(gap, what, mode, code, gap.found.largest, far(own[..., order], expected), 1, families=KINDS)
    return None


def said_of(gap: Gap, shown: str, given: Array, expected: Array) -> Found | None:
    """What has to be done to the target's numbers, or what was done to the source's."""
    undo, done = list(unlike(given, expected)), list(spoils(given, expected))
    before, tried = gap.found.largest, len(undo) + len(done)
    if undo and not (done and done[0].group == "activation"):
        what = f"{shown}: the target's numbers have to be turned: {undo[0].name}"
        if undo[0].group == "activation":
            what = f"{shown}: {undo[0].name} is missing in the target"
        rest = tuple(op.name for op in undo[1:4])
        after = far(undo[0].apply(given), expected)
        return Found(gap, what, undo[0].mode, undo[0].code, before, after, tried, rest, KINDS)
    if not done:
        return None
    what = f"{shown}: the target's numbers are the source's with more done to them: {done[0].name}"
    code = f"leave out {done[0].name}" if done[0].group == "activation" else done[0].code
    after = far(done[0].apply(expected), given) if done[0].group != "dropout" else float("nan")
    return Found(gap, what, done[0].mode, code, before, after, tried, tuple(o.name for o in done[1:4]), KINDS)


KINDS = ("activation", "axes", "order of units", "order of samples", "factor and shift", "rounding", "dropout")
FUNCTIONS = ("F19", "F20", "F31")


def _scaled(gap: Gap, pair: Pair, shown: str, op: Op) -> Found:
    """A factor and a shift of each channel: of a batch norm its statistics, of other layers a bias or a scale."""
    kind = pair.class_name.lower().replace("normalization", "norm")
    given = gap.given
    wide = op.apply(np.ones_like(given)) - op.apply(np.zeros_like(given))
    near = bool((np.abs(wide - 1) < NEAR).all() and ((wide <= 1).all() or (wide >= 1).all()))
    if "norm" in kind and near:
        why, mode, code = "another epsilon, since every factor is near 1 and on one side of it", "F8", "eps=..."
    elif any(name in kind for name in NORMS):
        why, mode, code = (
            "other statistics: it is in training mode, or they were not loaded (F13)",
            "F10",
            "model.eval()",
        )
    else:
        why, mode, code = "its bias or a scale of its channels differs", "F14" if "shift" in op.name else "F32", op.code
    what = f"{shown}: the source's numbers are the target's times {op.name}: {why}"
    after = far(op.apply(given), pair.gave[0])
    return Found(gap, what, mode, code, gap.found.largest, after, 2, families=KINDS, option=NO_WEIGHTS)
