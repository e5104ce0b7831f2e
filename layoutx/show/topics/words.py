"""Words for what a bound form holds: axes, labels, formulas, dimensions; all of them from the spec."""

from __future__ import annotations

import re
from collections.abc import Mapping

from layoutx.empty import NOTHING
from layoutx.frozen import frozen
from layoutx.lang.tree import Axis, Dim, Product
from layoutx.model.record import Piece
from layoutx.plan.naming import dim_names
from layoutx.show.views import LayerView, ModelView
from layoutx.spec.bound import BoundForm, BoundTensor
from layoutx.spec.schema import Words, choose

_OPTIONAL = re.compile(r"\s+\[([^\[\]]*)\]")
_WORD = re.compile(r"[A-Za-z_]\w*")


@frozen
class Subject:
    """What is explained: a bound layer, and where it comes from.

    Attributes:
        name: of the layer, or the form. view, model: of a file or a live model; None for a form.
        own: refined axis -> its dims as stored. examples: sizes that nobody gave, to show a form with.
    """

    name: str
    bound: BoundForm
    view: LayerView | None = None
    model: ModelView | None = None
    own: Mapping[str, str] = NOTHING
    examples: Mapping[str, int] = NOTHING

    @property
    def framework(self) -> str:
        """`keras`, `torch`, `onnx`."""
        return self.bound.form.framework

    @property
    def pieces(self) -> Mapping[str, tuple[Piece, ...]]:
        """What the layer's axes are made of."""
        return self.view.pieces if self.view is not None else NOTHING


def words_of(bound: BoundForm, axis: str) -> Words:
    """What people call an axis; the axis itself where the spec has no words for it."""
    return bound.kind.words.get(axis, Words(axis, axis))


def label_word(bound: BoundForm, axis: str, label: str) -> str:
    """`forget gate`; the label itself where the spec has no word for it."""
    return words_of(bound, axis).labels.get(label, label)


def formula(bound: BoundForm) -> str:
    """What the layer computes in its own tensors' names, its activation around it; "" where the spec says nothing."""
    text = choose(bound.form.formula, bound.config)
    if text is None:
        return ""
    held = {tensor.name for tensor in bound.tensors}
    named = {spec.name for spec in bound.form.tensors}

    def kept(match: re.Match[str]) -> str:
        absent = [word for word in _WORD.findall(match[1]) if word in named and word not in held]
        return "" if absent else f" {match[1].strip()}"

    text = _OPTIONAL.sub(kept, str(text)).strip()
    applied = bound.settings.get("activation")
    return text if applied in (None, "linear") else f"{applied}({text})"


def dims(bound: BoundForm, tensor: BoundTensor) -> list[str]:
    """The stored dimensions in people's words: `["inputs", "units"]`; `gates × units` for a product."""
    names = dim_names(bound, tensor)
    return [_dim(bound, dim, name) for dim, name in zip(tensor.layout.dims, names, strict=True)]


def _dim(bound: BoundForm, dim: Dim, name: str) -> str:
    if isinstance(dim, Product):
        own = [d for d in dim.dims if not (isinstance(d, Axis) and bound.sizes.get(d.name) == 1)]
        leaves = [d.name for d in own if isinstance(d, Axis)]
        if len(leaves) == len(own) > 1 and not set(leaves) & set(bound.kind.words):
            return name
    parts = [words_of(bound, part.removesuffix(" reversed")).many or part for part in name.split("×")]
    return " × ".join(parts) + (", back to front" if name.endswith(" reversed") else "")


def shaped(bound: BoundForm, tensor: BoundTensor) -> str:
    """`kernel (input 2000, output 32)`."""
    pairs = zip(dim_names(bound, tensor), tensor.shape, strict=True)
    return f"{tensor.name} ({', '.join(f'{name} {size}' for name, size in pairs)})"


def condition(bound: BoundForm, name: str) -> str:
    """`absent with use_bias=False`: under which config a tensor is not there; "" for one that always is."""
    spec = next((s for s in bound.form.tensors if s.name == name), None)
    if spec is None:
        return ""
    whens = [case.when for case in spec.cases]
    if len(whens) == 1 and whens[0]:
        ((key, values), *_) = whens[0].items()
        flags = [v for v in values if isinstance(v, bool)]
        return f"absent with {key}={not flags[0]}" if len(flags) == 1 else ""
    return "may be left out" if spec.optional else ""


def missing(bound: BoundForm) -> list[tuple[str, str]]:
    """Tensors that the form has under another config -> what their absence means."""
    held = {tensor.name for tensor in bound.tensors}
    found = []
    for spec in bound.form.tensors:
        text = condition(bound, spec.name)
        if spec.name in held or "{" in spec.name or not text:
            continue
        layout = spec.cases[0].value
        role = bound.kind.roles.get(layout.head.role) if layout.head else None
        means = {"zeros": "it counts as zeros", "ones": "it counts as ones"}.get(role.absent if role else "", "")
        if means:
            found.append((spec.name, means))
    return found
