"""By hand: one element of every witness is summed from its terms, and is what the real framework gave."""

from __future__ import annotations

import re
from math import fsum
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError, UsageError
from layoutx.spec.registry import registry
from layoutx.verify.by_hand import HANDS, ByHand, by_hand
from layoutx.verify.witness import TOLERANCE, Case, bind_case, read, refinement

WITNESSES = sorted(p for p in (Path(__file__).parent.parent / "witnesses").glob("*.npz"))
SHOWN = [p for p in WITNESSES if p.name.split(".")[0] in HANDS]


def shown(case: Case) -> tuple[ByHand, float] | None:
    """One element of a case by hand, and what the framework gave; None for what is not shown."""
    layers = bind_case(case, registry())
    if len(layers) > 1 or "mask" in case.inputs or "h" in case.inputs or "h0" in case.inputs:
        return None
    bound, tensors = layers[0]
    y = case.outputs["y"]
    own = {axis: f"({text})" for axis, text in refinement(case).items()}
    if own or y.size == 0:
        return None
    spot = np.unravel_index(crc32(case.name.encode()) % y.size, y.shape)
    try:
        found = by_hand(bound, tensors, dict(case.inputs), tuple(int(i) for i in spot), own)
    except UsageError as error:
        if (
            "another way" in str(error)
            or "merges" in str(error)
            or "projection" in str(error)
            or "softmax" in str(error)
        ):
            return None
        raise
    return found, float(y[spot])


