"""Train the small Keras CNN that the demo converts: scikit-learn's handwritten digits, 8 by 8 pixels.

Writes, beside this script:
    digits.keras          the trained model, float32, with its optimizer state as `model.save` leaves it
    digits_heldback.npz   images (digit, h, w, channel) float32; labels (digit,) int64;
                          outputs (digit, class) float64: what Keras computes in float64 from the same weights

The held-back digits were never shown in training. Expected accuracy on them: 97.8 %, 352 of 360 (less than 97 % is an
error). Two details make the model worth converting: `flatten` stands before `dense1`, so the rows of its kernel are
ordered h w c; and `conv2` has stride 2 with "same" padding on 4 by 4 maps, which pads (0, 1), never (1, 1).

Run it with the environment of `scripts/test`:  .venv/test/bin/python examples/train_digits.py
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
SEED = 20
HELD_BACK = 360
FLOOR = 0.97


def build() -> keras.Model:
    """The untrained network: (digit, 8, 8, 1) -> (digit, 10)."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(12, 3, padding="same", name="conv1"),
            layers.BatchNormalization(name="bn1"),
            layers.Activation("relu", name="relu1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(20, 3, strides=2, padding="same", activation="relu", name="conv2"),
            layers.Flatten(name="flatten"),
            layers.Dense(48, activation="relu", name="dense1"),
            layers.Dropout(0.3, name="dropout", seed=SEED),
            layers.Dense(10, activation="softmax", name="output"),
        ],
        name="digits",
    )


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images in 0..1 and labels: train images, held-back images, train labels, held-back labels."""
    data = load_digits()
    images = (data.images[..., None] / 16).astype(np.float32)
    labels = data.target.astype(np.int64)
    split: Any = train_test_split(images, labels, test_size=HELD_BACK, random_state=SEED, stratify=labels)
    return tuple(split)  # type: ignore[return-value]


def in_float64(model: keras.Model) -> keras.Model:
    """The same layers with the same weights, computing in float64, so that rounding cannot hide a mistake."""

    def wider(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config({**layer.get_config(), "dtype": "float64"})

    twin = keras.models.clone_model(model, clone_function=wider)
    twin.set_weights(model.get_weights())
    return twin


def main() -> None:
    """Train, check, save."""
    keras.utils.set_random_seed(SEED)
    train_images, images, train_labels, labels = digits()
    model = build()
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train_images, train_labels, batch_size=32, epochs=30, verbose=0)

    outputs = np.asarray(in_float64(model)(images.astype(np.float64), training=False))
    if outputs.dtype != np.float64:
        raise SystemExit(f"the outputs should be float64, not {outputs.dtype}")
    np.testing.assert_allclose(outputs, model.predict(images, verbose=0), atol=1e-5)
    right = int((outputs.argmax(axis=1) == labels).sum())
    if right < FLOOR * len(labels):
        raise SystemExit(f"only {right} of {len(labels)} held-back digits are right: expected {FLOOR:.0%} or more")

    model.save(HERE / "digits.keras")
    np.savez_compressed(HERE / "digits_heldback.npz", images=images, labels=labels, outputs=outputs)
    print(f"{right} of {len(labels)} held-back digits right ({right / len(labels):.1%}); expected 97 % or more")


if __name__ == "__main__":
    main()
