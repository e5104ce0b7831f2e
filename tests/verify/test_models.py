"""Outputs of two models compared: what agrees, what does not, and what shows nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from layoutx.verify.keywords import keywords_for
from layoutx.verify.models import arrangements
from layoutx.verify.outputs import by_shape, difference
from layoutx.verify.plain import flat


def rand(*shape: int) -> np.ndarray:
    return np.random.default_rng(8).normal(size=shape)


def test_zeros_show_nothing() -> None:
    zeros = [np.zeros((3, 2))]
    end = difference(zeros, zeros, "")
    assert end.agrees is None
    assert end.note == "all outputs are zero"
    assert difference(zeros, [rand(3, 2)], "").agrees is False
    assert difference([rand(3, 2)], zeros, "").agrees is False


def test_equal_lengths_do_not_hide_turned_channels() -> None:
    y = rand(2, 5, 5)
    for other in (y, y.swapaxes(1, 2)):
        assert difference([y], [other], "").agrees is True
    image = rand(2, 5, 5, 5)
    for other in (image, np.moveaxis(image, 1, -1), np.moveaxis(image, -1, 1)):
        assert difference([image], [other], "").agrees is True
    assert difference([y], [y[::-1]], "").agrees is False
    assert difference([y], [np.full_like(y, np.nan)], "").agrees is False


def test_bfloat16_outputs_are_compared_as_such() -> None:
    torch = pytest.importorskip("torch")
    wide = rand(3, 7)
    found = flat(torch.tensor(wide, dtype=torch.bfloat16, requires_grad=True))
    end = difference([wide], found, "")
    assert end.dtype == "bfloat16"
    assert end.agrees is True
    assert end.largest > 0


class Takes:
    """As much of a torch module as is looked at."""

    def forward(
        self, input_ids: Any, cache: Any = None, attention_mask: Any = None, decoder_input_ids: Any = None
    ) -> Any:
        return input_ids


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("padding_mask", "token_ids"), ("attention_mask", "input_ids")),
        (("decoder_token_ids", "encoder_token_ids"), ("decoder_input_ids", "input_ids")),
        (("left", "right"), ()),  # no word in common: by position
        (("mask_one", "mask_two"), ()),  # nobody is the first argument
        (("token_ids",), ()),
        (("a_ids", "b_ids", "c_mask", "d_ids"), ()),  # as many as there are arguments
    ],
)
def test_inputs_go_to_the_arguments_of_like_names(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert keywords_for(Takes(), names) == expected


def test_inputs_are_tried_in_every_order_where_their_order_is_not_the_users() -> None:
    arrays = [np.zeros(n) for n in (1, 2, 3)]
    tried = [([len(a) for a in some], note) for some, note, _ in arrangements(arrays, False, False, mixed=True)]
    assert tried[0] == ([1, 2, 3], "")
    assert ([3, 1, 2], "inputs 3, 1, 2 in this order") in tried
    assert len(tried) == 6
    assert [(note, order) for _, note, order in arrangements(arrays, False, False)] == [("", ())]
    assert len(list(arrangements(arrays * 2, False, False, mixed=True))) == 1  # too many orders


def test_outputs_are_put_in_order_by_shapes_that_tell_it() -> None:
    first, second = np.zeros((2, 3)), np.zeros((2, 5, 3))
    assert [a.shape for a in by_shape([first, second], [second, first])] == [(2, 3), (2, 5, 3)]
    alike = [np.ones((2, 3)), np.zeros((2, 3))]
    assert by_shape([first, first], alike) is alike
