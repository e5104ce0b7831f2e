"""A ViT that cuts its image into patches and has a Dense, and one that begins with a convolution or with unfold."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx
from layoutx.model.keras_moved import parts_of

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn, ops = keras.layers, torch.nn, keras.ops
WIDTH, SIZE, MANY = 12, 4, 6  # an image of 12 x 8: 3 x 2 patches


class Patches(L.Layer):
    """As the operation makes them."""

    def call(self, images):
        batch, height, width, channels = ops.shape(images)
        cut = ops.image.extract_patches(images, size=SIZE)
        return ops.reshape(cut, (batch, (height // SIZE) * (width // SIZE), SIZE * SIZE * channels))


class Cut(L.Layer):
    """The same by TensorFlow's own functions, which take no symbols."""

    def call(self, images):
        import tensorflow as tf

        sizes = [1, SIZE, SIZE, 1]
        made = tf.image.extract_patches(images, sizes, sizes, [1, 1, 1, 1], "VALID")
        return tf.reshape(made, [tf.shape(images)[0], -1, made.shape[-1]])


class Written(L.Layer):
    """The same by hand."""

    def call(self, images):
        rows = ops.reshape(images, (-1, 12 // SIZE, SIZE, 8 // SIZE, SIZE, 3))
        return ops.reshape(ops.transpose(rows, (0, 1, 3, 2, 4, 5)), (-1, MANY, SIZE * SIZE * 3))


class Encoder(L.Layer):
    def __init__(self, **more):
        super().__init__(**more)
        self.projection, self.position_embedding = L.Dense(WIDTH), L.Embedding(MANY, WIDTH)

    def call(self, patches):
        positions = ops.expand_dims(ops.arange(0, MANY, 1), axis=0)
        return self.projection(patches) + self.position_embedding(positions)


def viewed(cut):
    image = keras.Input((12, 8, 3))
    x = Encoder()(cut()(image))
    calm = L.LayerNormalization(epsilon=1e-6)(x)
    x = L.Add()([x, L.MultiHeadAttention(3, WIDTH // 3)(calm, calm)])
    x = L.Flatten()(L.LayerNormalization(epsilon=1e-6)(x))
    model = keras.Model(image, L.Dense(5)(x))
    random = np.random.default_rng(5)
    model.set_weights([w + random.normal(0, 0.1, w.shape) for w in model.get_weights()])
    return model


class Viewer(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.start = start
        self.project = nn.Conv2d(3, WIDTH, SIZE, stride=SIZE) if start == "conv" else nn.Linear(3 * SIZE**2, WIDTH)
        self.positions = nn.Parameter(torch.zeros(1, MANY, WIDTH))
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-6), nn.LayerNorm(WIDTH, eps=1e-6)
        self.attention = nn.MultiheadAttention(WIDTH, 3, batch_first=True)
        self.head = nn.Linear(MANY * WIDTH, 5)

    def forward(self, x):
        if self.start == "conv":
            x = self.project(x).flatten(2).transpose(1, 2)
        elif self.start == "unfold":
            x = self.project(nn.functional.unfold(x, SIZE, stride=SIZE).transpose(1, 2))
        else:
            x = x.unflatten(2, (-1, SIZE)).unflatten(4, (-1, SIZE)).permute(0, 2, 4, 3, 5, 1)
            x = self.project(x.flatten(3).flatten(1, 2))
        x = x + self.positions
        calm = self.norm1(x)
        x = x + self.attention(calm, calm, calm, need_weights=False)[0]
        return self.head(self.norm2(x).flatten(1))


@pytest.mark.parametrize("start", ["conv", "unfold"])
@pytest.mark.parametrize("cut", [Patches, Cut, Written])
def test_patches_and_a_dense_are_a_convolution_and_the_way_back(cut, start):
    source, target = viewed(cut), Viewer(start).eval()
    assert lx.port(source, target).end_to_end.agrees
    back = viewed(cut)
    assert lx.port(target, back).end_to_end.agrees
    for one, other in zip(source.get_weights(), back.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_validate_leaves_windows_to_the_rest_of_the_model():
    source, target = viewed(Patches), Viewer("conv").eval()
    lx.port(source, target)
    assert lx.validate(source, target).ok
    assert lx.validate(target, source).ok
    target.project.weight.data = target.project.weight.data.flip(2)
    assert not lx.validate(source, target).ok


def test_the_kernel_holds_the_window_in_the_order_of_a_convolution():
    """Channels first, then the axes of the window, each for itself."""
    source, target = viewed(Patches), Viewer("conv").eval()
    report = lx.port(source, target)
    kernel = next(layer for layer in source.layers if isinstance(layer, Encoder)).projection.get_weights()[0]
    expected = kernel.reshape(SIZE, SIZE, 3, WIDTH).transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(target.project.weight.detach().numpy(), expected)
    assert any(line.plan is not None and line.plan.target.form.name == "torch.Conv2d.Patches" for line in report.layers)


def test_an_order_that_cannot_be_followed_is_refused_and_kept_on_request():
    """Of the model's own input nobody knows which axis are its channels: the user says that the order stays."""
    source = viewed(Patches)
    with pytest.raises(lx.LayoutxError, match="patches of") as caught:
        lx.port(source, Viewer("by hand").eval())
    layer = str(caught.value).rpartition("--keep-order ")[2].split()[0]
    assert lx.port(source, Viewer("by hand").eval(), keep_order=[layer]).end_to_end.agrees


def test_parts_are_found_from_where_numbers_went():
    image = np.arange(6 * 4 * 3).reshape(6, 4, 3)
    cut = image.reshape(3, 2, 2, 2, 3).transpose(0, 2, 1, 3, 4).reshape(6, 12)
    rows, columns = [(0, 2, 3), (1, 2, 2)], [(0, 1, 2), (1, 1, 2), (2, 1, 3)]
    assert parts_of(cut, image.shape) == [rows, columns]
    assert parts_of(image.transpose(1, 0, 2), image.shape) == [[(1, 1, 4)], [(0, 1, 6)], [(2, 1, 3)]]
    assert parts_of(np.roll(image, 1, 0), image.shape) is None
    assert parts_of(image[::-1], image.shape) is None
    assert parts_of(image + 1, image.shape) is None
    swapped = image.copy()
    swapped[0, 0, 0], swapped[5, 3, 2] = image[5, 3, 2], 0
    assert parts_of(swapped, image.shape) is None
