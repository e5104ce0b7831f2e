"""What is told about one layer or form: all of it, a part, an axis, or one output element by hand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from layoutx.errors import LayoutxError, UsageError
from layoutx.explained import Block, Explained, Say
from layoutx.show.picture import picture
from layoutx.show.topics.axis import axis_of
from layoutx.show.topics.beside import plans, targets
from layoutx.show.topics.layer import arrays, elsewhere, odd, rest, title
from layoutx.show.topics.words import Subject, formula
from layoutx.show.views import LayerView, ModelView
from layoutx.spec.examples import example_sizes, spreads
from layoutx.spec.registry import Registry
from layoutx.spec.schema import Form, Kind
from layoutx.spec.sizing import UndeterminedError

USUAL_RANK = 2  # of convolutions whose form leaves it open: images


def about(
    subject: Subject, known: Registry, part: str, axis: str, to: str, element: Sequence[int] | None, x: Any
) -> Explained:
    """The explanation that the arguments of `explain` ask for.

    Raises:
        UsageError: no such part or framework; an axis that cannot be followed; no input for an element; two questions.
    """
    _one_question({"part": part, "axis": axis, "element": element is not None}, to, x)
    if element is not None:
        return _by_hand(subject, subject.view.arrays() if subject.view is not None else None, element, x)
    if axis:
        blocks, data = axis_of(subject, axis)
        return Explained(f"Where the {data['axis']} axis of {subject.name} comes from", tuple(blocks), data)
    names = targets(subject, known, to)
    return _part(subject, part, known, names) if part else _whole(subject, known, names)


def _one_question(asked: Mapping[str, Any], to: str, x: Any) -> None:
    """Refuse what the answer to one question would pass over."""
    names = [name for name, value in asked.items() if value]
    if len(names) > 1:
        raise UsageError(f"{' and '.join(names)} are questions of their own", do="ask one at a time")
    if x is not None and not asked["element"]:
        raise UsageError("an input is read for one output element alone", do="name the element (--element 0,3)")
    if to and (asked["axis"] or asked["element"]):
        raise UsageError(f"the answer about {names[0]} compares no frameworks", do=f"leave {to} out")


def of_form(
    name: str, known: Registry, sizes: Mapping[str, int], shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any]
) -> Subject:
    from layoutx.api import _known_config, _sizes

    _known_config(known, name, config)
    from layoutx.spec.partial import sizes_from

    given = _sizes(known, name, sizes, {})
    given |= sizes_from(known.kind_of(name), known.form(name), config, shapes, given) if shapes else {}
    try:
        return Subject(name, known.bind(name, config, sizes=given))
    except UndeterminedError as error:
        form = known.form(name)
        made = _made(known.kind_of(name), form, config, {*given}, error.axes)
        shown = {axis: size for axis, size in made.items() if axis in error.axes or "..." not in form.pin}
        try:
            return Subject(name, known.bind(name, config, sizes={**given, **made}), examples=shown)
        except LayoutxError:
            raise error from None


def _made(
    kind: Kind, form: Form, config: Mapping[str, Any], given: Collection[str], wanted: Sequence[str]
) -> dict[str, int]:
    """Example sizes of the axes that are wanted; of a form for maps of any rank, the sides of its kernel too."""
    rank = config.get("rank", form.rank) or USUAL_RANK
    sides = kind.spread.get(rank, ())
    every = example_sizes(kind, form, config, rank)
    free = (spreads(form) or "..." in form.pin) and not {*sides} & {*given}
    return {axis: size for axis, size in every.items() if axis in wanted or (free and axis in sides)}


def of_layer(view: ModelView, layer: LayerView) -> Subject:
    if not layer.tensors:
        raise UsageError(f"{layer.name} has no weights", why=f"its class is {layer.class_name}")
    if layer.bound is None:
        why = layer.problem or "; ".join(layer.notes) or f"its class is {layer.class_name or 'not told'}"
        raise UsageError(f"the form of {layer.name} is not known", why=why, do=f"name it: --form {layer.name}=FORM")
    return Subject(layer.name, layer.bound, layer, view, layer.own)


def _whole(subject: Subject, known: Registry, names: list[str]) -> Explained:
    shown, tensors = arrays(subject)
    found, refused = plans(subject, known, names)
    beside, others = elsewhere(subject, found, refused)
    blocks: list[Block] = [*_examples(subject), *shown, *beside, *rest(subject)]
    data = {
        "layer": subject.name if subject.view is not None else None,
        "form": subject.bound.form.name,
        "kind": subject.bound.kind.name,
        "formula": formula(subject.bound),
        "why": subject.bound.form.why,
        "arrays": tensors,
        "elsewhere": others,
        "refused": refused,
        "sizes": dict(subject.bound.sizes),
        "examples": dict(subject.examples),
    }
    drawn = picture(subject.bound, found[0] if found else None)
    return Explained(title(subject), tuple(blocks), data, drawn)


def _examples(subject: Subject) -> list[Block]:
    if not subject.examples:
        return []
    sizes = ", ".join(f"{axis} {size}" for axis, size in subject.examples.items())
    return [Say(f"Sizes are examples ({sizes}); give yours with --size {next(iter(subject.examples))}=N, ...")]


def _part(subject: Subject, name: str, known: Registry, names: list[str]) -> Explained:
    from layoutx.show.topics.part import part, spot

    heading, blocks, data, found = part(subject, name, known, names)
    first = next(iter(plans(subject, known, names[:1])[0]), None)
    drawn = picture(subject.bound, first, spot(subject.bound, found))
    return Explained(heading, (*_examples(subject), *blocks), {"layer": subject.name, **data}, drawn)


def _own(subject: Subject, x: Any) -> Any:
    """Of the model's inputs by name, the one that this layer reads."""
    if not isinstance(x, Mapping):
        return x
    origins = {piece.origins[0] for pieces in subject.pieces.values() for piece in pieces}
    named = [name for name in x if name in origins]
    return x[named[0]] if len(named) == 1 else x


def _by_hand(subject: Subject, tensors: Mapping[str, Any] | None, element: Sequence[int], x: Any) -> Explained:
    from layoutx.show.topics.numbers import numbers
    from layoutx.verify.by_hand import by_hand

    if tensors is None:
        raise UsageError(
            f"{subject.name} is a form, and holds no numbers", do="give a file or a live model and a layer"
        )
    if x is None:
        raise UsageError(f"one output of {subject.name} needs the layer's input", do="give x (--inputs x.npy)")
    found = by_hand(subject.bound, tensors, _own(subject, x), element, subject.own)
    heading, blocks, data = numbers(found)
    notes = [Say(text) for text in odd(subject.bound)]
    causal = subject.bound.form.calls.get("causal")
    if causal and "tk" in str(subject.bound.form.data):
        notes.append(Say(f"No mask is applied: the model's own call may have one ({causal})."))
    return Explained(f"{subject.name}: {heading}", (*blocks, *notes), {"layer": subject.name, **data})
