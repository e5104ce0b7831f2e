"""What a layer's numbers show without any run: said where no known mistake explains a difference."""

from __future__ import annotations

from collections.abc import Iterator

import ml_dtypes
import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.diagnose.numbers import is_float, tensors_of
from layoutx.verify.diagnose.suspect import Suspect


def observed(suspect: Suspect) -> Iterator[str]:
    """NaN, tensors that hold one number everywhere, numbers that went through a narrower type."""
    summed = tensors_of(suspect.target, [role for gauge in suspect.target.kind.gauge for role in gauge.roles])
    whole = any(suspect.stored[name].any() for name in summed)
    for tensor in suspect.target.tensors:
        if not is_float(suspect, tensor.name) or (
            tensor.name in summed and whole and not suspect.stored[tensor.name].any()
        ):
            continue  # of two biases that are added one may be zero
        array = suspect.stored[tensor.name]
        if not np.isfinite(array).all():
            yield f"{tensor.name} holds NaN or infinity"
        elif array.size > 1 and (array == array.flat[0]).all():
            yield f"{tensor.name} is {array.flat[0]:g} everywhere, as before training"
        elif array.size > 1 and (narrow := _narrow(array)):
            yield f"{tensor.name} holds {array.dtype} numbers that all are {narrow} numbers: it was rounded"


def _narrow(array: Array) -> str:
    with np.errstate(all="ignore"):
        for name, dtype in (("bfloat16", ml_dtypes.bfloat16), ("float16", np.float16)):
            if array.dtype.itemsize > 2 and np.array_equal(array.astype(dtype).astype(array.dtype), array):
                return name
    return ""
