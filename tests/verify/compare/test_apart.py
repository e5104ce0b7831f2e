"""Two arrays compared: the largest difference, its place in words, masks of NaN and infinities, and the verdict."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.verify.compare.apart import Apart, apart, where, worst
from layoutx.verify.compare.limits import coarsest, verdict

RNG = np.random.default_rng(20261121)
DATA = RNG.normal(size=(3, 31, 7))


def test_the_same_numbers():
    found = apart(DATA, DATA.copy())
    assert (found.largest, found.relative, found.unlike, found.odd) == (0.0, 0.0, 0, "")
    assert verdict(found, "float64") == "OK"


def test_the_largest_difference_and_its_place():
    other = DATA.copy()
    other[:, 29, 4] += 0.5
    other[1, 29, 4] += 0.5
    found = apart(DATA, other)
    assert found.largest == pytest.approx(1.0)
    assert found.relative == pytest.approx(1.0 / np.abs(DATA).max())
    assert where(found, ("sample", "step", "unit")) == "step 29, unit 4"
    assert verdict(found, "float64") == "FAIL"


def test_the_sample_is_named_where_the_others_are_right():
    other = DATA.copy()
    other[2, 5, 3] += 1e-3
    assert where(apart(DATA, other), ("sample", "step", "unit")) == "sample 2, step 5, unit 3"


def test_equal_nan_and_infinities_are_equal():
    left = DATA.copy()
    left[0, 0, 0], left[1, 2, 3], left[2, 2, 2] = np.nan, np.inf, -np.inf
    assert verdict(apart(left, left.copy()), "float64") == "OK"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_finite_on_one_side_only_fails(value):
    other = DATA.copy()
    other[1, 7, 2] = value
    for pair in ((DATA, other), (other, DATA)):
        found = apart(*pair)
        assert found.unlike == 1
        assert found.index == (1, 7, 2)
        assert verdict(found, "float64") == "FAIL"


def test_infinities_of_other_signs_are_not_equal():
    left, right = DATA.copy(), DATA.copy()
    left[0, 1, 2], right[0, 1, 2] = np.inf, -np.inf
    assert apart(left, right).unlike == 1


def test_other_shapes():
    found = apart(DATA, DATA[:, :-1])
    assert found.odd == "shape (3, 30, 7) instead of (3, 31, 7)"
    assert verdict(found, "float64", tolerance=1e9) == "FAIL"


@pytest.mark.parametrize(
    ("change", "dtype", "expected"),
    [
        (1e-12, "float64", "OK"),
        (1e-8, "float64", "INACCURATE"),
        (1e-3, "float64", "FAIL"),
        (1e-6, "float32", "OK"),
        (1e-4, "float32", "INACCURATE"),
        (1e-2, "float32", "FAIL"),
    ],
)
def test_verdicts(change, dtype, expected):
    assert verdict(apart(DATA, DATA * (1 + change)), dtype) == expected


def test_room_for_rounding():
    small = apart(DATA, DATA * (1 + 9e-8))
    assert verdict(small, "float64") == "INACCURATE"
    assert verdict(small, "float64", rounded=True) == "OK"
    assert verdict(small, "float64", flow=True) == "OK"
    assert verdict(small, "float64", room=500 * np.abs(DATA).max()) == "OK"
    assert verdict(apart(DATA, DATA * 1.01), "float64", room=1e300) == "FAIL", "a sensitive layer is no excuse"


def test_a_layer_whose_outputs_are_zero():
    zeros = np.zeros((2, 3))
    assert verdict(apart(zeros, zeros), "float64") == "OK"
    assert verdict(apart(zeros, zeros + 1e-9), "float64") == "FAIL"


def test_the_worst_of_several():
    found = [Apart(0.1, 1.0), Apart(0.2, 100.0), Apart(0.0, 1.0, unlike=1), Apart(0.3, 1.0)]
    assert worst(found) == 2
    assert worst(found[:2]) == 0


def test_the_coarsest_dtype():
    assert coarsest([DATA.astype("float32")], ["float64"]) == "float32"
    assert coarsest([DATA], ["int64"]) == "float64"
