"""One pair of layers, call by call: in its own right and on its way, with all that an explanation of a fault needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, replace

from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.compare import flow
from layoutx.verify.compare.alone import REFERENCE, Trial, by_direction, room_of, trial, with_weights
from layoutx.verify.compare.apart import Apart, apart, where, worst
from layoutx.verify.compare.calls import call_of, count, position
from layoutx.verify.compare.held import held, is_bare, is_free
from layoutx.verify.compare.limits import FAIL, OK, OPEN, UNREACHED, coarsest, verdict
from layoutx.verify.compare.links import Runs, link_of, named_there
from layoutx.verify.compare.named import Named, axis_words
from layoutx.verify.compare.outputs import applied, shared
from layoutx.verify.compare.pairs import Check, Couple, rounds
from layoutx.verify.compare.reached import unreached
from layoutx.verify.compare.rounded import computed_in, rounding
from layoutx.verify.compare.stacks import named_in, title
from layoutx.verify.compare.steps import as_called
from layoutx.verify.compare.windows import best_crop
from layoutx.verify.diagnose.suspect import Suspect
from layoutx.verify.probe import WINDOWS
from layoutx.verify.recording import Call

WINDOWED = "one of the two reads windows of a map, the other what was cut out before: they are given other data"
CALLED = "computed anew from its weights it gives something else: its model's call says more (a mask) than they do"
COUNTED = "each model counts its positions in its own way: what is looked up is compared, not where"


@frozen
class Looked:
    """What was found out about one call of one pair of layers."""

    checks: tuple[Check, ...]
    link: flow.Link | None = None
    suspects: Mapping[str, Callable[[], Suspect]] = field(default_factory=dict)


def look(couple: Couple, runs: Runs, problem: str = "") -> list[Looked]:
    """All calls of one layer.

    Args:
        problem: why its weights could not be converted, in one line.
    """
    many = count(couple.source, runs.source)
    other = count(couple.target, runs.target) if runs.target is not None else many
    if (is_free(couple) or (not many and is_bare(couple))) and (own := held(couple, problem, runs.tolerance)):
        return [Looked((own,))]
    if not many:
        return [_unseen(couple, problem, "the source does not call it as a layer: nothing was recorded")]
    if not other and runs.target is not None and runs.target.framework == "tf1":
        return [_unseen(couple, problem, "the target is a SavedModel, which shows no layers and not their settings")]
    if couple.source.bound.form.apart or couple.target.bound.form.apart:
        return [_unseen(couple, problem, WINDOWED)]
    found = [_call(couple, runs, number, problem) for number in range(many)]
    if all(check.verdict == OK for check in found[0].checks) and (hidden := unreached(couple, runs.tolerance)):
        here, *others = found[0].checks
        found[0] = replace(found[0], checks=(replace(here, verdict=UNREACHED, hidden=hidden), *others))
    if other and other != many:
        note = f"called {many} times in the source, {other} times in the target"
        first = found[0]
        found[0] = replace(first, checks=(noted(first.checks[0], note), *first.checks[1:]))
    return found


def _misplaced(side: flow.Side, own: Trial, there: Named | None) -> flow.Side:
    """The layer's input as it should be, with its border, against what the target gave it."""
    right = there.inputs["x"] if there is not None else side.found
    found = apart(own.inputs["x"], right)
    return replace(side, expected=own.inputs["x"], found=right, apart=found, verdict=FAIL, hint=own.misplaced)


def _unseen(couple: Couple, problem: str, why: str, call: int = 0) -> Looked:
    check = Check(title(couple.source), title(couple.target), OPEN, note=why, problem=problem, call=call)
    return Looked((check,))


def noted(check: Check, note: str) -> Check:
    """The check with one more note."""
    return replace(check, note="; ".join(n for n in (check.note, note) if n))


