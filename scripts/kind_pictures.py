"""The pictures of docs/kinds: where the numbers of a kind live in one framework, beside where they live in another."""

from __future__ import annotations

from collections.abc import Iterator

from golden_plans import USUAL_RANK, planned

from layoutx.errors import LayoutxError
from layoutx.plan.plan import Plan
from layoutx.show.picture import picture
from layoutx.show.svg import svg
from layoutx.spec.schema import Form, Kind

BESIDE = (("keras", "torch"), ("torch", "onnx"), ("torch", "flax"))
MOST_TENSORS = 9  # more drawings than these on one side are no picture any more


def pictures(kind: Kind) -> dict[str, tuple[str, str]]:
    """File name -> (what it shows, the SVG): the usual form of each framework, first with first."""
    found = {}
    for here, there in BESIDE:
        plan = next(_plans(kind, here, there), None)
        if plan is not None and max(len(plan.source.tensors), len(plan.target.tensors)) <= MOST_TENSORS:
            title = f"{plan.source.form.name} and {plan.target.form.name}"
            drawn = svg(picture(plan.source, plan), standalone=True)
            found[f"{kind.name}-{here}-{there}.svg"] = (title, drawn + "\n")
    return found


def _plans(kind: Kind, here: str, there: str) -> Iterator[Plan]:
    for source in _forms(kind, here):
        for target in _forms(kind, there):
            try:
                yield planned(kind, source, target, _rank(source, target, kind))
            except LayoutxError:
                continue


def _forms(kind: Kind, framework: str) -> list[Form]:
    found = [form for form in kind.forms.values() if form.framework == framework and not form.by_class]
    return [form for form in found if form.rank in (None, USUAL_RANK)] or found


def _rank(source: Form, target: Form, kind: Kind) -> int:
    return source.rank or target.rank or (USUAL_RANK if kind.spread else 0)
