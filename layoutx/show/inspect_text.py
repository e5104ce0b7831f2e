"""A model's layers as a table for a terminal, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from layoutx.show.alike_text import exchange_text, groups_of
from layoutx.show.tables import Cell, Line, Note, clean, grid, plural, prose, row, size_text

if TYPE_CHECKING:
    from layoutx.show.views import LayerView, ModelView, TensorView

MOST_LEFTOVERS = 8


def as_dict(view: ModelView) -> dict[str, Any]:
    """Everything a view knows, as JSON."""
    return {
        "file": view.file,
        "format": view.format,
        "framework": view.framework,
        "version": view.version,
        "bytes": view.bytes,
        "parameters": view.parameters,
        "layers": [_layer_dict(layer) for layer in view.layers],
        "leftover": dict(view.leftover),
        "certificate": view.certificate,
    }


def _layer_dict(layer: LayerView) -> dict[str, Any]:
    tensors = [
        {
            "name": t.name,
            "key": t.key,
            "index": t.index,
            "position": t.position,
            "shape": list(t.shape),
            "axes": _axes(layer, t),
            "dtype": t.dtype,
            "parameters": t.size,
            "kind": t.role,
        }
        for t in layer.tensors
    ]
    return {
        "name": layer.name,
        "called": layer.called,
        "class": layer.class_name,
        "form": layer.form,
        "config": {key: value if _is_json(value) else str(value) for key, value in layer.config.items()},
        "parameters": layer.parameters,
        "tensors": tensors,
        "notes": list(layer.notes),
        "problem": layer.problem,
    }


def _axes(layer: LayerView, tensor: TensorView) -> list[str] | None:
    """The names of a tensor's dimensions; None where no form is known."""
    from layoutx.plan.naming import dim_name

    if layer.bound is None:
        return None
    return [dim_name(dim) for dim in layer.bound.tensor(tensor.name).layout.dims]


def _is_json(value: Any) -> bool:
    import json

    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def as_text(view: ModelView, width: int, color: bool) -> str:
    """The whole view: what it is, the table, what no layer owns."""
    parts = [prose(line, width, color, style) for line, style in _answer(view)]
    head = ["  [i]", "tensor", "numbers", "", "name in the file"]
    table = grid(head, _rows(view), width, color) if view.layers else "  no layers"
    notes = [prose(_index_note(view), width, color, "dim")] if view.framework.startswith("keras") else []
    rest = [prose(line, width, color) for line in _rest(view)]
    return "\n\n".join(filter(None, ["\n".join(parts), table, "\n".join([*notes, *rest])]))


def _index_note(view: ModelView) -> str:
    known = any(t.position is not None for layer in view.layers for t in layer.tensors)
    if known:
        return "[i] is the index in model.get_weights(); a layer's own get_weights() counts its tensors from 0."
    return "[i] is the index in the layer's get_weights(); the file does not tell the order of the layers."


def _answer(view: ModelView) -> Iterator[tuple[str, str]]:
    what = " ".join(filter(None, [clean(view.framework), clean(view.version)]))
    count = len({t.key for layer in view.layers for t in layer.tensors})
    yield f"{clean(view.file) or 'live model'}  {what} ({view.format})", "head"
    sizes = [plural(len(view.layers), "layer"), plural(count, "tensor"), plural(view.parameters, "number")]
    kinds = Counter[str]()
    for layer in view.layers:
        for tensor in layer.tensors:
            kinds[tensor.role] += tensor.size
    shares = ", ".join(f"{kinds[k]:,} {k}" for k in ("trainable", "frozen", "state") if kinds[k])
    dtypes = {t.dtype for layer in view.layers for t in layer.tensors}
    sizes[2] += f" ({shares})" if len(kinds) > 1 else ""
    yield ", ".join([*sizes, *(dtypes if len(dtypes) == 1 else ()), size_text(view.bytes)]), "dim"


