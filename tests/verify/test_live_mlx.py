"""The mlx runner: float64 where mlx computes in it and float32 where not, and wrong weights refused by name."""

import numpy as np
import pytest

from layoutx.errors import BindError, UsageError
from layoutx.verify import live

pytest.importorskip("mlx.core")
SIZES = {"input_size": 3, "hidden_size": 7}


def rand(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape) + 0.1


def weights(form: str, config: dict) -> dict:
    return {name: rand(k, *shape) / 3 for k, (name, shape) in enumerate(live.describe(form, config, {}))}


def test_float64_is_float64_where_it_is_promised() -> None:
    config = {"input_dims": 3, "output_dims": 5}
    tensors, x = {"weight": rand(1, 5, 3), "bias": rand(2, 5)}, rand(3, 2, 3)
    y = live.run("mlx.Linear", config, tensors, {"x": x})["y"]
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, x @ tensors["weight"].T + tensors["bias"], rtol=1e-14)
    config = {"num_groups": 3, "dims": 6, "affine": False}
    data = rand(4, 2, 5, 6)
    by_group = data.reshape(2, 5, 2, 3)  # without pytorch_compatible: every third channel is one group
    mean, var = by_group.mean((1, 2), keepdims=True), by_group.var((1, 2), keepdims=True)
    y = live.run("mlx.GroupNorm", config, {}, {"x": data})["y"]
    np.testing.assert_allclose(y, ((by_group - mean) / np.sqrt(var + 1e-5)).reshape(2, 5, 6), atol=1e-12)


def test_float32_is_said_where_mlx_computes_in_it() -> None:
    """A convolution that takes and gives float64 sums in float32: that is why `precision` says so."""
    mx = pytest.importorskip("mlx.core")
    from layoutx.verify.live.mlx_live import precision

    kernel, data = rand(1, 7, 5, 3), rand(2, 2, 11, 3)
    windows = np.lib.stride_tricks.sliding_window_view(data, 5, axis=1)
    wanted = np.einsum("btik,oki->bto", windows, kernel)
    with mx.stream(mx.cpu):
        claimed = np.array(mx.conv1d(mx.array(data, dtype=mx.float64), mx.array(kernel, dtype=mx.float64)))
    assert claimed.dtype == np.float64
    assert 1e-9 < np.abs(claimed - wanted).max() < 1e-4
    config = {"in_channels": 3, "out_channels": 7, "kernel_size": 5, "bias": False}
    y = live.run("mlx.Conv1d", config, {"weight": kernel}, {"x": data})["y"]
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, wanted, atol=1e-4)
    assert [precision(f"mlx.{n}", {}) for n in ("Linear", "RNN", "LSTM")] == ["float64", "float64", "float32"]
    assert precision("mlx.RNN", {"nonlinearity": "sigmoid"}) == "float32"
    assert precision("mlx.GroupNorm", {"pytorch_compatible": True}) == "float32"


def test_what_is_not_its_own_is_refused() -> None:
    config, x = {"input_dims": 3, "output_dims": 5}, {"x": rand(3, 2, 3)}
    good = {"weight": rand(1, 5, 3), "bias": rand(2, 5)}
    with pytest.raises(BindError, match=r"the real mlx\.Linear does not take this") as caught:
        live.run("mlx.Linear", config, {"kernel": good["weight"], "bias": good["bias"]}, x)
    assert "kernel" in str(caught.value)
    with pytest.raises(BindError, match="does not take this"):
        live.run("mlx.Linear", config, {**good, "weight": rand(1, 3, 5)}, x)
    with pytest.raises(BindError, match="does not take this"):
        live.run("mlx.Linear", {**config, "units": 3}, good, x)
    with pytest.raises(UsageError, match=r"mlx\.nn has no module Linaer"):
        live.run("mlx.Linaer", config, good, x)
    with pytest.raises(UsageError, match=r"mlx\.nn\.QuantizedLinear is not run here"):
        live.run("mlx.QuantizedLinear", config, good, x)
    with pytest.raises(UsageError, match="needs the inputs x"):
        live.run("mlx.Linear", config, good, {})


def test_a_swapped_gate_changes_the_output() -> None:
    tensors, x = weights("mlx.LSTM", SIZES), {"x": rand(9, 2, 5, 3)}
    right = live.run("mlx.LSTM", SIZES, tensors, x)
    assert {name: array.shape for name, array in right.items()} == {"y": (2, 5, 7), "h": (1, 2, 7), "c": (1, 2, 7)}
    swapped = {name: np.concatenate([a[7:14], a[:7], a[14:]]) for name, a in tensors.items()}
    assert np.abs(live.run("mlx.LSTM", SIZES, swapped, x)["y"] - right["y"]).max() > 1e-3
