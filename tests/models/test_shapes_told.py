"""Maps out of layers that nobody can follow: a pooling behind one has the lengths that the model's config says."""

from __future__ import annotations

import numpy as np
import pytest

import layoutx as lx

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
L, nn = keras.layers, torch.nn
HIGH, WIDE, CHANNELS, CLASSES = 10, 6, 7, 11


@keras.saving.register_keras_serializable("shapes_told")
class Rolled(L.Layer):
    """An operation of which layoutx knows nothing."""

    def call(self, x):
        return keras.ops.roll(x, 1, axis=1)


def keras_model():
    picture = keras.Input((HIGH, WIDE, 2))
    x = L.MaxPooling2D()(Rolled()(L.Conv2D(CHANNELS, 3, padding="same")(picture)))
    return keras.Model(picture, L.Dense(CLASSES)(L.Flatten()(x)))


class Module(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(2, CHANNELS, 3, padding=1), nn.Linear(HIGH * WIDE // 4 * CHANNELS, CLASSES)

    def forward(self, x):
        return self.head(nn.functional.max_pool2d(torch.roll(self.stem(x), 1, 2), 2).flatten(1))


def equal(model, module):
    data = np.random.default_rng(0).normal(size=(2, HIGH, WIDE, 2)).astype("float32")
    with torch.no_grad():
        turned = torch.from_numpy(np.ascontiguousarray(np.moveaxis(data, -1, 1)))
        np.testing.assert_allclose(module(turned), model(data), atol=1e-5)


def test_a_live_model():
    model, module = keras_model(), Module().eval()
    lx.port(model, module, compare=False)
    equal(model, module)


def test_a_file(tmp_path):
    """Keras 3 writes the shape of every tensor into the wiring."""
    model, module = keras_model(), Module().eval()
    model.save(tmp_path / "m.keras")
    lx.convert(tmp_path / "m.keras", tmp_path / "m.pt", to="torch", like=module)
    module.load_state_dict(torch.load(tmp_path / "m.pt"))
    equal(model, module)
