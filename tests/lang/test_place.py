"""Where atoms sit: offsets and strides of every construct, against numbers that a person can check."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.errors import SizeError
from layoutx.lang.parse import parse
from layoutx.lang.place import Block, place, shape_of

SIZES = {"a": 2, "b": 3, "c": 5, "n": 0}


def blocks(text: str, **labels: str) -> list[Block]:
    return place(parse(text), SIZES, labels)


@pytest.mark.parametrize(
    ("text", "shape", "expected"),
    [
        ("w: a b", (2, 3), [Block("w", (), 0, {"a": 3, "b": 1})]),
        ("w: (b a) c", (6, 5), [Block("w", (), 0, {"b": 10, "a": 5, "c": 1})]),
        ("w: -a b", (2, 3), [Block("w", (), 3, {"a": -3, "b": 1})]),
        ("-w: 1 a 1", (1, 2, 1), [Block("w", (), 0, {"a": 1}, True)]),
        ("w:", (), [Block("w", (), 0, {})]),
        ("w: n a", (0, 2), [Block("w", (), 0, {"n": 2, "a": 1})]),
        ("w: (g[x y] a)", (4,), [Block("w", (("g", "x"),), 0, {"a": 1}), Block("w", (("g", "y"),), 2, {"a": 1})]),
        ("w: a g[y x]", (2, 2), [Block("w", (("g", "y"),), 0, {"a": 2}), Block("w", (("g", "x"),), 1, {"a": 2})]),
        (
            "w: g{x: (a b) | y: c}",
            (11,),
            [Block("w", (("g", "x"),), 0, {"a": 3, "b": 1}), Block("w", (("g", "y"),), 6, {"c": 1})],
        ),
        ("{u: b | v} a", (4, 2), [Block("u", (), 0, {"b": 2, "a": 1}), Block("v", (), 6, {"a": 1})]),
        (
            "(a {u: b | v} c)",
            (40,),
            [Block("u", (), 0, {"a": 20, "b": 5, "c": 1}), Block("v", (), 15, {"a": 20, "c": 1})],
        ),
    ],
)
def test_blocks(text: str, shape: tuple, expected: list[Block]) -> None:
    layout = parse(text)
    assert shape_of(layout, SIZES) == shape
    assert place(layout, SIZES) == expected


def test_labels_from_outside() -> None:
    assert blocks("w: a", gate="f") == [Block("w", (("gate", "f"),), 0, {"a": 1})]


def test_blocks_are_where_numpy_puts_them() -> None:
    array = np.arange(2 * 4 * 3 * 5).reshape(2, 12, 5)  # a (g b) c
    for block in blocks("w: a (g[o i f k] b) -c"):
        at = "oifk".index(dict(block.labels)["g"])
        expected = array.reshape(2, 4, 3, 5)[:, at, :, ::-1]
        index = block.offset + sum(
            np.arange(SIZES[x]).reshape([-1 if y == x else 1 for y in "abc"]) * block.strides[x] for x in "abc"
        )
        np.testing.assert_array_equal(array.reshape(-1)[index], expected)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("w: a b a", "a stands twice in one layout\n  a b a"),
        ("w: (g[x y] g[x y])", "g stands twice in one layout\n  g[x y] g[x y]"),
        ("{u | v} {u | v}", "the role stands twice in one layout\n  {u | v} {u | v}"),
        ("w: a unknown", "nothing determines the size of unknown\n  unknown"),
        ("w: ...", "the spatial axes `...` are not expanded yet\n  ..."),
    ],
)
def test_what_has_no_place(text: str, what: str) -> None:
    with pytest.raises(SizeError) as caught:
        blocks(text)
    assert str(caught.value) == what
