"""Borders, strides and crops of a convolution: what is told of them, and that an equal border is no other one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import planted_layers as layers
import pytest
from planted import broken
from planted_mistakes import configured

from layoutx.verify.diagnose.search import search
from layoutx.verify.diagnose.suspect import Suspect
from layoutx.verify.diagnose.windows import borders, same, windows


def strided(stride: int, padding: object, space: tuple[int, int] = (9, 12)) -> Suspect:
    """A right convolution of a Keras config on a map of this size."""
    right = layers.made("conv", 3, 3, 5, 7)
    settings = {**right.settings, "strides": (stride, stride), "padding": padding}
    x = np.random.default_rng(3).normal(size=(2, *space, 5))
    source = replace(right.source, settings={**right.source.settings, "padding": padding, "strides": (stride, stride)})
    wide = replace(right, inputs={"x": x}, settings=settings, source=source)
    return replace(wide, expected=broken(wide).found)


@pytest.mark.parametrize(
    ("length", "reach", "stride", "ends"),
    [(9, 3, 2, (1, 1)), (12, 3, 2, (0, 1)), (5, 1, 3, (0, 0)), (7, 4, 1, (1, 2)), (2, 5, 4, (1, 2))],
)
def test_same_is_tensorflow_s(length: int, reach: int, stride: int, ends: tuple[int, int]) -> None:
    assert same(length, reach, stride) == ends
    steps = -(-length // stride)
    assert (length + sum(ends) - reach) // stride + 1 == steps


def test_windows_are_views_of_every_position() -> None:
    x = np.arange(2 * 7 * 9 * 3).reshape(2, 7, 9, 3)
    found = windows(x, (2, 3), (2, 3))
    assert found.shape == (2, 3, 3, 3, 2, 3)
    np.testing.assert_array_equal(found[1, 2, 1, 0], x[1, 4:6, 3:6, 0])


@pytest.mark.parametrize(
    "wrong",
    [((1, 1), (1, 1)), ((1, 1), (1, 0)), ((2, 0), (2, 0)), "valid"],
    ids=["symmetric", "front", "causal", "none"],
)
def test_a_wrong_border_of_same_is_named(wrong: object) -> None:
    right = strided(2, "same")
    found = search(broken(right, configured(padding=wrong)))
    first = found.explanations[0]
    assert [edit.mode for edit in first.edits] == ["F7"]
    assert "`same` as TensorFlow pads, (1, 1) (0, 1)" in first.edits[0].what
    assert first.edits[0].code.startswith("x = F.pad(x, (0, 1, 1, 1))")
    assert first.edits[0].option == "layoutx.torch.Conv2dSame pads as Keras does"
    assert first.after <= 1e-12
    assert first.before > 1e-3


def test_strides_of_the_source_are_tried_too() -> None:
    right = strided(2, "valid")
    first = search(broken(right, configured(strides=(1, 1)))).explanations[0]
    assert first.edits[0].mode == "F7"
    assert first.after <= 1e-12


def test_equal_borders_are_one_hypothesis() -> None:
    """`same` at stride 1 with an odd kernel is the symmetric border: neither is another one."""
    right = strided(1, ((1, 1), (1, 1)))
    told = [edit.short for edit in borders(right)]
    assert not any("TensorFlow" in short or "both ends" in short for short in told)
    assert len(told) == len(set(told))


def test_other_kinds_have_no_border() -> None:
    assert list(borders(layers.made("dense", 7, 11))) == []
    assert list(borders(layers.made("lstm", 5, 7))) == []
