"""Small Keras models, built for keras 3 or tf_keras 2 in any precision, and trained for a few steps."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SEED = 20261121


@contextmanager
def precision(keras: Any, dtype: str) -> Iterator[None]:
    """`dtype` as the default of layers built inside; the old default comes back.

    Keras 3 keeps the first default as its dtype policy, so that the policy has to be set too.
    """
    old = keras.backend.floatx()
    policies = keras.config if hasattr(getattr(keras, "config", None), "dtype_policy") else None
    policy = policies.dtype_policy() if policies else None
    keras.backend.set_floatx(dtype)
    if policies:
        policies.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.backend.set_floatx(old)
        if policies:
            policies.set_dtype_policy(policy)


@cache
def digits() -> tuple[Array, Array]:
    """The digits of scikit-learn: images (image, 8, 8, 1) in 0..1 and labels; they ship inside the package."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return found.images[..., None] / 16.0, found.target


@cache
def tokens(vocab: int, steps: int) -> tuple[Array, Array]:
    """Token sequences (row, steps) and whether the first token comes again."""
    rng = np.random.default_rng(SEED)
    x = rng.integers(0, vocab, (256, steps))
    return x.astype("int32"), (x[:, 1:] == x[:, :1]).any(axis=1).astype("int64")


@cache
def waves(steps: int, channels: int) -> tuple[Array, Array]:
    """Noisy waves (row, steps, channels) of two frequencies, and which of the two."""
    rng = np.random.default_rng(SEED)
    label = rng.integers(0, 2, 256)
    time = np.arange(steps)[None, :, None] + rng.uniform(0, 6, (256, 1, channels))
    return np.sin(time * (0.7 + 0.9 * label[:, None, None])) + 0.1 * rng.normal(size=time.shape), label


def _sequential(keras: Any, shape: Sequence[int | None], layers: Sequence[Any]) -> Any:
    return keras.Sequential([keras.Input(tuple(shape)), *layers])


def cnn(keras: Any) -> Any:
    """Convolutions with a stride under "same" padding, batch normalisation, and Flatten."""
    k = keras.layers
    return _sequential(
        keras,
        (8, 8, 1),
        [
            k.Conv2D(5, 3, strides=2, padding="same", activation="relu", name="conv1"),
            k.BatchNormalization(name="bn", epsilon=2e-3, momentum=0.7),
            k.Conv2D(7, (3, 2), name="conv2", activation="tanh"),
            k.Flatten(name="flatten"),
            k.Dense(11, activation="relu", name="hidden"),
            k.Dropout(0.1, name="dropout"),
            k.Dense(10, name="scores"),
        ],
    )


def separable(keras: Any) -> Any:
    """A depthwise and a separable convolution, both with two kernels a channel, under global pooling."""
    k = keras.layers
    return _sequential(
        keras,
        (8, 8, 1),
        [
            k.Conv2D(3, 2, activation="relu", name="stem"),
            k.DepthwiseConv2D((3, 2), depth_multiplier=2, activation="tanh", name="deep"),
            k.SeparableConv2D(7, (2, 3), depth_multiplier=2, activation="relu", name="sep"),
            k.GlobalAveragePooling2D(name="pool"),
            k.Dense(10, name="scores"),
        ],
    )


def bilstm(keras: Any) -> Any:
    """Two bidirectional LSTMs over an embedding; the second gives its last states."""
    k = keras.layers
    tokens = keras.Input((11,), dtype="int32", name="tokens")
    x = k.Embedding(17, 5, name="embed")(tokens)
    x = k.Bidirectional(k.LSTM(7, return_sequences=True, name="lstm"), name="first")(x)
    x = k.Bidirectional(k.LSTM(3, name="lstm_last"), name="second")(x)
    return keras.Model(tokens, k.Dense(2, name="scores")(x))


def stacked_gru(keras: Any) -> Any:
    """Two GRUs, the second of the same size on top of the first."""
    k = keras.layers
    return _sequential(
        keras,
        (13, 3),
        [
            k.GRU(7, return_sequences=True, reset_after=True, name="gru_a"),
            k.GRU(7, reset_after=True, name="gru_b"),
            k.Dense(2, name="scores"),
        ],
    )


def transformer(keras: Any) -> Any:
    """An encoder of one block: attention and a feed-forward part, each with a residual and a norm."""
    k = keras.layers
    tokens = keras.Input((11,), dtype="int32", name="tokens")
    x = k.Embedding(19, 12, name="embed")(tokens)
    attended = k.MultiHeadAttention(num_heads=3, key_dim=4, name="attention")(x, x)
    x = k.LayerNormalization(epsilon=1e-5, name="norm1")(k.Add(name="add1")([x, attended]))
    inner = k.Dense(23, activation="silu", name="ff1")(x)
    inner = k.Dense(12, name="ff2")(inner)
    x = k.LayerNormalization(epsilon=2e-5, name="norm2")(k.Add(name="add2")([x, inner]))
    x = k.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(tokens, k.Dense(2, name="scores")(x))


