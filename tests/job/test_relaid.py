"""Steps for memory that does not lie row by row do what the plain ones do."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from layoutx.job.relaid import relaid
from layoutx.job.straight import carry_out
from layoutx.plan.steps import Copy, Fill, Loop


def placed(step: Copy | Fill, shape: tuple[int, ...], order: tuple[int, ...], source: np.ndarray) -> np.ndarray:
    """The target tensor after a step into memory whose dimensions lie in another order, one element apart or more."""
    inner = np.empty([shape[axis] for axis in order], source.dtype)
    tensor = inner.transpose(np.argsort(order))
    tensor[...] = 0
    strides = tuple(s // tensor.itemsize for s in tensor.strides)
    found = relaid(step, shape, strides)
    assert found is not None
    carry_out((found,), inner.reshape(-1), {"s": source.reshape(-1)})
    return tensor


def plainly(step: Copy | Fill, shape: tuple[int, ...], source: np.ndarray) -> np.ndarray:
    """The same, row by row."""
    flat = np.zeros(int(np.prod(shape)), source.dtype)
    carry_out((step,), flat, {"s": source.reshape(-1)})
    return flat.reshape(shape)


SHAPE = (5, 3, 7, 2)
WIDE = np.arange(1, 211, dtype=np.float64)
STEPS = {
    "all at once": Copy("t", "s", 0, 0, (Loop("x", 210, 1, 1),)),
    "back to front": Copy("t", "s", 209, 0, (Loop("x", 210, -1, 1),)),
    "transposed": Copy("t", "s", 0, 0, (Loop("a", 5, 42, 1), Loop("b", 42, 1, 5))),
    "two dimensions as one": Copy("t", "s", 0, 0, (Loop("a", 15, 14, 14), Loop("b", 14, 1, 1))),
    "rows of the middle": Copy("t", "s", 14, 0, (Loop("a", 5, 42, 14), Loop("b", 14, 1, 1))),
    "every second row": Copy("t", "s", 0, 0, (Loop("a", 5, 42, 1), Loop("b", 2, 28, 5), Loop("c", 2, 1, 10))),
    "a number": Fill("t", 6, (Loop("a", 5, 42), Loop("b", 4, 2)), 3.0),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_other_orders(name: str, order: tuple[int, ...]) -> None:
    np.testing.assert_array_equal(placed(STEPS[name], SHAPE, order, WIDE), plainly(STEPS[name], SHAPE, WIDE))


def test_square_dimensions() -> None:
    step = Copy("t", "s", 0, 0, (Loop("a", 5, 25, 1), Loop("b", 5, 1, 25), Loop("c", 5, 5, 5)))
    source = np.arange(125.0)
    expected = plainly(step, (5, 5, 5), source)
    assert not np.array_equal(expected, source.reshape(5, 5, 5))
    for order in permutations(range(3)):
        np.testing.assert_array_equal(placed(step, (5, 5, 5), order, source), expected)


@pytest.mark.parametrize(
    "loops", [(Loop("a", 7, 2, 1),), (Loop("a", 4, 4, 1),), (Loop("a", 2, 1, 1), Loop("b", 3, 2, 2))], ids=str
)
def test_a_loop_across_a_border_is_refused(loops: tuple[Loop, ...]) -> None:
    """(5, 3) in steps of two: its turns lie in one row, then in the next, at no even distance."""
    assert relaid(Copy("t", "s", 0, 0, loops), (5, 3), (1, 5)) is None


def test_a_start_that_carries_over_is_refused() -> None:
    assert relaid(Copy("t", "s", 2, 0, (Loop("a", 2, 1, 1),)), (5, 3), (1, 5)) is None
