"""One tensor on the page: its axes, its numbers in short, its distribution and its heat map."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from layoutx.page.charts import histogram
from layoutx.page.heat import heat
from layoutx.page.html import Html, tag
from layoutx.show.picture import split_of
from layoutx.show.views import LayerView, TensorView

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Numbers:
    """A tensor in five numbers; `strange` counts NaN and infinite ones, which the others leave out."""

    mean: float
    deviation: float
    low: float
    high: float
    norm: float
    strange: int


def numbers(array: Array) -> Numbers | None:
    """The five numbers of real values; None of an empty tensor, or of texts."""
    if not array.size or not _real(array):
        return None
    finite = np.isfinite(array)
    count = int(np.count_nonzero(finite))
    kept = array if count == array.size else array[finite]
    if not count:
        return Numbers(0, 0, 0, 0, 0, array.size)
    wide = kept.astype(np.float64, copy=False)
    mean, square = float(wide.mean()), float(np.square(wide).sum())
    spread = max(square / count - mean * mean, 0.0) ** 0.5
    return Numbers(mean, spread, float(wide.min()), float(wide.max()), square**0.5, array.size - count)


def tensor_card(layer: LayerView, tensor: TensorView, array: Array | None) -> Html:
    """The tensor's name, axes, index, key and pictures; without its numbers where `array` is None."""
    index = f"get_weights()[{tensor.index}]" if layer.form.startswith("keras") else ""
    about = ", ".join(filter(None, [index, tensor.role, tensor.dtype, f"{tensor.size:,} numbers"]))
    parts: list[Html | None] = [tag("h3", tensor.text), tag("div", about, class_="dim")]
    parts.append(tag("div", "in the file: ", tag("code", tensor.key), class_="dim"))
    found = numbers(array) if array is not None else None
    if array is not None and found is not None:
        parts.append(tag("div", _said(found)))
        real = _readable(array)
        parts.append(histogram(real))
        if found.low < found.high or found.strange:
            parts.append(_map(real.reshape(_plane(layer, tensor)), tensor))
    return tag("div", parts, class_="tensor")


def _said(found: Numbers) -> str:
    strange = f"; {found.strange:,} NaN or infinite" if found.strange else ""
    return f"mean {found.mean:.4g}, deviation {found.deviation:.4g}, {found.low:.4g} … {found.high:.4g}{strange}"


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


def _plane(layer: LayerView, tensor: TensorView) -> tuple[int, int]:
    """Rows and columns as in the picture of the layout; a long vector stands in lines of one width."""
    split = split_of(tensor.shape)
    rows, columns = prod(tensor.shape[:split]), prod(tensor.shape[split:])
    return rows, columns


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
