"""What makes one array of another is told from the numbers: orders, scales, dropout, rounding; noise is nothing."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from layoutx.verify.diagnose.unlike import order_words, permutation, spoils, unlike

RNG = np.random.default_rng(20261121)
X = RNG.normal(size=(5, 7, 12))


@pytest.mark.parametrize(
    ("given", "words", "mode"),
    [
        (X[..., ::-1], "units reversed", "F34"),
        (X.reshape(5, 7, 4, 3)[:, :, [0, 2, 1, 3]].reshape(X.shape), "in 4 blocks", "F3"),
        (X.reshape(5, 7, 2, 6)[:, :, ::-1].reshape(X.shape), "in 2 blocks", "F18"),
        (X.reshape(5, 7, 3, 4).swapaxes(2, 3).reshape(X.shape), "by", "F1"),
        (X[[3, 1, 4, 0, 2]], "samples in the order", "F36"),
        (X[..., RNG.permutation(12)], "units in the order", "F38"),
        (X.transpose(1, 0, 2), "axes in the order 1 0 2", "F36"),
        (X * 3.0, "a factor of 0.333333", "F34"),
        ((X - 0.5) / np.linspace(1, 2, 12), "a shift of 0.5", "F34"),
    ],
)
def test_what_undoes_it_is_named(given: np.ndarray, words: str, mode: str) -> None:
    found = [op for op in unlike(given, X) if words in op.name]
    assert found, [op.name for op in unlike(given, X)]
    assert (found[0].mode == mode) or found[0].group == "channels"
    assert np.allclose(found[0].apply(given), X, atol=1e-12)


def test_noise_and_the_same_are_nothing() -> None:
    assert list(unlike(X + 0.3 * RNG.normal(size=X.shape), X)) == []
    assert list(spoils(X + 0.3 * RNG.normal(size=X.shape), X)) == []
    assert list(unlike(np.where(X > 2, np.nan, X), X)) == []


def test_dropout_and_rounding_cannot_be_undone_and_are_told() -> None:
    kept = RNG.random(X.shape) > 0.25
    dropped = [op for op in spoils(X * kept / 0.75, X) if op.group == "dropout"]
    assert len(dropped) == 1
    assert "dropout of about 0.2" in dropped[0].name
    assert dropped[0].mode == "F10"
    narrow = X.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)
    assert [op.name for op in spoils(narrow, X)] == ["rounded to bfloat16"]
    uneven = X * kept * RNG.uniform(1, 2, X.shape)
    assert not [op for op in spoils(uneven, X) if op.group == "dropout"]


def test_units_that_are_zero_everywhere_leave_an_order_with_a_name() -> None:
    x = X.copy()
    x[..., [2, 5, 9]] = 0
    order = permutation(x[..., ::-1], x, 2)
    assert order is not None
    assert order_words(order, "units") == ("its units reversed", "F34")


def test_permutations_are_exact_or_none() -> None:
    order = RNG.permutation(12)
    found = permutation(X, X[..., order], 2)
    assert found is not None
    assert (found == order).all()
    assert permutation(X, X[..., order] + 1e-3, 2) is None
