"""What a model without the layers at another one's inputs has to be given: what these make of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError, SizeError
from layoutx.frozen import frozen
from layoutx.model.beginning import beginning
from layoutx.model.keras_live import is_keras
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.plan.plan import Array
from layoutx.verify.made import names_of, probes

MOST = 4  # channels whose numbers are told
CLOSE = 1e-5  # of the largest value: what float32 loses in two operations
Arrays = Callable[[Sequence[Array]], list[Array]]


@frozen
class Ahead:
    """What stands at the inputs of one of two models and not at the other's.

    Attributes:
        run: the inputs of the model that is run first -> the other's, in the axis order of the first.
        turned: what the other is given then, from inputs in its own axis order.
        words: what is done.

    Both raise LayoutxError where a layer does not run.
    """

    run: Arrays
    turned: Arrays
    words: str


@frozen
class Begun:
    """A model that is run, its record where it is known, and what it is called: "source" or "target"."""

    model: Any
    record: Keyed | ModelRecord | None
    name: str


@frozen
class _Layers:
    """The layers at one input of a live Keras model, which may be none, and what they make of it."""

    names: Sequence[str]
    run: Callable[[Array], Array]


AS_THEY_ARE = Ahead(list, list, "")  # nothing stands there


def ahead(first: Begun, second: Begun, left_out: Collection[str], arrays: Sequence[Array]) -> Ahead:
    """The layers at a live Keras model's inputs that the user leaves out; AS_THEY_ARE where there are none.

    What they make of the inputs goes to the other model. Where it is the second that has them, and the inputs are
    therefore made already, it is given what they make these of: if a factor and a term is all that each value gets.

    Args:
        first: the model that is run first, on `arrays`. left_out: names as for `--skip`.
    """
    if layers := _layers(first, left_out):
        told = [
            _words(one, "the inputs", np.asarray(array)) for one, array in zip(layers, arrays, strict=True) if one.names
        ]
        text = f"the {second.name} was given what "
        return Ahead(partial(_each, [one.run for one in layers]), list, "; ".join(text + words for words in told))
    layers = _layers(second, left_out)
    if not layers or second.record is None:
        return AS_THEY_ARE
    samples = probes(second.model, second.record)
    found = [_affine(one.run, sample) if one.names else (np.ones(1), np.zeros(1))
             for one, sample in zip(layers, samples, strict=True)]  # fmt: skip
    formulas = [formula for formula in found if formula is not None and formula[0].all()]
    if len(formulas) < len(found):
        return AS_THEY_ARE
    back = [partial(_undone, factors, terms) for factors, terms in formulas]
    told = [_words(one, "them", sample) for one, sample in zip(layers, samples, strict=True) if one.names]
    text = f"the {second.name} was given the numbers of which the {first.name}'s inputs are what "
    return Ahead(list, partial(_each, back), "; ".join(text + words for words in told))


def _each(functions: Sequence[Callable[[Array], Array]], given: Sequence[Array]) -> list[Array]:
    return [function(np.asarray(array)) for function, array in zip(functions, given, strict=True)]


def _undone(factors: Array, terms: Array, made: Array) -> Array:
    if len(factors) not in (1, made.shape[-1]):
        raise SizeError(f"inputs of shape {made.shape} do not have {len(factors)} channels at the end")
    return ((made.astype(np.float64) - terms) / factors).astype(made.dtype)


def _layers(one: Begun, left_out: Collection[str]) -> list[_Layers]:
    if one.record is None or not is_keras(one.model) or not (found := beginning(one.record, left_out)):
        return []
    from layoutx.verify.running.keras_run import KerasRunner

    names = names_of(one.model)
    ways = [found.get(name, next(iter(found.values())) if len(names) == 1 else ()) for name in names]
    runner = KerasRunner(one.model)

    def along(way: Sequence[str], array: Array) -> Array:
        for name in way:
            array = runner.layer(name, [array])[0]
        return array

    return [_Layers(way, partial(along, way)) for way in ways]


def _words(layers: _Layers, of: str, array: Array) -> str:
    names = layers.names
    text = f"{', '.join(names)} {'makes' if len(names) == 1 else 'make'} of {of}"
    formula = affine(layers.run, array)
    return f"{text}: {formula}" if formula else text


def affine(run: Callable[[Array], Array], array: Array) -> str:
    """`x * 0.5 - 1`, or a factor and a term for each channel; "" where it is no such function, or of many channels."""
    found = _affine(run, array)
    if found is None or len(found[0]) > MOST:
        return ""
    factors, terms = found
    many = " by channel" if len(factors) > 1 else ""
    sign, size = ("-", -terms) if len(terms) == 1 and terms[0] < 0 else ("+", terms)
    return f"x * {_numbers(factors)}" + (f" {sign} {_numbers(size)}" if terms.any() else "") + many


def _affine(run: Callable[[Array], Array], array: Array) -> tuple[Array, Array] | None:
    """Factors and terms, one for all or one for each number along the last axis; None where it is no such function."""
    if array.dtype.kind not in "fiu" or array.ndim < 2:
        return None
    one = array[:1].astype(np.float64)
    try:
        given, base, unit = run(one), run(np.zeros_like(one)), run(np.ones_like(one))
    except LayoutxError:  # it takes whole numbers, say
        return None
    if given.shape != one.shape:
        return None
    last = (-1, array.shape[-1])
    terms, factors = (side.reshape(last)[0].astype(np.float64) for side in (base, unit - base))
    scale = float(np.abs(given).max(initial=0.0))
    if not np.abs(one * factors + terms - given).max(initial=0.0) <= CLOSE * max(scale, 1e-26):
        return None
    if np.ptp(factors) == 0.0 and np.ptp(terms) == 0.0:
        factors, terms = factors[:1], terms[:1]
    return factors, terms


def _numbers(values: Array) -> str:
    text = ", ".join(f"{float(value):.6g}" for value in values)
    return f"({text})" if len(values) > 1 else text
