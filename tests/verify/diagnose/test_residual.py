"""Residual connections that are missing or wrong, batch_first, and faults behind others, by NumPy alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from layoutx.spec.registry import registry
from layoutx.verify.compare.apart import apart
from layoutx.verify.compare.pairs import Gap, Handed
from layoutx.verify.diagnose.between import behind, between
from layoutx.verify.diagnose.sequence import reads_time_first, time_first
from layoutx.verify.diagnose.ways import lined

RNG = np.random.default_rng(20261122)
X, F, G = (RNG.normal(size=(3, 5, 6)) for _ in range(3))
EARLIER = (Handed("what g gives", G, G), Handed("the inputs", X, X))


def gap(expected: np.ndarray, given: np.ndarray, f: np.ndarray = F, **more) -> Gap:
    """Two models behind the layer f."""
    return Gap(("f",), "n", ("f", "n"), apart(expected, given), "FAIL", "", expected, given, (F,), (f,),
               earlier=EARLIER, **more)  # fmt: skip


def test_a_missing_residual_is_named_with_where_it_comes_from() -> None:
    found = between(gap(F + X, F))
    assert "residual connection, x + f(x), is missing" in found.what
    assert "plus the inputs" in found.what
    assert found.code.endswith("# y: the inputs")
    assert found.after == 0
    assert found.before > 1


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (F + X, F + G, "taken from the wrong place"),
        (np.maximum(F + X, 0), np.maximum(F, 0), "is missing"),
        (np.maximum(F + X, 0), np.maximum(F, 0) + X, "the target does: relu, plus the inputs"),
        (np.concatenate([F, X], -1), np.concatenate([X, F], -1), "side by side after the inputs"),
    ],
)
def test_other_ways_to_get_it_wrong(right: np.ndarray, wrong: np.ndarray, said: str) -> None:
    found = between(gap(right, wrong))
    assert said in found.what, found.what
    assert found.known
    assert found.after <= 1e-12


def test_what_is_no_residual_is_not_called_one() -> None:
    assert "residual" not in between(gap(np.maximum(F, 0), F)).what
    noise = RNG.normal(size=F.shape)
    assert between(gap(F + noise, F)).what.startswith("none of these")


def test_dense_layers_know_no_time_axis() -> None:
    """What a dense layer is given has rows (batch x time); attention's has both axes."""
    flat = (F + X).reshape(-1, 6)
    found = between(gap(flat, F.reshape(-1, 6)))
    assert "is missing" in found.what
    assert found.after == 0
    assert lined(F, flat).shape == (15, 6)
    assert lined(flat, F).shape == (3, 5, 6)
    assert lined(F, np.zeros((3, 30))).shape == F.shape


def test_a_fault_behind_another_one_is_told_by_the_target_s_own_numbers() -> None:
    spoilt = F + 0.3 * G  # something wrong came in
    assert behind(gap(np.maximum(F, 0), np.maximum(spoilt, 0), spoilt)) is None, "it does the same as the source"
    found = behind(gap(np.maximum(F, 0), np.tanh(spoilt), spoilt))
    assert found is not None
    assert found.mode == "F19"
    assert "the source does: relu; the target does: tanh" in found.what
    assert found.after == 0
    assert found.before > 0.1, "on the source's numbers"
    assert behind(gap(np.maximum(F, 0), np.sin(9 * spoilt), spoilt)) is None, "what nobody can name is no second fault"


def test_outputs_behind_a_fault_may_have_their_axes_in_any_order() -> None:
    spoilt = F + 0.3 * G
    turned = replace(gap(F, spoilt, spoilt), after="", given=spoilt.transpose(0, 1, 2)[::1])
    assert behind(turned) is None
    square = RNG.normal(size=(4, 6, 6))
    one = Gap(("f",), "", ("f", ""), apart(square, square + 1), "FAIL", "", square, (square + 0.1).swapaxes(1, 2),
              (square,), (square + 0.1,))  # fmt: skip
    assert behind(one) is None


def attention(batch_first: bool):
    """torch's attention, bound."""
    shapes = {"in_proj_weight": (18, 6), "in_proj_bias": (18,), "out_proj.weight": (6, 6), "out_proj.bias": (6,)}
    config = {"embed_dim": 6, "num_heads": 2, "batch_first": batch_first}
    return registry().bind("torch.MultiheadAttention", config, shapes=shapes)


@pytest.mark.parametrize("shape", [(3, 5, 6), (5, 5, 6)])
def test_batch_first_is_named_with_its_fix(shape: tuple[int, ...]) -> None:
    x = RNG.normal(size=shape)
    one = Gap((), "attn", ("block.attn",), apart(x, x.swapaxes(0, 1)), "FAIL", "", x, x.swapaxes(0, 1))
    found = time_first(between(one), attention(False))
    assert found.mode == "F36"
    assert "block.attn reads time before batch" in found.what
    assert found.code == "block.attn = torch.nn.MultiheadAttention(..., batch_first=True)"
    assert found.option
    assert found.after == 0
    other = time_first(between(one), attention(True))
    assert "reads batch before time" in other.what
    assert "batch_first=False" in other.code
    same = between(gap(F + X, F))
    assert time_first(same, attention(False)) is same


def test_which_layers_read_time_first() -> None:
    assert reads_time_first(attention(False)) is True
    assert reads_time_first(attention(True)) is False
    dense = registry().bind("torch.Linear", {}, shapes={"weight": (3, 2), "bias": (3,)})
    assert reads_time_first(dense) is None
