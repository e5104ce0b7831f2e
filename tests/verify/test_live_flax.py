"""flax.linen and flax.nnx run live: weights by their own names, in float64, with no layout of the specs at hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from layoutx.errors import BindError, UsageError
from layoutx.verify import live

pytest.importorskip("flax")

LSTM = {"flax.LSTMCell": {"features": 3}, "nnx.LSTMCell": {"in_features": 7, "hidden_features": 3}}
GATED = {"flax.LSTMCell": ("ii/kernel", "if/kernel"), "nnx.LSTMCell": ("ii/kernel", "if_/kernel")}
X = {"x": np.linspace(-1.0, 1.0, 70).reshape(2, 5, 7)}


def weights(form: str, config: Mapping[str, Any], x: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = live.describe(form, config, {name: array.shape for name, array in x.items()})
    return {name: rng.uniform(0.1, 0.6, shape) for name, shape in shapes}


@pytest.mark.parametrize("form", LSTM)
def test_names_are_those_of_the_framework(form: str) -> None:
    given = weights(form, LSTM[form], X)
    assert set(GATED[form]) < set(given)
    one, other = GATED[form]
    wrong = {**given, f"{one}s": given[one]}
    del wrong[one]
    for tensors in (wrong, {**given, "more": given[one]}, {**given, one: given[one].T}):
        with pytest.raises(BindError, match="does not take this") as caught:
            live.run(form, LSTM[form], tensors, X)
        assert f"{one} (7, 3)" in str(caught.value)
    before = live.run(form, LSTM[form], given, X)
    after = live.run(form, LSTM[form], {**given, one: given[other], other: given[one]}, X)
    assert before["h"].shape == before["c"].shape == (1, 2, 3)
    assert np.abs(before["y"] - after["y"]).max() > 1e-4


@pytest.mark.parametrize(
    ("form", "config"),
    [("flax.BatchNorm", {"epsilon": 0.0}), ("nnx.BatchNorm", {"num_features": 5, "epsilon": 0.0})],
)
def test_float64_is_float64(form: str, config: dict[str, Any]) -> None:
    """Numbers that float32 cannot hold come through; the statistics of nnx begin in float32 and must not stay there."""
    x = {"x": np.full((2, 5), 1 / 3)}
    given = weights(form, config, x)
    wanted = (1 / 3 - given["mean"]) / np.sqrt(given["var"]) * given["scale"] + given["bias"]
    np.testing.assert_allclose(live.run(form, config, given, x)["y"][1], wanted, rtol=1e-15)
    single = live.run(form, config, given, x, "float32")["y"]
    assert single.dtype == np.float32
    assert np.abs(single[1] - wanted).max() > 1e-10


def test_nothing_stays_switched_on() -> None:
    import jax

    before = jax.config.jax_enable_x64
    live.run("flax.Dense", {"features": 3}, weights("flax.Dense", {"features": 3}, {"x": np.ones((2, 5))}),
             {"x": np.ones((2, 5))})  # fmt: skip
    assert jax.config.jax_enable_x64 == before
    assert not jax.config.jax_disable_jit


def test_a_transposed_kernel_is_the_other_back_to_front() -> None:
    config = {"features": 2, "kernel_size": [3], "padding": "VALID"}
    x = {"x": np.arange(1.0, 9.0).reshape(1, 4, 2)}
    given = weights("flax.ConvTranspose", config, x)
    plain = live.run("flax.ConvTranspose", config, given, x)["y"]
    turned = {**given, "kernel": given["kernel"][::-1].transpose(0, 2, 1)}
    other = live.run("flax.ConvTranspose", {**config, "transpose_kernel": True}, turned, x)["y"]
    np.testing.assert_allclose(plain, other, rtol=1e-14)
    assert np.abs(live.run("flax.ConvTranspose", {**config, "transpose_kernel": True}, given, x)["y"] - plain).max() > 1


@pytest.mark.parametrize("framework", ["flax", "nnx"])
def test_what_does_not_exist_is_told(framework: str) -> None:
    with pytest.raises(UsageError, match=r"flax\.\w+ has no module Dens"):
        live.run(f"{framework}.Dens", {}, {}, X)
    sizes = LSTM[f"{framework}.LSTMCell"]
    with pytest.raises(UsageError, match="no function 'tanhh'"):
        live.describe(f"{framework}.LSTMCell", {**sizes, "activation_fn": "tanhh"}, {"x": (2, 5, 7)})
    with pytest.raises(UsageError, match="joins two directions as 'plus'"):
        live.describe(f"{framework}.Bidirectional.LSTMCell", {**sizes, "merge_fn": "plus"}, {"x": (2, 5, 7)})
    with pytest.raises(BindError, match="does not take this"):
        live.describe(f"{framework}.LSTMCell", {**sizes, "units": 3}, {"x": (2, 5, 7)})