def _rows(view: ModelView) -> Iterator[Line]:
    tensors = [t for layer in view.layers for t in layer.tensors]
    widest = max((len(f"{t.size:,}") for t in tensors), default=1)
    dtypes = {t.dtype for t in tensors}
    for layer in view.layers:
        yield Note(_title(layer), 2, "head" if layer.tensors else "")
        for note in layer.notes:
            yield Note(clean(note, 600), 6, "dim")
        if layer.problem:
            yield Note(f"does not fit {clean(layer.form)}: {clean(layer.problem, 600)}", 6, "wrong")
        for tensor in layer.tensors:
            index = tensor.index if tensor.position is None else tensor.position
            about = [tensor.role] if tensor.role != "trainable" else []
            about += [tensor.dtype] if len(dtypes) > 1 else []
            yield row(
                f"{index:>5}",
                Cell(clean(tensor.text), _style(tensor)),
                f"{tensor.size:>{widest},}",
                " ".join(about),
                Cell(clean(tensor.key), "dim"),
            )


def _title(layer: LayerView) -> str:
    """`conv1  Conv2D  strides=2, padding=same`; what its user called it, the form where the class does not say it."""
    shown = clean(layer.class_name)
    if layer.tensors and not layer.form:
        shown = f"{shown} (unknown class)" if shown else "(unknown class)"
    elif layer.form and layer.form.partition(".")[2] != layer.class_name:
        shown = f"{shown} ({clean(layer.form)})".strip()
    config = ", ".join(f"{key}={_value(value)}" for key, value in layer.config.items())
    name = clean(layer.name) + (f" (called {clean(layer.called)})" if layer.called else "")
    return "  ".join(filter(None, [name, shown, clean(config, 300)]))


def _style(tensor: TensorView) -> str:
    if tensor.state:
        return "state"
    if "recurrent" in tensor.name or "_hh_" in tensor.name:
        return "recurrent"
    return "bias" if len(tensor.shape) == 1 else "kernel"


def _value(value: object) -> str:
    return f"({', '.join(map(_value, value))})" if isinstance(value, list) else str(value)


def _rest(view: ModelView) -> Iterator[str]:
    reasons = Counter(view.leftover.values())
    for reason, count in reasons.items():
        names = [name for name, why in view.leftover.items() if why == reason]
        listed = f": {clean(', '.join(names[:3]))}{', ...' if count > 3 else ''}"
        yield f"{plural(count, 'more tensor')}, {clean(reason)}{listed}"
    unknown = [layer.name for layer in view.layers if layer.tensors and not layer.form]
    if unknown:
        more = ", ..." if len(unknown) > MOST_LEFTOVERS else ""
        yield f"Of unknown class: {', '.join(map(clean, unknown[:MOST_LEFTOVERS]))}{more}."
        yield "Name a form with --form LAYER=FORM, or write a spec (docs/writing-a-spec.md)."
    if view.certificate is not None:
        yield from _certificate(view.certificate)


def _certificate(found: Any) -> Iterator[str]:
    source, overall = found.get("source"), found.get("overall")
    source = source if isinstance(source, dict) else {}
    overall = overall if isinstance(overall, dict) else {}
    made = f"Made by layoutx {clean(found.get('layoutx', '?'))} from {clean(source.get('file', '?'))}"
    about = " ".join(filter(None, [clean(source.get("framework", "")), clean(source.get("version", ""))]))
    yield f"{made} ({about}) for {clean(found.get('target', '?'))}: {clean(overall.get('exactness', '?'))}, " + (
        f"round trip {clean(overall.get('round_trip', '?'))}."
    )
    if source.get("sha256"):
        more = source.get("files")
        rest = f", and {plural(len(more), 'file')} that it names" if isinstance(more, dict) and more else ""
        yield f"Source sha256 {clean(source['sha256'])}{rest}."
    yield from exchange_text(groups_of(found), str(source.get("file", "")))
