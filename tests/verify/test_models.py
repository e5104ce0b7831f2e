"""Outputs of two models compared: what agrees, what does not, and what shows nothing."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.verify.models import _difference
from layoutx.verify.plain import flat


def rand(*shape: int) -> np.ndarray:
    return np.random.default_rng(8).normal(size=shape)


def test_zeros_show_nothing() -> None:
    zeros = [np.zeros((3, 2))]
    end = _difference(zeros, zeros, "")
    assert end.agrees is None
    assert end.note == "all outputs are zero"
    assert _difference(zeros, [rand(3, 2)], "").agrees is False
    assert _difference([rand(3, 2)], zeros, "").agrees is False


def test_equal_lengths_do_not_hide_turned_channels() -> None:
    y = rand(2, 5, 5)
    for other in (y, y.swapaxes(1, 2)):
        assert _difference([y], [other], "").agrees is True
    image = rand(2, 5, 5, 5)
    for other in (image, np.moveaxis(image, 1, -1), np.moveaxis(image, -1, 1)):
        assert _difference([image], [other], "").agrees is True
    assert _difference([y], [y[::-1]], "").agrees is False
    assert _difference([y], [np.full_like(y, np.nan)], "").agrees is False


def test_bfloat16_outputs_are_compared_as_such() -> None:
    torch = pytest.importorskip("torch")
    wide = rand(3, 7)
    found = flat(torch.tensor(wide, dtype=torch.bfloat16, requires_grad=True))
    end = _difference([wide], found, "")
    assert end.dtype == "bfloat16"
    assert end.agrees is True
    assert end.largest > 0
