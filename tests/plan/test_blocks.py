"""Tensors cut into blocks: read and written through the blocks' memory, in plans, in code, and by name."""

from __future__ import annotations

import numpy as np
import pytest

from layoutx.plan.plan import Plan, plan
from layoutx.plan.steps import Exactness
from layoutx.spec.registry import registry

SIZES = {"input": 7, "hidden": 3}


def planned(source: str, target: str) -> Plan:
    reg = registry()
    return plan(reg.bind(source, sizes=SIZES), reg.bind(target, sizes=SIZES))


def cudnn(seed: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "kernel": rng.normal(size=(7, 12)),
        "recurrent_kernel": rng.normal(size=(3, 12)),
        "bias": rng.normal(size=24),
    }


def by_hand(stored: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """As Keras reads CuDNN kernels: every gate's columns, taken row by row, are a matrix (hidden, input)."""
    return np.concatenate([block.ravel().reshape(rows, columns) for block in np.split(stored, 4, axis=1)])


def test_each_block_is_read_row_by_row() -> None:
    found = planned("keras.CuDNNLSTM", "torch.LSTM")
    x = cudnn()
    y = found(x)
    assert found.exactness is Exactness.MOVES
    np.testing.assert_array_equal(y["weight_ih_l0"], by_hand(x["kernel"], 7, 3))
    np.testing.assert_array_equal(y["weight_hh_l0"], by_hand(x["recurrent_kernel"], 3, 3))
    assert not np.array_equal(y["weight_ih_l0"], x["kernel"].T)
    back = found.inverse()(y)
    assert all(back[name].tobytes() == array.tobytes() for name, array in x.items())


def test_given_arrays_are_written_in_place() -> None:
    from layoutx.plan.run import run

    found = planned("torch.LSTM", "keras.CuDNNLSTM")
    x = found.inverse()(cudnn())
    out = {"kernel": np.empty((7, 12)), "recurrent_kernel": np.empty((3, 12), order="F"), "bias": np.empty(24)}
    run(found, x, out)
    assert all(out[name].tobytes("C") == array.tobytes() for name, array in cudnn().items())


@pytest.mark.parametrize(("source", "target"), [("keras.CuDNNLSTM", "torch.LSTM"), ("torch.LSTM", "keras.CuDNNLSTM")])
def test_the_generated_code_does_the_same(source: str, target: str) -> None:
    found = planned(source, target)
    x = cudnn() if source.startswith("keras") else planned(target, source)(cudnn())
    space: dict[str, object] = {}
    exec(found.code(), space)
    made = space["convert"](x)  # type: ignore[operator]
    for name, array in found(x).items():
        np.testing.assert_array_equal(made[name], array)