def _call(couple: Couple, runs: Runs, number: int, problem: str) -> Looked:
    source, last = couple.source, couple.last
    call = call_of(source, runs.source, number)
    if call is None:
        return _unseen(couple, problem, "the source does not call all of its modules", number)
    template = call_of(couple.target, runs.target, number) if runs.target is not None else None
    try:
        here = named_in(source, call, last, runs.sources)
    except LayoutxError as error:
        return _raw(couple, runs, call, template, problem, error)
    there = _there(couple, here, runs, number)
    link = link_of(couple, runs, number, here, there)
    if couple.source.bound.form.seen or couple.target.bound.form.seen:
        return _looked_up(couple, link, problem, number)
    try:
        own = trial(couple, here, there, template, runs.layer)
        checks, suspects = _checks(couple, runs, own, number, problem)
    except LayoutxError as error:
        why = f"not run on its own: {error.what}"
        return Looked((_by_flow(couple, link, problem, why, number),), link)
    if own.misplaced and link is not None and link.given is not None:
        link = replace(link, given=_misplaced(link.given, own, there))
    if suspects and REFERENCE in own.how and link is not None and link.agrees:
        return Looked((_by_flow(couple, link, problem, CALLED, number),), link)
    return Looked(tuple(checks), link, suspects)


def _looked_up(couple: Couple, link: flow.Link | None, problem: str, number: int) -> Looked:
    """A table whose rows are counted from elsewhere in the other model: only what comes out of it is alike."""
    if link is None or link.gave is None or link.gave.apart.odd:
        return _unseen(couple, problem, COUNTED, number)
    return Looked((_by_flow(couple, link, problem, COUNTED, number),), replace(link, given=None))


def _there(couple: Couple, here: Named, runs: Runs, number: int) -> Named | None:
    """The target's call that belongs to this one: of its number, or of all time steps or one where that is the same."""
    if runs.target is None:
        return None
    many, other = count(couple.source, runs.source), count(couple.target, runs.target)
    steps = min(many, other) == 1 < max(many, other)
    numbers = range(other) if steps else (number,)
    found = [named_there(couple, here, call_of(couple.target, runs.target, one), runs) for one in numbers]
    calls = [one for one in found if one is not None]
    if steps and len(calls) == len(found):
        return as_called(here, many, number, calls)
    return found[0] if not steps else found[number] if number < len(found) else None


def _checks(
    couple: Couple, runs: Runs, own: Trial, number: int, problem: str
) -> tuple[list[Check], dict[str, Callable[[], Suspect]]]:
    odd = [n for n, y in own.expected.items() if y.shape != own.found[n].shape]
    if odd and runs.target is None and couple.source.bound.kind.name in WINDOWS:
        why = "the target was not run: nobody can tell how it pads or crops outside the layer"
        return [_unseen(couple, problem, why, number).checks[0]], {}
    if not own.expected:
        gives = ", ".join(own.found) or "nothing"
        return [_unseen(couple, problem, f"no output in common: the target gives {gives}", number).checks[0]], {}
    checks, suspects = [], {}
    made = _suspect(couple, own)
    for way, part in by_direction(couple, own):
        check = _check(couple, runs, part, own, number, problem)
        check = replace(check, layer=f"{check.layer}.{way}") if way else check
        checks.append(check)
        if not check.ok:
            suspects[check.layer] = made
    return checks, suspects


def _check(couple: Couple, runs: Runs, part: Trial, own: Trial, number: int, problem: str) -> Check:
    names = list(part.expected)
    found = [apart(part.expected[name], part.found[name]) for name in names]
    at = worst(found)
    name, gap = names[at], found[at]
    dtype = coarsest((*own.found.values(), *part.expected.values()), (*runs.dtypes, *computed_in(couple)))
    said = verdict(gap, dtype, rounded=rounds(couple), tolerance=runs.tolerance)
    if said != OK and not gap.odd and not gap.unlike:
        said = verdict(gap, dtype, room=room_of(own, name), rounded=rounds(couple), tolerance=runs.tolerance)
    narrow = rounding(couple, own) if said != OK else ""
    if narrow:
        said = verdict(gap, dtype, tolerance=runs.tolerance, narrow=narrow)
    return Check(
        title(couple.source),
        title(couple.target),
        said,
        gap.largest,
        gap.relative,
        gap.scale,
        _where(couple, gap, name, part.expected[name]) if said != OK else "",
        gap.unlike,
        own.how,
        "; ".join((*own.notes, *_masks(gap))),
        problem,
        number,
        applied(couple) if name == "y" else "",
        narrow,
    )


