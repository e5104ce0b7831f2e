"""What lies between two layers is told from the numbers of both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.pairs import Gap
from layoutx.verify.diagnose.between import Found, between, by_chance
from layoutx.verify.diagnose.ops import activations, joins, ops
from layoutx.verify.diagnose.ways import Start, ways
from layoutx.verify.forward.activations import activation

RNG = np.random.default_rng(20261121)
MAP = RNG.normal(size=(3, 10, 12, 8))
SEQUENCE = RNG.normal(size=(3, 11, 6))
Step = Callable[[np.ndarray], np.ndarray]


def op(x: np.ndarray, goal: tuple[int, ...], name: str) -> Step:
    """An operation by the beginning of its name."""
    return next(one.apply for one in ops(x, goal) if one.name.startswith(name))


def gap(right: Step, wrong: Step, *arrays: np.ndarray, **more) -> Gap:
    """Two models that do two things to the same arrays."""
    expected, given = right(*arrays), wrong(*arrays)
    return Gap(("a",), "b", ("a", "b"), apart(expected, given), "FAIL", "", expected, given, arrays, arrays, **more)


def said(found: Found) -> tuple[str, str]:
    """What each side does."""
    here, there = found.what.partition("the source does: ")[2].split("; the target does: ")
    return here, there


@pytest.mark.parametrize(
    ("goal", "right", "wrong", "mode"),
    [
        ((3, 5, 6, 8), "max pooling of 2 by stride 2", "average pooling of 2 by stride 2", "F27"),
        ((3, 5, 6, 8), "average pooling of 3 by stride 2, borders same (0, 1) (0, 1)",
         "average pooling of 3 by stride 2, borders symmetric", "F7"),
        ((3, 5, 6, 8), "max pooling of 3 by stride 2, borders same", "max pooling of 3 by stride 2, borders sym", "F7"),
        ((3, 20, 24, 8), "bilinear, half-pixel", "bilinear, aligned", "F28"),
        ((3, 20, 24, 8), "nearest, half-pixel", "bilinear, half-pixel", "F28"),
        ((3, 20, 24, 2), "depth to space, depth first", "depth to space, column first", "F29"),
        ((3, 8), "global average pooling", "global max pooling", "F27"),
        ((3, 960), "flattened in the order h w c", "flattened in the order c h w", "F1"),
        ((3, 11, 13, 8), "a border of zeros (0, 1) (0, 1)", "a border of zeros (1, 0) (1, 0)", "F7"),
    ],
)  # fmt: skip
def test_of_a_map_both_sides_are_told(goal: tuple[int, ...], right: str, wrong: str, mode: str) -> None:
    found = between(gap(op(MAP, goal, right), op(MAP, goal, wrong), MAP))
    here, there = said(found)
    assert here.startswith(right)
    assert there.startswith(wrong)
    assert found.mode == mode
    assert found.after <= 1e-12
    assert found.before > 1e-3
    assert found.families


@pytest.mark.parametrize(
    ("right", "wrong", "mode"), [("relu", "elu", "F19"), ("leaky_relu_0.3", "leaky_relu_0.01", "F31")]
)
def test_activations(right: str, wrong: str, mode: str) -> None:
    found = between(gap(activation(right), activation(wrong), MAP))
    assert said(found) == (right, wrong)
    assert found.mode == mode
    assert found.after == 0


def test_the_activation_of_a_layer_is_part_of_what_the_source_does() -> None:
    """Keras' layer holds its gelu; the target computes the other one."""
    right, wrong = activation("gelu"), activation("gelu_tanh")
    one = Gap(("a",), "b", ("a", "b"), apart(right(MAP), wrong(MAP)), "FAIL", "", right(MAP), wrong(MAP))
    one = replace(one, gave={"y": right(MAP)}, there_gave={"y": MAP}, act="gelu")
    found = between(one)
    assert said(found) == ("gelu", "gelu_tanh")
    assert found.mode == "F20"
    assert found.after <= 1e-12


