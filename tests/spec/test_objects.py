"""Activations that Keras writes as objects: a layer in the place of a function is the function that it computes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from layoutx.spec.objects import spelled
from layoutx.spec.registry import registry


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (keras.layers.LeakyReLU(negative_slope=0.125), "leaky_relu_0.125"),
        (keras.layers.LeakyReLU(), "leaky_relu_0.3"),
        (keras.layers.ReLU(), "relu"),
        (keras.layers.ReLU(max_value=6), "relu6"),
        (keras.layers.ReLU(max_value=5), "ReLU"),
        (keras.layers.ReLU(negative_slope=0.1), "ReLU"),
        (keras.layers.ELU(), "elu"),
        (keras.layers.ELU(alpha=0.5), "ELU"),
        (keras.layers.Softmax(), "softmax"),
        (keras.layers.Softmax(axis=1), "Softmax"),
        (keras.layers.PReLU(), "PReLU"),
    ],
)
def test_a_layer_as_an_activation(layer: Any, name: str) -> None:
    entry = keras.layers.Dense(7, activation=layer).get_config()["activation"]
    assert spelled(entry) == name
    bound = registry().bind("keras.Dense", {"activation": entry}, shapes={"kernel": (5, 7), "bias": (7,)})
    assert bound.settings["activation"] == name


def test_slopes_that_keras_2_rounded_and_classes_of_the_users_own() -> None:
    rounded = {"class_name": "LeakyReLU", "config": {"alpha": float(np.float32(0.2))}}
    assert spelled(rounded) == "leaky_relu_0.2"
    assert spelled({**rounded, "registered_name": "mine>LeakyReLU"}) == "LeakyReLU"
    assert spelled({"class_name": "function", "config": "relu"}) == "relu"
