"""CuDNNLSTM and CuDNNGRU of Keras 2 without their GPU: tf_keras's own loader makes weights of a plain layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layoutx.verify.live.arrays import Array

PLAIN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}


def stand_in(name: str, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The plain layer that computes the same, and its keywords: CuDNNGRU resets after the product."""
    more = {"reset_after": True} if name == "CuDNNGRU" else {}
    return PLAIN.get(name, name), {**options, **(more if name in PLAIN else {})}


def loaded(layer: Any, weights: Sequence[Array]) -> list[Array]:
    """Weights of a cuDNN layer as the plain `layer` (or a Bidirectional one) takes them.

    tf_keras 2.21 saving/legacy/hdf5_format.py preprocess_weights_for_loading, which reads such files on a CPU.
    """
    from tf_keras.src.saving.legacy import hdf5_format

    found: list[Array] = hdf5_format.preprocess_weights_for_loading(layer, list(weights), "2.4.0", "tensorflow")
    return found


def weights_of(name: str, options: Mapping[str, Any], shape: Sequence[int]) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the real cuDNN layer's weights for an input of a shape (batch, time, input)."""
    from tf_keras.src.layers.rnn.cudnn_gru import CuDNNGRU
    from tf_keras.src.layers.rnn.cudnn_lstm import CuDNNLSTM

    layer = {"CuDNNLSTM": CuDNNLSTM, "CuDNNGRU": CuDNNGRU}[name](**options)
    layer.build(tuple(shape))
    return [(w.name.split(":")[0].split("/")[-1], tuple(w.shape)) for w in layer.weights]
