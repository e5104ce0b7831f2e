"""Two runs of which one is only recorded: without weights, what each layer handed on is looked for by its values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from layoutx.errors import LayoutxError, UsageError
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.compare import flow
from layoutx.verify.compare.apart import apart, where
from layoutx.verify.compare.calls import inner
from layoutx.verify.compare.inputs import arranged
from layoutx.verify.compare.limits import FAIL, OK, OPEN, coarsest, verdict
from layoutx.verify.compare.pairs import Check
from layoutx.verify.diagnose.ops import merges
from layoutx.verify.forward.activations import PLAIN
from layoutx.verify.recording import Call, Recording
from layoutx.verify.running.opened import Runner

BY_VALUE = "found by its values in the target's own run"
MERGED = 1e-5  # of the largest value
BY_ORDER = "the next of its kind in the target's own run"


@frozen
class Recorded:
    """What two runs say: one check a layer, the outputs, and what was done."""

    source: Recording
    target: Recording
    checks: tuple[Check, ...]
    outputs: tuple[flow.Side, ...]
    notes: tuple[str, ...]


def compared(
    first: Runner,
    second: Runner,
    inputs: Sequence[Array] | None,
    kind_of: Callable[[str, str], str],
    channels: tuple[bool, bool],
    tolerance: float = 0.0,
) -> Recorded:
    """Compare two runs by what flows through them.

    Args:
        inputs: for the side that can be run; None: those that the other side was recorded on.
        kind_of: framework and class -> the kind of a layer with weights, "" of others.
        channels: whether each framework keeps its channels first.

    Raises:
        UsageError: the two runs cannot be of the same inputs.
    """
    if isinstance(first.model, Recording):
        source = first.record(inputs)
        target, notes = _other(second, source, channels, tolerance)
    else:
        target = second.record(inputs)
        source, notes = _other(first, target, channels[::-1], tolerance)
    if not source.calls or not target.calls:
        notes.append("one side has no layers recorded: only the outputs are compared")
    checks = _checks(source, target, kind_of, tolerance)
    dtypes = (source.dtype, target.dtype)
    outputs = tuple(flow.ends(source.outputs, target.outputs, dtypes, tolerance))
    notes.append("recorded: layers are compared by what they hand on, not in their own right")
    return Recorded(source, target, tuple(checks), outputs, tuple(notes))


def _other(
    runner: Runner, base: Recording, channels: tuple[bool, bool], tolerance: float
) -> tuple[Recording, list[str]]:
    """The second run on the inputs of the first, arranged so that the outputs agree best."""
    if isinstance(runner.model, Recording):
        found = runner.record(None)
        _of_same_inputs(base.inputs, found.inputs)
        return found, []
    best: tuple[float, Recording, str] | None = None
    refused = ""
    for given, note in arranged(base.inputs, channels[0], channels[1], True):
        try:
            run = runner.record(given)
        except LayoutxError as error:
            refused = refused or error.why or error.what
            continue
        sides = flow.ends(base.outputs, run.outputs, (base.dtype, run.dtype), tolerance)
        far = max((side.apart.relative for side in sides), default=float("inf"))
        if best is None or far < best[0]:
            best = (far, run, note)
    if best is None:
        raise UsageError("the live model does not run on the recorded inputs", why=refused)
    return best[1], [f"inputs: {best[2]}"] if best[2] else []


def _of_same_inputs(here: Sequence[Array], there: Sequence[Array]) -> None:
    """Refuse recordings of other inputs; axes may stand in another order.

    Raises:
        UsageError: the numbers are others.
    """
    same = len(here) == len(there) and all(
        a.size == b.size and np.allclose(np.sort(a, axis=None), np.sort(b, axis=None), rtol=1e-6, atol=0.0)
        for a, b in zip(here, there, strict=True)
    )
    if not same:
        raise UsageError(
            "the two recordings are of other inputs",
            where=[f"{[a.shape for a in here]} and {[b.shape for b in there]}"],
            do="record both models on the same file of inputs",
        )


def _checks(source: Recording, target: Recording, kind_of: Callable[[str, str], str], tolerance: float) -> list[Check]:
    dtypes = (source.dtype, target.dtype)
    theirs = list(inner(target))
    free = [call for call in theirs if kind_of(target.framework, call.class_name)]
    checks = []
    for call in inner(source):
        kind = kind_of(source.framework, call.class_name)
        if not kind or not call.outputs:
            continue
        same = next((other for other in theirs if _agree(call, other, dtypes, tolerance)), None)
        if same is not None:
            checks.append(_check(call, same, dtypes, tolerance, BY_VALUE))
            free = [other for other in free if other is not same and other.layer != same.layer]
            continue
        near = [other for other in free if kind_of(target.framework, other.class_name) == kind]
        named = [other for other in near if _plain(other.layer) == _plain(call.layer)]
        ended = _under_activation(call, [*named, *near], dtypes, tolerance)
        if ended is not None:
            checks.append(ended)
            free = [one for one in free if one.layer != ended.place]
            continue
        other = next(iter(named or near), None)
        free = [one for one in free if one is not other]
        checks.append(_alone(call) if other is None else _check(call, other, dtypes, tolerance, BY_ORDER))
    return checks


def _alone(call: Call) -> Check:
    return Check(call.layer, "", OPEN, note="no call of its kind is left in the target", call=call.number)


def _under_activation(call: Call, near: Sequence[Call], dtypes: tuple[str, str], tolerance: float) -> Check | None:
    """The call of the same kind whose output is the same once an activation is applied to one of the two."""
    for other in near:
        if not other.outputs or call.outputs[0].size != other.outputs[0].size or call.outputs[0].dtype.kind != "f":
            continue
        left, right = call.outputs[0], _nearest(call.outputs[0], other.outputs[0])
        for name, function in PLAIN.items():
            for pair in ((left, function(right)), (function(left), right)):
                found = apart(*pair)
                if verdict(found, coarsest(pair, dtypes), flow=True, tolerance=tolerance) == OK and found.scale:
                    check = _check(call, other, dtypes, tolerance, BY_VALUE)
                    same = (found.largest, found.relative, found.scale)
                    return replace(check, verdict=OK, largest=same[0], relative=same[1], scale=same[2], where="",
                                   note="", applied=name)  # fmt: skip
    return None


def _agree(call: Call, other: Call, dtypes: tuple[str, str], tolerance: float) -> bool:
    left = call.outputs[0]
    for right in other.outputs[:1]:
        if right.size == left.size and left.dtype.kind == "f" and _said(left, right, dtypes, tolerance) == OK:
            return True
    return False


def _fitted(left: Array, right: Array) -> tuple[Array, Array]:
    """Two outputs with axes in one order; all steps against the last one only are cut to that, directions merged."""
    if left.ndim == right.ndim and {2 * left.shape[-1], left.shape[-1] / 2} & {right.shape[-1]}:
        return _merged(left, right)
    if right.ndim == 3 and left.ndim == 2:
        right = min(_lasts(right), key=lambda array: apart(left, array).largest)
    elif left.ndim == 3 and right.ndim == 2:
        left = min(_lasts(left), key=lambda array: apart(array, right).largest)
    return left, _nearest(left, right)


def _merged(left: Array, right: Array) -> tuple[Array, Array]:
    """One output has two directions side by side, the other what was made of them: both merged, where that agrees."""
    wide = right.shape[-1] > left.shape[-1]
    for op in merges():
        pair = (left, _nearest(left, op.apply(right))) if wide else (op.apply(left), right)
        pair = pair if wide else (pair[0], _nearest(*pair))
        if pair[0].shape == pair[1].shape and apart(*pair).relative <= MERGED:
            return pair
    return left, right


def _lasts(y: Array) -> list[Array]:
    """The last output of a recurrent layer (batch, time, unit): of one direction, or of two laid side by side."""
    half = y.shape[-1] // 2
    return [y[:, -1], np.concatenate([y[:, -1, :half], y[:, 0, half:]], axis=-1)]


def _nearest(left: Array, right: Array) -> Array:
    """`right` under the order of axes that agrees best."""
    fitting = [array for array in flow.turned(right) if array.shape == left.shape]
    return min(fitting, key=lambda array: apart(left, array).largest) if fitting else right


def _said(left: Array, right: Array, dtypes: tuple[str, str], tolerance: float) -> str:
    found = apart(left, _nearest(left, right))
    return verdict(found, coarsest((left, right), dtypes), flow=True, tolerance=tolerance)


def _check(call: Call, other: Call, dtypes: tuple[str, str], tolerance: float, how: str) -> Check:
    left, right = call.outputs[0], other.outputs[0] if other.outputs else np.empty(0)
    left, right = _fitted(left, right)
    found = apart(left, right)
    said = verdict(found, coarsest((left, right), dtypes), flow=True, tolerance=tolerance)
    words = ("sample", *(f"axis {i}" for i in range(1, left.ndim - 1)), "unit")[: left.ndim]
    note = "" if said != FAIL else "what comes before it may be the reason"
    place = where(found, words) if said != OK else ""
    return Check(
        call.layer,
        other.layer,
        said,
        found.largest,
        found.relative,
        found.scale,
        place,
        found.unlike,
        how,
        note,
        call=call.number,
    )


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
