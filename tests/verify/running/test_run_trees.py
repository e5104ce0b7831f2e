"""nnx, flax, equinox, mlx and paddle modules run: calls by path, float64 where there is one, modules untouched."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from layoutx.errors import UsageError
from layoutx.verify.running import opened

Array = np.ndarray[Any, Any]


def batch() -> Array:
    return np.random.default_rng(3).normal(size=(3, 7)).astype("float32")


def nnx_model() -> Any:
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):  # type: ignore[misc, name-defined]
        def __init__(self, rngs: Any) -> None:
            self.first = nnx.Linear(7, 5, rngs=rngs)
            self.rest = nnx.List([nnx.Linear(5, 5, rngs=rngs)])
            self.norm = nnx.BatchNorm(5, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.loop = nnx.RNN(nnx.LSTMCell(5, 4, rngs=rngs))

        def __call__(self, x: Any) -> Any:
            x = self.rest[0](self.rest[0](self.first(x)))
            return self.loop(self.drop(self.norm(x))[:, None])

    return Net(nnx.Rngs(0))


def flax_model() -> Any:
    linen = pytest.importorskip("flax.linen")
    jax = pytest.importorskip("jax")

    class Inner(linen.Module):  # type: ignore[misc, name-defined]
        @linen.compact
        def __call__(self, x: Any) -> Any:
            x = linen.relu(linen.Dense(5, name="first")(x))
            return linen.Dense(4, name="second")(x)

    class Net(linen.Module):  # type: ignore[misc, name-defined]
        def setup(self) -> None:
            self.inner = Inner()
            self.norm = linen.BatchNorm(use_running_average=True)

        def __call__(self, x: Any) -> Any:
            return self.norm(self.inner(x))

    model = Net()
    return model.bind(model.init(jax.random.key(0), batch()))


def equinox_model() -> Any:
    eqx = pytest.importorskip("equinox")
    jax = pytest.importorskip("jax")
    keys = jax.random.split(jax.random.key(0), 3)

    class Net(eqx.Module):  # type: ignore[misc, name-defined]
        layers: list[Any]
        norm: Any
        cell: Any

        def __init__(self) -> None:
            self.layers = [eqx.nn.Linear(7, 5, key=keys[0]), eqx.nn.Linear(5, 5, key=keys[1])]
            self.norm = eqx.nn.LayerNorm(5)
            self.cell = eqx.nn.GRUCell(5, 4, key=keys[2])

        def __call__(self, x: Any) -> Any:
            x = self.norm(self.layers[1](self.layers[1](self.layers[0](x))))
            state, _ = jax.lax.scan(lambda h, y: (self.cell(y, h), None), jax.numpy.zeros(4), x[None])
            return state

    return Net()


def mlx_model() -> Any:
    nn = pytest.importorskip("mlx.nn")

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(7, 5), nn.Linear(5, 5)]
            self.norm = nn.BatchNorm(5)

        def __call__(self, x: Any) -> Any:
            return self.norm(self.layers[1](self.layers[1](self.layers[0](x))))

    return Net()


@pytest.mark.parametrize(
    ("build", "dtype", "wanted"),
    [
        (nnx_model, "float64", ["first", "rest.0", "rest.0", "norm", "drop", "loop", ""]),
        (flax_model, "float64", ["inner.first", "inner.second", "inner", "norm", ""]),
        (equinox_model, "float64", ["layers.0", "layers.1", "layers.1", "norm", ""]),
        (mlx_model, "float32", ["layers.0", "layers.1", "layers.1", "norm", ""]),
    ],
)
def test_calls_are_recorded_by_path(build: Callable[[], Any], dtype: str, wanted: list[str]) -> None:
    runner = opened(build())
    found = runner.record(batch())
    assert [call.layer for call in found.calls] == wanted
    assert found.dtype == dtype
    assert bool(found.note) == (dtype == "float32")
    assert set(wanted) <= set(runner.layers())
    for call in found.calls:
        assert call.outputs[0].dtype == dtype
        assert call.outputs[0].shape[0] == 3
        for left, right in zip(runner.layer(call.layer, call.inputs, call.names), call.outputs, strict=True):
            np.testing.assert_allclose(left, right, rtol=0, atol=1e-13)


@pytest.mark.parametrize("build", [nnx_model, flax_model, equinox_model, mlx_model])
def test_what_cannot_be_run_is_told(build: Callable[[], Any]) -> None:
    runner = opened(build())
    with pytest.raises(UsageError, match="does not run on these inputs"):
        runner.record(np.ones((3, 6), "float32"))
    with pytest.raises(UsageError, match="no layer 'nrm'"):
        runner.layer("nrm", [batch()])


def test_nnx_keeps_its_mode_and_numbers() -> None:
    nnx = pytest.importorskip("flax.nnx")
    jax = pytest.importorskip("jax")
    model = nnx_model()
    before = [np.asarray(x) for x in jax.tree.leaves(nnx.state(model, nnx.Param, nnx.BatchStat))]
    runner = opened(model)
    runner.record(batch())
    after = jax.tree.leaves(nnx.state(model, nnx.Param, nnx.BatchStat))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(before, after, strict=True))
    assert not model.drop.deterministic
    assert not model.norm.use_running_average
    assert jax.numpy.ones(1, "float32").dtype == np.float32
    assert jax.dtypes.canonicalize_dtype(np.float64) == np.float32


def test_flax_beside_its_variables() -> None:
    bound = flax_model()
    module, variables = bound.unbind()
    left, right = (opened(model).record(batch()).outputs[0] for model in (bound, (module, variables)))
    np.testing.assert_array_equal(left, right)
    with pytest.raises(UsageError, match="no variables"):
        opened(module).record(batch())


PADDLE = """
import numpy as np, paddle
from paddle import nn
from layoutx.verify.running import opened
class Net(nn.Layer):
    def __init__(self):
        super().__init__()
        self.layers = nn.LayerList([nn.Linear(7, 5), nn.Linear(5, 5)])
        self.norm = nn.BatchNorm1D(5)
        self.loop = nn.LSTM(5, 3)
    def forward(self, x):
        return self.loop(self.norm(self.layers[1](self.layers[1](self.layers[0](x))))[:, None])
model = Net()
before = {k: v.numpy().copy() for k, v in model.state_dict().items()}
runner = opened(model)
found = runner.record(np.random.default_rng(3).normal(size=(3, 7)).astype("float32"))
assert [c.layer for c in found.calls] == ["layers.0", "layers.1", "layers.1", "norm", "loop", ""], found.calls
assert (found.framework, found.dtype, found.note) == ("paddle", "float64", "")
for call in found.calls:
    for left, right in zip(runner.layer(call.layer, call.inputs, call.names), call.outputs, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-13)
assert all(np.array_equal(v.numpy(), before[k]) for k, v in model.state_dict().items())
assert model.training and model.norm.training and paddle.get_default_dtype() == "float32"
"""


def test_paddle() -> None:
    """In a process of its own: paddle crashes where tensorflow was imported before it."""
    done = subprocess.run([sys.executable, "-c", PADDLE], capture_output=True, text=True, check=False)
    if "No module named 'paddle'" in done.stderr:
        pytest.skip("paddle is not installed")
    assert done.returncode == 0, done.stderr[-2000:]
