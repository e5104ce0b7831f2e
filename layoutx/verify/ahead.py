"""What a model without the layers at another one's inputs has to be given: what these make of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.model.beginning import beginning
from layoutx.model.keras_live import is_keras
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.plan.plan import Array

MOST = 4  # channels whose numbers are told
CLOSE = 1e-5  # of the largest value: what float32 loses in two operations


@frozen
class Ahead:
    """What stands at the source's inputs and not at the target's.

    Attributes:
        run: the source's inputs -> the target's, in the source's axis order; raises LayoutxError where a layer does not
            run. words: what `run` does.
    """

    run: Callable[[Sequence[Array]], list[Array]]
    words: str


def ahead(source: Any, model: Keyed | ModelRecord, left_out: Collection[str], arrays: Sequence[Array]) -> Ahead | None:
    """The layers at a live Keras model's inputs that the user leaves out; None where there are none.

    Args:
        model: the source's record. left_out: names as for `--skip`. arrays: inputs, which the words are checked on.
    """
    if not is_keras(source) or not (found := beginning(model, left_out)):
        return None
    from layoutx.verify.running.keras_run import KerasRunner

    names = [str(tensor.name).split(":")[0] for tensor in source.inputs]
    ways = [found.get(name, next(iter(found.values())) if len(names) == 1 else ()) for name in names]
    runner = KerasRunner(source)

    def along(way: Sequence[str], array: Array) -> Array:
        for name in way:
            array = runner.layer(name, [array])[0]
        return array

    def run(given: Sequence[Array]) -> list[Array]:
        return [along(way, np.asarray(array)) for way, array in zip(ways, given, strict=True)]

    told = [_words(way, partial(along, way), np.asarray(array)) for way, array in zip(ways, arrays, strict=True) if way]
    return Ahead(run, "; ".join(told))


def _words(way: Sequence[str], run: Callable[[Array], Array], array: Array) -> str:
    makes = "makes" if len(way) == 1 else "make"
    text = f"the target was given what {', '.join(way)} {makes} of the inputs"
    formula = affine(run, array)
    return f"{text}: {formula}" if formula else text


def affine(run: Callable[[Array], Array], array: Array) -> str:
    """`x * 0.5 - 1`, or a factor and a term for each channel; "" where it is no such function, or of many channels."""
    if array.dtype.kind not in "fiu" or array.ndim < 2:
        return ""
    one = array[:1].astype(np.float64)
    try:
        given, base, unit = run(one), run(np.zeros_like(one)), run(np.ones_like(one))
    except LayoutxError:  # it takes whole numbers, say
        return ""
    if given.shape != one.shape:
        return ""
    last = (-1, array.shape[-1])
    terms, factors = (side.reshape(last)[0].astype(np.float64) for side in (base, unit - base))
    scale = float(np.abs(given).max(initial=0.0))
    if not np.abs(one * factors + terms - given).max(initial=0.0) <= CLOSE * max(scale, 1e-26):
        return ""
    if np.ptp(factors) == 0.0 and np.ptp(terms) == 0.0:
        factors, terms = factors[:1], terms[:1]
    if len(factors) > MOST:
        return ""
    many = " by channel" if len(factors) > 1 else ""
    sign, size = ("-", -terms) if len(terms) == 1 and terms[0] < 0 else ("+", terms)
    return f"x * {_numbers(factors)}" + (f" {sign} {_numbers(size)}" if terms.any() else "") + many


def _numbers(values: Array) -> str:
    text = ", ".join(f"{float(value):.6g}" for value in values)
    return f"({text})" if len(values) > 1 else text
