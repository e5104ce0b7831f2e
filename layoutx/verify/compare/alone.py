"""A layer in its own right: the target's is given what the source's was given, whatever went wrong before it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

import numpy as np

from layoutx.empty import NOTHING
from layoutx.errors import LayoutxError
from layoutx.frozen import frozen
from layoutx.plan.plan import Array
from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.begun import MASK, STEPS, counted
from layoutx.verify.compare.named import Named, beside, named_outputs, native
from layoutx.verify.compare.outputs import alike, own_activation
from layoutx.verify.compare.pairs import Couple, Half
from layoutx.verify.compare.states import directions, stack_place
from layoutx.verify.compare.windows import Border, border_words, borders, framed, padded
from layoutx.verify.forward.activations import activation
from layoutx.verify.layer import run_live
from layoutx.verify.plain import said
from layoutx.verify.recording import Call
from layoutx.verify.reference import forward_layer

Layer = Callable[[str, Sequence[Array], Sequence[str]], tuple[Array, ...]]
OWN_INPUT = "fed the source's own input"
REFERENCE = "NumPy reference"
BESIDE_WORDS: Mapping[str, str] = {"h0": "first states", "mask": "mask"}
SMALL = 1e-6  # of the input: how far it is moved to see how sensitive a layer is


@frozen
class Trial:
    """The target's layer run on the source's data.

    Attributes:
        inputs: what went in, canonical. expected, found: outputs of the source and the target, canonical, with the
            same activation applied.
        how: what computed `found`. notes: what was done so that the two can be compared.
        again: the target's layer on other canonical inputs.
        misplaced: what is wrong with the border that the target puts around its input outside the layer.
        raw: the source's outputs as they were recorded.
    """

    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]
    found: Mapping[str, Array]
    how: str
    notes: tuple[str, ...]
    again: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    misplaced: str = ""
    raw: Mapping[str, Array] = NOTHING


def trial(couple: Couple, here: Named, there: Named | None, template: Call | None, layer: Layer | None) -> Trial:
    """Run the target's layer on what the source's layer was given.

    Args:
        here: the source's call; there, template: the target's own call in its own run, if it made one: it says how
            the layer is called, and how far borders are padded outside of it.
        layer: runs one layer of the target; None: only its weights are at hand.

    Raises:
        LayoutxError: nothing could run it.
    """
    notes: list[str] = []
    inputs = dict(here.inputs)
    around: Border | None = None
    if there is not None and "x" in inputs and "x" in there.inputs:
        inputs["x"], around = framed(couple, inputs["x"], there.inputs["x"], notes)

    def run(x: Mapping[str, Array]) -> dict[str, Array]:
        return {**_found(couple, x, here.lead, there, template, layer)[0]}

    found, how = _found(couple, inputs, here.lead, there, template, layer)
    own = _trial(couple, here, inputs, found, how, notes, run)
    return own if around is None else _moved(couple, here, own, around, run)


def _moved(
    couple: Couple, here: Named, own: Trial, around: Border, run: Callable[[Mapping[str, Array]], dict[str, Array]]
) -> Trial:
    """The trial with the border in the place that the layer needs, where the target pads on the wrong sides."""
    if not own.expected or "y" not in own.expected or _good(own):
        return own
    for by in borders([a + b for a, b in around]):
        inputs = {**here.inputs, "x": padded(here.inputs["x"], by)}
        other = _trial(couple, here, inputs, run(inputs), own.how, [], run)
        if by != around and _good(other):
            wrong = f"the target pads outside the layer by {border_words(around)}, where {border_words(by)} is right"
            return replace(other, misplaced=wrong)
    return own


def _good(one: Trial) -> bool:
    return apart(one.expected["y"], one.found["y"]).relative <= SMALL


def _trial(
    couple: Couple,
    here: Named,
    inputs: Mapping[str, Array],
    found: Mapping[str, Array],
    how: str,
    notes: list[str],
    run: Callable[[Mapping[str, Array]], dict[str, Array]],
) -> Trial:
    expected, found, more = alike(couple, here.outputs, found)
    expected, found = (counted(side, inputs.get(MASK)) for side in (expected, found))
    again = lambda x: counted(alike(couple, here.outputs, run(x))[1], inputs.get(MASK))  # noqa: E731
    return Trial(inputs, expected, found, how, (*notes, *more), again, raw=here.outputs)


def _found(
    couple: Couple,
    x: Mapping[str, Array],
    lead: tuple[int, ...],
    there: Named | None,
    template: Call | None,
    layer: Layer | None,
) -> tuple[dict[str, Array], str]:
    """Outputs of the target's layer: by its own model, else by its framework from the weights, else by NumPy."""
    why = ""
    beside = [BESIDE_WORDS[name] for name in BESIDE_WORDS if name in x]
    if beside:
        weights = {name: tensor.read() for name, tensor in couple.target.tensors.items()}
        found = forward_layer(couple.target.bound, weights, x, couple.last, dtype="float64")
        return found, f"{OWN_INPUT} and {' and '.join(beside)}; {REFERENCE}"
    if layer is not None and _single(couple):
        try:
            given, keywords = _arguments(couple, x, lead, there, template)
            return _named(couple, _called(couple, layer, given, keywords), x), OWN_INPUT
        except LayoutxError as error:
            why = said(error)
    target, last = couple.target, couple.last
    weights = {name: tensor.read() for name, tensor in target.tensors.items()}
    try:
        return _live(couple, weights, x), f"{OWN_INPUT}; {target.bound.form.framework} with the layer's weights"
    except Exception as error:  # frameworks raise what they like
        why = why or said(error)
    facts = forward_layer(target.bound, weights, x, last, dtype="float64")
    return facts, f"{OWN_INPUT}; {REFERENCE}, since the layer alone was refused: {why}"


