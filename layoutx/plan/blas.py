"""The matrix transposition of the OpenBLAS that NumPy's wheels bring along, where there is one and it proves itself.

NumPy moves one number at a time (0.27 ns each, even in the first cache); `omatcopy` turns blocks over in vector
registers. It multiplies by one on the way, which keeps every bit of every number with two exceptions: a signalling NaN
becomes a quiet one, and the processor says so (the flag of an invalid operation); and a processor that was told to
flush subnormal numbers makes them zero, which is asked before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

Transpose = Callable[[int, int, int, int, int, int], bool]  # rows, columns, address and pitch of source, of target
ROW_MAJOR, TRANSPOSED = 101, 112  # of CBLAS
INVALID, MACHINES = 1, {"x86_64", "aarch64", "arm64"}  # FE_INVALID of fenv.h, and where it is 1
SIZES, LARGE = (1, 2, 5, 8, 19, 37), (259, 131)  # of the first proof; the tests try all that are small
# Bits of 0, 1, 2.5, infinity, the largest, the least normal, the least and the largest subnormal, quiet NaNs.
KEPT = [0, 0x3F800000, 0x40200000, 0x7F800000, 0x7F7FFFFF, 0x800000, 1, 0x7FFFFF, 0x7FC00000, 0x7FC00005]
SIGNALLING = 0x7F800001
_tiny, _one = 5e-324, 1.0  # not constants to the compiler


def flushes() -> bool:
    """Whether this thread's processor makes subnormal numbers zero (torch.set_flush_denormal, -ffast-math)."""
    return _tiny * _one == 0.0


@cache
def transpose() -> Transpose | None:
    """Turns a matrix of elements of four bytes over; None where NumPy has no OpenBLAS, or one that fails.

    The function takes rows and columns of the source, then the address of its first element and the elements from one
    row to the next, then both of the target; it says whether every bit was kept. Addresses have to suit the elements;
    nothing may overlap.
    """
    if not hasattr(os, "uname") or os.uname().machine not in MACHINES:
        return None
    for file in _files():
        found = _found(file)
        if found is not None and _proves_itself(found):
            return found
    return None


def _files() -> list[Path]:
    """Where the wheels of NumPy keep the library: beside the package (Linux), or in it (macOS)."""
    package = Path(np.__file__).parent
    return [
        file for folder in (package.parent / "numpy.libs", package / ".dylibs") for file in folder.glob("*openblas*")
    ]


def _found(file: Path) -> Transpose | None:
    import ctypes  # for large copies alone

    try:
        library, mathematics = ctypes.CDLL(str(file)), ctypes.CDLL(None)
        clear, raised = mathematics.feclearexcept, mathematics.fetestexcept
    except (OSError, AttributeError):
        return None
    for prefix, (suffix, whole) in product(("scipy_", ""), (("64_", ctypes.c_int64), ("", ctypes.c_int))):
        call = getattr(library, f"{prefix}cblas_somatcopy{suffix}", None)
        if call is not None:
            call.restype = None
            pointer = ctypes.c_void_p
            call.argtypes = [ctypes.c_int, ctypes.c_int, whole, whole, ctypes.c_float, pointer, whole, pointer, whole]
            return _of(call, clear, raised)
    return None


def _of(call: Callable[..., None], clear: Callable[[int], int], raised: Callable[[int], int]) -> Transpose:
    def turn(rows: int, columns: int, source: int, pitch: int, target: int, step: int) -> bool:
        clear(INVALID)
        call(ROW_MAJOR, TRANSPOSED, rows, columns, 1.0, source, pitch, target, step)
        return not raised(INVALID)

    return turn


def _proves_itself(turn: Transpose) -> bool:
    """Whether it keeps every kind of number, at edges too, writes nothing beside, and tells of a signalling NaN."""
    if flushes():
        return False
    numbers = np.array([bits | sign for sign in (0, 1 << 31) for bits in KEPT], "u4")
    for rows, columns in (*product(SIZES, SIZES), LARGE):
        source = np.resize(numbers, (rows + 1, columns + 3))
        given = np.full((columns + 1, rows + 5), 7, "u4")
        wanted = given.copy()
        wanted[:columns, :rows] = source[:rows, :columns].T
        where = (rows, columns, source.ctypes.data, columns + 3, given.ctypes.data, rows + 5)
        if not turn(*where) or given.tobytes() != wanted.tobytes():
            return False
        source[rows // 2, columns - 1] = SIGNALLING
        if turn(*where):
            return False
    return True
