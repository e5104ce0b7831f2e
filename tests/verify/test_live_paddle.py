"""The paddle runner: its own process, real float64, wrong weights refused by name, a worker that dies is replaced."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from layoutx.errors import BindError, LayoutxError, UsageError
from layoutx.verify import live
from layoutx.verify.live import paddle_live

pytestmark = pytest.mark.skipif(not live.available("paddle"), reason="paddle is not installed")
SIZES = {"input_size": 3, "hidden_size": 7}


def rand(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) + 0.1


def weights(form: str, config: dict) -> dict:
    return {name: rand(k, *shape) / 3 for k, (name, shape) in enumerate(live.describe(form, config, {}))}


def test_float64_is_float64_and_the_product_is_that_of_numpy() -> None:
    config = {"in_features": 3, "out_features": 5}
    tensors, x = {"weight": rand(1, 3, 5), "bias": rand(2, 5)}, rand(3, 2, 3)
    y = live.run("paddle.Linear", config, tensors, {"x": x})["y"]
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, x @ tensors["weight"] + tensors["bias"], rtol=1e-14)
    single = live.run("paddle.Linear", config, tensors, {"x": x}, "float32")["y"]
    assert single.dtype == np.float32
    assert 0 < np.abs(single - y).max() < 1e-5
    kernel, data = rand(4, 7, 3, 5), rand(5, 2, 3, 11)
    conv = {"in_channels": 3, "out_channels": 7, "kernel_size": 5, "bias_attr": False}
    windows = np.lib.stride_tricks.sliding_window_view(data, 5, axis=2)
    wanted = np.einsum("bitk,oik->bot", windows, kernel)
    np.testing.assert_allclose(
        live.run("paddle.Conv1D", conv, {"weight": kernel}, {"x": data})["y"], wanted, atol=1e-12
    )


def test_what_is_not_its_own_is_refused() -> None:
    config, x = {"in_features": 3, "out_features": 5}, {"x": rand(3, 2, 3)}
    good = {"weight": rand(1, 3, 5), "bias": rand(2, 5)}
    with pytest.raises(BindError, match=r"the real paddle\.Linear does not take this") as caught:
        live.run("paddle.Linear", config, {"kernel": good["weight"], "bias": good["bias"]}, x)
    assert "unknown: kernel; missing: weight" in str(caught.value)
    with pytest.raises(BindError, match="does not take this") as caught:
        live.run("paddle.Linear", config, {**good, "weight": rand(1, 5, 3)}, x)
    assert "weight is (3, 5), not (5, 3)" in str(caught.value)
    with pytest.raises(BindError, match="does not take this"):
        live.run("paddle.Linear", {**config, "units": 3}, good, x)
    with pytest.raises(UsageError, match=r"paddle\.nn has no layer Linaer"):
        live.run("paddle.Linaer", config, good, x)
    with pytest.raises(UsageError, match="needs the inputs x"):
        live.run("paddle.Linear", config, good, {})


def test_a_swapped_gate_changes_the_output() -> None:
    tensors, x = weights("paddle.GRU", SIZES), {"x": rand(9, 2, 5, 3)}
    right = live.run("paddle.GRU", SIZES, tensors, x)
    swapped = {name: np.concatenate([a[7:14], a[:7], a[14:]]) for name, a in tensors.items()}
    assert np.abs(live.run("paddle.GRU", SIZES, swapped, x)["y"] - right["y"]).max() > 1e-3


def test_a_tensor_of_two_names_is_one_tensor() -> None:
    tensors, x = weights("paddle.LSTM", SIZES), {"x": rand(9, 2, 5, 3)}
    assert list(tensors) == [f"0.cell.{name}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    flat = {f"{name.removeprefix('0.cell.')}_l0": array for name, array in tensors.items()}
    right = live.run("paddle.LSTM", SIZES, tensors, x)
    np.testing.assert_array_equal(live.run("paddle.LSTM", SIZES, flat, x)["y"], right["y"])
    with pytest.raises(BindError) as caught:
        live.run("paddle.LSTM", SIZES, {**tensors, "bias_ih_l0": rand(1, 28)}, x)
    assert "bias_ih_l0 and 0.cell.bias_ih are one tensor, and the values given differ" in str(caught.value)


@pytest.mark.parametrize("name", ["SimpleRNN", "LSTM", "GRU"])
def test_cells_are_the_stacks_step_by_step(name: str) -> None:
    for more in ({}, {"proj_size": 2})[: 2 if name == "LSTM" else 1]:
        config, x = {**SIZES, **more}, {"x": rand(9, 2, 5, 3)}
        tensors = weights(f"paddle.{name}Cell", config)
        whole = live.run(f"paddle.{name}", config, {f"0.cell.{n}": a for n, a in tensors.items()}, x)
        steps = live.run(f"paddle.{name}Cell", config, tensors, x)
        assert list(steps) == list(whole)
        for key, array in whole.items():
            np.testing.assert_allclose(steps[key], array, rtol=1e-12, err_msg=key)


def test_a_worker_that_crashes_tells_why_and_is_replaced() -> None:
    """paddle 3.3.1 ends its process when an LSTM without biases is run on a CPU."""
    config = {**SIZES, "bias_ih_attr": False, "bias_hh_attr": False}
    with pytest.raises(LayoutxError, match="the process that runs paddle is gone") as caught:
        live.run("paddle.LSTM", config, weights("paddle.LSTM", config), {"x": rand(9, 2, 5, 3)})
    assert "Segmentation fault" in str(caught.value)
    assert live.describe("paddle.PReLU", {"num_parameters": 5}, {}) == [("_weight", (5,))]


def test_a_worker_that_hangs_is_ended_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    live.describe("paddle.PReLU", {}, {})
    monkeypatch.setattr(paddle_live, "CALL", 0.01)
    os.kill(paddle_live._running[0].process.pid, signal.SIGSTOP)  # however fast it is, it does not answer
    with pytest.raises(LayoutxError, match="is gone") as caught:
        live.describe("paddle.LSTM", {"input_size": 97, "hidden_size": 997}, {})
    assert "it gave no answer in 0.01 s" in str(caught.value)
    monkeypatch.undo()
    assert live.describe("paddle.PReLU", {}, {}) == [("_weight", (1,))]


@pytest.mark.parametrize("size", [3, 300], ids=["few numbers", "more than a pipe takes"])
def test_a_worker_that_died_between_two_calls_is_told_and_replaced(size: int) -> None:
    """Nobody reads what is sent to it: an error of layoutx, and no broken pipe."""
    config = {"in_features": size, "out_features": size}
    tensors, x = {"weight": rand(1, size, size), "bias": rand(2, size)}, {"x": rand(3, 2, size)}
    right = live.run("paddle.Linear", config, tensors, x)["y"]
    process = paddle_live._running[0].process
    process.kill()
    process.wait()
    with pytest.raises(LayoutxError, match="the process that runs paddle is gone") as caught:
        live.run("paddle.Linear", config, tensors, x)
    assert "it ended with code -9" in str(caught.value)
    np.testing.assert_array_equal(live.run("paddle.Linear", config, tensors, x)["y"], right)


def test_paddle_stays_out_of_this_process_and_ends_with_it() -> None:
    code = (
        "import sys; from layoutx.verify import live; from layoutx.verify.live import paddle_live;"
        "live.describe('paddle.PReLU', {}, {}); print('paddle' in sys.modules, paddle_live._running[0].process.pid)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600)
    loaded, pid = done.stdout.split()
    assert loaded == "False"
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)
