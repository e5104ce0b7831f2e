"""What was done to numbers on their way: rounded, shifted, scaled, squared; found from sorted values alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from layoutx.frozen import frozen
from layoutx.plan.plan import Array

LEAST = 4  # distinct values below which a measured amount says nothing
SLACK = 4.0  # roundings of the coarser type that a changed number may be away
NICE = (1.0, -1.0, 0.5, -0.5, 2.0)


@frozen
class Change:
    """stored = what `kind` makes of the source's number and of `amount`.

    kind: "" (nothing), "rounded" (through `dtype`), "plus", "times", "root" (of x + amount), "square" (minus amount),
    "inverse root" (1 / root of x + amount).
    """

    kind: str = ""
    amount: float = 0.0
    dtype: str = ""

    def __call__(self, values: Array, dtype: np.dtype[Any]) -> Array:
        """The numbers as they would be stored in a dtype."""
        if self.kind == "":
            return np.asarray(values.astype(dtype, copy=False))
        if self.kind == "rounded":
            return np.asarray(values.astype(named(self.dtype)).astype(dtype))
        x = values.astype(np.float64)
        with np.errstate(all="ignore"):
            match self.kind:
                case "plus":
                    x = x + self.amount
                case "times":
                    x = x * self.amount
                case "root":
                    x = np.sqrt(x + self.amount)
                case "square":
                    x = x * x - self.amount
                case _:
                    x = 1.0 / np.sqrt(x + self.amount)
            return np.asarray(x.astype(dtype))

    @property
    def text(self) -> str:
        """What was done, after the name of the numbers: "+ 1", "rounded to float16"."""
        amount = f"{abs(self.amount):.6g}"
        inner = f"x + {amount}" if self.amount else "x"
        return {
            "": "", "rounded": f"rounded to {self.dtype}", "plus": f"{'+' if self.amount > 0 else '-'} {amount}",
            "times": f"x {_factor(self.amount or 1.0)}", "root": f"root of ({inner})",
            "square": "squared" + f" - {amount}" * bool(self.amount),
            "inverse root": f"1 / root of ({inner})",
        }[self.kind]  # fmt: skip


UNCHANGED = Change()


def named(name: str) -> Any:
    """The dtype of a name, of ml_dtypes too."""
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return np.dtype(name)


def roundings(source: np.dtype[Any], stored: Array) -> list[Change]:
    """Narrower types that stored numbers may have gone through, as a sample of them shows."""
    if source.kind in "iub" or stored.dtype.kind in "iub":
        return []
    width = min(source.itemsize, stored.dtype.itemsize)
    some = stored.reshape(-1)[:: max(1, stored.size // 1024)]
    found = [Change("rounded", dtype=n) for n, w in (("float32", 4), ("float16", 2), ("bfloat16", 2)) if w < width]
    return [change for change in found if np.array_equal(change(some, stored.dtype), some)]


def changes(ours: Array, theirs: Array) -> Iterator[Change]:
    """Changes under which two sets of numbers agree, whatever their order; the simplest first.

    Args:
        ours, theirs: the source's numbers and those stored, of one size and any shape.
    """
    a, b = np.sort(ours.reshape(-1).astype(np.float64)), np.sort(theirs.reshape(-1).astype(np.float64))
    if not len(a) or not np.isfinite(a[[0, -1]]).all() or not np.isfinite(b[[0, -1]]).all():
        return
    eps = SLACK * max(_epsilon(ours.dtype), _epsilon(theirs.dtype))
    few = len(np.unique(a)) < LEAST
    for change in _candidates(a, b):
        if few and not (change.kind == "plus" and change.amount in NICE[:2]):
            continue
        found = np.sort(change(a, np.dtype(np.float64)))
        room = eps * np.maximum(np.maximum(np.abs(found), np.abs(b)), max(abs(a[0]), abs(a[-1]), abs(change.amount)))
        room = room if change.kind in ("plus", "times") else room * 64  # a fitted eps, a root near zero
        if bool((np.abs(found - b) <= room).all()):
            yield change


def rough(ours: Array, theirs: Array) -> list[Change]:
    """Changes by a plain amount that the means and the largest values of two large sets suggest."""
    shift = round(float(theirs.mean(dtype=np.float64) - ours.mean(dtype=np.float64)), 2)
    top = float(np.abs(ours).max())
    factor = float(f"{float(np.abs(theirs).max()) / top:.6g}") if top else 0.0
    found = [Change("plus", shift)] if shift in NICE else []
    return found + [Change("times", x) for x in dict.fromkeys((factor, _root(factor))) if x not in (0.0, 1.0)]


def _candidates(a: Array, b: Array) -> Iterator[Change]:
    shift = float(np.median(b - a))
    for nice in NICE[:2]:
        if abs(shift - nice) < 1e-3:
            shift = nice
    if shift:
        yield Change("plus", shift)
    at = int(np.abs(a).argmax())
    for other in (b, b[::-1]):
        if a[at]:
            factor = float(other[at] / a[at])
            for amount in dict.fromkeys((float(f"{factor:.6g}"), _root(factor), factor)):
                if amount and amount not in (1.0, -1.0):
                    yield Change("times", amount)
    if a[0] >= 0 and b[0] >= 0:
        yield from (Change("root", x) for x in _amounts(b * b - a))
        yield from (Change("square", x) for x in _amounts(a * a - b))
    if a[0] >= 0 and b[0] > 0:
        yield from (Change("inverse root", x) for x in _amounts(1.0 / (b[::-1] * b[::-1]) - a))


def _root(factor: float) -> float:
    """The root of a whole number, or one over it, that a factor is; else the factor."""
    for power in (factor * factor, 1.0 / (factor * factor) if factor else 0.0):
        whole = round(power)
        if 1 < whole < 1 << 20 and abs(power - whole) < 1e-5 * whole:
            root = float(np.sqrt(whole))
            return float(np.copysign(root if abs(factor) > 1 else 1.0 / root, factor))
    return factor


def _factor(amount: float) -> str:
    for text, power in (("root of ", amount * amount), ("1 / root of ", 1.0 / (amount * amount))):
        whole = round(power)
        if 1 < whole < 1 << 20 and abs(power - whole) < 1e-9 * whole and int(whole**0.5) ** 2 != whole:
            return f"{amount:.6g} ({'-' if amount < 0 else ''}{text}{whole})"
    return f"{amount:.6g}"


def _amounts(differences: Array) -> list[float]:
    """0 and a number near a usual eps: what is added under a root."""
    found = float(np.median(differences))
    nice = float(f"{found:.1g}")
    return [0.0, nice] if 0 < found < 0.1 and abs(nice - found) < 0.05 * found else [0.0]


def _epsilon(dtype: np.dtype[Any]) -> float:
    import ml_dtypes

    return 0.0 if dtype.kind in "iub" else float(ml_dtypes.finfo(dtype).eps)
