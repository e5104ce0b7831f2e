"""Places that join several layers are told step by step, from what both runs recorded; formulas of two arrays."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.pairs import Gap
from layoutx.verify.diagnose.formula import formula
from layoutx.verify.diagnose.waypoints import first_wrong, stepwise
from layoutx.verify.forward.activations import activation
from layoutx.verify.recording import Call

RNG = np.random.default_rng(7)
X, Y = RNG.normal(size=(5, 4, 6, 3)), RNG.normal(size=(5, 4, 6, 3))
GATE = RNG.uniform(0.1, 0.9, size=(5, 3))
silu, relu = activation("silu"), activation("relu")


@pytest.mark.parametrize(
    ("goal", "words"),
    [
        (silu(X + Y), "silu of (x added to y)"),
        (silu(X) + Y, "silu of x added to y"),
        (X * relu(GATE - 0.5).reshape(5, 1, 1, 3), None),
        (Y * GATE.reshape(5, 1, 1, 3), "y times g"),
        (X.mean((1, 2)), "global average pooling of x"),
    ],
)
def test_a_formula(goal: np.ndarray, words: str | None) -> None:
    found, tried = formula(goal, {"x": X, "y": Y, "g": GATE})
    assert (found.words if found is not None else None) == words
    assert tried > 0
    if found is not None:
        assert np.allclose(found.made({"x": X, "y": Y, "g": GATE}), goal)


def first(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, -1, 1) if array.ndim > 3 else array


def joined(source: np.ndarray, target: np.ndarray) -> Gap:
    """Two layers x and y, a join `act` that is recorded in both, and a pooling over everything behind it."""
    here = (Call("x", "Conv2D", (), (X,)), Call("y", "Conv2D", (), (Y,)), Call("act", "Activation", (), (source,)))
    there = tuple(Call(name, "torch.nn.Conv2d", (), (first(a),)) for name, a in (("b.x", X), ("b.y", Y), ("b", target)))
    arrays = (source.mean((1, 2)), target.mean((1, 2)))
    calls = (here, there)
    return Gap(("x", "y"), "out", ("b.x", "b.y", "out"), apart(*arrays), "FAIL", "", *arrays, (X, Y), (X, Y),
               ("act (Activation)",), (), calls=calls)  # fmt: skip


def test_the_first_step_that_differs() -> None:
    gap = joined(silu(X + Y), silu(X) + Y)
    assert first_wrong(gap, (False, True)) == "b"
    found = stepwise(gap, (False, True))
    assert found is not None
    assert found.known
    assert found.after == pytest.approx(0.0, abs=1e-12)
    assert found.what == (
        "at act (b) the source does: silu of (what x gives added to what y gives); "
        "the target does: silu of what x gives added to what y gives"
    )


def test_an_unknown_step_is_none_of_these() -> None:
    found = stepwise(joined(silu(X + Y), np.cos(X * Y) + X), (False, True))
    assert found is not None
    assert not found.known
    assert found.what.startswith("none of these: at act (b) the source does: silu of (what x gives")


def test_what_is_right_has_no_wrong_step() -> None:
    assert first_wrong(joined(silu(X + Y), silu(X + Y)), (False, True)) == ""
