"""Two live models on the same inputs: axes turned where one keeps channels first, outputs compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations, product
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError, UsageError
from layoutx.model.keras_called import has_call
from layoutx.model.keras_live import is_keras
from layoutx.model.keyed import Keyed
from layoutx.model.matching.assignment import assigned
from layoutx.model.matching.names import all_named, likeness, rarity
from layoutx.model.record import ModelRecord
from layoutx.model.tree import family, is_tree, runs
from layoutx.plan.plan import Array
from layoutx.verify.ahead import Begun, ahead
from layoutx.verify.keywords import keywords_for
from layoutx.verify.made import names_of, probes, record_of
from layoutx.verify.outcome import EndToEnd
from layoutx.verify.plain import called, is_torch, outputs_of, said

# float64 is not tighter: TensorFlow rounds some constants to float32 (gelu's root of 2, 1/sqrt(head_dim) of attention)
RELATIVE = {"float64": 1e-7, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
MOST_MIXED = 4  # inputs of which every order is tried


def compare_models(
    source: Any,
    target: Any,
    model: Keyed | ModelRecord,
    inputs: Any = None,
    left_out: Collection[str] = (),
    there: Keyed | ModelRecord | None = None,
    low: int = 0,
) -> EndToEnd:
    """Run both on the same inputs and compare all outputs.

    Args:
        source, target: live models; mappings of weights are told to be no models.
        model: the source's record, which tells integer inputs (those of an Embedding) and their range.
        inputs: one array or several, in the source's own axis order; None: random ones.
        left_out: names of layers, as for `--skip`: what those at one model's inputs make of these goes to the other.
        there: the target's record, which tells where in it these are.
        low: ids below it are padding to one of the models: random ones are not.

    Raises:
        UsageError: the given inputs cannot be run by the source or the target.
    """
    for side, one in (("source", source), ("target", target)):
        if is_tree(one) and not runs(one):
            return EndToEnd(note=f"the {side} is a {type(one).__name__} of weights: it cannot be run")
    keras = next((m for m in (source, target) if is_keras(m)), None)
    given = inputs is not None
    names = tuple(inputs) if isinstance(inputs, Mapping) else names_of(keras) if not given else ()
    if not given and keras is not None and not has_call(keras):
        return EndToEnd(note=f"{type(keras).__name__} has no call: run the models in it, each against its counterpart")
    if given:
        arrays = _listed(inputs, names_of(source))
    else:
        arrays = probes(keras, record_of(keras, model), low) if keras is not None else []
    if not arrays:
        return EndToEnd(note="no inputs: the models' own shapes are not known")
    swapped = not given and not is_keras(source)  # probes have the axis order of the Keras side
    first, second = (target, source) if swapped else (source, target)
    try:
        expected = outputs_of(first, arrays)
    except Exception as error:
        if given and not is_tree(first):
            raise UsageError("the source does not run on these inputs", why=said(error, 200)) from error
        return EndToEnd(note=f"the models were not run: {said(error)}")
    names = names_of(first) if set(names) == {*names_of(first)} else names
    here, goal = Begun(source, model, "source"), Begun(target, there, "target")
    try:
        passed = ahead(*((goal, here) if swapped else (here, goal)), left_out, arrays)
        arrays = arrays if passed is None else passed.run(arrays)
    except LayoutxError as error:
        return EndToEnd(note=f"the layers that were left out at the inputs do not run alone: {error.why or error.what}")
    end = _best(first, second, arrays, expected, given, names, list if passed is None else passed.turned)
    if swapped and end.mixed:  # said of the target, whichever of the two was given them in another order
        end = replace(end, mixed=tuple(int(at) for at in np.argsort(end.mixed)))
    return end if passed is None else replace(end, note="; ".join(n for n in (end.note, passed.words) if n))


def _best(
    first: Any,
    second: Any,
    arrays: Sequence[Array],
    expected: Sequence[Array],
    given: bool,
    names: Sequence[str],
    own: Callable[[Sequence[Array]], list[Array]],
) -> EndToEnd:
    """The comparison under the arrangement of axes that the second model takes and that agrees best.

    Args:
        names: of the inputs, in their order; () where they have none: then their order is the user's.
        own: the inputs as the second model has to be given them.
    """
    keywords = keywords_for(second, names) if is_torch(second) else ()
    ends: list[EndToEnd] = []
    refused = ""
    for turned, note, order in arrangements(arrays, _channels_first(first), _channels_first(second), mixed=bool(names)):
        try:
            found = outputs_of(second, own(turned), keywords)
        except Exception as error:  # a wrong arrangement, or a model that cannot run at all
            refused = refused or said(error)
            continue
        end = _difference(expected, found, note)
        if end.agrees is False:
            end = _unmasked(expected, found, [a for a, name in zip(arrays, names, strict=False) if "mask" in name], end)
        ends.append(replace(end, mixed=order))
        if ends[-1].agrees:
            return ends[-1]
    if ends:  # outputs of other shapes are no comparison, and not the same
        return min(ends, key=lambda end: np.inf if end.largest is None or np.isnan(end.largest) else end.largest)
    if given and not is_tree(first) and not is_tree(second):
        raise UsageError("the target does not run on these inputs", why=refused)
    return EndToEnd(note=f"the models were not run on the same inputs: {refused}")


def arrangements(
    arrays: Sequence[Array], here: bool | None, there: bool | None, mixed: bool = False
) -> Iterator[tuple[list[Array], str, tuple[int, ...]]]:
    """Inputs as they are, and with channels moved: maps first where one model alone has its channels first.

    With what was done in words, and the order in numbers, () for their own.

    Args:
        here, there: whether each model has its channels first; None where nobody can tell.
        mixed: then also in every other order: the models may take them as they like.
    """
    several = mixed and 1 < len(arrays) <= MOST_MIXED
    for order in permutations(range(len(arrays))) if several else [tuple(range(len(arrays)))]:
        other = () if list(order) == sorted(order) else tuple(order)
        said = f"inputs {', '.join(str(i + 1) for i in other)} in this order" if other else ""
        for turned, note in _turnings([arrays[i] for i in order], here, there):
            yield turned, ", ".join(text for text in (note, said) if text), other


def _turnings(arrays: Sequence[Array], here: bool | None, there: bool | None) -> Iterator[tuple[list[Array], str]]:
    options: list[list[tuple[Array, str]]] = []
    for array in arrays:
        plain = (array, "")
        known = here is not None and there is not None
        moves = [(-1, 1, "channels turned to the front")] if here != there else []
        moves += [(1, -1, "channels turned to the end")] if here != there and (here or not known) else []
        moves = moves[::-1] if here and known else moves
        moves += [(-1, 2, "channels turned behind time")] if here != there and array.ndim > 3 else []  # maps in time
        if array.ndim < 3:
            options.append([plain])
        else:
            moved = [(np.ascontiguousarray(np.moveaxis(array, a, b)), note) for a, b, note in moves]
            options.append([*moved, plain] if array.ndim > 3 and known else [plain, *moved])
    for choice in product(*options):
        notes = dict.fromkeys(note for _, note in choice if note)
        yield [array for array, _ in choice], ", ".join(notes)


def _channels_first(model: Any) -> bool | None:
    """What a function of a file's model says itself (`Function`), else what is usual in its framework."""
    usual = is_torch(model) or family(called(model)) in ("equinox", "paddle")
    return usual or getattr(model, "channels_first", False)


