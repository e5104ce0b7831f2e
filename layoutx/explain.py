"""Explain a layer's arrays from the registry: what each number is, why it lies there, where its inputs come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.explained import Block, Explained, Say
from layoutx.show.picture import picture
from layoutx.show.topics.axis import axis_of
from layoutx.show.topics.beside import MAIN, plans, targets
from layoutx.show.topics.layer import arrays, elsewhere, odd, rest, title
from layoutx.show.topics.words import Subject, formula
from layoutx.show.views import LayerView, ModelView
from layoutx.spec.registry import Registry, registry


def explain(
    model: Any,
    layer: str = "",
    *,
    part: str = "",
    axis: str = "",
    to: str = "",
    element: Sequence[int] | None = None,
    x: Any = None,
    sizes: Mapping[str, int] = NOTHING,
    shapes: Mapping[str, Sequence[int]] = NOTHING,
    config: Mapping[str, Any] = NOTHING,
    forms: Mapping[str, str] = NOTHING,
    specs: Sequence[str | PathLike[str]] = (),
    input_shape: Sequence[int] | None = None,
    from_: str = "",
    values: Mapping[str, Any] = NOTHING,
) -> Explained:
    """Explain a model, a layer, a part of it, an axis, or one output element.

    Args:
        model: a path, a live model, `package.module:callable`, a `ModelView`, or a form: "keras.Dense".
        layer: its name; "" for the whole model (each element of `model.get_weights()`).
        part: "w_input.f", "bias.f", "w_query[head=2]", "kernel[out=5]": which numbers those are.
        axis: "input": where its rows come from, through Flatten, Concatenate and Reshape.
        to: a framework or a form to compare with; "" for the main ones.
        element: index of one output element, computed by hand from `x`, the layer's input, both in the
            framework's own axis order.
        sizes, shapes, config: of a form: axis -> length, tensor -> stored shape, its config.
        forms, specs, input_shape, from_, values: as for `inspect`.

    Returns:
        An `Explained`: it prints, and has `.markdown()`, `.svg()`, `.to_dict()`.

    Raises:
        UsageError: no such file, layer, part or form; an axis that cannot be followed.
        BindError, SizeError: shapes that do not describe a layer.
    """
    known = registry(specs)
    if isinstance(model, str) and model in known.forms:
        subject = _form(model, known, sizes, shapes, config)
        arrays_in: Mapping[str, Any] | None = None
    else:
        view = _view(model, forms, specs, input_shape, from_, values)
        if not layer:
            from layoutx.show.topics.model import whole

            heading, blocks, data = whole(view)
            return Explained(heading, tuple(blocks), data)
        subject = _layer(view, view[layer])
        arrays_in = view[layer].arrays() if element is not None else None
    if element is not None:
        return _by_hand(subject, arrays_in, element, x)
    if axis:
        blocks, data = axis_of(subject, axis)
        return Explained(f"Where the {data['axis']} axis of {subject.name} comes from", tuple(blocks), data)
    names = targets(subject, known, to)
    return _part(subject, part, known, names) if part else _whole(subject, known, names)


def read_inputs(path: str | Path) -> Any:
    """An input from a file: one array of a .npy, or those of a .npz by name.

    Raises:
        UsageError: no such file, or none of arrays.
    """
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        what = f"{Path(path).name} cannot be read as arrays"
        raise UsageError(what, why=str(error), do="give .npy or .npz") from error
    if isinstance(found, np.ndarray):
        return found
    every = {name: found[name] for name in found.files}
    return next(iter(every.values())) if len(every) == 1 else every


def _form(
    name: str, known: Registry, sizes: Mapping[str, int], shapes: Mapping[str, Sequence[int]], config: Mapping[str, Any]
) -> Subject:
    from layoutx.api import _known_config, _sizes

    _known_config(known, name, config)
    from layoutx.spec.partial import sizes_from

    given = _sizes(known, name, sizes, {})
    given |= sizes_from(known.kind_of(name), known.form(name), config, shapes, given) if shapes else {}
    return Subject(name, known.bind(name, config, sizes=given))


def _view(
    model: Any, forms: Mapping[str, str], specs: Sequence[str | PathLike[str]], input_shape: Sequence[int] | None,
    from_: str, values: Mapping[str, Any],
) -> ModelView:  # fmt: skip
    if isinstance(model, ModelView):
        return model
    from layoutx.inspect import inspect
    from layoutx.model.callables import built

    model = built(model)
    if isinstance(model, str) and model.partition(".")[0] in MAIN and not Path(model).exists():
        registry(specs).form(model)  # says which forms are near
    return inspect(model, forms=forms, specs=specs, input_shape=input_shape, from_=from_, values=values)


def _layer(view: ModelView, layer: LayerView) -> Subject:
    if not layer.tensors:
        raise UsageError(f"{layer.name} has no weights", why=f"it is a {layer.class_name}")
    if layer.bound is None:
        why = layer.problem or "; ".join(layer.notes) or f"its class is {layer.class_name or 'not told'}"
        raise UsageError(f"the form of {layer.name} is not known", why=why, do=f"name it: --form {layer.name}=FORM")
    return Subject(layer.name, layer.bound, layer, view, layer.own)


def _whole(subject: Subject, known: Registry, names: list[str]) -> Explained:
    shown, tensors = arrays(subject)
    found, refused = plans(subject, known, names)
    beside, others = elsewhere(subject, found, refused)
    blocks: list[Block] = [*shown, *beside, *rest(subject)]
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
    }
    drawn = picture(subject.bound, found[0] if found else None)
    return Explained(title(subject), tuple(blocks), data, drawn)


def _part(subject: Subject, name: str, known: Registry, names: list[str]) -> Explained:
    from layoutx.show.topics.part import part, spot

    heading, blocks, data, found = part(subject, name, known, names)
    first = next(iter(plans(subject, known, names[:1])[0]), None)
    drawn = picture(subject.bound, first, spot(subject.bound, found))
    return Explained(heading, tuple(blocks), {"layer": subject.name, **data}, drawn)


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
