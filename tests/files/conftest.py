"""Files as the real frameworks write them, made once a session."""

from __future__ import annotations

import numpy as np
import pytest


def _model(k):
    """Dense, BatchNorm, LSTM and Dense in an order where groups and layers differ; sizes all different primes."""
    model = k.Sequential(
        [
            k.layers.Input((7, 5)),
            k.layers.LSTM(3, return_sequences=True, name="zz_memory"),
            k.layers.BatchNormalization(name="norm"),
            k.layers.Flatten(),
            k.layers.Dense(11, name="b_first"),
            k.layers.Dense(2, name="a_last"),
        ]
    )
    model.compile("adam", k.losses.MeanSquaredError())  # Keras 3 cannot load its own .h5 with "mse"
    rng = np.random.default_rng(1)
    model.fit(rng.normal(size=(4, 7, 5)), rng.normal(size=(4, 2)), verbose=0)
    return model


@pytest.fixture(scope="session")
def keras3(tmp_path_factory):
    """(folder with m.keras, m.weights.h5, m.h5; the model) from Keras 3."""
    keras = pytest.importorskip("keras")
    folder = tmp_path_factory.mktemp("keras3")
    model = _model(keras)
    for name in ("m.keras", "m.h5"):
        model.save(folder / name)
    model.save_weights(folder / "m.weights.h5")
    return folder, model


@pytest.fixture(scope="session")
def keras2(tmp_path_factory):
    """(folder with m.keras, m.weights.h5, m.h5, w.h5; the model) from tf_keras 2."""
    tf_keras = pytest.importorskip("tf_keras")
    folder = tmp_path_factory.mktemp("keras2")
    model = _model(tf_keras)
    for name in ("m.keras", "m.h5"):
        model.save(str(folder / name))
    for name in ("m.weights.h5", "w.h5"):
        model.save_weights(str(folder / name))
    return folder, model
