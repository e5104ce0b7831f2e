"""How large a difference may be before it is more than rounding, and why just so large."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from layoutx.plan.plan import Array
from layoutx.verify.compare.apart import Apart

OK, INACCURATE, FAIL, OPEN = "OK", "INACCURATE", "FAIL", "not compared"
UNREACHED = "NOT REACHED"  # the same outputs, of weights that differ where these inputs do not come

LEAST = 1e-26  # below it frameworks flush to zero
CALM = 1e3  # a layer may be this much more sensitive than large; more than that hides mistakes

# A layer fed the very same numbers: sums of some thousand terms lose about 1e-13 in float64 and 1e-6 in float32.
LAYER: Mapping[str, float] = {"float64": 1e-9, "float32": 1e-5, "float16": 1e-2, "bfloat16": 5e-2}
# A layer of Keras on TensorFlow whose constants are rounded to float32 (attention's scale, gelu's root of two):
# half a unit in the last place of float32 is 6e-8, and a norm that is computed in float32 rounds a few times.
ROUNDED = 3e-7
# What layers hand on where weights were summed and rounded to float32 on the way (torch's two LSTM biases into one).
ROUNDED_WEIGHTS = 1e-5
# The data after many layers, each of which may lose a little; gelu and attention included (RELATIVE in verify.outputs).
FLOW: Mapping[str, float] = {"float64": 1e-7, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
# Above this it is no constant, epsilon or precision that differs a little, but the function.
WRONG: Mapping[str, float] = {"float64": 1e-4, "float32": 1e-3, "float16": 1e-1, "bfloat16": 3e-1}

# Half a unit in the last place: how far one weight is from what it was before it was rounded.
UNIT: Mapping[str, float] = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def coarsest(arrays: Iterable[Array], dtypes: Iterable[str] = ()) -> str:
    """The least precise floating dtype among arrays and names; float64 where there is none."""
    names = [*(array.dtype.name for array in arrays), *dtypes]
    return max((name for name in names if name in FLOW), key=lambda name: FLOW[name], default="float64")


def verdict(
    found: Apart,
    dtype: str,
    *,
    flow: bool = False,
    room: float = 0.0,
    rounded: bool = False,
    tolerance: float = 0.0,
    narrow: str = "",
) -> str:
    """OK, INACCURATE or FAIL.

    Args:
        dtype: the coarsest that was computed in.
        flow: the data passed other layers before.
        room: how much the output moves per unit of relative change of the input, where that is more than its size.
        rounded: the layer computes with constants that its framework rounds to float32.
        tolerance: the user's, in place of the limit of OK.
        narrow: the dtype that weights were rounded to, which explains differences up to its own limit of FAIL.
    """
    if found.odd or found.unlike:
        return FAIL
    limit = tolerance or (FLOW if flow else LAYER)[dtype]
    if rounded and not tolerance:
        limit = max(limit, ROUNDED)
    if found.largest <= limit * max(found.scale, min(room, CALM * found.scale), LEAST):
        return OK
    return (
        INACCURATE
        if found.largest / max(found.scale, LEAST) <= max(WRONG[dtype], WRONG.get(narrow, 0.0), limit)
        else FAIL
    )
