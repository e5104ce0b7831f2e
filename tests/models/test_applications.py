"""Networks of keras.applications into torch modules built from their graph, other names, and back; outputs equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from graph_torch import FromGraph, by_kind, from_keras, in_features, scrambled
from keras_models import precision

from layoutx.errors import VerificationError
from layoutx.port import port

NETWORKS: dict[str, dict[str, Any]] = {
    "ResNet50": {"input_shape": (32, 32, 3)},
    "MobileNetV2": {"input_shape": (32, 32, 3), "alpha": 0.35},
    "MobileNetV3Small": {"input_shape": (32, 32, 3), "alpha": 0.75},
    "EfficientNetB0": {"input_shape": (32, 32, 3)},
    "DenseNet121": {"input_shape": (32, 32, 3)},
    "Xception": {"input_shape": (71, 71, 3)},
}


def pair_of(name: str, seed: int, names: Any = by_kind) -> tuple[Any, FromGraph, np.ndarray[Any, Any]]:
    """A network with random weights, its torch counterpart with torch's initial ones, and inputs `(batch, h, w, 3)`."""
    import keras

    options = NETWORKS[name]
    with precision(keras, "float64"):
        build = getattr(keras.applications, name)
        model = scrambled(build(weights=None, classes=7, classifier_activation=None, **options), seed)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it computes with a copy of its weights
    inputs = np.random.default_rng(seed).uniform(0, 255, (2, *options["input_shape"]))
    module = from_keras(model, names)
    with torch.no_grad():
        module(torch.from_numpy(np.moveaxis(inputs, -1, 1).copy()))
    return model, module, inputs


@pytest.mark.parametrize("name", NETWORKS)
def test_there_and_back(name: str) -> None:
    """`a` goes into the torch module, and that into a second Keras model with other weights: the same outputs."""
    model, module, inputs = pair_of(name, 20261121)
    expected = np.asarray(model(inputs, training=False))
    report = port(model, module, inputs, live=False)
    assert report.end_to_end.agrees is True
    assert report.tensors_used == len(model.weights) or name == "EfficientNetB0"  # whose Rescaling has none
    with torch.no_grad():
        found = module(torch.from_numpy(np.moveaxis(inputs, -1, 1).copy())).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7 * np.abs(expected).max())
    assert np.abs(expected).max(0).min() > 0
    other, _, _ = pair_of(name, 7)
    assert np.abs(np.asarray(other(inputs, training=False)) - expected).max() > 1e-3 * np.abs(expected).max()
    port(module, other, compare=False, live=False)
    np.testing.assert_array_equal(np.asarray(other(inputs, training=False)), expected)


def test_one_wrong_layer_is_noticed() -> None:
    """The comparison can fail: torch's symmetric padding in one strided convolution."""
    model, module, inputs = pair_of("MobileNetV2", 3, in_features)
    strided = next(m for m in module.modules() if getattr(m, "same", False) and m.stride == (2, 2))
    strided.same = False
    strided.conv.inner.padding = (1, 1)
    with pytest.raises(VerificationError):
        port(model, module, inputs, live=False)
