"""Keras computes in float64 here, its cells too, which do not take the dtype of the layer around them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Both Keras packages with float64 as their default."""
    import keras
    import tf_keras

    for backend in (keras.config, tf_keras.backend):
        backend.set_floatx("float64")
    yield
    for backend in (keras.config, tf_keras.backend):
        backend.set_floatx("float32")
