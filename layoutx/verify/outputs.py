"""The outputs of two models laid beside each other: which is which, in which order of axes, and how far apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from layoutx.model.matching.assignment import assigned
from layoutx.model.matching.names import all_named, likeness, rarity
from layoutx.plan.plan import Array
from layoutx.verify.outcome import EndToEnd
from layoutx.verify.plain import Outputs

# float64 is not tighter: TensorFlow rounds some constants to float32 (gelu's root of 2, 1/sqrt(head_dim) of attention)
RELATIVE = {"float64": 1e-7, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
LEAST = 1e-26  # below it frameworks flush to zero
# what rounding makes of one
SAME = {name: 10 * float(np.finfo(name).eps) for name in ("float64", "float32", "float16")} | {"bfloat16": 10 * 2.0**-7}


def difference(expected: Sequence[Array], found: Sequence[Array], note: str, vary: bool = False) -> EndToEnd:
    """Every output by its own size: a small one is not what the rounding of a large one is.

    Args:
        note: on the arrangement of the inputs, kept with the result.
        vary: whether the inputs are not the same for every sample.
    """
    if len(expected) != len(found):
        both = in_both(expected, found)
        if both is None:
            return EndToEnd(agrees=False, note=f"{len(expected)} outputs against {len(found)}")
        only = f"{len(both[0])} of {max(len(expected), len(found))} outputs: the other model has no more"
        return replace(difference(*both, note, vary), only=only)
    ends: list[tuple[float, float]] = []
    found = by_shape(expected, by_name(expected, found))
    for left, right in zip(expected, found, strict=True):
        apart = [_apart(left, turned) for turned in _turned(right) if turned.shape == left.shape]
        if not apart and _long(left) == _long(right):  # one output a sample, as (batch, 1) or as (batch,)
            apart = [_apart(left, right.reshape(left.shape))]
            note = "; ".join(text for text in (note, f"outputs of shapes {left.shape} and {right.shape}") if text)
        if not apart:
            return EndToEnd(agrees=False, note=f"outputs of shapes {left.shape} and {right.shape}")
        ends.append((min(apart), float(np.abs(left.astype(np.float64)).max(initial=0.0))))
    if all(end == (0.0, 0.0) for end in ends):
        return EndToEnd(0.0, 0.0, "float64", None, "all outputs are zero")
    names = [array.dtype.name for array in (*expected, *found)]
    worst = max((name for name in names if name in RELATIVE), key=lambda name: RELATIVE[name], default="float64")
    shares = [largest / max(scale, LEAST) for largest, scale in ends]
    largest, scale = ends[int(np.argmax(shares))]  # the first NaN, if there is one
    agrees = all(share <= RELATIVE[worst] for share in shares)
    empty = untelling(expected, worst) if agrees and vary else ""
    return EndToEnd(largest, scale, worst, None if empty else agrees, "; ".join(t for t in (note, empty) if t))


def untelling(outputs: Sequence[Array], precision: str) -> str:
    """Why outputs that agree tell nothing of the layers before them, of inputs that vary; "" where they do."""
    same = SAME[precision]
    wide = [array.astype(np.float64) for array in outputs if array.dtype.kind == "f" and array.shape[:1] > (1,)]
    if not wide or len(wide) < len(outputs) or not all(array.size for array in wide):
        return ""
    if all(float(np.ptp(array, axis=0).max()) <= same * float(np.abs(array).max()) for array in wide):
        return "the outputs are the same whatever the inputs, so that they tell nothing of the layers before"
    if all(array.max() > 0.5 and np.minimum(np.abs(array), np.abs(array - 1.0)).max() <= same for array in wide):
        return "all outputs are 0 or 1 (saturated), so that they tell nothing of the layers before"
    return ""


def unmasked(
    expected: Sequence[Array], found: Sequence[Array], masks: Sequence[Array], end: EndToEnd, vary: bool
) -> EndToEnd:
    """The comparison where all masks are 1: nobody reads what a model makes of padding.

    Args:
        end: what came of comparing everything, which is returned where that does not agree either.
    """
    masks = [mask for mask in masks if mask.ndim == 2 and not np.all(mask)]

    def seen(output: Array) -> Array:
        own = [mask != 0 for mask in masks if mask.shape == output.shape[:2]]
        return output[np.logical_and.reduce(own)] if own else output

    again = difference([*map(seen, expected)], [*map(seen, found)], end.note, vary) if masks else end
    only = ", ".join(text for text in (again.only, "where the masks are 1") if text)
    return replace(again, only=only) if again.agrees else end


def in_both(expected: Sequence[Array], found: Sequence[Array]) -> tuple[Sequence[Array], Sequence[Array]] | None:
    """The outputs of the model that has fewer, and those of the other: of each shape both have to have as many."""
    fewer, more = sorted((expected, found), key=len)
    wanted = Counter(one.shape for one in fewer)
    if not fewer or any(sum(x.shape == shape for x in more) != many for shape, many in wanted.items()):
        return None
    there = {shape: iter([at for at, x in enumerate(more) if x.shape == shape]) for shape in wanted}
    chosen = _some(more, [next(there[one.shape]) for one in fewer])
    return (fewer, chosen) if fewer is expected else (chosen, fewer)


def _some(outputs: Sequence[Array], places: Sequence[int]) -> Sequence[Array]:
    """The outputs at some places, with the names that the model gives them."""
    names = getattr(outputs, "names", ())
    found = Outputs(outputs[at] for at in places)
    found.names = tuple(names[at] for at in places) if len(names) == len(outputs) else ()
    return found


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
