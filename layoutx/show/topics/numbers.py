"""One output element by hand, for people: the loop, the largest terms, and how it compares with `lx.forward`."""

from __future__ import annotations

from math import fsum
from typing import Any

from layoutx.explained import Block, Code, Say
from layoutx.verify.by_hand import ByHand
from layoutx.verify.hand.steps import Step

MOST = 6  # terms that are shown of a sum


def numbers(found: ByHand) -> tuple[str, list[Block], dict[str, Any]]:
    """The title, the steps, and the same as plain values."""
    at = ", ".join(map(str, found.element))
    same = f"lx.forward gives {found.forward:.9g} (difference {found.difference:.0e})"
    title = f"y[{at}] = {found.value:.9g} by hand; {same}."
    blocks: list[Block] = []
    if found.formula:
        blocks += [Say("The loop:"), Code((found.formula,))]
    blocks += [Code(tuple(_step(step, found))) for step in found.steps]
    if found.formula and ") / " in found.formula:
        blocks.append(Say("Only where the division leaves no rest: other positions get nothing from that input."))
    return title, blocks, to_dict(found)


def _step(step: Step, found: ByHand) -> list[str]:
    head = step.formula if step.formula != found.formula else ""
    lines = ["   ".join(filter(None, [head, step.about]))] if head or step.about else []
    width = max((len(t.left) for t in step.terms[:MOST]), default=0)
    other = max((len(t.right) for t in step.terms[:MOST]), default=0)
    for term in step.terms[:MOST]:
        pair = f"{term.left:<{width}} {term.left_value:>11.6g}  ×  {term.right:<{other}} {term.right_value:>11.6g}"
        lines.append(f"  {pair}  = {term.value:>12.6g}")
    more = step.terms[MOST:]
    if more:
        lines.append(f"  and {len(more)} more, which sum to {fsum(t.value for t in more):.6g}")
    lines += [f"  {name} = {value:.9g}" for name, value in step.plain]
    return [*lines, f"  {step.name} = {step.value:.9g}"]


def to_dict(found: ByHand) -> dict[str, Any]:
    """Every step with all its terms."""
    return {
        "element": list(found.element),
        "formula": found.formula,
        "value": found.value,
        "forward": found.forward,
        "steps": [
            {
                "name": step.name,
                "about": step.about,
                "formula": step.formula,
                "value": step.value,
                "plain": [[name, value] for name, value in step.plain],
                "terms": [[t.left, t.left_value, t.right, t.right_value, t.value] for t in step.terms],
            }
            for step in found.steps
        ],
    }
