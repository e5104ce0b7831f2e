"""What makes one array of another, told from the numbers alone: order of units or samples, scale, dropout, rounding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import permutations

import ml_dtypes
import numpy as np

from layoutx.plan.plan import Array
from layoutx.verify.diagnose.operation import Op
from layoutx.verify.diagnose.ops import MOST_ORDERS, ops
from layoutx.verify.diagnose.scales import affine
from layoutx.verify.diagnose.ways import CLOSE, far, makes

BLOCKS = {2: "F18", 3: "F4", 4: "F3"}  # how many blocks of units exchanged -> what they most likely are
NARROW = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def unlike(given: Array, expected: Array) -> Iterator[Op]:
    """Operations that make `expected` of `given`, exactly; all of one step."""
    if not np.isfinite(given).all() or not np.isfinite(expected).all():
        return
    for op in ops(given, expected.shape):
        if op.group != "nothing" and makes(given, (op,), expected):
            yield op
    yield from _axes(given, expected)
    if given.shape != expected.shape:
        return
    for axis, what in ((given.ndim - 1, "units"), (0, "samples")):
        order = permutation(given, expected, axis)
        if order is not None and (order != np.arange(len(order))).any():
            words, mode = order_words(order, what)
            yield Op(words, "order", partial(np.take, indices=order, axis=axis), mode, f"x = x[{'...' if axis else ''}{', ' if axis else ''}order]")  # fmt: skip # noqa: E501
    scaled = affine(given, expected)
    if scaled is not None:
        yield scaled


def spoils(given: Array, expected: Array) -> Iterator[Op]:
    """What may have been done to `expected`, so that `given` came of it, and cannot be undone."""
    yield from unlike(expected, given)
    if given.shape != expected.shape:
        return
    for name, dtype in NARROW.items():
        with np.errstate(all="ignore"):
            if np.array_equal(expected.astype(np.float32).astype(dtype).astype(given.dtype), given):
                yield Op(f"rounded to {name}", "rounding", lambda a, d=dtype: a.astype(d).astype(a.dtype), "F30")  # type: ignore[misc]
    share = _dropped(given, expected)
    if share:
        yield Op(f"dropout of about {share:.2g}, active", "dropout", lambda a: a, "F10", "model.eval()")


def permutation(given: Array, expected: Array, axis: int) -> Array | None:
    """The order in which `given` has to be taken along an axis to be `expected`; None for none."""
    g, e = (np.moveaxis(np.asarray(a, np.float64), axis, 0).reshape(a.shape[axis], -1) for a in (given, expected))
    if g.shape != e.shape or len(g) < 2:
        return None
    size = max(float(np.abs(e).max(initial=0.0)), 1e-26)
    for order in _likely(len(g)):  # units that are zero everywhere leave a choice
        if float(np.abs(g[order] - e).max(initial=0.0)) <= CLOSE * size:
            return order
    line = np.random.default_rng(0).normal(size=g.shape[1])
    order = np.empty(len(g), np.int64)
    order[np.argsort(e @ line, kind="stable")] = np.argsort(g @ line, kind="stable")
    return order if float(np.abs(g[order] - e).max(initial=0.0)) <= CLOSE * size else None


def _likely(many: int) -> Iterator[Array]:
    """Orders that have a name: as it is, reversed, blocks in another order, two axes exchanged."""
    plain = np.arange(many)
    yield from (plain, plain[::-1])
    for blocks in (b for b in BLOCKS if many % b == 0 and many > b):
        yield from (plain.reshape(blocks, -1)[list(p)].reshape(-1) for p in permutations(range(blocks)))
    yield from (plain.reshape(a, -1).T.reshape(-1) for a in range(2, min(many // 2 + 1, 64)) if many % a == 0)


def order_words(order: Array, what: str) -> tuple[str, str]:
    """A permutation in words: blocks, two axes exchanged, reversed, or nothing that has a name."""
    many = len(order)
    if (order == np.arange(many)[::-1]).all():
        return f"its {what} reversed", "F34" if what == "units" else "F36"
    for blocks in (b for b in (2, 3, 4) if many % b == 0 and what == "units"):
        split = order.reshape(blocks, -1)
        if many > blocks and (split == split[:, :1] + np.arange(many // blocks)).all():
            words = " ".join(str(int(start) * blocks // many) for start in split[:, 0])
            return f"its {what} in {blocks} blocks (gates, directions, q k v) in the order {words}", BLOCKS[blocks]
    for a in (n for n in range(2, many // 2 + 1) if many % n == 0):
        if (order == np.arange(many).reshape(a, -1).T.reshape(-1)).all():
            return f"its {what} as {a} by {many // a}, transposed", "F1" if what == "units" else "F36"
    few = " ".join(map(str, order[:8])) + (" ..." if many > 8 else "")
    return f"its {what} in the order {few}", "F38" if what == "units" else "F36"


def _axes(given: Array, expected: Array) -> Iterator[Op]:
    """Axes in another order where their lengths differ."""
    if given.ndim != expected.ndim or given.shape == expected.shape or given.ndim > 5:
        return
    for order in list(permutations(range(given.ndim)))[: MOST_ORDERS * 5]:
        if tuple(given.shape[i] for i in order) == expected.shape and far(given.transpose(order), expected) <= CLOSE:
            words = " ".join(map(str, order))
            mode = "F36" if order[:2] == (1, 0) else "F1"
            code = f"x = x.permute({words.replace(' ', ', ')})"
            yield Op(f"its axes in the order {words}", "axes", partial(np.transpose, axes=order), mode, code)


def _dropped(given: Array, expected: Array) -> float:
    """The share of zeros where all other numbers are the right ones times one factor; 0 for no such thing."""
    kept = (given != 0) & (expected != 0)
    lost = (given == 0) & (expected != 0)
    if not kept.any() or not lost.any():
        return 0.0
    factors = given[kept] / expected[kept]
    share = float(lost.sum() / (lost.sum() + kept.sum()))
    same = bool(np.ptp(factors) <= CLOSE * abs(float(factors.flat[0])))
    return share if same and float(factors.flat[0]) >= 1.0 else 0.0
