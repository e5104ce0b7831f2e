"""Floating dtypes into one another, a block at a time: one rounding, and an account of what was lost.

Which tensors are converted: the floating ones only. Integers, booleans, complex numbers and NumPy's long double stay
as they are (`dtype_after`).

One rounding, to nearest even, whatever the pair. float16 is made here from the bits of float32, at one speed whatever
the numbers are: NumPy's own way is 30 times slower where they overflow or underflow. NaN stays NaN, and quiet.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from layoutx.errors import UsageError
from layoutx.files.dtypes import EXTRA, Array, DType, bits, is_extra, named
from layoutx.frozen import frozen

BLOCK = 1 << 16  # elements: small enough for a cache, large enough that threads seldom meet at the interpreter's lock
DTYPES = {
    "bf16": "bfloat16",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    **{name: name for name in ("bfloat16", "float16", "float32", "float64")},
}
FLOATS = frozenset({"float16", "float32", "float64", *EXTRA})
LOW = np.uint64((1 << 40) - 1)  # of 52 fraction bits 12 stay: float16 has 10, and needs 2 more to be rounded right
PLAIN, SIGN = np.uint32(0x7FFFFFFF), np.uint32(0x80000000)
# the first number that becomes infinite, in the dtype that it is rounded from
LIMITS = {
    "bfloat16": float.fromhex("0x1.ffp127"),
    "float16": 65520.0,
    "float32": float.fromhex("0x1.ffffffp127"),
}


def dtype_named(text: Any) -> DType:
    """The dtype that the user means by `bf16`, `f16`, `f32`, `f64` or its full name.

    Raises:
        UsageError: another word, or a dtype of a framework.
    """
    found = None if not isinstance(text, str) else named(DTYPES.get(text.strip().lower(), ""))
    if found is None:
        raise UsageError(f"there is no dtype {text!r} to convert to", do=f"one of {', '.join(list(DTYPES)[:4])}")
    return found


def is_floating(dtype: DType) -> bool:
    """Whether numbers of this dtype can be converted here: float16, 32, 64, bfloat16 and the float8 family."""
    return dtype.name in FLOATS


def dtype_after(dtype: DType, wanted: DType | None) -> DType:
    """What a tensor's dtype becomes when `wanted` is asked for: only floating ones change."""
    return wanted if wanted is not None and is_floating(dtype) else dtype


@frozen
class Lost:
    """What a conversion lost, added up over blocks, pieces and tensors with `+`.

    Attributes:
        count: values that were converted.
        rounded: finite values that changed and stayed finite, those that became zero too.
        count_infinite: finite values that became infinite (NaN, in a float8 that has no infinity).
        count_zero: values other than zero that became zero.
        error: the largest absolute rounding error of the values that stayed finite.
        scale: the largest finite absolute value before.
    """

    count: int = 0
    rounded: int = 0
    count_infinite: int = 0
    count_zero: int = 0
    error: float = 0.0
    scale: float = 0.0

    def __add__(self, other: Lost) -> Lost:
        return Lost(
            self.count + other.count,
            self.rounded + other.rounded,
            self.count_infinite + other.count_infinite,
            self.count_zero + other.count_zero,
            max(self.error, other.error),
            max(self.scale, other.scale),
        )

    @property
    def largest(self) -> float:
        """The largest rounding error, as a part of the largest value."""
        return self.error / self.scale if self.scale else 0.0


class _Scratch(threading.local):
    """The blocks that one thread works in."""

    def __init__(self) -> None:
        self.wide, self.back, self.plain = (np.empty(BLOCK, np.float32) for _ in range(3))
        self.bits, self.power = (np.empty(BLOCK, np.uint32) for _ in range(2))
        self.wide64, self.back64 = (np.empty(BLOCK, np.float64) for _ in range(2))
        self.differs = np.empty(BLOCK, np.bool_)
        # of the smallest normal float16 and the first infinite one: NumPy is 4 times slower with a scalar
        self.floor, self.ceiling = (np.full(BLOCK, of, np.float32) for of in (2.0**-14, LIMITS["float16"]))


_scratch = _Scratch()


def cast(of: Array, to: Array) -> Lost:
    """The numbers of one buffer in the dtype of another of the same shape; bits where the dtype is the same.

    Both are C-contiguous and native, and do not overlap; `of` may be misaligned, as mapped data is.

    Raises:
        ValueError: other shapes, a buffer that is not contiguous, or a dtype that is not floating.
    """
    if of.shape != to.shape or not (of.flags.c_contiguous and to.flags.c_contiguous):
        raise ValueError(f"cast wants two contiguous buffers of one shape, not {of.shape} and {to.shape}")
    if of.dtype == to.dtype:
        np.copyto(bits(to), bits(of))
        return Lost(of.size)
    if not (is_floating(of.dtype) and is_floating(to.dtype)):
        raise ValueError(f"cast converts floating dtypes, not {of.dtype} to {to.dtype}")
    given, made = of.reshape(-1), to.reshape(-1)
    lost = Lost()
    with np.errstate(all="ignore"):  # what overflows is counted here, not warned about
        for start in range(0, given.size, BLOCK):
            lost += _block(given[start : start + BLOCK], made[start : start + BLOCK])
    return lost


def converted(of: Array, dtype: DType) -> tuple[Array, Lost]:
    """A new array of `dtype` with the numbers of `of` (any strides), and what was lost."""
    made = np.empty(of.shape, dtype)
    return made, cast(np.asarray(of, order="C"), made)


