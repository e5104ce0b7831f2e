"""Layers of the user's own that layoutx knows by running them, written with the functions of Keras 3 or tf_keras."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHIFTED = "ShiftedRMSNormalization"


def built(library: Any, config: Mapping[str, Any]) -> Any:
    """A layer that divides by the root of the mean square, and multiplies by its weight and a constant."""
    eps, shift = config.get("epsilon", 1e-6), config.get("shift", 1.0)
    ops = getattr(library, "ops", None)

    class Own(library.layers.Layer):  # type: ignore[misc]
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight(shape=(shape[-1],), name="scale")
            super().build(shape)

        def call(self, x: Any) -> Any:
            if ops is None:
                import tensorflow

                square = tensorflow.reduce_mean(x * x, axis=-1, keepdims=True)
            else:
                square = ops.mean(x * x, axis=-1, keepdims=True)
            return x / (square + eps) ** 0.5 * (self.scale + shift)

    return Own(dtype=config["dtype"], name=config["name"])