def two_inputs(keras: Any) -> Any:
    """An image branch that is flattened and a vector branch, laid end to end before a Dense."""
    k = keras.layers
    image = keras.Input((8, 8, 1), name="image")
    aux = keras.Input((5,), name="aux")
    x = k.Conv2D(3, 3, activation="relu", name="conv")(image)
    x = k.MaxPooling2D((2, 3), name="pool")(x)
    x = k.Flatten(name="flatten")(x)
    y = k.Dense(4, activation="tanh", name="side")(aux)
    x = k.Concatenate(name="join")([x, y])
    x = k.Dense(13, activation="relu", name="hidden")(x)
    return keras.Model([image, aux], k.Dense(10, name="scores")(x))


def autoencoder(keras: Any) -> Any:
    """Flatten, a narrow Dense, and the way back through Reshape and transposed convolutions."""
    k = keras.layers
    return _sequential(
        keras,
        (8, 8, 1),
        [
            k.Flatten(name="flatten"),
            k.Dense(13, activation="tanh", name="code"),
            k.Dense(4 * 4 * 3, activation="relu", name="widen"),
            k.Reshape((4, 4, 3), name="reshape"),
            k.Conv2DTranspose(5, 3, strides=2, padding="same", activation="relu", name="up"),
            k.Conv2DTranspose(1, (2, 3), padding="same", name="out"),
        ],
    )


def nested(keras: Any) -> Any:
    """A causal convolution over time, and a nested model whose first Dense is frozen."""
    k = keras.layers
    head = keras.Sequential(
        [
            keras.Input((11, 5)),
            k.Dense(7, activation="relu", name="d1"),
            k.BatchNormalization(name="b1", momentum=0.6),
            k.Dense(3, name="d2"),
        ],
        name="head",
    )
    head.layers[0].trainable = False
    x = inputs = keras.Input((11, 3), name="wave")
    x = k.Conv1D(5, 3, padding="causal", dilation_rate=2, activation="tanh", name="conv")(x)
    x = head(x)
    x = k.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, k.Dense(2, name="scores")(x))


def _images() -> tuple[list[Array], Array]:
    x, y = digits()
    return [x], y


def _images_and_sums() -> tuple[list[Array], Array]:
    x, y = digits()
    return [x, x[:, :5, :, 0].mean(axis=2)], y


def _same_images() -> tuple[list[Array], Array]:
    return [digits()[0]], digits()[0]


# name -> the model, its data, and whether it learns classes
MODELS: dict[str, tuple[Callable[[Any], Any], Callable[[], tuple[list[Array], Array]], bool]] = {
    "cnn": (cnn, _images, True),
    "separable": (separable, _images, True),
    "bilstm": (bilstm, lambda: ([tokens(17, 11)[0]], tokens(17, 11)[1]), True),
    "stacked_gru": (stacked_gru, lambda: ([waves(13, 3)[0]], waves(13, 3)[1]), True),
    "transformer": (transformer, lambda: ([tokens(19, 11)[0]], tokens(19, 11)[1]), True),
    "two_inputs": (two_inputs, _images_and_sums, True),
    "autoencoder": (autoencoder, _same_images, False),
    "nested": (nested, lambda: ([waves(11, 3)[0]], waves(11, 3)[1]), True),
}


def module_of(framework: str) -> Any:
    """`keras` or `tf_keras`."""
    return importlib.import_module(framework)


def built(name: str, framework: str = "keras", dtype: str = "float64") -> Any:
    """A fresh model, with the framework's initial weights."""
    keras = module_of(framework)
    with precision(keras, dtype):
        keras.utils.set_random_seed(SEED)
        return MODELS[name][0](keras)


@cache
def trained(name: str, framework: str = "keras", dtype: str = "float64") -> Any:
    """A model after four steps of Adam on its own data; no bias is left at zero. Shared: do not change it."""
    keras = module_of(framework)
    model = built(name, framework, dtype)
    x, y = MODELS[name][1]()
    x = [array[:64].astype(dtype) if array.dtype.kind == "f" else array[:64] for array in x]
    y = y[:64].astype(dtype) if y.dtype.kind == "f" else y[:64]
    with precision(keras, dtype):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True) if MODELS[name][2] else "mse"
        model.compile(keras.optimizers.Adam(0.02), loss)
        model.fit(x if len(x) > 1 else x[0], y, batch_size=16, epochs=1, verbose=0)
    rng = np.random.default_rng(SEED)
    frozen = {id(v) for v in getattr(model, "non_trainable_weights", [])}
    for variable in model.weights:  # a frozen bias is still at zero: a converter that forgot it would pass
        if id(variable) in frozen and not np.asarray(variable).any():
            variable.assign(rng.normal(size=tuple(variable.shape)))
    return model


def inputs_of(name: str, dtype: str = "float64", count: int = 7) -> list[Array]:
    """Inputs that the model was not trained on."""
    x, _ = MODELS[name][1]()
    return [a[-count:].astype(dtype) if a.dtype.kind == "f" else a[-count:] for a in x]


def outputs_of(model: Any, inputs: Sequence[Array]) -> Array:
    """What a Keras model gives at inference."""
    return np.asarray(model(list(inputs) if len(inputs) > 1 else inputs[0], training=False))
