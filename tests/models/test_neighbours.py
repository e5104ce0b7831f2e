"""The neighbours of a place: those of its modules, and of a stacked module's layers the ones before and after."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from layoutx.model.matching.assignment import assigned
from layoutx.model.matching.names import named, said_of, shifted, shifts
from layoutx.model.matching.neighbours import known_as, neighbours_of
from layoutx.model.matching.wiring import Wires, wires_between
from layoutx.model.record import Way


def wires(**feeding: tuple[str, ...]) -> Wires:
    found = wires_between({path: [Way(maker) for maker in found] for path, found in feeding.items()})
    assert found is not None
    return found


def place(prefix: str, **instance: int) -> Any:
    return SimpleNamespace(prefix=prefix, instance=instance, names={"w": f"{prefix}.w"})


def test_a_place_is_judged_by_what_lies_around_it() -> None:
    here, there = wires(a=(), b=("a",), c=("b",)), wires(x=(), y=("x",), z=("y",))
    options = {"b": [place("y"), place("z"), place("lost")]}
    found = neighbours_of(here, there, options)
    met = {"a": ("x",), "c": ("z",)}
    assert found.agreed("b", options["b"][0], met) == (2, 0, False)
    assert found.agreed("b", options["b"][1], met) == (0, 2, False)
    assert found.agreed("b", options["b"][2], met) == (0, 0, False)
    assert found.agreed("b", options["b"][1], {"a": ("y",)}) == (1, 0, False)  # what is known later counts


def test_what_neighbours_tell_is_made_out_anew_once_one_more_has_a_place() -> None:
    here, there = wires(a=(), b=("a",), c=("b",)), wires(x=(), y=("x",), z=("y",))
    options = {"b": [place("y"), place("z")]}
    found = neighbours_of(here, there, options)
    for met in ({"a": ("x",)}, {"a": ("x",), "other": ("q",)}, {"a": ("x",), "c": ("z",)}):
        told = found.told("b", (0, 1), met)
        assert told == {at: found.agreed("b", options["b"][at], met) for at in (0, 1)}
        assert found.told("b", (1,), met) is told


def test_layers_of_one_stacked_module_follow_each_other() -> None:
    here, there = wires(a=(), b=("a",), c=("b",)), wires(rnn=(), head=("rnn",))
    stack = [place("rnn", layer=0), place("rnn", layer=1)]
    found = neighbours_of(here, there, {"a": stack, "b": stack})
    met = {"a": known_as(stack[0]), "c": ("head",)}
    assert found.agreed("b", stack[1], met) == (2, 0, False)
    assert found.agreed("b", stack[0], met)[0] == 0


def test_numbers_count_alike_by_one_shift() -> None:
    pairs = [said_of(named(f"conv_{a}"), named(f"c.{b}"), 0.0, 0.0) for a in (1, 2) for b in (0, 1)]
    known = shifts(pairs)
    assert known == {("conv_#", "c.#"): (-1,)}
    assert [shifted(pair, known) for pair in pairs] == [True, False, False, True]
    assert shifted(said_of(named("norm_1"), named("c.0"), 0.0, 0.0), known) is None


def test_the_margin_is_that_of_the_branch_that_was_taken() -> None:
    score = np.array([[3.0, 1.0, 0.5], [2.5, 2.0, 0.3]])  # the best of all takes 0 and 1, which exclude each other
    matched, margins = assigned(score, [(0, 1)])
    assert matched == [0, 2]
    np.testing.assert_allclose(margins, [0.3, 0.3])  # against the second of that branch: 2 and 0
