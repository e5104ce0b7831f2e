"""One tensor on the page: its axes, its numbers in short, its distribution and its heat map."""

from __future__ import annotations

from math import prod

import numpy as np

from layoutx.page.charts import histogram
from layoutx.page.heat import heat
from layoutx.page.html import Html, tag
from layoutx.plan.plan import Array
from layoutx.show.picture import split_of
from layoutx.show.views import LayerView, TensorView
from layoutx.verify.stats.numbers import Numbers, numbers


def tensor_card(layer: LayerView, tensor: TensorView, array: Array | None) -> Html:
    """The tensor's name, axes, index, key and pictures; without its numbers where `array` is None."""
    index = f"get_weights()[{tensor.index}]" if layer.form.startswith("keras") else ""
    about = ", ".join(filter(None, [index, tensor.role, tensor.dtype, f"{tensor.size:,} numbers"]))
    parts: list[Html | None] = [tag("h3", tensor.text), tag("div", about, class_="dim")]
    parts.append(tag("div", "in the file: ", tag("code", tensor.key), class_="dim"))
    if array is not None and array.size and _real(array):
        found = numbers(array)
        parts.append(tag("div", _said(found)))
        real = _readable(array)
        parts.append(histogram(real))
        if found.min != found.max or found.nan + found.inf:
            parts.append(_map(real.reshape(_plane(tensor)), tensor))
    return tag("div", parts, class_="tensor")


def _said(found: Numbers) -> str:
    strange = f"; {found.nan + found.inf:,} NaN or infinite" if found.nan + found.inf else ""
    return f"mean {found.mean:.4g}, deviation {found.std:.4g}, {found.min:.4g} … {found.max:.4g}{strange}"


def _map(plane: Array, tensor: TensorView) -> Html | None:
    if plane.size < 2:
        return None
    drawn = heat(plane)
    rows, columns = drawn.shape
    scale = max(1, min(8, 288 // max(rows, columns)))
    alternative = f"heat map of {tensor.text}"
    size = {"width": columns * scale, "height": max(rows * scale, 14)}
    image = tag("img", src=Html(drawn.png), alt=alternative, class_="heat", loading="lazy", **size)
    return tag("figure", image, tag("figcaption", drawn.caption))


def _plane(tensor: TensorView) -> tuple[int, int]:
    """Rows and columns as in the picture of the layout; a long vector stands in lines of one width."""
    split = split_of(tensor.shape)
    return prod(tensor.shape[:split]), prod(tensor.shape[split:])


def _readable(array: Array) -> Array:
    return array if array.dtype.kind in "fiub" and array.dtype.itemsize > 1 else array.astype(np.float32)


def _real(array: Array) -> bool:
    try:
        return (
            array.dtype.kind != "c"
            and np.can_cast(array.dtype, np.float64, "unsafe")
            and array.dtype.kind not in "SUOM"
        )
    except TypeError:
        return False