def _single(couple: Couple) -> bool:
    """Whether the target's layer is one module that takes all its data in one call, or several in a row."""
    target = couple.target
    if stack_place(target.bound)[1] > 1 or ("y" not in target.bound.data and target.bound.data):
        return False  # a stack shows one layer only; a cell makes one step only
    return not target.bound.form.modules or target.bound.kind.name == "separable_conv"


def _called(couple: Couple, layer: Layer, given: Sequence[Array], keywords: Sequence[str]) -> tuple[Array, ...]:
    found: tuple[Array, ...] = tuple(given)
    for at, name in enumerate(modules_of(couple.target)):
        found = layer(name, found, keywords if at == 0 else ("",) * len(found))
    return found


def modules_of(target: Half) -> tuple[str, ...]:
    """The modules of the framework that make up a layer, in order."""
    if target.parts:
        return target.parts
    if not target.bound.form.modules:
        own = target.bound.form.framework == "torch" and "/" in target.name  # one layer of a stack: rnn/layer_1
        return (_holder(target) if own else target.name,)
    return tuple(dict.fromkeys(tensor.name.rpartition(".")[0] for tensor in target.tensors.values()))


def _holder(side: Half) -> str:
    """The module that holds all tensors of a layer."""
    paths = [tensor.name.split(".")[:-1] for tensor in side.tensors.values()]
    return ".".join(part[0] for part in takewhile(lambda part: len(set(part)) == 1, zip(*paths, strict=False)))


def _arguments(
    couple: Couple, x: Mapping[str, Array], lead: tuple[int, ...], there: Named | None, template: Call | None
) -> tuple[list[Array], list[str]]:
    """What the target's layer is called with: as in its own run, the data taken from the source."""
    target, last = couple.target, couple.last
    arrays = {name: native(target.bound, name, array, lead, target.refine, last) for name, array in x.items()}
    if template is None or there is None:
        return list(arrays.values()), [""] * len(arrays)
    names = template.names or ("",) * len(template.inputs)
    given, keywords = [], []
    for role, array, name in zip(there.roles, template.inputs, names, strict=True):
        own = arrays.get(role, arrays.get({"key": "value", "value": "key"}.get(role, ""), array)) if role else array
        if role in ("key", "value", "query") and role not in arrays and own is array:
            own = arrays.get("query", array)
        if role and own.ndim > array.ndim and array.ndim == 2:  # a node that takes rows only
            own = own.reshape(-1, own.shape[-1])
        given.append(own)
        keywords.append(name)
    return given, keywords


def _named(couple: Couple, arrays: Sequence[Array], x: Mapping[str, Array]) -> dict[str, Array]:
    return beside(couple, x, named_outputs(couple.target.bound, arrays, x, couple.target.refine, couple.last))


def with_weights(
    couple: Couple, expected: Mapping[str, Array]
) -> Callable[[Mapping[str, Array], Mapping[str, Array]], Mapping[str, Array]]:
    """The target's layer with other weights and inputs in its real framework, its outputs made comparable.

    expected: the source's outputs as they were recorded.
    """

    def run(weights: Mapping[str, Array], x: Mapping[str, Array]) -> Mapping[str, Array]:
        return alike(couple, expected, _live(couple, weights, x))[1]

    return run


def _live(couple: Couple, weights: Mapping[str, Array], x: Mapping[str, Array]) -> dict[str, Array]:
    """The target's layer alone in its framework; `run_live` leaves its activation out."""
    target = couple.target
    outputs, _ = run_live(target.bound, weights, x, target.bound.settings, "float64", couple.last, target.refine)
    name = own_activation(target.bound.settings)
    return {**outputs, "y": activation(name)(outputs["y"])} if name and "y" in outputs else outputs


def room_of(one: Trial, name: str) -> float:
    """How much an output moves for a relative change of the input, per unit of that change; 0 where it has none."""
    rng = np.random.default_rng(20261121)
    moved = {
        role: array * (1.0 + SMALL * rng.choice([-1.0, 1.0], array.shape)) if array.dtype.kind == "f" else array
        for role, array in one.inputs.items()
    }
    if not any(array.dtype.kind == "f" for array in moved.values()):
        return 0.0
    try:
        again = one.again(moved)[name]
    except LayoutxError:
        return 0.0
    if again.shape != one.found[name].shape:
        return 0.0
    far = np.abs(again.astype(np.float64) - one.found[name].astype(np.float64))
    return float(np.nan_to_num(far, nan=0.0, posinf=0.0).max(initial=0.0)) / SMALL


def by_direction(couple: Couple, one: Trial) -> list[tuple[str, Trial]]:
    """The trial of each direction apart, `forward` and `backward`; "" for what is not of one direction."""
    split = [name for name in one.expected if name in ("y", "h", "c")]
    if couple.source.bound.kind.name not in STEPS or not split:
        return [("", one)]
    ways = directions(couple.source.bound)
    found = []
    for at, way in enumerate(ways):
        cut = [{name: _way(name, side[name], at, len(ways)) for name in split} for side in (one.expected, one.found)]
        found.append((way if len(ways) > 1 else "", replace(one, expected=cut[0], found=cut[1])))
    rest = [{n: a for n, a in side.items() if n not in split} for side in (one.expected, one.found)]
    return [*found, ("", replace(one, expected=rest[0], found=rest[1]))] if rest[0] else found


def _way(name: str, array: Array, at: int, many: int) -> Array:
    """One direction's part of an output; the whole where it cannot be divided (another size on the target's side)."""
    if name == "y":
        return np.split(array, many, axis=-1)[at] if array.shape[-1] % many == 0 else array
    return array[at] if array.shape[0] == many else array
