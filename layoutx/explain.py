"""Explain a layer's arrays from the registry: what each number is, why it lies there, where its inputs come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from layoutx.empty import NOTHING
from layoutx.errors import UsageError
from layoutx.explained import Explained
from layoutx.files.guarded import intact
from layoutx.show.views import ModelView
from layoutx.spec.registry import MAIN, registry


@intact()
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
    """Explain a model, a layer, or one thing of a layer: a part of it, an axis, or one output element.

    Args:
        model: a path, a live model, `package.module:callable`, a `ModelView`, or a form: "keras.Dense".
        layer: its name; "" for the whole model (each element of `model.get_weights()`).
        part: "w_input.f", "bias.f", "w_query[head=2]", "kernel[out=5]": which numbers those are.
        axis: "input": where its rows come from, through Flatten, Concatenate and Reshape.
        to: a framework or a form to compare with; "" for the main ones.
        element: index of one output element, computed by hand from `x`, the layer's input, both in the
            framework's own axis order: (0, 3, 2) is sample 0, step 3, unit 2 of an LSTM's sequence.
        sizes, shapes, config: of a form: axis -> length, tensor -> stored shape, its config. Sizes that none of them
            tells are examples, and said to be.
        forms, specs, input_shape, from_, values: as for `inspect`.

    Returns:
        An `Explained`: it prints, and has `.markdown()`, `.svg()`, `.to_dict()`.

    Raises:
        UsageError: no such file, layer, part or form; an axis that cannot be followed; two questions at once.
        BindError, SizeError: shapes that do not describe a layer.
    """
    known = registry(specs)
    of_one = {"part": part, "axis": axis, "to": to, "element": element, "x": x}
    of_form = {"sizes": sizes, "shapes": shapes, "config": config}
    if isinstance(model, str) and model in known.forms:
        if layer:
            raise UsageError(f"{model} is a form and has no layers", do=f"leave {layer} out")
        from layoutx.show.topics.about import about
        from layoutx.show.topics.about import of_form as formed

        return about(formed(model, known, sizes, shapes, {**values, **config}), known, part, axis, to, element, x)
    _unheard(of_form, "of a form (keras.Dense)", "a model says its own")
    view = _view(model, forms, specs, input_shape, from_, values)
    if not layer:
        _unheard(of_one, "of one layer", "name the layer too")
        from layoutx.show.topics.model import whole

        heading, blocks, data = whole(view)
        return Explained(heading, tuple(blocks), data)
    from layoutx.show.topics.about import about, of_layer

    return about(of_layer(view, view[layer]), known, part, axis, to, element, x)


def _unheard(given: Mapping[str, Any], whose: str, do: str) -> None:
    """Refuse what was given and would not be read."""
    names = [
        name for name, value in given.items() if value is not None and (value or not isinstance(value, (str, Mapping)))
    ]
    if names:
        raise UsageError(f"{' and '.join(names)} can be asked {whose} alone", do=do)


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


def _view(
    model: Any, forms: Mapping[str, str], specs: Sequence[str | PathLike[str]], input_shape: Sequence[int] | None,
    from_: str, values: Mapping[str, Any],
) -> ModelView:  # fmt: skip
    if isinstance(model, ModelView):
        return model
    from layoutx.inspect import inspect

    if isinstance(model, str) and model.partition(".")[0] in MAIN and not Path(model).exists():
        registry(specs).form(model)  # says which forms are near
    return inspect(model, forms=forms, specs=specs, input_shape=input_shape, from_=from_, values=values)
