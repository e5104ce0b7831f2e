"""A comparison of two models as a terminal shows it: a line a layer, the first that differs, and what that means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layoutx.model.differing import together
from layoutx.show.alike_text import TIME_FIRST
from layoutx.show.tables import Cell, Line, Note, clean, grid, plural, prose, row
from layoutx.verify.compare.alone import OWN_INPUT
from layoutx.verify.compare.limits import FAIL, OPEN
from layoutx.verify.compare.pairs import Check, Gap
from layoutx.verify.made import LARGER
from layoutx.words import listed

if TYPE_CHECKING:
    from layoutx.validation import Validation

STYLES = {"OK": "moves", "INACCURATE": "rounds", "FAIL": "wrong", "NOT REACHED": "wrong", "not compared": "dim"}
FIRST = "← first difference"
QUIET = ("", "end to end", OWN_INPUT, "found by its values in the target's own run")
COMPARE = "Compare padding, pooling, activation, flatten and the order of axes there"
HIDDEN = (
    "The outputs are the same, and the weights are not: other inputs may show it (tokens that were not looked up, or "
    "such as wake a unit that gives nothing here)."
)


def as_text(found: Validation, width: int = 99, color: bool = False) -> str:
    """The whole comparison: the answer, the table, what the first difference means, and what was not compared."""
    head = ["layer", "largest difference", "relative", "where", "verdict"]
    parts = [
        "\n".join(prose(line, width, color, style) for line, style in _answer(found)),
        grid(head, _rows(found), width, color),
        "\n".join(prose(line, width, color) for line in _reasons(found)),
        "\n".join(prose(line, width, color) for line in _account(found)),
    ]
    return "\n\n".join(part for part in parts if part)


def _answer(found: Validation) -> Iterator[tuple[str, str]]:
    names = [clean(side.get("name", "")) or "the model" for side in (found.source, found.target)]
    yield f"{names[1]} against {names[0]}: {_said(found)}.", "head"
    about = [f"{clean(s.get('framework', ''))} {clean(s.get('version', ''))}".strip() for s in _sides(found)]
    dtypes = list(dict.fromkeys(side.get("dtype", "") for side in _sides(found) if side.get("dtype")))
    seconds = f", {found.seconds:.1f} s" if found.seconds is not None else ""
    yield f"{about[1]} against {about[0]}, in {' and '.join(dtypes) or 'no precision'}{seconds}", "dim"


def _sides(found: Validation) -> tuple[dict[str, str], dict[str, str]]:
    return dict(found.source), dict(found.target)


def _said(found: Validation) -> str:
    if LARGER in found.notes:
        return f"they {LARGER}: {_parted(found)}"
    return _parted(found)


def _parted(found: Validation) -> str:
    first = found.first
    hidden = [clean(check.layer) for check in found.checks if check.hidden]
    if found.ok:
        given = _given(found)
        open_ = [clean(check.layer) for check in found.checks if check.verdict == OPEN and not check.call]
        alone = f" ({listed(open_)} not compared alone)" if open_ else ""
        return f"they compute the same{given}{alone}" if found.end_to_end else "every layer computes the same"
    if isinstance(first, Gap):
        return f"they differ, first between {_names(first.before, 'the inputs')} and {_after(first)}"
    if first is not None and first in found.end_to_end:
        return "their outputs differ"
    if isinstance(first, Check) and first.narrow and not found.gaps and not _others(found):
        return f"they differ by the rounding of weights to {first.narrow}, and by nothing else"
    if hidden and len(hidden) == len(_others(found)) and not found.gaps:
        return f"they compute the same on these inputs, which do not reach all weights of {listed(hidden)}"
    if first is not None:
        return f"they differ, first in {clean(first.layer)}"
    alike = all(check.verdict == "OK" for check in found.checks)
    if alike and found.checks and not found.end_to_end:
        return "every layer computes the same, but the target as a whole was not run"
    return "not everything could be compared"


def _given(found: Validation) -> str:
    """How the target had to be given the inputs for it."""
    if time_first(found):
        return f", the target given {TIME_FIRST}"
    order = next((note for note in found.notes if note.startswith("inputs: ") and note.endswith("in this order")), "")
    return f", the target given {order.removeprefix('inputs: ')}" if order else ""


def time_first(found: Validation) -> bool:
    """Whether the target was given time before batch."""
    return any("time turned before batch" in note for note in found.notes)


def _names(names: tuple[str, ...], nothing: str) -> str:
    return ", ".join(clean(name) for name in names) or nothing


def _after(gap: Gap) -> str:
    return _called(gap.after, gap.call) if gap.after else "the outputs"


def _called(name: str, call: int) -> str:
    return f"{clean(name)} call {call + 1}" if call else clean(name)


def _rows(found: Validation) -> Iterator[Line]:
    first = found.first
    told: list[Gap] = []
    for check in found.checks:
        for gap in found.gaps:
            here = gap.call == check.call and check.layer in (gap.after, *_ways(gap.after))
            if gap.after and here and all(gap is not one for one in told):
                told.append(gap)
                yield _gap_row(gap, gap is first)
        yield _row(check, check is first)
        yield from _notes(check)
    for gap in found.gaps:
        if not gap.after:
            yield _gap_row(gap, gap is first)
    for check in found.end_to_end:
        yield _row(check, check is first, "end to end")
        if check.ok:
            yield from _notes(check)


def _ways(name: str) -> tuple[str, ...]:
    return f"{name}.forward", f"{name}.backward"


def _row(check: Check, first: bool, where: str = "") -> Line:
    name = _called(check.layer, check.call)
    place = ", ".join(text for text in (where, clean(check.where)) if text)
    verdict = f"{check.verdict}  {FIRST}" if first else check.verdict
    largest = "NaN or ∞" if check.unlike else _number(check.largest)
    relative = "–" if check.unlike else _number(check.relative)
    return row(name, largest, relative, place, Cell(verdict, STYLES[check.verdict]))


def _gap_row(gap: Gap, first: bool) -> Line:
    verdict = f"BETWEEN  {FIRST}" if first else "BETWEEN"
    name = f"{_names(gap.before, 'inputs')} → {_called(gap.after, gap.call) or 'outputs'}"
    far = gap.found
    return row(name, _number(far.largest), _number(far.relative), clean(gap.where), Cell(verdict, "wrong"))


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    if value == float("inf"):
        return "∞"
    return "0" if value == 0.0 else f"{value:.2g}"


def _notes(check: Check) -> Iterator[Line]:
    how = "" if check.how in QUIET else check.how
    hidden = f"not the source's: {check.hidden}" if check.hidden else ""
    for text in (hidden, check.note, how if check.verdict != "not compared" else "", check.problem):
        if text:
            yield Note(clean(text, 400), indent=6, style="dim")


def reason(found: Validation) -> str:
    """What the first difference means; "" where no layer differs and none lies before a difference."""
    if found.first is None or found.first in found.end_to_end:
        return ""
    if isinstance(found.first, Gap):
        return "\n  ".join(_gap_reason(found.first, found))  # with what stands there on both sides
    return next(_reasons(found), "")


def _reasons(found: Validation) -> Iterator[str]:
    first = found.first
    if isinstance(first, Gap):
        yield from _gap_reason(first, found)
    elif first is not None and first not in found.end_to_end:
        place = f" ({clean(first.place)} in the target)" if first.place else ""
        if OWN_INPUT not in first.how:
            yield f"{clean(first.layer)}{place} is the first whose output differs, in the target's own run."
            return
        fed = "given the very input that the source's was given" if OWN_INPUT in first.how else clean(first.how)
        why = f"{clean(first.layer)}{place} differs in its own right, {fed}: {_what_differs(first, found)}. "
        why += "`layoutx diagnose` tries the known mistakes on it."
        yield _rounded(first, found) if first.narrow else HIDDEN if first.hidden else why
    others = [gap for gap in found.gaps if gap is not first]
    for gap in others:
        yield from _gap_reason(gap, found)
    applied: dict[str, list[str]] = {}
    for check in found.checks:
        if check.applied and not check.call:
            applied.setdefault(check.applied, []).append(clean(check.layer))
    for name, layers in applied.items():
        yield f"{name} is part of {listed(layers)} on one side only: it was applied to the other side's output too."
    if any(check.how == OWN_INPUT for check in found.checks):
        yield "Every layer was given the source's own input, so that one mistake does not show in the layers after it."


def certain(found: Validation) -> bool:
    """Whether the first that differs is plainly another layer, or has other settings, as is known: no rounding."""
    first = found.first
    return isinstance(first, Check) and (first.verdict == FAIL or bool(_settings(first, found)))


def _what_differs(first: Check, found: Validation) -> str:
    """The settings that are known to differ, else what it may be."""
    own = _settings(first, found)
    if not own:
        return "its weights or its settings are not those of the source"
    said = [clean(line, 400) + (f" (so in {plural(more, 'other layer')})" if more else "") for line, more in own]
    return f"its settings are not those of the source: {'; '.join(said)}"


def _settings(first: Check, found: Validation) -> list[tuple[str, int]]:
    """Settings of a layer that are known to differ, each with the number of other layers that have them."""
    name = first.layer if first.layer in found.owners else first.layer.rpartition(".")[0]
    told = ((layer, source, target) for layer, _, source, target in found.bounds if layer not in found.unsaid)
    lines = together(told, name)
    return [(line, len(layers) - 1) for line, layers in lines.items() if name in layers]


def _others(found: Validation) -> list[Check]:
    """What differs by more than the precision of the weights."""
    ends = [check for check in found.end_to_end if check.verdict == "FAIL"]
    return [check for check in found.checks if not check.ok and not check.narrow] + ends


def _rounded(first: Check, found: Validation) -> str:
    """What differs by the precision of the weights alone."""
    own = [check for check in found.checks if check.narrow]
    rest = _others(found)
    more = f" {listed([clean(check.layer) for check in rest])}: more than that." if rest else ""
    return (
        f"{clean(first.layer)} differs because one side's weights are {first.narrow}, as {plural(len(own), 'layer')} "
        f"here: with unrounded weights each gives what the source gives.{more}"
    )


def _gap_reason(gap: Gap, found: Validation) -> Iterator[str]:
    before, after = _names(gap.before, "the model's inputs"), _after(gap)
    wrong = any(check.layer in gap.before and not check.ok for check in found.checks)
    agrees = "hands on the same" if len(gap.before) == 1 else "hand on the same"
    agrees = "are the same" if not gap.before else agrees
    if wrong:
        agrees = "is no reason for it"
    what = f"what {after} is given is not" if gap.after else "they are not the same"
    yield (
        f"The fault lies between {before} and {after}: {before} {agrees}, {what}"
        f"{': ' + clean(gap.hint, 400) if gap.hint else '. ' + COMPARE}."
    )
    for side, names in (("source", gap.passed), ("target", gap.there)):
        yield f"  in the {side}: {', '.join(clean(name) for name in names) or 'no layer (functions, or nothing)'}"


def _account(found: Validation) -> Iterator[str]:
    text = f"{found.compared} of {plural(found.layers, 'layer')} compared"
    outputs = plural(len(found.end_to_end), "output") if found.end_to_end else "no outputs"
    yield f"{text}; {outputs} compared end to end."
    if found.lost:
        named = [f"{clean(name)} ({clean(why.splitlines()[0] if why else '')})" for name, why in found.lost.items()]
        yield f"{plural(len(found.lost), 'layer')} of the source without counterpart: {listed(named)}"
    if found.unused:
        named = [clean(name) for name in found.unused]
        yield f"{plural(len(found.unused), 'tensor')} of the target without counterpart: {listed(named)}"
    yield from (f"Note: {clean(note, 400)}" for note in found.notes)
