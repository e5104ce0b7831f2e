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
from layoutx.verify import live, proof
from layoutx.verify.outcome import Proof
from layoutx.verify.proof import forward_proof, prove_layer

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


# a layer of the source, and what holds it elsewhere: probed at stride 1, where flax and haiku alone pad by default
LIVE = {
    "keras.Dense": (
        {"input": 3, "output": 5},
        "flax.Dense nnx.Linear haiku.Linear equinox.Linear paddle.Linear mlx.Linear",
    ),
    "keras.Conv2D": (
        {"kh": 2, "kw": 3, "in": 5, "out": 7, "group": 1},
        "flax.Conv nnx.Conv haiku.Conv2D equinox.Conv2d paddle.Conv2D mlx.Conv2d tf1.Conv2D torch.Conv2d onnx.Conv",
    ),
    "keras.Conv2DTranspose": (
        {"kh": 2, "kw": 3, "in": 5, "out": 7, "group": 1},
        "flax.ConvTranspose haiku.Conv2DTranspose equinox.ConvTranspose2d paddle.Conv2DTranspose torch.ConvTranspose2d",
    ),
    "keras.ConvLSTM2D": ({"kh": 2, "kw": 3, "input": 5, "hidden": 7}, "flax.ConvLSTMCell haiku.Conv2DLSTM"),
    "keras.BatchNormalization": ({"channel": 5}, "flax.BatchNorm haiku.BatchNorm paddle.BatchNorm2D torch.BatchNorm1d"),
}


def planned(source: str, target: str, sizes: dict[str, int]) -> tuple[Plan, Arrays, Arrays]:
    plan = lx.plan(source, target, sizes=sizes)
    rng = np.random.default_rng(5)
    arrays = {t.name: rng.uniform(0.1, 1.0, t.shape) for t in plan.source.tensors}
    return plan, arrays, run(plan, arrays).tensors


@pytest.mark.parametrize("pair", [(a, b) for a, (_, many) in LIVE.items() for b in many.split()], ids=" ".join)
def test_the_target_is_computed_by_its_own_framework(pair: tuple[str, str]) -> None:
    framework = pair[1].partition(".")[0]
    if not live.available(framework):
        pytest.skip(f"{framework} is not installed")
    plan, source, target = planned(*pair, LIVE[pair[0]][0])
    found = prove_layer(plan, source, target, plan.exactness)
    assert found.method == f"{framework} {live.available(framework)}"
    assert found.largest <= (1e-9 if found.dtype == "float64" else 1e-5)
    name = max(target, key=lambda n: target[n].size)
    spoilt = {**target, name: np.flip(target[name], -1)}
    with pytest.raises(VerificationError, match="does not compute what"):
        forward_proof(plan, source, spoilt, "", live=True, last={}, refine={})


def test_a_dilation_that_the_target_cannot_do_is_not_probed() -> None:
    """A transposed convolution of haiku has no dilation: the report says so, and the weights are proved without."""
    pytest.importorskip("haiku")
    sizes = LIVE["keras.Conv2DTranspose"][0]
    plan = lx.plan("keras.Conv2DTranspose", "haiku.Conv2DTranspose", config={"dilation_rate": 2}, sizes=sizes)
    source = {t.name: np.random.default_rng(5).uniform(0.1, 1.0, t.shape) for t in plan.source.tensors}
    found = prove_layer(plan, source, run(plan, source).tensors, plan.exactness)
    assert found.method.startswith("haiku")


def test_a_framework_that_is_not_installed_leaves_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "available", lambda framework: "")
    plan, source, target = planned("keras.Dense", "flax.Dense", {"input": 3, "output": 5})
    assert prove_layer(plan, source, target, plan.exactness).method == "NumPy reference"