def _difference(expected: Sequence[Array], found: Sequence[Array], note: str) -> EndToEnd:
    if len(expected) != len(found):
        both = in_both(expected, found)
        if both is None:
            return EndToEnd(agrees=False, note=f"{len(expected)} outputs against {len(found)}")
        only = f"{len(both[0])} of {max(len(expected), len(found))} outputs: the other model has no more"
        return replace(_difference(*both, note), only=only)
    largest, scale, worst = 0.0, 0.0, "float64"
    found = by_shape(expected, by_name(expected, found))
    for left, right in zip(expected, found, strict=True):
        apart = [_apart(left, turned) for turned in _turned(right) if turned.shape == left.shape]
        if not apart and _long(left) == _long(right):  # one output a sample, as (batch, 1) or as (batch,)
            apart = [_apart(left, right.reshape(left.shape))]
            note = "; ".join(text for text in (note, f"outputs of shapes {left.shape} and {right.shape}") if text)
        if not apart:
            return EndToEnd(agrees=False, note=f"outputs of shapes {left.shape} and {right.shape}")
        for array in (left, right):
            name = array.dtype.name
            worst = name if name in RELATIVE and RELATIVE[name] > RELATIVE[worst] else worst
        largest = float(np.maximum(largest, min(apart)))  # unlike max(), keeps a NaN
        scale = float(np.maximum(scale, np.abs(left.astype(np.float64)).max(initial=0.0)))
    if largest == 0.0 and scale == 0.0:
        return EndToEnd(largest, scale, worst, None, "all outputs are zero")
    agrees = bool(largest <= RELATIVE[worst] * max(scale, 1e-6))
    return EndToEnd(largest, scale, worst, agrees, note)


