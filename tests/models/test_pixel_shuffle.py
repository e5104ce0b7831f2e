"""Super resolution: depth_to_space of Keras deals channels out as (rows columns c), PixelShuffle otherwise."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx
from layoutx.errors import ConversionError

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn, ops = keras.layers, torch.nn, keras.ops
BLOCK, OUT = 2, 5
MADE = BLOCK * BLOCK * OUT
NOISE = np.random.default_rng(0)


class Function(L.Layer):
    """By TensorFlow's own function."""

    def call(self, images):
        import tensorflow as tf

        return tf.nn.depth_to_space(images, BLOCK)


class Written(L.Layer):
    """The same by hand, as keras.io has it."""

    def call(self, images):
        batch, height, width, depth = ops.shape(images)
        x = ops.reshape(images, [batch, height, width, BLOCK, BLOCK, depth // BLOCK**2])
        x = ops.transpose(x, [0, 1, 3, 2, 4, 5])
        return ops.reshape(x, [batch, height * BLOCK, width * BLOCK, depth // BLOCK**2])


def random(model):
    for weight in model.weights:
        low, high = (0.5, 2) if "variance" in weight.path else (-1, 1)
        weight.assign(NOISE.uniform(low, high, weight.shape))
    return model


def enlarging(dealt, between=()):
    """A Sequential inside: its layers without get_config have no name in the config."""
    up = keras.Sequential([keras.Input((None, None, 3)), L.Conv2D(MADE, 3, padding="same"), *between, dealt])
    image = keras.Input((None, None, 3))
    return random(keras.Model(image, L.Conv2D(7, 3, padding="same")(up(image))))


class Enlarging(nn.Module):
    def __init__(self, between=()):
        super().__init__()
        self.last = nn.Conv2d(OUT, 7, 3, padding=1)
        self.up = nn.Sequential(nn.Conv2d(3, MADE, 3, padding=1), *between, nn.PixelShuffle(BLOCK))
        self.eval()

    def forward(self, x):
        return self.last(self.up(x))


def outputs(source, target):
    images = NOISE.normal(size=(2, 7, 11, 3)).astype("float32")
    with torch.no_grad():
        theirs = target(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    return np.asarray(source(images)), theirs


def near(source, target):
    np.testing.assert_allclose(*outputs(source, target), atol=1e-4)


@pytest.mark.parametrize("dealt", [Function, Written])
def test_channels_of_a_convolution_are_dealt_out_in_either_order(dealt):
    source, target = enlarging(dealt()), Enlarging()
    assert lx.port(source, target).end_to_end.agrees
    near(source, target)
    with torch.no_grad():
        for weight in target.parameters():
            weight.normal_()
    assert lx.port(target, source).end_to_end.agrees
    near(source, target)


def test_what_lies_between_turns_along():
    source = enlarging(Function(), [L.BatchNormalization(epsilon=1e-5), L.PReLU(shared_axes=[1, 2])])
    target = Enlarging([nn.BatchNorm2d(MADE), nn.PReLU(MADE)])
    assert lx.port(source, target).end_to_end.agrees
    near(source, target)


def test_functional_operation():
    image = keras.Input((None, None, 3))
    x = ops.nn.depth_to_space(L.Conv2D(MADE, 3, padding="same")(image), BLOCK)
    source, target = random(keras.Model(image, L.Conv2D(7, 3, padding="same")(x))), Enlarging()
    assert lx.port(source, target).end_to_end.agrees
    near(source, target)


def test_function_of_keras_2(tmp_path):
    old = pytest.importorskip("tf_keras")
    tf = pytest.importorskip("tensorflow")
    image = old.layers.Input((None, None, 3))
    x = tf.nn.depth_to_space(old.layers.Conv2D(MADE, 3, padding="same", name="up")(image), BLOCK)
    source, target = old.Model(image, old.layers.Conv2D(7, 3, padding="same")(x)), Enlarging()
    assert lx.port(source, target).end_to_end.agrees
    near(source, target)
    source.save(tmp_path / "model.h5")
    with pytest.raises(ConversionError, match="the order of the out axis of up is not known"):
        lx.convert(tmp_path / "model.h5", tmp_path / "out.safetensors", to="torch")


def test_channels_that_others_read_too_stay_as_they_are():
    """Two convolutions in one sum: one of them alone must not be turned."""
    image = keras.Input((None, None, 3))
    made = [L.Conv2D(MADE, size, padding="same")(image) for size in (3, 1)]
    source = random(keras.Model(image, L.Conv2D(7, 3, padding="same")(Function()(L.Add()(made)))))

    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, MADE, 3, padding=1), nn.Conv2d(3, MADE, 1)
            self.up, self.last = nn.PixelShuffle(BLOCK), nn.Conv2d(OUT, 7, 3, padding=1)

        def forward(self, x):
            return self.last(self.up(self.a(x) + self.b(x)))

    target = Sum()
    lx.port(source, target, compare=False)
    for layer, module in ((source.layers[1], target.a), (source.layers[2], target.b)):
        np.testing.assert_array_equal(module.weight.detach().permute(2, 3, 1, 0).numpy(), layer.kernel.numpy())


def test_weights_alone_do_not_tell_who_reads_the_channels(tmp_path):
    source = enlarging(Function())
    source.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ConversionError, match=r"channels that .* makes is not known[\s\S]*--keep-order"):
        lx.port(tmp_path / "model.weights.h5", Enlarging())


def test_an_order_that_the_target_does_not_tell_is_refused():
    class Other(Enlarging):
        def forward(self, x):
            made = self.up[0](x)
            return self.last(made.reshape(made.shape[0], OUT, *(BLOCK * n for n in made.shape[2:])))

    with pytest.raises(ConversionError, match="could not be followed; people write it either way"):
        lx.port(enlarging(Function()), Other(), compare=False)


def test_graphs_of_onnx(tmp_path):
    target, images = Enlarging(), torch.randn(1, 3, 7, 11)
    torch.onnx.export(target, (images,), str(tmp_path / "model.onnx"), dynamo=False)
    source = enlarging(Function())
    assert lx.port(tmp_path / "model.onnx", source).end_to_end.agrees
    near(source, target)


@pytest.mark.parametrize("back", [False, True])
def test_blocks_that_become_channels(back):
    import tensorflow as tf

    image = keras.Input((8, 12, 3))
    x = L.Lambda(lambda t: tf.nn.space_to_depth(t, BLOCK))(L.Conv2D(OUT, 3, padding="same")(image))
    source = random(keras.Model(image, L.Conv2D(7, 3, padding="same")(x)))
    target = nn.Sequential(
        nn.Conv2d(3, OUT, 3, padding=1), nn.PixelUnshuffle(BLOCK), nn.Conv2d(MADE, 7, 3, padding=1)
    ).eval()
    pair = (target, source) if back else (source, target)
    assert lx.port(*pair).end_to_end.agrees
    images = NOISE.normal(size=(2, 8, 12, 3)).astype("float32")
    theirs = target(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).detach().numpy()
    np.testing.assert_allclose(np.asarray(source(images)), theirs, atol=1e-4)
