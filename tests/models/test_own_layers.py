"""Layers of one's own found by running them: norms with a scale and a shift, as CycleGAN has, and a Dense by hand."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import LayoutxError
from layoutx.model.keras_own import computed

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn, ops = keras.layers, torch.nn, keras.ops
NOISE = np.random.default_rng(0)


class Own(L.Layer):
    """A scale and a shift, under names of their own, around sums that the subclasses say."""

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],))
        self.offset = self.add_weight(name="offset", shape=(shape[-1],))

    def call(self, x):
        return self.standard(x) * self.scale + self.offset

    def near(self, x, axes, eps=1e-4):
        return (x - ops.mean(x, axes, keepdims=True)) / ops.sqrt(ops.var(x, axes, keepdims=True) + eps)


class Instance(Own):
    def standard(self, x):
        return self.near(x, (1, 2))


class Moments(Own):
    """By TensorFlow's own functions, as the pix2pix tutorial has it."""

    def call(self, x):
        import tensorflow as tf

        mean, variance = tf.nn.moments(x, axes=[1, 2], keepdims=True)
        return self.scale * (x - mean) * tf.math.rsqrt(variance + 1e-4) + self.offset


class Group(Own):
    def standard(self, x):
        _, height, width, many = ops.shape(x)
        parts = ops.reshape(x, (-1, height, width, 3, many // 3))
        return ops.reshape(self.near(parts, (1, 2, 4)), (-1, height, width, many))


class Layer(Own):
    def standard(self, x):
        return self.near(x, -1)


class OfDeviation(Own):
    """keras-contrib adds its epsilon to the standard deviation: no norm of Keras' does."""

    def standard(self, x):
        return (x - ops.mean(x, (1, 2), keepdims=True)) / (ops.std(x, (1, 2), keepdims=True) + 1e-3)


class ShiftFirst(Instance):
    def build(self, shape):
        self.offset = self.add_weight(name="offset", shape=(shape[-1],))
        self.scale = self.add_weight(name="scale", shape=(shape[-1],))


class Turned(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def network(norm):
    image = keras.Input((8, 12, 3))
    x = L.ReLU()(norm(L.Conv2D(6, 3, padding="same")(image)))
    model = keras.Model(image, L.Conv2D(7, 3, padding="same")(x))
    for weight in model.weights:
        weight.assign(NOISE.normal(size=weight.shape))
    return model


def target(norm):
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(6, 7, 3, padding=1)).eval()


PAIRS = [
    (Instance, lambda: nn.InstanceNorm2d(6, eps=1e-4, affine=True)),
    (Moments, lambda: nn.InstanceNorm2d(6, eps=1e-4, affine=True)),
    (Group, lambda: nn.GroupNorm(3, 6, eps=1e-4)),
    (Layer, lambda: Turned(nn.LayerNorm(6, eps=1e-4))),
]


@pytest.mark.parametrize(("own", "theirs"), PAIRS)
@pytest.mark.parametrize("back", [False, True])
def test_own_norms_find_their_places(own, theirs, back):
    here, there = network(own()), target(theirs())
    assert lx.port(*(there, here) if back else (here, there)).end_to_end.agrees
    images = NOISE.normal(size=(2, 8, 12, 3)).astype("float32")
    made = there(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).detach().numpy()
    np.testing.assert_allclose(np.asarray(here(images)), made, atol=1e-4)


@pytest.mark.parametrize(("own", "name"), [(Instance, "GroupNormalization"), (Layer, "LayerNormalization")])
def test_epsilon_is_what_small_inputs_show(own, name):
    layer = network(own()).layers[2]
    found, config = computed(layer)
    assert found == name
    assert config["epsilon"] == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize("own", [OfDeviation, ShiftFirst])
def test_what_no_norm_computes_is_refused(own):
    with pytest.raises(LayoutxError, match="no form is known for the class"):
        lx.port(network(own()), target(nn.InstanceNorm2d(6, affine=True)))


class Multiplied(L.Layer):
    """A Dense as every course on Keras writes it, and without a get_config."""

    def __init__(self, units, bias=True, **more):
        super().__init__(**more)
        self.units, self.biased = units, bias

    def build(self, shape):
        self.w = self.add_weight(name="w", shape=(shape[-1], self.units))
        self.b = self.add_weight(name="b", shape=(self.units,)) if self.biased else None

    def call(self, x):
        return ops.matmul(x, self.w) + (self.b if self.biased else 0)


class Around(Multiplied):
    def call(self, x):
        return ops.tanh(super().call(x))


@pytest.mark.parametrize("bias", [True, False])
def test_own_dense_in_a_sequential(bias):
    source = keras.Sequential([keras.Input((5,)), Multiplied(7, bias), L.ReLU(), Multiplied(3)])
    for weight in source.weights:
        weight.assign(NOISE.normal(size=weight.shape))
    there = nn.Sequential(nn.Linear(5, 7, bias=bias), nn.ReLU(), nn.Linear(7, 3))
    assert lx.port(source, there).end_to_end.agrees
    x = NOISE.normal(size=(2, 5)).astype("float32")
    np.testing.assert_allclose(np.asarray(source(x)), there(torch.from_numpy(x)).detach().numpy(), atol=1e-5)


def test_own_dense_of_more_is_refused():
    source = keras.Sequential([keras.Input((5,)), Around(7)])
    with pytest.raises(LayoutxError, match="no form"):
        lx.port(source, nn.Linear(5, 7))


@pytest.mark.parametrize("method", ["weight_norm", "spectral_norm"])
def test_a_target_stored_in_parts_is_named(method):
    source = keras.Sequential([keras.Input((8, 12, 3)), L.Conv2D(5, 3)])
    there = nn.Sequential(getattr(nn.utils.parametrizations, method)(nn.Conv2d(3, 5, 3)))
    with pytest.raises(LayoutxError, match=f"the weights of 0 are stored through {method} there: remove it"):
        lx.port(source, there)