def _unmasked(expected: Sequence[Array], found: Sequence[Array], masks: Sequence[Array], end: EndToEnd) -> EndToEnd:
    """The comparison where all masks are 1: nobody reads what a model makes of padding.

    Args:
        end: what came of comparing everything, which is returned where that does not agree either.
    """
    masks = [mask for mask in masks if mask.ndim == 2 and not np.all(mask)]

    def seen(output: Array) -> Array:
        own = [mask != 0 for mask in masks if mask.shape == output.shape[:2]]
        return output[np.logical_and.reduce(own)] if own else output

    again = _difference([*map(seen, expected)], [*map(seen, found)], end.note) if masks else end
    only = ", ".join(text for text in (again.only, "where the masks are 1") if text)
    return replace(again, only=only) if again.agrees else end


def in_both(expected: Sequence[Array], found: Sequence[Array]) -> tuple[list[Array], list[Array]] | None:
    """The outputs of the model that has fewer, and those of the other: of each shape that has to be one alone."""
    fewer, more = sorted((expected, found), key=len)
    fits = [[x for x in more if x.shape == one.shape] for one in fewer]
    if not fewer or any(len(own) != 1 for own in fits) or len({one.shape for one in fewer}) < len(fewer):
        return None
    chosen = [own[0] for own in fits]
    return (list(fewer), chosen) if fewer is expected else (chosen, list(fewer))


def by_name(expected: Sequence[Array], found: Sequence[Array]) -> Sequence[Array]:
    """Outputs in the other model's order where both give them names and these tell it (encoder_..., decoder_...)."""
    here, there = (getattr(side, "names", ()) for side in (expected, found))
    if len(set(here)) < len(expected) or len(set(there)) < len(found):
        return found
    words = all_named([*here, *there])
    rare = rarity([words[name] for name in (*here, *there)])
    score = np.array([[likeness(words[a].words, words[b].words, rare) for b in there] for a in here])
    chosen, _ = assigned(score)
    told = sum(score[row, column] > 0 for row, column in enumerate(chosen))
    return [found[column] for column in chosen] if told >= len(here) - 1 and told else found


def by_shape(expected: Sequence[Array], found: Sequence[Array]) -> Sequence[Array]:
    """Outputs in the other model's order where their shapes tell one and theirs is another: names have an order too."""
    wanted, there = ([sorted(one.shape) for one in side] for side in (expected, found))
    if wanted == there or sorted(wanted) != sorted(there) or any(wanted.count(one) > 1 for one in wanted):
        return found
    return [found[there.index(one)] for one in wanted]


def _turned(output: Array) -> list[Array]:
    """An output as it is, and with its channels at the other end: shapes do not tell where lengths are equal."""
    if output.ndim < 3:
        return [output]
    in_time = [(2, -1), (-1, 2)] if output.ndim > 3 else []  # maps in time: channels behind time
    return [output, *(np.moveaxis(output, a, b) for a, b in ((1, -1), (-1, 1), *in_time))]


def _long(output: Array) -> list[int]:
    """The axes of an output without those of length one behind the batch."""
    return [*output.shape[:1], *(n for n in output.shape[1:] if n > 1)]


def _apart(left: Array, right: Array) -> float:
    return float(np.abs(left.astype(np.float64) - right.astype(np.float64)).max(initial=0.0))


def _listed(inputs: Any, names: Sequence[str] = ()) -> list[Array]:
    if isinstance(inputs, Mapping):
        inputs = [inputs[name] for name in (names if set(names) == set(inputs) else inputs)]
    return [np.asarray(x) for x in inputs] if isinstance(inputs, (list, tuple)) else [np.asarray(inputs)]
