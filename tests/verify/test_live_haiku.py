"""The runners of haiku and equinox: real names and no others, real gates, 64-bit numbers for a while."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from layoutx.errors import BindError, UsageError
from layoutx.verify import live

CELLS = [
    ("haiku", "haiku.LSTM", {"hidden_size": 3}, "linear/w", -1),
    ("haiku", "haiku.GRU", {"hidden_size": 3}, "w_i", -1),
    ("equinox", "equinox.LSTMCell", {"input_size": 7, "hidden_size": 3}, "weight_ih", 0),
    ("equinox", "equinox.GRUCell", {"input_size": 7, "hidden_size": 3}, "weight_ih", 0),
]


def rand(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).uniform(0.1, 0.9, shape)


def weights(form: str, config: dict[str, Any], x: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    shapes = live.describe(form, config, {name: a.shape for name, a in x.items()})
    return {name: rand(i, *shape) for i, (name, shape) in enumerate(shapes)}


@pytest.mark.parametrize(("framework", "form", "config", "kernel", "axis"), CELLS, ids=[c[1] for c in CELLS])
def test_cells(framework: str, form: str, config: dict[str, Any], kernel: str, axis: int) -> None:
    pytest.importorskip(framework)
    x = {"x": rand(99, 2, 5, 7)}
    tensors = weights(form, config, x)
    found = live.run(form, config, tensors, x)
    single = live.run(form, config, tensors, x, "float32")
    assert found["y"].shape == (2, 5, 3)
    np.testing.assert_array_equal(found["h"][0], found["y"][:, -1])
    for name, array in found.items():
        assert (array.dtype, single[name].dtype) == (np.float64, np.float32)
        assert 0 < np.abs(array - single[name]).max() < 1e-5  # more digits, not more zeros
    swapped = {**tensors, kernel: np.roll(tensors[kernel], 3, axis)}
    assert np.abs(live.run(form, config, swapped, x)["y"] - found["y"]).max() > 1e-3


@pytest.mark.parametrize(("framework", "form", "config", "kernel", "axis"), CELLS, ids=[c[1] for c in CELLS])
def test_names_and_shapes_are_the_real_ones(
    framework: str, form: str, config: dict[str, Any], kernel: str, axis: int
) -> None:
    pytest.importorskip(framework)
    x = {"x": rand(99, 2, 5, 7)}
    tensors = weights(form, config, x)
    (turned, missing, more) = (dict(tensors), dict(tensors), {**tensors, "kernel": rand(1, 2)})
    turned[kernel] = tensors[kernel].T
    del missing[kernel]
    for wrong in (turned, missing, more):
        with pytest.raises(BindError, match=f"the real {form} does not take this") as caught:
            live.run(form, config, wrong, x)
        assert kernel in caught.value.why
    with pytest.raises(UsageError, match="needs the inputs x"):
        live.run(form, config, tensors, {})
    with pytest.raises(UsageError, match=f"{framework}.* has no Nothing"):
        live.run(f"{framework}.Nothing", {}, {}, x)


def test_nothing_is_left_switched_on() -> None:
    jax = pytest.importorskip("jax")
    pytest.importorskip("haiku")
    x = {"x": rand(99, 2, 7)}
    live.run("haiku.Linear", {"output_size": 5}, {"w": rand(1, 7, 5), "b": rand(2, 5)}, x)
    assert jax.numpy.ones(2).dtype == np.float32


def test_haiku_inference_reads_the_average_alone() -> None:
    pytest.importorskip("haiku")
    x = {"x": rand(99, 2, 7, 5)}
    config = {"create_scale": False, "create_offset": True, "decay_rate": 0.75, "eps": 0.5}
    tensors = weights("haiku.BatchNorm", config, x)
    assert list(tensors) == ["offset", "~/mean_ema/average", "~/var_ema/average"]
    offset, mean, variance = tensors.values()
    wanted = (x["x"] - mean) / np.sqrt(variance + 0.5) + offset
    np.testing.assert_allclose(live.run("haiku.BatchNorm", config, tensors, x)["y"], wanted, rtol=1e-12)


def test_equinox_counter_takes_the_bias_out_of_batch_statistics() -> None:
    pytest.importorskip("equinox")
    x = {"x": rand(99, 2, 5, 7)}
    for mode, counter, scale in (("batch", 3, 1 - 0.75**3), ("batch", 0, 1.0), ("ema", 0, 1.0)):
        config = {"input_size": 5, "mode": mode, "momentum": 0.75, "eps": 0.5, "batch_counter": counter}
        tensors = weights("equinox.BatchNorm", config, x)
        assert list(tensors) == ["weight", "bias", f"{mode}_state_index/mean", f"{mode}_state_index/var"]
        gamma, beta, mean, variance = (a[:, None] for a in tensors.values())
        wanted = (x["x"] - mean / scale) / np.sqrt(variance / scale + 0.5) * gamma + beta
        np.testing.assert_allclose(live.run("equinox.BatchNorm", config, tensors, x)["y"], wanted, rtol=1e-12)
