"""A layer that reads time before batch where it is given batch before time: `batch_first` (F36)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from layoutx.lang.tree import Axis
from layoutx.spec.bound import BoundForm
from layoutx.verify.diagnose.between import Found
from layoutx.verify.diagnose.fixes import constructor
from layoutx.verify.diagnose.ways import CLOSE, far
from layoutx.words import listed

READS = ("x", "query")  # the names of what a sequence layer reads


def time_first(found: Found, target: BoundForm | None) -> Found:
    """The fault named after the layer behind it, where that takes the batch for time.

    Args:
        target: the layer behind the gap, as the target has it; None where nobody knows.
    """
    gap = found.gap
    if target is None or gap.given.ndim < 3 or gap.expected.ndim != gap.given.ndim:
        return found
    turned = np.swapaxes(np.asarray(gap.given, np.float64), 0, 1)
    size = float(np.abs(gap.expected).max(initial=0.0))
    after = far(turned, gap.expected)
    if not after <= CLOSE * max(size, 1e-26):
        return found
    place = gap.places[-1] if gap.places else gap.after
    first = reads_time_first(target)
    if first is None:
        return found
    reads, gets = ("time before batch", "batch before time") if first else ("batch before time", "time before batch")
    what = (
        f"between {', '.join(gap.before) or 'the inputs'} and {gap.after}: {place} reads {reads}, and is given {gets}"
    )
    code = constructor(target, f"batch_first={first}", place) if target.form.framework == "torch" else ""
    code = code or f"x = x.swapaxes(0, 1)   # before {place}, and once more behind it"
    option = "none is needed: the weights are the same for both orders; only the model's code is wrong"
    return replace(found, what=what, mode="F36", code=code, option=option, after=after)


def turned_inputs(found: Found, turned: Sequence[tuple[str, BoundForm]]) -> Found:
    """The fault of a layer that reads its data as in the source, laid where it is made: at the layers that do not.

    The inputs were turned for these, so that it is another layer behind them that is given the wrong order.

    Args:
        turned: (place, target) of the layers that read time first on one side only.
    """
    places = [place for place, _ in turned]
    torch = [(place, bound) for place, bound in turned if bound.form.framework == "torch"]
    if found.mode != "F36" or not torch or found.gap.places[-1:] == tuple(places) or len(torch) < len(turned):
        return found
    first = reads_time_first(torch[0][1])
    reads, gets = ("time before batch", "batch before time") if first else ("batch before time", "time before batch")
    what = (
        f"in the target {listed(places)} {'reads' if len(places) == 1 else 'read'} {reads}, where the source gives "
        f"{gets}; {found.gap.places[-1] or found.gap.after} behind it is right"
    )
    code = "; ".join(constructor(bound, f"batch_first={first}", place) for place, bound in torch)
    return replace(found, what=what, code=code)


def turned_layers(bounds: Sequence[tuple[str, str, BoundForm, BoundForm]]) -> tuple[tuple[str, BoundForm], ...]:
    """(place, target) of the layers that read time first on one side only.

    Args:
        bounds: (layer, place, source, target) of each pair.
    """
    ways = ((place, target, reads_time_first(source), reads_time_first(target)) for _, place, source, target in bounds)
    return tuple((place, target) for place, target, here, there in ways if None not in (here, there) and here != there)


def reads_time_first(bound: BoundForm) -> bool | None:
    """Whether a sequence layer has time as its first axis; None for layers that know no batch."""
    for name in READS:
        dims = bound.data.get(name, ())
        if len(dims) > 2 and isinstance(dims[0], Axis):
            return dims[0].name != "batch"
    return None
