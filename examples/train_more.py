"""Train the small models that the pages of docs/ talk about, and write them beside this script (about 15 s).

Run it with the environment of `scripts/test`:  .venv/test/bin/python examples/train_more.py

All of them learn the 8 x 8 digits that ship with scikit-learn: as rows that an LSTM reads one after the other, as 64
numbers for two Dense layers (before and after training), and as a wave of 64 steps for a Conv1D.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent


def digits() -> tuple[Any, Any]:
    """1,797 pictures (number, 8, 8) between 0 and 1, and what they show."""
    bunch = load_digits()
    return (bunch.images / 16).astype("float32"), bunch.target


def rows() -> Any:
    """Reads a picture row by row; the share of ink comes in beside the last state, as a second input."""
    picture = keras.Input((8, 8), name="picture")
    ink = keras.Input((1,), name="ink")
    read = keras.layers.LSTM(32, name="lstm_1")(picture)
    both = keras.layers.Concatenate(name="both")([read, ink])
    hidden = keras.layers.Dense(24, activation="relu", name="dense_1")(both)
    out = keras.layers.Dense(10, activation="softmax", name="digit")(hidden)
    return keras.Model([picture, ink], out, name="rows")


def flat() -> Any:
    """64 inputs, 32 units, 10 digits."""
    layers = [keras.layers.Dense(32, activation="relu", name="dense_1"), keras.layers.Dense(10, name="dense_2")]
    return keras.Sequential([keras.Input((64,), name="pixels"), *layers], name="flat")


def wave() -> Any:
    """A picture as 64 steps of one number."""
    layers = [
        keras.layers.Conv1D(6, 5, strides=2, padding="same", activation="relu", name="conv_1"),
        keras.layers.Flatten(name="flatten"),
        keras.layers.Dense(10, name="digit"),
    ]
    return keras.Sequential([keras.Input((64, 1), name="steps"), *layers], name="wave")


def trained(model: Any, inputs: Any, labels: Any, logits: bool, epochs: int = 3) -> Any:
    """The model after a few epochs."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    model.compile(keras.optimizers.Adam(0.003), loss)
    model.fit(inputs, labels, batch_size=32, epochs=epochs, verbose=0)
    return model


def main() -> None:
    """Train them all and write them."""
    keras.utils.set_random_seed(7)
    images, labels = digits()
    ink = images.mean(axis=(1, 2), keepdims=True)[:, :, 0]
    reader = trained(rows(), [images, ink], labels, logits=False)
    reader.save(HERE / "rows.h5", include_optimizer=False)
    model = flat()
    model.save(HERE / "before.h5", include_optimizer=False)
    trained(model, images.reshape(-1, 64), labels, logits=True, epochs=1)
    model.save(HERE / "after.h5", include_optimizer=False)
    trained(wave(), images.reshape(-1, 64, 1), labels, logits=True).save(HERE / "wave.h5", include_optimizer=False)
    np.savez(HERE / "rows.npz", picture=images[:16], ink=ink[:16])
    np.save(HERE / "wave.npy", images[:4].reshape(4, 64, 1))


if __name__ == "__main__":
    main()