def _block(of: Array, to: Array) -> Lost:
    size = of.size
    back: Array
    if not of.flags.aligned:
        aligned = _scratch.wide64[:size].view(np.uint8)[: of.nbytes]
        np.copyto(aligned, of.view(np.uint8))
        of = aligned.view(of.dtype)
    if to.dtype == np.float64 or (to.dtype == np.float32 and of.dtype != np.float64):
        return _widened(of, to)
    if to.dtype == np.float32:
        np.copyto(to, of, casting="unsafe")
        back = _scratch.back64[:size]
        np.copyto(back, to)
        return _account(of, to, back)
    wide, back = _single(of, _scratch.wide[:size]), _scratch.back[:size]
    if to.dtype == np.float16:
        _half(wide, to.view(np.uint16), back)
    else:
        np.copyto(to, wide, casting="unsafe")
        np.copyto(back, to, casting="unsafe")
    if of.dtype != np.float64:
        return _account(wide, to, back)
    after = _scratch.back64[:size]
    np.copyto(after, back)
    return _account(of, to, after)


def _widened(of: Array, to: Array) -> Lost:
    """To a dtype that holds every number of the other."""
    if to.dtype == np.float64 and is_extra(of.dtype):  # through float32, exactly: faster in ml_dtypes
        single = _scratch.wide[: of.size]
        np.copyto(single, of, casting="unsafe")
        of = single
    np.copyto(to, of, casting="unsafe")
    return Lost(of.size)


def _single(of: Array, into: Array) -> Array:
    """A block as float32, so that rounding it further is still one rounding.

    Of a float64 the 12 leading fraction bits stay, the last of them set where anything below was (rounding to odd).
    That much is exact in float32 wherever the dtypes to come are not zero, its subnormal numbers included.
    """
    if of.dtype == np.float32:
        return of
    if of.dtype == np.float64:
        kept, given = _scratch.back64[: of.size].view(np.uint64), of.view(np.uint64)
        np.bitwise_and(given, LOW, out=kept)
        np.add(kept, LOW, out=kept)  # carries into the lowest bit that stays, if there was anything
        np.bitwise_or(kept, given, out=kept)
        np.bitwise_and(kept, ~LOW, out=kept)
        of = kept.view(np.float64)
    np.copyto(into, of, casting="unsafe")
    return into


def _half(wide: Array, to: Array, back: Array) -> None:
    """Round float32 to the bits of float16, and give `back` the same numbers as float32 (2**16 for infinity).

    To each absolute value 2**13 times its own power of two is added. The sum keeps 10 fraction bits of the value,
    rounded by the processor, as an integer in its lowest bits. Powers of two below float16's smallest normal number
    are raised to it, which is what subnormal means.
    """
    size, given, returned = wide.size, wide.view(np.uint32), back.view(np.uint32)
    plain, bits, power = _scratch.plain[:size], _scratch.bits[:size], _scratch.power[:size]
    np.bitwise_and(given, PLAIN, out=plain.view(np.uint32))
    strange = not plain.max() < LIMITS["float16"]
    if strange:
        np.minimum(plain, _scratch.ceiling[:size], out=plain)
    np.bitwise_and(plain.view(np.uint32), 0x7F800000, out=power)
    np.maximum(power.view(np.float32), _scratch.floor[:size], out=power.view(np.float32))
    np.add(power, 13 << 23, out=power)
    np.add(plain, power.view(np.float32), out=back)
    np.subtract(returned, power, out=bits)
    np.subtract(back, power.view(np.float32), out=back)
    np.subtract(power, 126 << 23, out=power)
    np.right_shift(power, 13, out=power)
    np.add(bits, power, out=bits)
    np.bitwise_and(given, SIGN, out=power)
    np.bitwise_or(returned, power, out=returned)
    np.right_shift(power, 16, out=power)
    np.bitwise_or(bits, power, out=bits)
    np.copyto(to, bits, casting="unsafe")
    if strange:
        lost = np.flatnonzero(np.isnan(wide))
        to[lost] = given[lost] >> 16 & 0x8000 | 0x7E00 | given[lost] >> 13 & 0x1FF


def _account(of: Array, to: Array, back: Array) -> Lost:
    """What a block lost: its values before, after, and after in the dtype of before (spent on it)."""
    scale, limit = max(float(of.max()), -float(of.min())), LIMITS.get(to.dtype.name)
    if limit is None or not scale < limit:  # a float8; or NaN, infinite, about to be
        return _strange(of, back, limit)
    rounded = _count(of, back)
    if not rounded:
        return Lost(of.size, scale=scale)
    left, count_zero = _count(back, 0), 0
    if left < of.size:
        count_zero = _count(of, 0) - left
    np.subtract(of, back, out=back)
    return Lost(of.size, rounded, 0, count_zero, max(float(back.max()), -float(back.min())), scale)


def _count(of: Array, other: Array | int) -> int:
    """In how many places two blocks differ."""
    differs = _scratch.differs[: of.size]
    np.not_equal(of, other, out=differs)
    return int(np.count_nonzero(differs))


def _strange(of: Array, back: Array, limit: float | None) -> Lost:
    """The same with infinite values and NaN among them; without branches, which would be guessed wrong."""
    plain = np.absolute(of)
    finite = plain < np.inf
    kept = finite & np.isfinite(back) if limit is None else plain < limit
    zero = np.count_nonzero(kept & (back == 0) & (of != 0))
    np.subtract(of, back, out=back)
    np.absolute(back, out=back)
    word = f"u{of.itemsize}"
    for values, mask in ((plain, finite), (back, kept)):
        np.bitwise_and(values.view(word), np.negative(mask.astype(word)), out=values.view(word))
    gone = np.count_nonzero(finite) - np.count_nonzero(kept)
    rounded = np.count_nonzero(back.view(word))
    return Lost(of.size, int(rounded), int(gone), int(zero), float(back.max()), float(plain.max()))
