"""Live models of special kinds: tied, lazy, sparse and meta tensors, narrow dtypes, Keras on torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from keras_models import precision
from torch import nn

from layoutx.errors import ConversionError, ModelError, UsageError
from layoutx.inspect import inspect
from layoutx.model.keyed import Keyed, keyed_module
from layoutx.port import port


def keras_dense(*names: str, dtype: str = "float32"):  # type: ignore[no-untyped-def]
    """Dense layers of these names, 5 -> 5 each; a name that stands twice is one layer called twice."""
    import keras

    with precision(keras, dtype):
        own = {name: keras.layers.Dense(5, bias_initializer="normal", name=name) for name in names}
        x = given = keras.Input((5,))
        for name in names:
            x = own[name](x)
        return keras.Model(given, x)


class Two(nn.Module):
    """Two linear layers a and b."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, 5) -> (batch, 5)."""
        return self.b(self.a(x))


def keyed(module: nn.Module) -> Keyed:
    return keyed_module(module, lambda name: None)


def test_tied_torch_weights_into_two_keras_layers() -> None:
    module = Two()
    module.b.weight = module.a.weight
    model = keras_dense("a", "b")
    report = port(module, model)
    assert report.end_to_end.agrees is True
    assert report.tensors_used == report.tensors_total == 4
    for name in ("a", "b"):
        np.testing.assert_array_equal(model.get_layer(name).get_weights()[0], module.a.weight.detach().numpy().T)


def test_one_keras_layer_called_twice_is_a_tied_torch_layer() -> None:
    module = Two()
    module.b = module.a
    model = keras_dense("a", "a")
    report = port(module, model)
    assert report.end_to_end.agrees is True
    assert report.tensors_used == report.tensors_total == 2
    assert keyed(module).tied == {"b.weight": "a.weight", "b.bias": "a.bias"}
    assert list(keyed(module).distinct().tensors) == ["a.weight", "a.bias"]
    other = Two()
    other.b = other.a
    assert port(model, other).end_to_end.agrees is True
    np.testing.assert_array_equal(other.b.weight.detach().numpy(), module.a.weight.detach().numpy())


def test_a_program_is_followed_once_for_all_its_layers() -> None:
    found = keyed(Two())
    assert found.axes is not None
    assert found.axes() is found.axes(), "each layer asks for the axes of all"


def test_tensors_without_memory_are_not_tied() -> None:
    with torch.device("meta"):
        module = Two()
    found = keyed(module)
    assert found.tied == {}
    assert found.tensors["b.weight"].shape == (5, 5)
    with pytest.raises(ModelError, match=r"b\.weight has no values"):
        found.tensors["b.weight"].read()


def test_lazy_and_sparse_tensors_are_named() -> None:
    module = nn.Sequential()
    module.lazy = nn.LazyLinear(3)
    module.register_buffer("adjacency", torch.eye(3).to_sparse())
    with pytest.raises(ModelError) as caught:
        keyed(nn.Sequential(nn.LazyLinear(3, bias=False)))
    assert "0.weight has no shape yet" in str(caught.value)
    with pytest.raises(Exception, match="adjacency does not hold plain numbers") as both:
        keyed(module)
    assert "lazy.bias has no shape yet" in str(both.value)


def test_narrowing_is_rounding_in_the_report() -> None:
    model, module = keras_dense("a", "b", dtype="float64"), Two()
    report = port(model, module, allow={"rounds"})
    assert report.exactness == "rounds"
    assert report.round_trip == "a, b: not reversible: rounded"
    assert port(keras_dense("a", "b"), Two()).exactness == "moves"


def test_inputs_that_the_target_does_not_take() -> None:
    class Picky(Two):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) != 2:
                raise ValueError("two at a time")
            return super().forward(x)

    module = Picky()
    before = module.a.weight.detach().clone()
    with pytest.raises(UsageError, match="the target does not run on these inputs") as caught:
        port(keras_dense("a", "b"), module, np.ones((3, 5), np.float32))
    assert "two at a time" in str(caught.value)
    np.testing.assert_array_equal(module.a.weight.detach().numpy(), before.numpy())