def _where(couple: Couple, gap: Apart, name: str, expected: Array) -> str:
    words = axis_words(couple.source.bound, name, expected)
    if name in ("h", "c") and expected.ndim == 2:
        words = ("sample", "unit")  # one direction of a state
    place = where(gap, words)
    return f"state {name}, {place}" if name in ("h", "c") and place and not gap.odd else place


def _masks(gap: Apart) -> tuple[str, ...]:
    return (f"{gap.unlike} values are NaN or infinite on one side only",) if gap.unlike else ()


def _by_flow(couple: Couple, link: flow.Link | None, problem: str, why: str, number: int) -> Check:
    side = link.gave if link is not None else None
    if side is None:
        return _unseen(couple, problem, why, number).checks[0]
    gap, place = side.apart, where(side.apart, side.words) if side.verdict != OK else ""
    return Check(
        title(couple.source),
        title(couple.target),
        side.verdict,
        gap.largest,
        gap.relative,
        gap.scale,
        place,
        gap.unlike,
        "in the target's own run",
        why,
        problem,
        number,
    )


def _raw(couple: Couple, runs: Runs, call: Call, template: Call | None, problem: str, error: LayoutxError) -> Looked:
    """Outputs compared as they are, where the axes of the source's call are not those that its form says."""
    why = f"its axes are not those of the form ({error.what})"
    if template is None:
        return _unseen(couple, problem, why, call.number)
    sides = flow.ends(*flow.repeated(call.outputs, template.outputs), runs.dtypes, runs.flow)
    if not sides:
        return _unseen(couple, problem, why, call.number)
    worst_side = sides[worst([side.apart for side in sides])]
    link = flow.Link(
        title(couple.source),
        title(couple.target),
        call.number,
        position(couple.source, runs.source, call.number),
        position(couple.target, runs.target, call.number) if runs.target is not None else -1,
        None,
        worst_side,
        runs.before.get(title(couple.source)),
    )
    return Looked((_by_flow(couple, link, problem, why, call.number),), link)


def _suspect(couple: Couple, own: Trial) -> Callable[[], Suspect]:
    def made() -> Suspect:
        source, target = couple.source, couple.target
        return Suspect(
            title(source),
            title(target),
            source.bound,
            target.bound,
            {name: tensor.read() for name, tensor in source.tensors.items()},
            {name: tensor.read() for name, tensor in target.tensors.items()},
            own.inputs,
            own.expected,
            own.found,
            couple.last,
            target.refine,
            {**target.bound.settings, **shared(couple)},
            target.bound.facts,
            with_weights(couple, own.raw),
            _as_cropped(own.expected) if couple.cropped else None,
            couple.rounds or bool(source.parts or target.parts),
        )

    return made


def _as_cropped(expected: Mapping[str, Array]) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
    """Outputs of the target's layer as its model crops them."""

    def after(found: Mapping[str, Array]) -> Mapping[str, Array]:
        return (
            {**found, "y": best_crop(expected["y"], found["y"])[0]}
            if {"y"} <= found.keys() & expected.keys()
            else found
        )

    return after


def sides_of(sides: Sequence[flow.Side]) -> list[Check]:
    """Whole outputs as checks."""
    return [
        Check(
            side.name,
            "",
            side.verdict,
            side.apart.largest,
            side.apart.relative,
            side.apart.scale,
            "" if side.verdict == OK else where(side.apart, side.words),
            side.apart.unlike,
            "end to end",
            "; ".join((*_masks(side.apart), *([side.hint] if side.verdict == OK and side.hint else []))),
        )
        for side in sides
    ]
