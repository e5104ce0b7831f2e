"""Two models on the page: the error of every layer, the first that differs, and what explains it."""

from __future__ import annotations

from collections.abc import Iterator

from layoutx.diagnosis import WholeDiagnosis
from layoutx.page.document import Section
from layoutx.page.html import Html, tag
from layoutx.page.model import Told
from layoutx.page.table import Cell, difference, number, table, verdict
from layoutx.show.validation_text import HIDDEN
from layoutx.validation import Validation
from layoutx.verify.compare.pairs import Check, Gap
from layoutx.verify.diagnose.between import Found
from layoutx.verify.diagnose.remarks import Remark
from layoutx.verify.diagnose.suspect import Diagnosis, Edit

HEADS = ("layer", "its counterpart", "verdict", "difference", "relative", "where", "how")


def sections(found: Validation) -> Iterator[Section]:
    """Layer by layer, end to end, and what was not compared."""
    first = found.first
    rows = [_row(check, check is first) for check in found.checks]
    rows += [_gap_row(gap, gap is first) for gap in found.gaps]
    names = [check.layer for check in found.checks] + [gap.after for gap in found.gaps]
    hidden = tag("p", HIDDEN) if any(check.hidden for check in found.checks) else None
    yield Section("by-layer", "Error by layer", tag("div", hidden, table(HEADS, rows, names)))
    ends = [_row(check, check is first) for check in found.end_to_end]
    none = tag("p", "The target as a whole was not run.")
    yield Section("end-to-end", "End to end", table(HEADS, ends) if ends else none)
    left = [tag("li", tag("b", name), f": {why}") for name, why in (*found.lost.items(), *found.unused.items())]
    left += [tag("li", note) for note in found.notes]
    if left:
        yield Section("notes", "Notes, and what has no counterpart", tag("ul", left))


def reasons(found: WholeDiagnosis) -> Iterator[Section]:
    """The explanation of every difference, or what was tried in vain."""
    parts = [_explained(one) for one in found.layers] + [_between(one) for one in found.gaps]
    parts += [_remark(remark) for remark in found.remarks]
    nothing = tag("p", "There is nothing to explain." if found.ok else "None of the known mistakes explains it.")
    yield Section("why", "Why", tag("div", parts or nothing))


def told(found: Validation) -> Told:
    """What the comparison says of each layer of the source: its worst verdict and difference."""
    verdicts: dict[str, tuple[Html | str, float | str]] = {}
    far: dict[str, tuple[Html | str, float | str]] = {}
    for check in found.checks:
        name = check.layer.removesuffix(".forward").removesuffix(".backward")
        if name not in verdicts or not check.ok:
            verdicts[name] = (verdict(check.verdict), check.verdict)
            far[name] = (number(check.largest).shown, check.largest if check.largest is not None else "")
    return Told({"verdict": verdicts, "difference": far})


def _row(check: Check, first: bool) -> list[Cell | str]:
    name = f"{check.layer} call {check.call + 1}" if check.call else check.layer
    said = tag("span", verdict(check.verdict), " ← the first that differs" if first else "")
    hidden = f"not the source's: {check.hidden}" if check.hidden else ""
    where = "; ".join(filter(None, [check.where, hidden, check.problem, check.note]))
    far = Cell("NaN or ∞", "", True) if check.unlike else difference(check.largest, check.ok)
    return [name, check.place, Cell(said, check.verdict), far, number(check.relative), where, check.how]


def _gap_row(gap: Gap, first: bool) -> list[Cell | str]:
    name = f"{', '.join(gap.before) or 'inputs'} → {gap.after or 'outputs'}"
    said = tag("span", verdict("BETWEEN"), " ← the first that differs" if first else "")
    far = gap.found
    largest = difference(far.largest, False)
    return [name, "", Cell(said, "BETWEEN"), largest, number(far.relative), gap.where, gap.hint]


def _explained(found: Diagnosis) -> Html:
    title = tag("h3", f"{found.suspect.name} ({found.suspect.target.form.name})")
    if not found.explanations:
        families = ", ".join(f"{name} {count}" for name, count in found.families.items())
        note = f"{found.note[:1].upper()}{found.note[1:]}."
        return tag("div", title, tag("p", note), tag("p", f"{found.tried} tried: {families}.", class_="dim"))
    parts = [title]
    for one in found.explanations:
        parts += [_edit(edit) for edit in one.edits]
        rivals = f" Others that fit as well: {', '.join(one.rivals)}." if one.rivals else ""
        parts.append(tag("p", f"The difference goes from {one.before:.2g} to {one.after:.2g}.{rivals}"))
    parts.append(tag("p", f"{found.tried} explanations were tried.", class_="dim"))
    return tag("div", parts)


def _remark(remark: Remark) -> Html:
    later = "only when training goes on: " if remark.training else ""
    do = (": ", tag("code", remark.do)) if remark.do else None
    return tag("p", tag("b", remark.mode), " " if remark.mode else "", later, remark.what, do)


def _edit(edit: Edit) -> Html:
    lines = [tag("p", tag("b", edit.mode), " " if edit.mode else "", edit.what)]
    return tag("div", lines, _fixes(edit.code, edit.option))


def _fixes(code: str, option: str) -> list[Html]:
    """What mends it, a statement a line; a fix in the model that is layoutx' own stands once."""
    told = [("fix in the model", code if code != option else ""), ("fix with layoutx", option)]
    return [tag("div", label, tag("pre", text.replace("; ", "\n"))) for label, text in told if text]


def _between(found: Found) -> Html:
    gap = found.gap
    place = f"between {', '.join(gap.before) or 'the inputs'} and {gap.after or 'the outputs'}"
    title = tag("h3", f"the numbers of {found.layer}" if found.layer else place)
    parts = [title, tag("p", tag("b", found.mode), " " if found.mode else "", found.what)]
    if found.after == found.after:
        parts.append(tag("p", f"The difference goes from {found.before:.2g} to {found.after:.2g}."))
    return tag("div", parts, _fixes(found.code, found.option))