def test_training_flags_of_single_modules_stay() -> None:
    module = Two()
    module.drop = nn.Dropout(0.5)
    module.train()
    module.drop.eval()
    port(keras_dense("a", "b"), module)
    assert [m.training for m in module.modules()] == [True, True, True, False]


def test_bfloat16_modules() -> None:
    model, module = keras_dense("a", "b"), Two().bfloat16()
    end = port(model, module, allow={"rounds"}).end_to_end
    assert (end.agrees, end.dtype) == (True, "bfloat16")


KERAS_ON_OTHERS = """
import keras, layoutx, torch
def two():
    layers = [keras.layers.Dense(5, bias_initializer="normal", name=name) for name in "ab"]
    return keras.Sequential([keras.Input((5,)), *layers])
class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(5, 5), torch.nn.Linear(5, 5)
    def forward(self, x):
        return self.b(self.a(x))
model, module = two(), Two()
assert layoutx.port(model, module).end_to_end.agrees
assert layoutx.port(Two(), model).end_to_end.agrees
assert layoutx.port(two(), model).end_to_end.agrees
report = layoutx.port(Two(), model)
assert report.end_to_end.agrees
assert {layer.proof.method.split()[0] for layer in report.layers} == {"keras"}, report
assert {layer.proof.dtype for layer in report.layers} == {"float32"}, report

class Norm(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")
    def call(self, x):
        return x * keras.ops.rsqrt(keras.ops.mean(x * x, -1, keepdims=True) + 1e-6) * self.scale

own, norm = keras.Sequential([keras.Input((5,)), Norm()]), torch.nn.RMSNorm(5, eps=1e-6)
torch.nn.init.normal_(norm.weight)
assert layoutx.port(norm, own).end_to_end.agrees
assert layoutx.port(own, torch.nn.RMSNorm(5, eps=1e-6)).end_to_end.agrees
assert layoutx.validate(own, norm).ok
deep = keras.Sequential([keras.Input((5,)), *[keras.layers.Dense(5, name=f"d{i}") for i in range(3)]])
found = layoutx.validate(deep, torch.nn.Sequential(*[torch.nn.Linear(5, 5) for _ in range(3)]))
assert not found.ok
twin = torch.nn.Sequential(*[torch.nn.Linear(5, 5) for _ in range(3)])
layoutx.port(deep, twin)
found = layoutx.validate(deep, twin)
assert found.ok and {check.verdict for check in found.checks} == {"OK"}, found
print("done")
"""


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_keras_on_other_backends(backend: str) -> None:
    """They compute products in float32; what torch gives keeps a gradient, which NumPy does not take."""
    import os

    env = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", KERAS_ON_OTHERS], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("done"), done.stderr[-2000:]


def test_a_parameter_of_the_model_itself_has_its_own_name() -> None:
    """It lies outside any module, whose path would be the empty text that nobody can type."""

    class Positions(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pos = torch.nn.Parameter(torch.randn(1, 7, 5))
            self.fc = torch.nn.Linear(5, 3)

    shown = str(inspect(Positions()))
    assert "pos  Parameter" in shown
    assert "Of unknown class" not in shown


class Tied(nn.Module):
    """Two Linears with one weight and a bias each."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(torch.tanh(self.a(x)))


def test_one_weight_of_two_layers_with_biases_of_their_own() -> None:
    """Both are layers; into them go equal kernels only."""
    import keras

    with precision(keras, "float32"):
        dense = [keras.layers.Dense(5, "tanh", name="a"), keras.layers.Dense(5, name="b")]
        model = keras.Sequential([keras.Input((5,)), *dense])
    rng = np.random.default_rng(3)
    for layer in dense:
        layer.set_weights([rng.normal(size=(5, 5)), rng.normal(size=5)])
    module = Tied()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with pytest.raises(ConversionError, match=r"b\.weight, which is a\.weight in the target, would be written twice"):
        port(model, module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    dense[1].set_weights([dense[0].get_weights()[0], dense[1].get_weights()[1]])
    assert port(model, module).end_to_end.agrees is True
    torch.nn.init.normal_(module.b.bias)
    assert port(module, model).end_to_end.agrees is True
    np.testing.assert_array_equal(dense[1].get_weights()[1], module.b.bias.detach().numpy())
