"""A diagnosis as a terminal shows it: the mistake first, then how well it explains the difference, then the fix."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from layoutx.show.tables import Cell, Line, Note, clean, grid, plural, prose, row
from layoutx.verify.diagnose.between import Found
from layoutx.verify.diagnose.remarks import Remark
from layoutx.verify.diagnose.suspect import Diagnosis, Explanation
from layoutx.words import listed

if TYPE_CHECKING:
    from layoutx.diagnosis import WholeDiagnosis
    from layoutx.mended import Mended

MOST_NAMES, MOST_FAMILIES, MOST_RIVALS, MOST_LAYERS, MOST_LINES = 6, 8, 3, 8, 4
NO_OPTION = "none is needed: no weights lie there; port and convert move those of the layers as they are"
NUMBERLESS = ("eps", "activation", "border")  # families that leave the weights alone


def as_text(found: WholeDiagnosis, width: int = 99, color: bool = False) -> str:
    """The whole diagnosis; equal explanations of several layers are told once."""
    parts = [prose(_answer(found), width, color, "head")]
    groups: dict[tuple[object, ...], list[Diagnosis]] = {}
    for one in found.layers:
        groups.setdefault(_key(one), []).append(one)
    told = list(groups.values())
    parts += [_part(_title(group), _layers(group), width, color) for group in told[:MOST_LAYERS]]
    if len(told) > MOST_LAYERS:
        parts.append(prose(f"and {plural(len(told) - MOST_LAYERS, 'more layer')}: --json has all", width, color, "dim"))
    parts += [prose(_tried(found.tried), width, color)] if found.tried is not None else []
    parts += [_part(_gap_title(gap), _gap(gap), width, color) for gap in found.gaps]
    now = [r for r in found.remarks if not r.training]
    parts += [_part(f"{_sentence(r.what)}{_mode(r.mode)}.", _remark(r), width, color) for r in now]
    later = [r for r in found.remarks if r.training]
    if later:
        lines = [Note(f"{clean(r.what, 400)}{_mode(r.mode)}{f': {clean(r.do)}' if r.do else ''}") for r in later]
        parts.append(_part("Only when training goes on", lines, width, color, "dim"))
    return "\n\n".join(parts)


def _part(head: str, lines: Iterable[Line], width: int, color: bool, style: str = "head") -> str:
    body = grid(["", ""], lines, width, color)
    return prose(head, width, color, style) + (f"\n{body}" if body else "")


def _answer(found: WholeDiagnosis) -> str:
    names = [clean(side.get("name", "")) or "the model" for side in (found.validation.source, found.validation.target)]
    pair = f"{names[1]} against {names[0]}"
    many = len(found.layers) + len(found.gaps)
    if not many:
        if found.ok:
            return f"{pair}: they compute the same; there is nothing to explain."
        if found.validation.ok:
            return f"{pair}: at inference they compute the same, but not as they were given."
        return f"{pair}: no layer that could be compared differs, and yet not everything agrees (layoutx validate)."
    known = sum(bool(d.explanations) for d in found.layers) + sum(gap.known for gap in found.gaps)
    where = list(filter(None, [_many([d.suspect.name for d in found.layers], ""), *_gaps(found)]))
    said = "explained" if known == many else f"{known} of {many} explained" if known else "not explained"
    verb = "differs" if many == 1 and not any(gap.layer for gap in found.gaps) else "differ"
    return f"{pair}: {' and '.join(where)} {verb}; {said}, in {found.seconds:.1f} s."


def _tried(found: Mended) -> str:
    """What the repairs did in the target's own run."""
    names = listed([*map(clean, found.layers)], MOST_NAMES)
    largest = max((check.largest or 0.0 for check in found.after.end_to_end), default=0.0)
    if found.ok:
        return f"Tried: with {names} repaired so, the models compute the same (largest difference {_number(largest)})."
    if found.gaps:
        return f"Tried: with {names} repaired so, the outputs still differ, by what then shows between the layers:"
    if found.holds:
        return f"Tried: with {names} repaired so, nothing is left of that; what else is told here remains."
    return (
        f"Tried: with {names} repaired so, the outputs still differ, by {_number(largest)}, and nothing tells why: "
        "do not rely on it."
    )


def _many(names: Sequence[str], what: str) -> str:
    return "" if not names else what + (clean(names[0]) if len(names) == 1 else plural(len(names), "layer"))


def _gaps(found: WholeDiagnosis) -> Iterator[str]:
    numbers = list(dict.fromkeys(gap.layer for gap in found.gaps if gap.layer))
    yield _many(numbers, "the numbers of ")
    between = sum(not gap.layer for gap in found.gaps)
    if between:
        yield "what lies between two layers" if between == 1 else f"{between} places between layers"


def _key(one: Diagnosis) -> tuple[object, ...]:
    """Layers of one form with the same explanation are one mistake."""
    if not one.explanations:
        return (id(one),)
    return (one.suspect.target.form.name, *((e.mode, e.family, e.short) for e in one.explanations[0].edits))


def _title(group: Sequence[Diagnosis]) -> str:
    first = group[0]
    names = [one.suspect.name for one in group]
    shown = listed([*map(clean, names)], MOST_NAMES)
    other = first.suspect.place not in ("", first.suspect.name)
    place = f" ({clean(first.suspect.place)})" if other and len(group) == 1 else ""
    if not first.explanations:
        return f"{shown}{place}: {clean(first.note, 400) or 'none of these: no known mistake repairs the output'}."
    edits = first.explanations[0].edits
    what = ", and ".join(clean(edit.what, 400) for edit in edits)
    return f"{shown}{place}: {what} ({', '.join(dict.fromkeys(edit.mode for edit in edits))})."