def test_the_last_states_against_the_last_step() -> None:
    """The backward direction's last step is that of the first position."""
    y = RNG.normal(size=(3, 11, 14))
    states = np.stack([y[:, -1, :7], y[:, 0, 7:]])
    right = np.concatenate([states[0], states[1]], -1)
    one = Gap(("bi",), "out", ("bi", "out"), apart(right, y[:, -1]), "FAIL", "", right, y[:, -1], gave={"h": states},
              there_gave={"y": y, "h": states})  # fmt: skip
    found = between(one)
    assert said(found) == ("the last states, forward then backward", "the last step")
    assert found.mode == "F18"
    assert found.after == 0


def test_two_operations_in_a_row() -> None:
    pool = op(MAP, (3, 5, 6, 8), "max pooling of 2 by stride 2")
    found = between(gap(lambda x: pool(activation("tanh")(x)), lambda x: pool(activation("sigmoid")(x)), MAP))
    assert said(found) == ("tanh, max pooling of 2 by stride 2", "sigmoid, max pooling of 2 by stride 2")
    assert found.after == 0


def test_joins_of_several_layers() -> None:
    a, b = (RNG.normal(size=(4, 5)) for _ in range(2))
    words = dict(joins([a, b]))
    assert {"added", "multiplied", "side by side", "side by side in the order (1, 0)"} <= words.keys()
    found = between(gap(lambda a, b: a + b, lambda a, b: a * b, a, b))
    assert said(found) == ("added", "multiplied")
    assert found.after == 0


def test_inputs_of_another_range_are_a_factor_and_a_shift() -> None:
    expected = MAP[..., :3]
    given = expected / 255
    found = between(Gap((), "a", ("a",), apart(expected, given), "FAIL", "", expected, given))
    assert found.mode == "F34"
    assert "a factor of 255" in found.what
    assert found.after <= 1e-12
    means, spreads = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    given = (expected - means) / spreads
    found = between(Gap((), "a", ("a",), apart(expected, given), "FAIL", "", expected, given))
    assert "0.229, 0.224, 0.225 and a shift of 0.485, 0.456, 0.406" in found.what


def test_a_sequence_turned_in_time_or_with_its_batch() -> None:
    found = between(gap(lambda x: x, lambda x: x[:, ::-1], SEQUENCE))
    assert (found.mode, said(found)) == ("F18", ("nothing", "time reversed"))
    square = RNG.normal(size=(5, 5, 6))
    found = between(gap(lambda x: x, lambda x: x.swapaxes(0, 1), square))
    assert (found.mode, said(found)) == ("F36", ("nothing", "batch and time exchanged"))


def test_noise_is_none_of_these() -> None:
    noise = RNG.normal(size=MAP.shape)
    found = between(gap(lambda x: x + noise, lambda x: np.cos(x), MAP))
    assert found.what.startswith("none of these")
    assert found.after != found.after
    assert found.tried > 20
    assert {"activation", "turn", "move"} <= set(found.families)


def test_a_target_that_changes_from_run_to_run() -> None:
    found = between(gap(activation("tanh"), lambda x: np.tanh(x) + np.cos(7 * x), MAP))
    assert "not among the known ways" in found.what
    assert by_chance(found).mode == "F10"
    known = between(gap(activation("tanh"), activation("relu"), MAP))
    assert by_chance(known) is known


def test_every_operation_gives_the_shape_that_it_was_asked_for() -> None:
    """And no two have the same name."""
    for x, goal in (
        (MAP, (3, 5, 6, 8)),
        (MAP, (3, 20, 24, 2)),
        (MAP, (3, 12, 14, 8)),
        (MAP, (3, 960)),
        (SEQUENCE, (3, 6)),
    ):
        found = [one for one in ops(x, goal) if one.name != "nothing"]
        assert found
        assert all(one.apply(x).shape == goal for one in found)
        assert len({one.name for one in found}) == len(found)


def test_names_of_activations_are_those_of_the_reference() -> None:
    names = [one.name for one in activations()]
    assert len(names) == len(set(names))
    values = [one.apply(MAP) for one in activations()]
    assert not any(np.array_equal(a, b) for a, b in pairwise(values))


def test_an_exact_way_ends_the_search() -> None:
    found, tried = ways([Start("y", "", MAP)], MAP)
    assert [way.words for way in found] == ["nothing"]
    assert tried == 1