@pytest.mark.parametrize("path", SHOWN, ids=lambda p: p.stem)
def test_the_terms_are_what_the_framework_computed(path: Path) -> None:
    cases = read(path)
    many = 0
    for case in cases[:: max(1, len(cases) // 40)]:
        result = shown(case)
        if result is None:
            continue
        found, wanted = result
        many += 1
        tolerance = TOLERANCE[case.dtype] * max(1.0, abs(wanted))
        assert found.difference <= 1e-12 * max(1.0, abs(wanted)), case.name
        assert abs(found.value - wanted) <= tolerance, case.name
    assert many


def test_every_term_names_two_stored_numbers() -> None:
    rng = np.random.default_rng(3)
    tensors = {"kernel": rng.normal(size=(3, 1, 7, 5)), "bias": rng.normal(size=5)}
    tensors = {"W": tensors["kernel"], "b": tensors["bias"]}
    x = rng.normal(size=(2, 11, 7))
    config = {"border_mode": "same", "subsample_length": 2}
    bound = registry().bind("keras1.Convolution1D", config, shapes={n: a.shape for n, a in tensors.items()})
    found = by_hand(bound, tensors, x, (1, 0, 3))
    arrays = {**tensors, "x": x}
    step = found.steps[0]
    for term in step.terms:
        for text, value in ((term.left, term.left_value), (term.right, term.right_value)):
            name, _, rest = text.rstrip("]").partition("[")
            assert arrays[name][tuple(int(i) for i in rest.split(","))] == value
    whole = fsum([*(t.value for t in step.terms), *(v for _, v in step.plain)])
    assert whole == found.value
    y = lx.forward("keras1.Convolution1D", tensors, x, config)
    assert abs(y[1, 0, 3] - found.value) < 1e-12
    assert found.formula.startswith("y[b, t, o] = b[o] + sum over k<3, i<7 of x[b, t*2 + k")
    assert "W[k, 0, i, o]" in found.formula or "W[2 - k, 0, i, o]" in found.formula


def test_an_element_that_is_not_there() -> None:
    bound = registry().bind("keras.Dense", {}, sizes={"input": 3, "output": 2})
    with pytest.raises(UsageError, match="the output has no element 0, 2"):
        by_hand(bound, {"kernel": np.ones((3, 2)), "bias": np.ones(2)}, np.ones((1, 3)), (0, 2))


def test_a_wrong_weight_would_be_noticed() -> None:
    """The same element with two weights exchanged is another number: the test above can fail."""
    rng = np.random.default_rng(5)
    tensors = {"weight": rng.normal(size=(5, 7, 3)), "bias": rng.normal(size=5)}
    bound = registry().bind("torch.Conv1d", {"padding": 1}, shapes={n: a.shape for n, a in tensors.items()})
    x = rng.normal(size=(2, 7, 11))
    one = by_hand(bound, tensors, x, (0, 2, 4)).value
    two = by_hand(bound, {**tensors, "weight": tensors["weight"][..., ::-1]}, x, (0, 2, 4)).value
    assert abs(one - two) > 1e-3


LOOPS = [p for p in WITNESSES if p.name.split(".")[0] in ("conv", "conv_transpose")]
ARRAY = re.compile(r"(\w+)\[([^\[\]]*)\]")


def looped(text: str, arrays: dict[str, np.ndarray], spot: dict[str, int]) -> float:
    """A loop formula carried out as it reads; what lies outside of an array, or between its places, is nothing."""
    right = text.partition(" = ")[2]
    first, _, product = right.partition(" of ")
    bias, _, over = first.partition("sum over ")
    limits = dict(one.split("<") for one in over.split(", "))
    total = 0.0
    for at in np.ndindex(*(int(n) for n in limits.values())):
        names = {**spot, **dict(zip(limits, map(int, at), strict=True))}
        values = [taken(name, inside, arrays, names) for name, inside in ARRAY.findall(product)]
        total += float(np.prod(values))
    return total + sum(taken(name, inside, arrays, spot) for name, inside in ARRAY.findall(bias))


def taken(name: str, inside: str, arrays: dict[str, np.ndarray], names: dict[str, int]) -> float:
    where = []
    for text in inside.split(", "):
        value = eval(text, {"__builtins__": {}}, names)  # the formula's own text
        if value != int(value):
            return 0.0
        where.append(int(value))
    array = arrays[name]
    outside = name == "x" and any(not 0 <= i < n for i, n in zip(where, array.shape, strict=True))
    return 0.0 if outside else float(array[tuple(where)])


@pytest.mark.parametrize("path", LOOPS, ids=lambda p: p.stem)
def test_the_loop_formula_computes_the_element(path: Path) -> None:
    """Carried out as it reads, with its strides, paddings, groups and turned kernels, it is what the framework gave."""
    cases = read(path)
    many = 0
    for case in cases[:: max(1, len(cases) // 30)]:
        result = shown(case)
        if result is None:
            continue
        found, _ = result
        (bound, tensors), *_ = bind_case(case, registry())
        left = found.formula.partition("] = ")[0].removeprefix("y[").split(", ")
        spot = dict(zip(left, found.element, strict=True))
        arrays = {**tensors, "x": case.inputs["x"]}
        if not all(name.isidentifier() for name in tensors) or bound.maps:
            continue
        value = looped(found.formula, arrays, spot)
        step = found.steps[0]
        assert abs(value - step.value) <= 1e-5 * max(1.0, abs(step.value)), (case.name, found.formula)
        many += 1
    assert many


def test_a_norm_over_a_sequence_takes_each_position_as_a_sample() -> None:
    known, rng = registry(), np.random.default_rng(5)
    bound = known.bind("keras.LayerNormalization", {"epsilon": 0.01}, sizes={"features": 3})
    arrays = {"gamma": rng.normal(size=3), "beta": rng.normal(size=3)}
    x = rng.normal(size=(2, 5, 3))
    row = x[1, 4]
    want = (row[2] - row.mean()) / np.sqrt(row.var() + 0.01) * arrays["gamma"][2] + arrays["beta"][2]
    assert abs(by_hand(bound, arrays, x, (1, 4, 2)).value - want) < 1e-12
    turned = known.bind("keras.LayerNormalization", {"axis": 1}, sizes={"features": 3})
    with pytest.raises(LayoutxError):  # another axis is never taken for the last one
        by_hand(turned, arrays, rng.normal(size=(2, 3, 3)), (1, 2, 2))


def test_a_convolution_repeated_over_time_takes_each_step_as_a_sample() -> None:
    bound = registry().bind("keras.Conv1D", {}, sizes={"k": 2, "in": 3, "out": 5, "group": 1})
    rng = np.random.default_rng(6)
    arrays = {"kernel": rng.normal(size=(2, 3, 5)), "bias": rng.normal(size=5)}
    x = rng.normal(size=(2, 4, 7, 3))
    want = (x[1, 3, 5:7] * arrays["kernel"][..., 4]).sum() + arrays["bias"][4]
    assert abs(by_hand(bound, arrays, x, (1, 3, 5, 4)).value - want) < 1e-12


def test_two_indices_of_a_recurrent_layer_are_the_step_that_it_reads_last() -> None:
    bound = registry().bind("keras.SimpleRNN", {}, sizes={"input": 3, "hidden": 2})
    rng = np.random.default_rng(7)
    names = {"kernel": (3, 2), "recurrent_kernel": (2, 2), "bias": (2,)}
    arrays = {name: rng.normal(size=shape) for name, shape in names.items()}
    x = rng.normal(size=(2, 5, 3))
    assert by_hand(bound, arrays, x, (1, 0)).value == by_hand(bound, arrays, x, (1, 4, 0)).value
    with pytest.raises(UsageError, match="after the last step it is"):
        by_hand(bound, arrays, x, (1, 2))


def test_several_inputs_are_asked_for_by_name() -> None:
    bound = registry().bind(
        "keras.MultiHeadAttention", {"num_heads": 1, "key_dim": 2, "value_dim": 2},
        sizes={"embed_q": 3, "embed_k": 3, "embed_v": 3, "out": 3},
    )  # fmt: skip
    with pytest.raises(UsageError, match="name them: query, key, value"):
        by_hand(bound, {}, [np.zeros((1, 2, 3)), np.zeros((1, 5, 3))], (0, 0, 0))
