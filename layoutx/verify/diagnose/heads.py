"""The same projections split into another count of heads: no shape shows it, every output does (F23)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from layoutx.errors import LayoutxError
from layoutx.spec.bind import bind
from layoutx.spec.bound import BoundForm
from layoutx.verify.diagnose.fixes import constructor
from layoutx.verify.diagnose.suspect import Edit, Suspect

HEADS = ("num_heads", "num_attention_heads")


def heads(suspect: Suspect) -> Iterator[Edit]:
    """Every count of heads that divides the width, the source's first."""
    sizes = suspect.target.sizes
    key = next((k for k in HEADS if k in suspect.target.form.config), "")
    if suspect.target.kind.name != "attention" or not key or sizes.get("rep", 1) != 1:
        return
    now, own = sizes["kv"], suspect.source.sizes.get("kv", 0)
    wide = now * sizes["head"]
    for many in sorted((n for n in range(1, wide + 1) if wide % n == 0 and n != now), key=lambda n: n != own):
        bound = _bound(suspect, key, many)
        if bound is not None:
            yield _edit(suspect, bound, key, now, many)


def _bound(suspect: Suspect, key: str, many: int) -> BoundForm | None:
    """The target's form with so many heads; None where its shapes do not allow them."""
    old = suspect.target
    shapes = {name: array.shape for name, array in suspect.stored.items()}
    try:
        found = bind(old.kind, old.form, {**old.config, key: many}, shapes=shapes)
    except LayoutxError:
        return None
    return found if [(t.name, t.shape) for t in found.tensors] == [(t.name, t.shape) for t in old.tensors] else None


def _edit(suspect: Suspect, bound: BoundForm, key: str, now: int, many: int) -> Edit:
    def apply(s: Suspect) -> Suspect:
        facts = {k: v for k, v in s.facts.items() if k not in bound.facts}
        settings = {**s.settings, **{k: v for k, v in bound.settings.items() if k == "heads"}}
        return replace(s, target=bound, facts={**bound.facts, **facts}, settings=settings)

    name, width = suspect.target.form.name, bound.sizes.get("kv", 1) * bound.sizes.get("head", 1)
    what = f"{name} splits its {width} channels into {now} heads, not into {many}: the shapes are the same"
    code = constructor(bound, f"{key}={many}", suspect.place)
    option = "none is needed: the weights are the same for any number of heads; only the target's config is wrong"
    return Edit("F23", key, what, apply, option, code, f"{key} {many}")
