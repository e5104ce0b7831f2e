"""What the proof of a layer must not let pass: tiny weights, swapped gates among rounded sums, nothing to compare."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import VerificationError
from layoutx.plan.plan import Plan
from layoutx.plan.run import run
from layoutx.plan.steps import Exactness
from layoutx.verify import proof
from layoutx.verify.proof import Proof, prove_layer

Arrays = dict[str, np.ndarray]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def rounded(kind: str, dtype: np.dtype) -> tuple[Plan, Arrays, Arrays]:
    """A torch layer of two biases into a keras one of one bias, and the arrays on both sides."""
    rng = np.random.default_rng(3)
    plan = lx.plan(f"torch.{kind}", f"keras.{kind}", sizes={"input": 3, "hidden": 5})
    source = {t.name: rng.normal(size=t.shape).astype(dtype) for t in plan.source.tensors}
    result = run(plan, source)
    assert result.exactness(plan) is Exactness.ROUNDS
    return plan, source, result.tensors


def proved(plan: Plan, source: Arrays, target: Arrays, exactness: Exactness = Exactness.ROUNDS) -> Proof:
    return prove_layer(plan, source, target, exactness, live=False)


@pytest.mark.parametrize("dtype", [np.dtype(np.float64), np.dtype(np.float32), np.dtype(np.float16), BFLOAT16])
def test_rounded_sums_hold(dtype: np.dtype) -> None:
    found = proved(*rounded("LSTM", dtype))
    assert found.round_trip == "not reversible: rounded"
    assert found.largest <= 16 * float(ml_dtypes.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BFLOAT16])
@pytest.mark.parametrize("name", ["kernel", "recurrent_kernel", "bias"])
def test_swapped_gates_do_not_hide_behind_rounding(name: str, dtype: np.dtype) -> None:
    plan, source, target = rounded("LSTM", dtype)
    wrong = {n: a.copy() for n, a in target.items()}
    wrong[name][..., :10] = np.concatenate([target[name][..., 5:10], target[name][..., :5]], axis=-1)
    with pytest.raises(VerificationError, match=r"is not what torch\.LSTM holds"):
        proved(plan, source, wrong)


def test_a_sum_that_is_two_roundings_away_is_found() -> None:
    plan, source, target = rounded("LSTM", BFLOAT16)
    bias = target["bias"].copy()
    bias[7] = bias[7] * np.array(1.02, BFLOAT16)
    with pytest.raises(VerificationError, match="1 of 20 values"):
        proved(plan, source, {**target, "bias": bias})


def test_biases_of_a_gru_that_do_not_add_up_are_each_on_their_own() -> None:
    plan = lx.plan("torch.GRU", "keras.GRU", sizes={"input": 3, "hidden": 5})
    rng = np.random.default_rng(4)
    source = {t.name: rng.normal(size=t.shape).astype("f4") for t in plan.source.tensors}
    target = run(plan, source).tensors
    proved(plan, source, target)
    with pytest.raises(VerificationError, match=r"is not what torch\.GRU holds"):
        proved(plan, source, {**target, "bias": target["bias"][::-1].copy()})


def test_tiny_weights_are_no_excuse() -> None:
    plan = lx.plan("keras.Dense", "torch.Linear", sizes={"input": 7, "output": 5})
    rng = np.random.default_rng(5)
    source = {t.name: rng.normal(size=t.shape) * 1e-12 for t in plan.source.tensors}
    target = run(plan, source).tensors

    def compared(arrays: Arrays) -> Proof:
        return proof.forward_proof(plan, source, arrays, "", live=False, last={}, refine={})

    assert compared(target).largest <= 1e-26
    with pytest.raises(VerificationError, match="does not compute"):
        compared({**target, "weight": target["weight"][::-1].copy()})


def test_nothing_to_compare_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = lx.plan("keras.Dense", "torch.Linear", sizes={"input": 7, "output": 5})
    source = {t.name: np.ones(t.shape) for t in plan.source.tensors}
    target = run(plan, source).tensors
    monkeypatch.setattr(proof, "_computed", lambda *given: ({"h": np.ones(3)}, "nobody", "float64"))
    with pytest.raises(VerificationError, match="no output to compare"):
        proved(plan, source, target, Exactness.MOVES)
