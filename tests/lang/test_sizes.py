"""Axis sizes: every dimension is an equation; contradictions name both claims."""

from __future__ import annotations

import pytest

from layoutx.errors import LayoutxError, Problems, SizeError
from layoutx.lang.parse import parse_dims
from layoutx.lang.sizes import Equation, extent, solve


def equation(text: str, size: int, where: str = "here") -> Equation:
    (dim,) = parse_dims(text)
    return Equation(dim, size, where)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("a", 7),
        ("1", 1),
        ("(a b)", 35),
        ("g[i f o]", 3),
        ("(g[i f] a)", 14),
        ("n{x: (a b) | y: c}", 38),
        ("({p | q: c} a)", 28),
        ("()", 1),
    ],
)
def test_extent(text: str, size: int) -> None:
    assert extent(parse_dims(text)[0], {"a": 7, "b": 5, "c": 3}) == size


def test_extent_of_an_unknown_axis() -> None:
    with pytest.raises(SizeError) as caught:
        extent(parse_dims("(a b a)")[0], {})
    assert str(caught.value) == "nothing determines the size of a, b\n  (a b a)"


@pytest.mark.parametrize(
    ("equations", "given", "solved"),
    [
        ([("(gate[i f g o] hidden)", 20), ("input", 7)], {}, {"hidden": 5, "input": 7}),
        ([("(a b)", 35), ("b", 5)], {}, {"a": 7, "b": 5}),
        ([("(a b)", 35)], {}, {}),  # two unknowns: left open, no guess
        ([("(a b)", 35)], {"a": 7}, {"a": 7, "b": 5}),
        ([("n{x: a | y: b}", 12), ("b", 5)], {}, {"a": 7, "b": 5}),
        ([("n{x: a | y: a}", 14)], {}, {"a": 7}),
        ([("(kv {q: rep | k | v} head)", 70)], {"kv": 2, "head": 7}, {"kv": 2, "head": 7, "rep": 3}),
        ([("1", 1), ("a", 0)], {}, {"a": 0}),
    ],
)
def test_solve(equations: list, given: dict, solved: dict) -> None:
    assert solve([equation(*e) for e in equations], given) == solved


@pytest.mark.parametrize(
    ("equations", "lines"),
    [
        (
            [("a", 7, "kernel (7, 20) dimension 0"), ("a", 5, "units=5")],
            ["a is 7, not 5", "  units=5", "  with a=7 (kernel (7, 20) dimension 0)"],
        ),
        ([("(g[i f g o] a)", 21, "kernel")], ["4 × a cannot be 21", "  kernel: (g[i f g o] a)"]),
        ([("n{x: a | y: (a b)}", 9, "kernel"), ("b", 1, "x")], ["2 × a cannot be 9", "  kernel: n{x: a | y: (a b)}"]),
        (
            [("n{x: (a b) | y: c}", 3, "k"), ("b", 2, "x"), ("c", 5, "y")],
            ["2 × a + 5 cannot be 3", "  k: n{x: (a b) | y: c}"],
        ),
        ([("1", 3, "kernel (3,) dimension 0")], ["1 is 1, not 3", "  kernel (3,) dimension 0"]),
    ],
)
def test_contradictions(equations: list, lines: list[str]) -> None:
    with pytest.raises(SizeError) as caught:
        solve([equation(*e) for e in equations])
    assert str(caught.value).splitlines() == lines


def test_several_contradictions_are_shown_together() -> None:
    with pytest.raises(Problems) as caught:
        solve([equation("a", 5), equation("b", 3)], {"a": 7, "b": 2})
    assert str(caught.value).splitlines() == [
        "sizes that contradict each other:",
        "SizeError: a is 7, not 5",
        "  here",
        "  with a=7 (given)",
        "SizeError: b is 2, not 3",
        "  here",
        "  with b=2 (given)",
    ]


def test_spatial_axes_have_no_size_of_their_own() -> None:
    with pytest.raises(LayoutxError, match="not expanded yet"):
        solve([equation("...", 3)])
