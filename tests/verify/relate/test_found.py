"""Steps, lookups and texts of `relate`: any layout of a kind is found again from its numbers."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from layoutx.lang.parse import parse
from layoutx.lang.place import place
from layoutx.plan.views import view
from layoutx.verify.relate.change import Change, changes
from layoutx.verify.relate.lookup import keys_of, occurrences
from layoutx.verify.relate.steps import HOLE, Run, digits, spelled
from tests.verify.relate.planted import layer

QUICK = settings(max_examples=40, deadline=None)


def test_digits_of_a_flattened_map() -> None:
    steps = np.arange(30).reshape(2, 5, 3).transpose(1, 2, 0).reshape(-1)  # stored c h w, read h w c
    assert digits(steps) == (Run(15, 1), Run(2, 15))
    assert digits(np.arange(7)[::-1] - 6) == (Run(7, -1),)
    assert digits(np.array([0, 3, 1, 4, 2])) is None
    assert digits(np.zeros(1, np.int64)) == ()


@QUICK
@given(
    st.lists(st.integers(2, 4), min_size=1, max_size=4).flatmap(
        lambda n: st.tuples(st.just(n), st.permutations(range(len(n))))
    ),
    st.floats(0, 0.3),
    st.integers(0, 99),
)
def test_digits_say_every_transposed_reshape_holes_or_not(case: Any, holes: float, seed: int) -> None:
    sizes, order = case
    stored = np.arange(int(np.prod(sizes))).reshape([sizes[i] for i in order])
    steps = stored.transpose(np.argsort(order)).reshape(-1)
    found = digits(steps)
    assert found is not None
    assert (spelled(found) + steps[0] == steps).all()
    hidden = np.where(np.random.default_rng(seed).random(len(steps)) < holes, HOLE, steps)
    found = digits(hidden)
    if found is not None:
        known = hidden != HOLE
        apart = (spelled(found) - hidden)[known]
        assert (apart == apart[:1]).all()


def test_values_are_found_wherever_they_are() -> None:
    rng = np.random.default_rng(3)
    flat = rng.normal(size=3_000_000).astype(np.float32)
    at = np.array([0, 17, 1_048_575, 1_048_576, 2_999_999])
    which, where = occurrences(keys_of(flat[at]), flat)
    assert (where == at).all()
    assert len(which) == 5
    assert len(keys_of(np.array([0.0, -0.0, np.nan, np.inf, 2.0, -2.0]))) == 1
    assert occurrences(keys_of(np.zeros(3)), flat)[1].size == 0


def test_changes_are_not_claimed_from_few_values() -> None:
    rng = np.random.default_rng(3)
    some = rng.normal(size=50)
    assert next(changes(some, some[::-1] + 0.25)) == Change("plus", 0.25)
    assert next(changes(some, -3 * some)).kind == "times"
    assert list(changes(some, rng.normal(size=50))) == []
    assert list(changes(np.zeros(9), np.full(9, 0.3))) == []
    assert next(changes(np.zeros(9), np.ones(9))) == Change("plus", 1.0)


LSTM = layer("keras.LSTM", "torch.LSTM", {"input": 3, "hidden": 4})
CONV = layer("keras.Conv2D", "torch.Conv2d", {"out": 3, "in": 4, "kh": 3, "kw": 2, "group": 1})


def stored_as(text: str, right: Any, name: str, sizes: dict[str, int]) -> np.ndarray[Any, Any]:
    """A tensor with the numbers of another, in a layout."""
    tensor, flat = right.target.tensor(name), right.stored[name].reshape(-1)
    found = np.empty_like(flat)
    own = {dict(block.labels).get("gate"): block for block in tensor.blocks}
    for block in place(parse(text), sizes):
        here = own[dict(block.labels).get("gate")]
        axes = list(block.strides)
        to = view(found, block.offset, [(sizes[a], block.strides[a]) for a in axes])
        of = view(flat, here.offset, [(sizes[a], here.strides[a]) for a in axes])
        to[...] = -of if block.negated else of
    return found.reshape(tensor.shape)


@QUICK
@given(
    st.permutations(["gate", "hidden", "input"]),
    st.permutations(list("ifgo")),
    st.sets(st.sampled_from(["hidden", "input"])),
    st.sets(st.sampled_from("ifgo")),
)
def test_any_layout_of_an_lstm_kernel_is_found(order: Any, labels: Any, flipped: Any, negated: Any) -> None:
    gate = "gate[" + " ".join(f"-{x}" if x in negated else x for x in labels) + "]"
    dims = [gate if axis == "gate" else f"-{axis}" if axis in flipped else axis for axis in order]
    text = f"w_input: {' '.join(dims)}"
    stored = stored_as(text, LSTM, "weight_ih_l0", {"hidden": 4, "input": 3})
    found = LSTM.changed(weight_ih_l0=stored).related()["weight_ih_l0"]
    assert found.exact
    assert found.holds
    again = parse(found.holds)
    made = stored_as(found.holds, LSTM, "weight_ih_l0", {"hidden": 4, "input": 3})
    assert again.head is not None
    assert made.tobytes() == stored.tobytes()


@QUICK
@given(
    st.sampled_from(list(permutations(["out", "in", "kh", "kw"]))),
    st.sets(st.sampled_from(["out", "in", "kh", "kw"])),
    st.booleans(),
)
def test_any_layout_of_a_convolution_is_found(order: Any, flipped: Any, negated: bool) -> None:
    text = f"{'-' if negated else ''}kernel: {' '.join(f'-{a}' if a in flipped else a for a in order)}"
    sizes = {"out": 3, "in": 4, "kh": 3, "kw": 2}
    stored = stored_as(text, CONV, "weight", sizes)
    found = CONV.changed(weight=stored).related()["weight"]
    assert found.exact
    assert stored_as(found.holds, CONV, "weight", sizes).tobytes() == stored.tobytes()
