"""Two live models on the same inputs: axes turned where one keeps channels first, outputs compared."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations, product
from typing import Any

import numpy as np

from layoutx.errors import LayoutxError, UsageError
from layoutx.model.keras_called import has_call
from layoutx.model.keras_live import is_keras
from layoutx.model.keyed import Keyed
from layoutx.model.record import ModelRecord
from layoutx.model.tree import family, is_tree, runs
from layoutx.plan.plan import Array
from layoutx.verify.ahead import Begun, ahead
from layoutx.verify.keywords import keywords_for
from layoutx.verify.made import enlarged, names_of, probes, record_of
from layoutx.verify.outcome import EndToEnd
from layoutx.verify.outputs import difference, unmasked
from layoutx.verify.plain import called, is_torch, outputs_of, said
from layoutx.verify.running.given import OTHER_INPUTS
from layoutx.verify.spare import left, making, spare_masks, told

MOST_MIXED = 4  # inputs of which every order is tried


def compare_models(
    source: Any,
    target: Any,
    model: Keyed | ModelRecord,
    inputs: Any = None,
    left_out: Collection[str] = (),
    there: Keyed | ModelRecord | None = None,
    low: int = 0,
    far: float = 1.0,
) -> EndToEnd:
    """Run both on the same inputs and compare all outputs.

    Args:
        source, target: live models; mappings of weights are told to be no models.
        model: the source's record, which tells integer inputs (those of an Embedding) and their range.
        inputs: one array or several, in the source's own axis order; None: random ones.
        left_out: names of layers, as for `--skip`: what those at one model's inputs make of these goes to the other.
        there: the target's record, which tells where in it these are.
        low: ids below it are padding to one of the models: random ones are not.
        far: how many times as large random numbers are as they are else.

    Raises:
        UsageError: the given inputs cannot be run by the source or the target.
    """
    keras = next((m for m in (source, target) if is_keras(m)), None)
    given = inputs is not None
    if why := _unrunnable(source, target, None if given else keras):
        return EndToEnd(note=why)
    swapped = not given and not is_keras(source)  # probes have the axis order of the Keras side
    first, second = (target, source) if swapped else (source, target)
    names = _names(inputs, keras, names_of(first))
    spare = spare_masks(second, names) if is_torch(second) else ()
    made = None
    if not given and keras is not None:
        made = making(partial(probes, keras, record_of(keras, model), low), names, spare)
    arrays = _listed(inputs, names_of(source)) if given else enlarged(made() if made is not None else [], far)
    if far != 1.0 and all(array.dtype.kind != "f" for array in arrays):
        return EndToEnd(note="ids and masks are not larger or smaller")
    if not arrays:
        return EndToEnd(note="no inputs: the models' own shapes are not known")
    try:
        expected, arrays = _ran(first, arrays, made, far)
    except Exception as error:
        if given and not is_tree(first):
            raise UsageError(
                "the source does not run on these inputs", why=said(error, 200), do=OTHER_INPUTS
            ) from error
        return EndToEnd(note=f"the models were not run: {said(error)}")
    here, goal = Begun(source, model, "source"), Begun(target, there, "target")
    try:
        passed = ahead(*((goal, here) if swapped else (here, goal)), left_out, arrays)
        arrays = passed.run(arrays)
        if spare and len(places := left(dict(zip(names, arrays, strict=True)), spare)) < len(arrays):
            arrays, names = [arrays[i] for i in places], [names[i] for i in places]
        else:
            spare = ()
    except LayoutxError as error:
        return EndToEnd(note=f"the layers that were left out at the inputs do not run alone: {error.why or error.what}")
    end = _best(first, second, arrays, expected, given, names, passed.turned)
    if swapped:  # said of the target, whichever of the two was given them in another order
        end = replace(end, mixed=tuple(int(at) for at in np.argsort(end.mixed)))
    return replace(end, note="; ".join(n for n in (end.note, passed.words, told(spare)) if n))


def _unrunnable(source: Any, target: Any, keras: Any) -> str:
    """Why two models cannot be run; "" where they can.

    Args:
        keras: the one from whose layers inputs are made, None where they need not be.
    """
    for side, one in (("source", source), ("target", target)):
        if is_tree(one) and not runs(one):
            return f"the {side} is a {type(one).__name__} of weights: it cannot be run"
    if keras is not None and not has_call(keras):
        return f"{type(keras).__name__} has no call: run the models in it, each against its counterpart"
    return ""


def _names(inputs: Any, keras: Any, own: Sequence[str]) -> Sequence[str]:
    """What the inputs are called, in the order of the model that is run first if these are its `own`; () for no names.

    Those of a mapping are the user's; those that are made are the Keras model's.
    """
    names = tuple(inputs) if isinstance(inputs, Mapping) else names_of(keras) if inputs is None else ()
    return own if set(names) == set(own) else names


def _ran(
    model: Any, arrays: list[Array], made: Callable[..., list[Array]] | None, far: float
) -> tuple[Sequence[Array], list[Array]]:
    """What a model makes of inputs, and these; of long ones where it cannot run on short ones that were made up."""
    try:
        return outputs_of(model, arrays), arrays
    except Exception:
        again = enlarged(made(long=True), far) if made is not None else []
        if [one.shape for one in again] == [one.shape for one in arrays] or not again:
            raise
        return outputs_of(model, again), again


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
    vary, masks = _vary(arrays), [array for array, name in zip(arrays, names, strict=False) if "mask" in name]
    ends: list[EndToEnd] = []
    refused = ""
    for turned, note, order in arrangements(arrays, _channels_first(first), _channels_first(second), mixed=bool(names)):
        try:
            found = outputs_of(second, own(turned), keywords)
        except Exception as error:  # a wrong arrangement, or a model that cannot run at all
            refused = refused or said(error)
            continue
        end = difference(expected, found, note, vary)
        if end.agrees is False:
            end = unmasked(expected, found, masks, end, vary)
        ends.append(replace(end, mixed=order))
        if ends[-1].agrees:
            return ends[-1]
    if ends:  # outputs of other shapes are no comparison, and not the same
        return min(ends, key=lambda end: np.inf if end.largest is None or np.isnan(end.largest) else end.largest)
    if given and not is_tree(first) and not is_tree(second):
        raise UsageError("the target does not run on these inputs", why=refused, do=OTHER_INPUTS)
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


def _vary(inputs: Sequence[Array]) -> bool:
    return any(len(array) > 1 and bool((array != array[:1]).any()) for array in inputs if array.ndim)


def _listed(inputs: Any, names: Sequence[str] = ()) -> list[Array]:
    if isinstance(inputs, Mapping):
        inputs = [inputs[name] for name in (names if set(names) == set(inputs) else inputs)]
    return [np.asarray(x) for x in inputs] if isinstance(inputs, (list, tuple)) else [np.asarray(inputs)]