def _layers(group: Sequence[Diagnosis]) -> Iterator[Line]:
    first = group[0]
    if not first.explanations:
        yield Note(f"{plural(first.tried, 'explanation')} tried{_next(first)}.")
        yield from _vain(first, ())
        return
    best = first.explanations[0]
    yield Note(_measured(group, best))
    codes = {tuple(e.code for e in one.explanations[0].edits) for one in group}
    others = [one.suspect.name for one in group[1:]] if len(codes) > 1 else []
    more = f"   # and alike for {listed([*map(clean, others)], MOST_NAMES)}" if others else ""
    yield from _fixes([("fix in the model", f"{e.code}{more}") for e in best.edits if e.code and e.option != e.code])
    only = " ".join(f"--only {one.suspect.name}" for one in group[:MOST_NAMES])
    options = [e.option.replace(f"--only {first.suspect.name}", only) for e in best.edits]
    yield from _fixes([("fix with layoutx", option) for option in options])
    for other in first.explanations[1 : 1 + MOST_RIVALS]:
        what = ", and ".join(clean(edit.short or edit.what, 200) for edit in other.edits)
        yield row(Cell("fits as well", "dim"), Cell(f"{what} (leaves {_number(other.after)})", "dim"))
    yield from _vain(first, [edit.family for one in first.explanations for edit in one.edits])
    if first.note:
        yield row(Cell("note", "dim"), Cell(clean(first.note, 400), "dim"))


def _vain(one: Diagnosis, fits: Sequence[str]) -> Iterator[Line]:
    """The families that were tried in vain, in one line."""
    names = [clean(name) for name in one.families if name not in fits]
    if names:
        more = f" and {len(names) - MOST_FAMILIES} more kinds" if len(names) > MOST_FAMILIES else ""
        yield row(Cell("tried in vain", "dim"), Cell(", ".join(names[:MOST_FAMILIES]) + more, "dim"))


def _measured(group: Sequence[Diagnosis], best: Explanation) -> str:
    after = max(one.explanations[0].after for one in group)
    before = max(one.explanations[0].before for one in group)
    undone = "With this undone" if len(best.edits) == 1 else "With both undone"
    text = f"{undone} the difference is {_number(after)} (before: {_number(before)})"
    held = any(edit.family not in NUMBERLESS for edit in best.edits)
    if held and all(one.explanations[0].certain for one in group):
        text += ", and the numbers are then the source's, bit for bit"
    families = " and ".join(dict.fromkeys(edit.family for edit in best.edits))
    if best.rivals:
        fit = ", ".join(clean(rival, 120) for rival in best.rivals[:MOST_RIVALS])
        text += f". {len(best.rivals) + 1} of {best.tried} ({families}) fit, these too: {fit}"
    elif best.tried:
        text += f". 1 of {best.tried} ({families}) fits"
    return f"{text}; {plural(group[0].tried, 'explanation')} tried{_next(group[0])}."


def _next(one: Diagnosis) -> str:
    return f", the next best leaves {_number(one.next_best)}" if one.next_best == one.next_best else ""


def _fixes(fixes: Iterable[tuple[str, str]]) -> Iterator[Line]:
    """Each once, whichever edits and sides it is for; of many lines the first ones."""
    seen = set[str]()
    for label, text in fixes:
        lines = [line for line in text.splitlines() if line not in seen]
        seen.update(lines)
        more = [f"... ({plural(len(lines) - MOST_LINES, 'more line')}: --json)"] if len(lines) > MOST_LINES else []
        shown = [part for line in (*lines[:MOST_LINES], *more) for part in line.split("; ")]  # a statement a line
        if lines:
            yield row(label, "\n".join(clean(part, 400) for part in shown))


def _gap_title(gap: Found) -> str:
    return f"{_sentence(gap.what)}{_mode(gap.mode)}."


def _gap(gap: Found) -> Iterator[Line]:
    if gap.known and gap.after == gap.after:
        own = "numbers" if gap.layer else "way"
        left = f"With the source's {own} the difference is {_number(gap.after)} (before: {_number(gap.before)})"
        yield Note(f"{left}." if gap.layer else f"{left}; {plural(gap.tried, 'way')} tried.")
        yield from _fixes([("fix in the model", gap.code), ("fix with layoutx", gap.option or NO_OPTION)])
        if gap.rivals:
            yield row(Cell("fits as well", "dim"), Cell("; ".join(map(clean, gap.rivals[:MOST_RIVALS])), "dim"))
    elif not gap.known:
        yield Note(f"{plural(gap.tried, 'way')} tried.")
        if gap.families:
            yield row(Cell("tried in vain", "dim"), Cell(", ".join(gap.families[: 2 * MOST_FAMILIES]), "dim"))


def _remark(remark: Remark) -> Iterator[Line]:
    yield from _fixes([("fix", remark.do)])


def _sentence(text: str) -> str:
    said = clean(text, 600)
    return f"{said[:1].upper()}{said[1:]}"


def _mode(mode: str) -> str:
    return f" ({mode})" if mode else ""


def _number(value: float) -> str:
    return "0" if value == 0.0 else "unlimited" if value == float("inf") else f"{value:.2g}"
